"""MATLAB's files (version 5, as ``save`` and scipy write them): numbers, texts and cells of either, nothing else.

Source: MathWorks, "MAT-File Format", chapter "Level 5 MAT-Files". Structures, objects and functions are refused.
"""

import math
import struct
import zlib
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpg.errors import DataError

__all__ = ["read_mat5"]

_HEADER = 128  # bytes
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR = 1, 4
_NUMERIC = range(6, 16)
_COMPLEX = 0x0800
_MOST = 1 << 26  # bytes a compressed variable may grow to


class _Element(NamedTuple):
    kind: int
    data: bytes
    end: int
    """First byte after it and its padding."""


Variable = NDArray[Any] | list[str] | list[NDArray[Any]]


def read_mat5(file: str | PathLike[str]) -> dict[str, Variable]:
    """The variables of a file by name: numbers as arrays, a text as a list of one, a cell as a list.

    A cell holds texts only or arrays of numbers only. Cells come column by column, as MATLAB numbers them.

    Raises:
        DataError: It cannot be read, is cut off or broken, or holds anything else. Names the byte.
    """
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or struct.unpack_from(f"{order}H", data, 124)[0] != 0x0100:
        raise DataError(
            f"{file}, byte 124: no MATLAB file of version 5. In MATLAB, save it with '-v7'; '-v7.3' is HDF5, which is "
            "not read here."
        )
    found: dict[str, Variable] = {}
    at = _HEADER
    while at < len(data):
        try:
            element = _element(data, at, order)
            if element.kind == _COMPRESSED:
                element = _element(_inflate(element.data), 0, order)._replace(end=at + 8 + len(element.data))
            name, value = _matrix(element, order, deep=False)
        except (_BrokenError, zlib.error, struct.error, UnicodeDecodeError) as error:
            raise DataError(f"{file}: the variable at byte {at} is broken or of an unknown kind: {error}.") from error
        found[name] = value
        at = element.end
    return found


class _BrokenError(Exception):
    pass


def _inflate(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    plain = stream.decompress(data, _MOST)
    if not stream.eof:
        raise _BrokenError(f"its compressed bytes do not end, or are more than {_MOST:,}")
    return plain


def _element(data: bytes, at: int, order: str) -> _Element:
    if at + 8 > len(data):
        raise _BrokenError("it ends in the middle")
    kind, size = struct.unpack_from(f"{order}2I", data, at)
    if kind >> 16:  # up to four bytes within the tag
        kind, size, begin, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        if size > 4:
            raise _BrokenError(f"a small element of {size} bytes")
    else:
        begin, end = at + 8, at + 8 + size + (-size % 8 if kind != _COMPRESSED else 0)
    if begin + size > len(data):
        raise _BrokenError("it ends in the middle")
    return _Element(kind, data[begin : begin + size], end)


def _matrix(element: _Element, order: str, *, deep: bool) -> tuple[str, Variable]:
    if element.kind != _MATRIX:
        raise _BrokenError(f"an element of type {element.kind} where a matrix should be")
    data = element.data
    if not data and deep:  # an empty place in a cell
        return "", [""]
    flags = _element(data, 0, order)
    shape = _element(data, flags.end, order)
    name = _element(data, shape.end, order)
    if flags.kind != 6 or len(flags.data) != 8 or shape.kind != 5 or len(shape.data) not in range(8, 129, 4):
        raise _BrokenError("its head does not read")
    dims = np.frombuffer(shape.data, f"{order}i4").tolist()
    count, at = math.prod(dims), name.end
    # No number or text takes less than a byte, so more of them than bytes are a mistake, and not allocated.
    if min(dims) < 0 or max(dims) > len(data) or count > len(data):
        raise _BrokenError(f"the shape {dims} in {len(data)} bytes")
    described = struct.unpack_from(f"{order}I", flags.data)[0]
    kind = described & 0xFF
    if described & _COMPLEX:
        raise _BrokenError("complex numbers")
    text = name.data.decode("ascii")
    if kind == _CELL and not deep:
        texts: list[str] = []
        arrays: list[NDArray[Any]] = []
        for _ in range(count):
            cell = _element(data, at, order)
            at = cell.end
            value = _matrix(cell, order, deep=True)[1]
            if isinstance(value, np.ndarray):
                arrays.append(value)
            else:
                texts += [v for v in value if isinstance(v, str)]
        if texts and arrays:
            raise _BrokenError("a cell of both texts and numbers")
        return text, arrays or texts
    if kind == _CHAR:
        if count and (len(dims) != 2 or dims[0] != 1):
            raise _BrokenError(f"a text of shape {dims}")
        return text, [_text(_element(data, at, order), order) if count else ""]
    if kind not in _NUMERIC:
        raise _BrokenError(f"class {kind}, which is neither numbers nor texts nor a cell of them")
    stored = _element(data, at, order)
    if stored.kind not in _NUMBERS:
        raise _BrokenError(f"numbers of type {stored.kind}")
    dtype = np.dtype(order + _NUMBERS[stored.kind])
    if len(stored.data) != count * dtype.itemsize:
        raise _BrokenError(f"{len(stored.data)} bytes for {count} numbers of {dtype.itemsize}")
    numbers = np.frombuffer(stored.data, dtype).reshape(dims, order="F")
    return text, numbers.astype(dtype.newbyteorder("="))


def _text(element: _Element, order: str) -> str:
    if element.kind not in _TEXTS:
        raise _BrokenError(f"a text of type {element.kind}")
    coding = _TEXTS[element.kind]
    wide = coding in ("utf-16", "utf-32")
    return element.data.decode(f"{coding}-{'le' if order == '<' else 'be'}" if wide else coding)
