"""Which model a verb works on: a model file, a run folder, or weights of others."""

from pathlib import Path

from unpg.embed import Model
from unpg.errors import ConfigError, DataError, UnpgError
from unpg.export import IMPORTERS, import_weights, load_model

__all__ = ["open_model", "presets"]


def presets() -> str:
    """The known forms of foreign weights, for help texts."""
    return ", ".join(IMPORTERS)


def open_model(path: str, preset: str | None) -> Model:
    """The model in a file or run folder.

    Args:
        path: A model file of ours, a run folder, or with ``preset`` a file of others.
        preset: A name in :data:`unpg.export.IMPORTERS`.

    Raises:
        ConfigError: A file of ours was given as one of others.
        DataError: There is no model.
    """
    if preset is not None:
        try:
            return import_weights(path, preset=preset)
        except DataError:
            if not _is_ours(path):
                raise
            raise ConfigError(f"{path} is a model file of unpg. Leave --import-as {preset} out.") from None
    found = Path(path)
    if not found.exists():
        raise DataError(f"{path} does not exist.")
    if found.is_dir():
        if not (found / "model.safetensors").exists() and not (found / "config.yaml").exists():
            raise DataError(f"{path} is no run folder: it holds neither config.yaml nor model.safetensors. Name a run.")
        found = found / "model.safetensors"
        if not found.exists():
            raise DataError(
                f"{path} holds no model.safetensors: the run has not finished. It goes on with `unpg train --config "
                f"{path}/config.yaml --out {path} --resume`."
            )
    if found.suffix != ".safetensors":
        raise DataError(f"{path} is not a model file of ours. For weights of others add --import-as: {presets()}.")
    return load_model(found)


def _is_ours(path: str) -> bool:
    try:
        load_model(path)
    except UnpgError:
        return False
    return True
