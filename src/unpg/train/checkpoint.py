"""The whole state of a run in one file that exists whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unpg.embed.torch_file import read_torch
from unpg.errors import ConfigError, DataError

__all__ = ["latest_checkpoint", "load_checkpoint", "save_checkpoint"]

_FORMAT = 1


def _path(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}.pt"


def save_checkpoint(run: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the state after ``step`` optimizer steps; older checkpoints of the run are removed once it is safe.

    Written to a temporary name, flushed to the disk, then renamed: a crash at any moment leaves the old file or the
    new one, never half of one.
    """
    path = _path(run, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"format": _FORMAT, "step": step, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for other in path.parent.glob("step-*.pt"):
        if other != path:
            other.unlink()
    return path


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run folder, or None."""
    return max((run / "checkpoints").glob("step-*.pt"), default=None)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        DataError: The file is damaged or no checkpoint.
        ConfigError: It has a format of another version.
    """
    try:
        state = read_torch(path)
    except DataError:
        raise
    except Exception as error:  # torch.load raises many kinds, none of them documented
        raise DataError(f"{path} cannot be read as a checkpoint: {error}. Restore it, or start again.") from error
    if not isinstance(state, dict) or "format" not in state:
        raise DataError(f"{path} is no checkpoint of unpg.")
    if state["format"] != _FORMAT:
        raise ConfigError(f"{path} has checkpoint format {state['format']}; this version reads {_FORMAT}.")
    return state
