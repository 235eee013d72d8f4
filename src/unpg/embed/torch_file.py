"""Files of ``torch.save`` made by anyone, read so that nothing of theirs is run and no size of theirs is believed.

``weights_only=True`` keeps the pickle to tensors and plain containers. What it leaves open is checked here: sizes
that stand in the file are compared with the file before memory is asked for, and tensors with the bytes they have.
"""

import mmap
import os
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unpg.errors import DataError

__all__ = ["read_torch"]

_LEGACY_PICKLES = 5  # mark, version, machine, the object, the keys of its storages


def read_torch(path: str | os.PathLike[str]) -> Any:
    """What a file of ``torch.save`` holds, on the CPU.

    Args:
        path: The file, of today's form (a zip archive) or the one before torch 1.6.

    Raises:
        DataError: It declares more bytes than it has, or a tensor that is not dense numbers in the file.
        Exception: Nearly anything that torch raises on a broken file or a refused object.
    """
    path = Path(path)
    if zipfile.is_zipfile(path):
        _check_zip(path)
    else:
        _check_legacy(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    _check_tensors(found, path)
    return found


def _check_zip(path: Path) -> None:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        declared = sum(member.file_size for member in members)
        packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
        if packed or declared > size:
            raise DataError(
                f"{path}: the archive of {size} bytes declares {declared} bytes of content"
                f"{f', compressed: {packed[0][:80]!r}' if packed else ''}. torch.save does not compress; save the "
                "weights anew with torch.save."
            )
        for member in members:
            if member.filename.endswith("/data.pkl"):
                with archive.open(member) as file:
                    _check_pickle(file.read(), 1, path)


def _check_legacy(path: Path) -> None:
    if not path.stat().st_size:
        raise DataError(f"{path} is empty (0 bytes). Fetch it again.")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _check_pickle(data, _LEGACY_PICKLES, path)


def _check_pickle(data: bytes | mmap.mmap, pickles: int, path: Path) -> None:
    """Raise if a pickle is cut off, or asks for more bytes than the file has."""
    size = path.stat().st_size
    file: Any = data if isinstance(data, mmap.mmap) else _Bytes(data)
    numbers: list[int] = []
    try:
        for _ in range(pickles):
            for operation, argument, place in pickletools.genops(file):
                if operation.name == "MARK":
                    numbers = []
                elif isinstance(argument, int) and operation.name[:3] in ("INT", "BIN", "LON"):
                    numbers.append(argument)
                elif operation.name in ("BINPERSID", "PERSID") and max(numbers, default=0) > size:
                    raise DataError(
                        f"{path}, byte {place} of its pickle: a storage of {max(numbers)} numbers in a file of {size} "
                        "bytes. It is broken or hostile; fetch it again."
                    )
                elif operation.name in ("GLOBAL", "STACK_GLOBAL", "INST") and "bytearray" in str(argument):
                    raise DataError(f"{path}, byte {place} of its pickle: a bytearray, which no weights need.")
    except DataError:
        raise
    # What is no pickle is judged by torch, which says so; a cut-off one would be asked for what it declares.
    except Exception as error:
        raise DataError(
            f"{path} ({size} bytes) is no whole torch checkpoint: {error}. Name the file of weights, or fetch it again."
        ) from error


class _Bytes:
    """The two methods that the walk through a pickle needs."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, size: int = -1) -> bytes:
        begin = self._at
        self._at = len(self._data) if size < 0 else min(begin + size, len(self._data))
        return self._data[begin : self._at]

    def readline(self) -> bytes:
        end = self._data.find(b"\n", self._at)
        return self.read((len(self._data) if end < 0 else end + 1) - self._at)

    def tell(self) -> int:
        return self._at


def _check_tensors(found: Any, path: Path) -> None:
    """Raise unless all tensors are dense, on the CPU, and no larger than what the file has for them."""
    size = path.stat().st_size
    storages: dict[int, int] = {}
    seen: set[int] = set()
    ahead = [found]
    while ahead:
        value = ahead.pop()
        if isinstance(value, Tensor):
            if value.device.type != "cpu" or value.layout is not torch.strided or value.is_quantized:
                raise DataError(
                    f"{path} holds a {value.layout} tensor on {value.device.type} of {value.dtype}; expected dense "
                    "tensors with their numbers in the file."
                )
            storage = value.untyped_storage()
            if value.numel() * value.element_size() > storage.nbytes():
                raise DataError(
                    f"{path} holds a tensor of shape {tuple(value.shape)} that repeats the {storage.nbytes()} bytes it "
                    "has. Save it contiguous."
                )
            storages[storage.data_ptr()] = storage.nbytes()
            if sum(storages.values()) > size:
                raise DataError(f"{path} declares more than the {size} bytes that it has. Fetch it again.")
        elif id(value) not in seen:  # a hostile container can hold itself
            seen.add(id(value))
            if isinstance(value, Mapping):
                ahead += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple | set | frozenset):
                ahead += value
