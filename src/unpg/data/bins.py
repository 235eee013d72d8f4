"""Verification sets in the form of insightface, ``lfw.bin`` and its kin: a pickle of images and answers.

The pickle holds ``(images, same)``: 2 n image files, of which 2 i and 2 i + 1 are pair i, and n answers. A pickle
can run any program, so this one is read by an unpickler that knows arrays of numbers, bytes and plain containers
and nothing else; numpy's own unpickling is not used either.

Axes: f distinct images, n pairs.
"""

import codecs
import hashlib
import io
import math
import os
import pickle
import pickletools
import secrets
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.data.decode import decode, require_size
from unpg.data.image_set import set_digest
from unpg.data.pairs import even_folds
from unpg.errors import DataError, shown

__all__ = ["BinImages", "BinPairs", "image_file", "parse_pickle", "read_bin", "write_bin"]


class BinImages:
    """The distinct images of a ``.bin`` file as an image set. Nobody says who they show: each counts as a person.

    Args:
        path: What to call the file.
        contents: (f,) image files.
        pairs: How many pairs the file has of them.
        genuine: How many of those are of one person.
    """

    def __init__(self, path: str, contents: Sequence[bytes], pairs: int, genuine: int) -> None:
        self.path = path
        self.of_pairs = pairs, genuine
        self._contents = list(contents)
        self.labels: NDArray[np.int64] = np.arange(len(contents), dtype=np.int64)
        self.identities = [f"image {i}" for i in range(len(contents))]
        first = decode(self._contents[0], name=self.name(0))
        self.image_size = (first.shape[0], first.shape[1])

    def __len__(self) -> int:
        return len(self._contents)

    def content(self, i: int) -> bytes:
        """The image file of image ``i``, untouched."""
        return self._contents[i]

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read.
            SizeError: It is not of the size of the first.
        """
        image = decode(self._contents[i], name=self.name(i))
        return require_size(image, self.image_size, self.name(i), self.name(0))

    def name(self, i: int) -> str:
        """``<file>#<index>``."""
        return f"{self.path}#{i}"

    def digest(self) -> str:
        """Over the image files, since they are in memory."""
        return set_digest(
            (hashlib.sha256(c).hexdigest() for c in self._contents), self.labels, map(len, self._contents)
        )


class BinPairs:
    """A ``.bin`` file as a list of pairs.

    Args:
        path: The file.

    Attributes:
        images: The distinct images, each once though most are in several pairs.
        pairs: (n, 2) int64, indices into ``images``.
        same: (n,) bool.
        folds: (n,) int64, ten runs of neighbors as even as can be (the first ones have one more): the file does
            not name folds, and the field cuts it so. All 0 with fewer than ten pairs.

    Raises:
        DataError: As :func:`read_bin`, or the first image cannot be read.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        contents, self.same = read_bin(path)
        number: dict[bytes, int] = {}
        places = [number.setdefault(content, len(number)) for content in contents]
        self.pairs: NDArray[np.int64] = np.array(places, dtype=np.int64).reshape(-1, 2)
        self.images = BinImages(str(path), list(number), len(self.same), int(self.same.sum()))
        self.folds = even_folds(len(self.same))


def read_bin(path: str | PathLike[str]) -> tuple[list[bytes], NDArray[np.bool_]]:
    """The 2 n image files and the n answers of a ``.bin`` file, of Python 2 or 3.

    Raises:
        DataError: It cannot be read, asks for more than bytes, arrays and plain containers, or is no verification
            set. Names the entry.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    found = parse_pickle(data, str(path))
    if not isinstance(found, list | tuple) or len(found) != 2:
        raise DataError(f"{path}: expected a pair (images, answers), got {_said(found)}.")
    images, same = (f.values() if isinstance(f, _Array) else f for f in found)
    if not isinstance(images, list | tuple) or not isinstance(same, list | tuple | np.ndarray):
        raise DataError(f"{path}: expected a list of images and one of answers, got {_said(images)} and {_said(same)}.")
    if len(images) != 2 * len(same) or not len(same):
        raise DataError(
            f"{path} has {len(images)} images and {len(same)} answers; expected two images per answer and one answer "
            "or more."
        )
    contents = [image_file(image, f"{path}, image {i}") for i, image in enumerate(images)]
    return contents, np.array([_answer(s, f"{path}, answer {i}") for i, s in enumerate(same)], dtype=np.bool_)


def parse_pickle(data: bytes, name: str) -> Any:
    """What a pickle holds, if that is bytes, texts, numbers, arrays of numbers and plain containers; nothing is run.

    Arrays are left as they are in the pickle; :func:`image_file` takes their bytes.

    Args:
        data: The pickle, of Python 2 or 3.
        name: What to call it in errors.

    Raises:
        DataError: It asks for anything else, or is broken.
    """
    try:
        _check_operations(data)
        # Texts of Python 2 are bytes; those of Python 3 are marked as such in the pickle and stay what they are.
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except _RefusedError as error:
        raise DataError(
            f"{name} asks for {error} while it is unpickled. A set of faces needs bytes, arrays of numbers and "
            "lists only; this file may be hostile. Nothing of it was run. Do not use it."
        ) from error
    # An unpickler raises nearly anything on broken bytes.
    except Exception as error:
        raise DataError(f"{name} is no sound pickle of {len(data)} bytes: {shown(error)}. Fetch it again.") from error


