"""An image set from a path alone: what the command line works on."""

import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from unpg.config import read_yaml
from unpg.data.bins import BinPairs
from unpg.data.image_set import ImageSet
from unpg.data.source import SOURCES
from unpg.errors import ConfigError, DataError

__all__ = ["open_source"]

_KINDS = {
    ".rec": "recordio",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "list",
    ".lst": "list",
    ".tsv": "list",
    ".tar": "webdataset",
    ".mdb": "lmdb",
    ".lmdb": "lmdb",
}
_MARKS = (("*.rec", "recordio"), ("data.mdb", "lmdb"), ("*.tar", "webdataset"), ("*.parquet", "parquet"))
_TABLE = "labels.csv"
_RENDERED = "truth.csv"  # beside the images that `unpg data synth` writes


def open_source(path: str | PathLike[str]) -> ImageSet:
    """The set at ``path``, told by its ending: a file, tar shards ``a-{000..127}.tar``, or a folder.

    A folder is a RecordIO set, an LMDB, a set of shards or of Parquet parts if it has such files, a table if it has
    ``labels.csv``, else one folder per identity, or what ``unpg data synth`` wrote. A ``.yaml`` file has the settings
    that a recipe has under ``data``, or is a recipe.

    Raises:
        DataError: There is nothing, or of no known kind.
    """
    found = Path(path)
    settings: dict[str, Any] = {"path": str(path)}
    if found.is_dir():
        kind = next((kind for mark, kind in _MARKS if any(found.glob(mark))), "folder")
        if kind == "folder" and (found / _TABLE).is_file():
            kind, settings = "csv", {"path": str(found / _TABLE)}
        if kind == "folder":
            images = found / "images"
            settings = {"roots": str(images if (found / _RENDERED).is_file() and images.is_dir() else path)}
    elif found.suffix == ".tar" and "{" in found.name:
        kind = "webdataset"
    elif not found.is_file():
        raise DataError(f"{path} does not exist.")
    elif found.suffix in (".yaml", ".yml"):
        kind, settings = _settings(found)
    elif found.suffix == ".bin":
        return BinPairs(path).images
    elif found.suffix in _KINDS:
        kind = _KINDS[found.suffix]
    else:
        known = ", ".join(sorted({*_KINDS, ".bin", ".yaml"}))
        raise DataError(f"{path} ends in {found.suffix!r}; known are a folder, {known}.")
    opened: ImageSet = SOURCES.build(kind, settings)
    return opened


def _settings(file: Path) -> tuple[str, dict[str, Any]]:
    """Kind and settings of a source from a file that has them, or has them under ``data``."""
    found = read_yaml(file)
    settings = found.get("data", found)
    if not isinstance(settings, Mapping) or not isinstance(settings.get("kind"), str):
        raise ConfigError(f"{file}: expected the settings of a source with its kind, or these under data.")
    rest = {name: _located(value, file) for name, value in settings.items() if name != "kind"}
    return settings["kind"], rest


def _located(value: Any, file: Path) -> Any:
    """``value`` with ``$UNPG_DATA`` in texts replaced by that variable."""
    if isinstance(value, str) and "$UNPG_DATA" in value:
        root = os.environ.get("UNPG_DATA")
        if not root:
            raise DataError(f"{file} names $UNPG_DATA, which is not set. Set it to the data root.")
        return value.replace("$UNPG_DATA", root)
    if isinstance(value, Mapping):
        return {name: _located(inner, file) for name, inner in value.items()}
    if isinstance(value, list):
        return [_located(inner, file) for inner in value]
    return value
