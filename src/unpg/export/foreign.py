"""Reading weights that others have saved, without running anything of theirs.

torch checkpoints are read by :func:`unpg.embed.torch_file.read_torch`, which builds tensors and plain containers and
nothing else, no larger than the file.
"""

import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unpg.embed.torch_file import read_torch
from unpg.errors import DataError

__all__ = ["file_digest", "read_state_dict"]

# Where training scripts put the network in a checkpoint, in the order in which we believe them.
NESTS = ("state_dict", "net_state_dict", "model_state_dict", "backbone", "model", "net")
# A hostile pickle can hold a dict that holds itself.
MAX_DEPTH = 4
# What wrappers put before each name: DataParallel and DDP, torch.compile, a trainer that holds the network.
PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")


def read_state_dict(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a foreign file by name, freed of containers and prefixes.

    Args:
        path: A torch checkpoint (.pt, .pth, .ckpt, .bin) or a safetensors file; told apart by content.

    Returns:
        The state dict on the CPU; and the names of tensors and entries in the file that were left out, because
        they lie beside the network (an optimizer, an epoch) or outside of the prefix that the network has.

    Raises:
        DataError: The file is missing, broken, holds Python objects besides tensors, or no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file; expected a torch checkpoint or a safetensors file.")
    content = _safetensors(path) if _is_safetensors(path) else _checkpoint(path)
    state, left_out = _unwrap(content, path)
    return _strip(state, left_out)


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_safetensors(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(9)
    # Eight bytes say how long the JSON header is that follows.
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a whole safetensors file: {error}. Copy or download it again.") from error


def _checkpoint(path: Path) -> Any:
    try:
        return read_torch(path)
    except DataError:
        raise
    except pickle.UnpicklingError as error:
        objects = sorted(set(re.findall(r"GLOBAL ([\w.]+)", str(error))))
        if not objects:
            raise _broken(path, error) from error
        raise DataError(
            f"{path} holds Python objects ({', '.join(objects)}), not tensors alone; to read them is to run code from "
            "the file, so it is refused. If you trust the file, save its weights again in a throw-away environment "
            "that has the code it was made with: `c = torch.load(FILE, weights_only=False); "
            "torch.save(c['backbone'].state_dict(), 'weights.pt')` (the UNPG authors' files keep the network under "
            "'backbone'; use c.state_dict() if the file is the network itself), then import weights.pt."
        ) from error
    # torch's readers raise nearly anything on a broken file; all of it means the same to the user.
    except Exception as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> DataError:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return DataError(
        f"{path} ({path.stat().st_size} bytes) is neither a whole torch checkpoint nor a safetensors file: {reason} "
        "Copy or download it again."
    )


def _unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    left_out: list[str] = []
    for _ in range(MAX_DEPTH):
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {str(name): value for name, value in content.items()}, left_out
        nest = next((name for name in NESTS if isinstance(content.get(name), Mapping)), None)
        if nest is None:
            break
        left_out += [str(name) for name in content if name != nest]
        content = content[nest]
    if isinstance(content, Mapping):
        found = f"entries {', '.join(map(str, content))}" if content else "an empty dict"
    else:
        found = type(content).__name__
    raise DataError(
        f"{path}: no state dict found. Expected tensors by name, or a dict that has them under one of "
        f"{', '.join(NESTS)}; found {found}. Save the network's state_dict() alone."
    )


def _strip(state: dict[str, Tensor], left_out: list[str]) -> tuple[dict[str, Tensor], list[str]]:
    while True:
        prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in state)), None)
        if prefix is None:
            return state, left_out
        left_out = left_out + [name for name in state if not name.startswith(prefix)]
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
