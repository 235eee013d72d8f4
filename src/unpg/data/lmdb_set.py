"""LMDB databases of labeled images, in the layouts that face repositories write. Needs the extra ``interop``.

- A pickle of (image file, label) per record, as the many copies of ``folder2lmdb.py`` write it, with the keys in
  ``__keys__`` and their number in ``__len__``;
- Caffe's ``Datum`` with an encoded image;
- image files at ``image-000000001`` and labels at ``label-000000001``.

Pickles are read by the parser of :mod:`unpg.data.bins`, which builds bytes and arrays and runs nothing.

Axes: n images.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.data.bins import image_file, parse_pickle
from unpg.data.decode import decode, first_size, require_size
from unpg.data.dense_labels import dense_labels
from unpg.data.image_set import set_digest
from unpg.data.lmdb_pages import check_lmdb_pages
from unpg.errors import ConfigError, DataError, shown

__all__ = ["LmdbSet"]

_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"RIFF")
# lmdb refuses to open a file twice in a process; and one that a fork inherited is of the parent.
_open: dict[str, tuple[int, Any]] = {}


class LmdbSet:
    """Images of an LMDB, in the order of ``__keys__``, else of their numbers, else of their keys.

    Opening reads every record once for its label, and before that all pages with keys: lmdb believes what stands in
    the file, and one that was tampered with would end the process.

    Args:
        path: The folder with ``data.mdb``, or the file.

    Attributes:
        labels: (n,) int64, numbered from 0 without gaps in rising order of the file's labels.
        identities: The file's label of each.
        image_size: (height, width) of the first readable image; :meth:`read` refuses others.

    Raises:
        ConfigError: lmdb is not installed.
        DataError: The file is missing, cut off or of none of these layouts; a record is broken (with its key).
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = str(path)
        keys = self._keys()
        if not keys:
            raise DataError(f"{self.path} has no records.")
        self._layout = self._find_layout(keys[0])
        people: list[int | str] = []
        sizes: list[int] = []
        for key in keys:
            image, who = self._record(key)
            people.append(who)
            sizes.append(len(image))
        # An array of bytes takes a fifth of the memory, but drops zeros at the end of a key.
        self._all = keys if any(key.endswith(b"\0") for key in keys) else np.array(keys)
        self._sizes = np.array(sizes, dtype=np.int64)
        self.labels, self.identities = dense_labels(people)
        self.image_size, self._like = first_size(len(self), self._decoded, self.name, self.path)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """``<path>#<key>``."""
        return self._said(bytes(self._all[i]))

    def content(self, i: int) -> bytes:
        """The image file of image ``i``, untouched.

        Raises:
            DataError: The record is broken.
        """
        return self._record(bytes(self._all[i]))[0]

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read.
            SizeError: It is not of the size of the set's first readable image.
        """
        return require_size(self._decoded(i), self.image_size, self.name(i), self._like)

    def digest(self) -> str:
        """From keys, labels, identities and the sizes of the image files, not from where the database lies."""
        names = (f"{bytes(key)!r}\0{self.identities[label]}" for key, label in zip(self._all, self.labels, strict=True))
        return hashlib.sha256(set_digest(names, self.labels, self._sizes.tolist()).encode()).hexdigest()

    def _decoded(self, i: int) -> NDArray[np.uint8]:
        return decode(self.content(i), name=self.name(i))

    def _said(self, key: bytes) -> str:
        return f"{self.path}#{key.decode('utf-8', 'backslashreplace')}"

    def _keys(self) -> list[bytes]:
        with _reading(self.path) as reading:
            there = [bytes(key) for key in reading.cursor().iternext(keys=True, values=False)]
            listed = reading.get(b"__keys__")
        keys = [key for key in there if not key.startswith(b"__")]
        if all(key.startswith((b"image-", b"label-", b"num-samples")) for key in keys):
            return [key for key in keys if key.startswith(b"image-")]
        if all(key.isdigit() for key in keys):
            return sorted(keys, key=int)  # also where __keys__ is in a form that is not read
        if listed is None:
            return keys
        named = parse_pickle(listed, f"{self.path}#__keys__")
        if not isinstance(named, list | tuple) or not all(isinstance(key, bytes | str) for key in named):
            raise DataError(f"{self.path}#__keys__: expected a list of keys, got a {type(named).__name__}.")
        named = [key.encode() if isinstance(key, str) else key for key in named]
        if set(named) != set(keys) or len(named) != len(keys):
            raise DataError(f"{self.path}: __keys__ names {len(named)} records, but there are {len(keys)}, or others.")
        return named

    def _get(self, key: bytes) -> bytes:
        with _reading(self.path) as reading:
            value: bytes | None = reading.get(key)
        if value is None:
            raise DataError(f"{self._said(key)} is not there. Write the database again.")
        return value

    def _find_layout(self, key: bytes) -> str:
        value = self._get(key)
        if key.startswith(b"image-"):
            return "parts"
        if value[:1] == b"\x80" or value[:1] == b"(":
            return "pickle"
        if value[:1] == b"\x08":
            return "datum"
        found = "an image without a label" if value.startswith(_STARTS) else f"bytes that begin with {value[:8]!r}"
        raise DataError(
            f"{self._said(key)} holds {found}. Known are pickles of (image, label), Caffe's Datum, and image-... "
            "beside label-...; values of pyarrow or msgpack are not read: convert with the library that wrote them."
        )

    def _record(self, key: bytes) -> tuple[bytes, int | str]:
        readers: dict[str, Callable[[bytes, bytes], tuple[bytes, Any]]] = {
            "pickle": self._pickled,
            "datum": self._datum,
            "parts": lambda key, value: (
                value,
                self._get(key.replace(b"image-", b"label-", 1)).decode("utf-8", "replace"),
            ),
        }
        image, who = readers[self._layout](key, self._get(key))
        if isinstance(who, np.integer):
            who = int(who)
        if isinstance(who, bytes):
            who = who.decode("utf-8", "replace")
        if isinstance(who, str) and who.isascii() and who.isdigit() and len(who) < 19:
            who = int(who)
        if isinstance(who, bool) or not isinstance(who, int | str) or who == "":
            raise DataError(f"{self._said(key)}: expected a number or name as label, got {shown(who, 80)}.")
        return image, who

    def _pickled(self, key: bytes, value: bytes) -> tuple[bytes, Any]:
        found = parse_pickle(value, self._said(key))
        if not isinstance(found, list | tuple) or len(found) < 2:
            raise DataError(f"{self._said(key)}: expected a pickle of (image, label), got a {type(found).__name__}.")
        return image_file(found[0], self._said(key)), found[1]

    def _datum(self, key: bytes, value: bytes) -> tuple[bytes, Any]:
        fields = _protobuf(value, self._said(key))
        image = fields.get(4)
        if not isinstance(image, bytes) or not image.startswith(_STARTS):
            raise DataError(f"{self._said(key)}: a Datum without an encoded image; raw pixels are not read.")
        return image, fields.get(5, 0)


@contextmanager
def _reading(path: str) -> Iterator[Any]:
    """A look into the database."""
    opened = _environment(path)
    import lmdb

    try:
        with opened.begin(buffers=False) as reading:
            yield reading
    except lmdb.Error as error:
        raise DataError(f"{path} is broken: {error}. Fetch it or write it again.") from error


def _environment(path: str) -> Any:
    """The database, opened once in each process."""
    try:
        import lmdb  # an extra: a plain install has none
    except ImportError as error:
        raise ConfigError("LMDB needs lmdb: pip install 'unpg[interop]'.") from error
    real = os.path.realpath(path)
    if real in _open:
        process, known = _open[real]
        if process == os.getpid():
            return known
        known.close()
    file = Path(path) / "data.mdb" if Path(path).is_dir() else Path(path)
    check_lmdb_pages(file)
    try:
        opened = lmdb.open(
            real, subdir=Path(path).is_dir(), readonly=True, create=False, lock=False, readahead=False, meminit=False
        )
    except (OSError, MemoryError, lmdb.Error) as error:
        raise DataError(f"{path} cannot be opened as LMDB: {error}.") from error
    _open.pop(real, None)
    _open[real] = os.getpid(), opened
    return opened


def _protobuf(data: bytes, name: str) -> dict[int, int | bytes]:
    """Fields of a protobuf message: numbers and bytes; of repeated ones the last."""
    found: dict[int, int | bytes] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 64, 7):
            if at >= len(data):
                break
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise DataError(f"{name}: byte {at} of the Datum does not read. Write the database again.")

    while at < len(data):
        tag = number()
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            found[field] = number()
            continue
        size = {1: 8, 5: 4}.get(wire) or (number() if wire == 2 else len(data) + 1)
        if at + size > len(data):
            raise DataError(f"{name}: byte {at} of the Datum does not read. Write the database again.")
        found[field] = data[at : at + size]
        at += size
    return found
