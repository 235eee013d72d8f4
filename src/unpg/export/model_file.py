"""Model files: safetensors with all that is needed to use the network in the header.

The tensors are the backbone's state dict under its own names. Nothing in the file is code: loading one from a
stranger can fail, but cannot run anything.
"""

import os
from typing import Any

import torch

from unpg.backbones import create_backbone
from unpg.embed.model import Model
from unpg.embed.tensor_file import read_tensors, write_tensors
from unpg.errors import DataError, UnpgError
from unpg.export.state import fill, planned, require_fit
from unpg.transforms.tensor import Preprocessing

__all__ = ["FORMAT", "VERSION", "load_model", "save_model"]

FORMAT = "unpg.model"
VERSION = 1
FIELDS = {
    "kind": str,
    "settings": dict,
    "dim": int,
    "input_size": list,
    "preprocessing": dict,
    "info": dict,
}


def save_model(path: str | os.PathLike[str], model: Model) -> None:
    """Write ``model`` to ``path`` in one step; folders are made, an older file is replaced.

    Raises:
        ConfigError: Settings or notes that JSON does not know.
        DataError: The file cannot be written.
    """
    header: dict[str, Any] = {
        "kind": model.kind,
        "settings": dict(model.settings),
        "dim": model.backbone.dim,
        "input_size": list(model.backbone.input_size),
        "preprocessing": model.preprocessing.to_dict(),
        "info": dict(model.info),
    }
    write_tensors(path, model.backbone.state_dict(), header, file_format=FORMAT, version=VERSION)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read what :func:`save_model` wrote: on the CPU, in evaluation mode; torch's generator is left alone.

    Raises:
        DataError: The file is missing, broken, not a model file, of an unknown version, of an unknown kind of
            backbone, or its tensors do not fit; names the file and what is wrong.
    """
    tensors, header = read_tensors(path, file_format=FORMAT, version=VERSION)
    for name, kind in FIELDS.items():
        if not isinstance(header.get(name), kind):
            raise DataError(f"{path}: the header's {name!r} must be {kind.__name__} in JSON, got {header.get(name)!r}.")
    try:
        shape = {"dim": header["dim"], "input_size": header["input_size"], "settings": header["settings"]}
        require_fit(planned(header["kind"], **shape, source=str(path)), tensors, str(path))
        with torch.random.fork_rng(devices=[]):  # the initialization is overwritten at once
            backbone = create_backbone(
                header["kind"], dim=header["dim"], input_size=header["input_size"], **header["settings"]
            )
        preprocessing = Preprocessing.from_dict(header["preprocessing"])
        fill(backbone, tensors, str(path))
        return Model(
            backbone=backbone.eval(),
            preprocessing=preprocessing,
            kind=header["kind"],
            settings=header["settings"],
            info=header["info"],
        )
    except DataError:
        raise
    except (UnpgError, TypeError) as error:
        raise DataError(f"{path}: the header describes no model that can be built here: {error}") from error
