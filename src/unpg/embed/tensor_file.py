"""Files of tensors with a JSON header: safetensors, written whole or not at all.

The file's metadata has one entry, ``unpg``: JSON with ``format`` (what the file is), ``version`` and ``header``.
One entry, because safetensors writes several in random order, and equal content should give equal bytes.
"""

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unpg.errors import ConfigError, DataError

__all__ = ["read_tensors", "write_tensors"]

KEY = "unpg"


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],
    *,
    file_format: str,
    version: int,
) -> None:
    """Write ``tensors`` and ``header`` to ``path``; folders are made, an older file is replaced in one step.

    A reader, a crash or a full disk never leaves half a file under the name ``path``.

    Raises:
        ConfigError: ``header`` has values that JSON does not know.
        DataError: The file cannot be written.
    """
    path = Path(path)
    try:
        text = json.dumps({"format": file_format, "version": version, "header": header}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: the notes saved with the tensors must be plain JSON values: {error}.") from None
    # A copy of each: safetensors refuses views and memory shared between names.
    plain = {
        name: tensor.detach().to("cpu", copy=True).contiguous(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(plain, temporary, metadata={KEY: text})
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be written: {error}.") from error
    finally:
        with suppress(OSError):  # on success it is gone, and an earlier error says more than this one could
            temporary.unlink()


def read_tensors(
    path: str | os.PathLike[str], *, file_format: str, version: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the header of a file that :func:`write_tensors` made.

    Raises:
        DataError: No such file, not safetensors, cut short, another format, or a version not known here.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file; expected a {file_format} file (safetensors).")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = _header((file.metadata() or {}).get(KEY), path, file_format, version)
            # Cloned, because the originals are a window on the file, which may be replaced under us.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        size = path.stat().st_size
        raise DataError(
            f"{path} ({size} bytes) is not a whole safetensors file: {error}. Copy or save it again."
        ) from error
    return tensors, header


def _header(text: str | None, path: Path, file_format: str, version: int) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise DataError(f"{path}: the metadata entry {KEY!r} is not JSON: {error}.") from None
    if not isinstance(found, dict) or found.get("format") != file_format:
        says = found.get("format") if isinstance(found, dict) else found
        raise DataError(
            f"{path} is a safetensors file but not one of the format {file_format!r}: its metadata says {says!r}. "
            "Weights of others are read by `unpg import`."
        )
    if found.get("version") != version:
        raise DataError(
            f"{path} has version {found.get('version')!r} of the format {file_format!r}; this unpg reads version "
            f"{version}. Use the unpg that wrote it, or a newer one."
        )
    header = found.get("header")
    if not isinstance(header, dict):
        raise DataError(f"{path}: the header must be a JSON object, got {header!r}.")
    return header


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere folders cannot be opened, nor need they be
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