def write_bin(path: str | PathLike[str], images: Sequence[bytes], same: Sequence[bool]) -> None:
    """Write a ``.bin`` file that insightface and others read; an older file is replaced in one step.

    Args:
        path: The file.
        images: 2 n image files.
        same: n answers.

    Raises:
        DataError: The counts do not fit.
    """
    if len(images) != 2 * len(same) or not len(same):
        raise DataError(f"{path}: {len(images)} images for {len(same)} answers; give two per answer.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "wb") as file:
            # Protocol 4 is read by every Python 3 that is in use.
            pickle.dump(([bytes(image) for image in images], [bool(s) for s in same]), file, protocol=4)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _RefusedError(Exception):
    """Something that a verification set does not need."""


def _check_operations(data: bytes) -> None:
    """Walk through a pickle without running it.

    A pickle declares lengths, and places in a table that the unpickler makes as large as they say: 2**31 in five bytes.
    The walk compares both with the pickle. Sets and dictionaries hash what they hold, and a tuple of tuples can take
    ages to hash; nothing here needs one.

    Raises:
        _RefusedError: An operation that a set of faces does not need.
        ValueError: It is cut off, or a number is larger than the pickle has reason for.
    """
    for count, (operation, argument, place) in enumerate(pickletools.genops(data)):
        name, number = operation.name, argument if isinstance(argument, int) else 0
        if name in _HASHING:
            raise _RefusedError("a set or dictionary")
        if name in ("PUT", "BINPUT", "LONG_BINPUT") and number > count:  # picklers number from 0 on
            raise ValueError(f"byte {place}: place {number} in a table of {count} values at most")
        if name == "FRAME" and number > len(data) - (place or 0):
            raise ValueError(f"byte {place}: a frame of {number} bytes")


class _Made:
    """A function that a pickle may call, and whose attributes it cannot set."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _RefusedError(f"a change of {name!r}")

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("a change of a function")


class _Type:
    """Stands for ``numpy.dtype``: plain numbers of 1 to 8 bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = _text(code), "|"
        if self.code not in ("b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"):
            raise _RefusedError(f"an array of type {self.code!r}")

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or _text(state[1]) not in ("|", "<", ">", "="):
            raise _RefusedError("an array of a structured type")
        self.order = _text(state[1])

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order.replace("|", "=") + self.code)


class _Array:
    """Stands for ``numpy.ndarray``; nothing is believed before :meth:`values`."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def values(self) -> NDArray[Any]:
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise DataError("An array in the pickle has no content.")
        _, shape, dtype, fortran, raw = self.state
        if not isinstance(dtype, _Type) or not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
            raise DataError("An array in the pickle is not of plain numbers.")
        if not all(isinstance(side, int) and side >= 0 for side in shape):
            raise DataError(f"An array in the pickle has the shape {shown(shape)}.")
        kind = dtype.numpy()
        if math.prod(shape) * kind.itemsize != len(raw):
            raise DataError(f"An array in the pickle of shape {shape} and type {kind} has {len(raw)} bytes.")
        return np.frombuffer(raw, dtype=kind).reshape(shape, order="F" if fortran else "C")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or _text(encoding) not in ("latin1", "latin-1"):
        raise _RefusedError(f"the encoding {encoding!r}")
    return codecs.encode(text, "latin1")


def _bytes(*arguments: Any) -> bytes:
    if arguments:
        raise _RefusedError("bytes() with arguments")
    return b""


def _array_of(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, _text(order) == "F", raw)
    return array


def _scalar(dtype: Any, raw: Any) -> Any:
    return _array_of(raw, dtype, ()).values()[()]


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind != "numpy.ndarray":
        raise _RefusedError("an array of another class")
    return _Array()


_HASHING = frozenset({"DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET"})

_ALLOWED: dict[str, Any] = {
    "numpy.ndarray": "numpy.ndarray",
    "numpy.dtype": _Made(_Type),
    "_codecs.encode": _Made(_encode),
    **{f"{module}.bytes": _Made(_bytes) for module in ("builtins", "__builtin__")},
    **{f"numpy.{core}.multiarray._reconstruct": _Made(_reconstruct) for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Made(_scalar) for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _Made(_array_of) for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ALLOWED:
            raise _RefusedError(f"{module}.{name}")
        return _ALLOWED[f"{module}.{name}"]


def image_file(image: Any, name: str) -> bytes:
    """The image file that a value of :func:`parse_pickle` is: bytes, or an array of bytes.

    Raises:
        DataError: It is neither.
    """
    if isinstance(image, _Array):
        try:
            pixels = image.values()
        except DataError as error:
            raise DataError(f"{name}: {error} Fetch the file again.") from error
        if pixels.dtype != np.uint8 or pixels.size != max(pixels.shape, default=1):
            raise DataError(
                f"{name} is an array of shape {pixels.shape} and type {pixels.dtype}; expected the bytes of an image "
                "file, uint8 of shape (N,) or (N, 1)."
            )
        return pixels.tobytes()
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    raise DataError(f"{name} is {_said(image)}; expected bytes or an array of bytes.")


def _answer(same: Any, name: str) -> bool:
    if isinstance(same, bool | int | np.bool_ | np.integer) and same in (0, 1):
        return bool(same)
    raise DataError(f"{name} is {shown(same, 80)}; expected True or False.")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    return value if isinstance(value, str) else shown(value)


def _said(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict | str | bytes) else ""
    return f"a {type(value).__name__.lstrip('_').lower()}{size}"
