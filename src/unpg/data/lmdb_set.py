"""LMDB databases of labeled images, in the layouts that face repositories write. Needs the extra ``interop``.

- A pickle of (image file, label) per record, as the many copies of ``folder2lmdb.py`` write it, with the keys in
  ``__keys__`` and their number in ``__len__``; ours has the image's name as a third value, and in ``__identities__``
  the names of the labels 0, 1, ..., a JSON list;
- Caffe's ``Datum`` with an encoded image;
- image files at ``image-000000001`` and labels at ``label-000000001``.

Pickles are read by the parser of :mod:`unpg.data.bins`, which builds bytes and arrays and runs nothing.

Axes: n images.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.data.bins import image_file, parse_pickle
from unpg.data.decode import decode, decode_sized, first_size
from unpg.data.dense_labels import dense_labels, number_or_name
from unpg.data.image_set import set_digest
from unpg.data.index_cache import Index, index_key, load_index, save_index
from unpg.data.lmdb_pages import check_lmdb_pages
from unpg.data.names_file import names_for, parse_names
from unpg.errors import ConfigError, DataError, shown

__all__ = ["NAMES_KEY", "LmdbSet", "require_pages"]

NAMES_KEY = b"__identities__"

_VERSION = 3  # of what lies in the cache
# MEMOIZE, then BININT1, BININT2 or BININT, then TUPLE2, or SHORT_BINUNICODE, MEMOIZE and TUPLE3; MEMOIZE, STOP.
_PICKLE_END = re.compile(rb"\x94(K.|M..|J....)(?:\x86|\x8c(.)(.{0,255})\x94\x87)\x94\.", re.DOTALL)
_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"RIFF")
# lmdb refuses to open a file twice in a process; and one that a fork inherited is of the parent.
# Path -> process, key of the file's state, database.
_open: dict[str, tuple[int, str, Any]] = {}


class LmdbSet:
    """Images of an LMDB, in the order of ``__keys__``, else of their numbers, else of their keys.

    The first opening reads every record for its label, and all pages with keys before that: lmdb believes what stands
    in the file, and one that was tampered with would end the process. What was found is kept in the user's cache folder
    for as long as path, size and time of the file stay, and is mapped from there, by workers too.

    Args:
        path: The folder with ``data.mdb``, or the file.

    Attributes:
        labels: (n,) int64, numbered from 0 without gaps in rising order of the file's labels.
        identities: The name of each in ``__identities__``, else the file's label.
        image_size: (height, width) of the first readable image; :meth:`read` refuses others.

    Raises:
        ConfigError: lmdb is not installed.
        DataError: The file is missing, cut off or of none of these layouts; a record is broken, or missing though
            ``__keys__``, ``__len__`` or ``num-samples`` counts it (with its key).
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = str(path)
        self._real = os.path.realpath(path)
        self._key = _state(self.path)
        found = load_index("lmdb", self._key, check=True)
        self._cached = found is not None
        if found is None:
            built = self._build()
            found = save_index("lmdb", self._key, built)
            self._cached = found is not None
            found = found or built
        self._take(found)
        self.image_size, self._like = first_size(len(self), self._decoded, self._described, self.path)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """``<path>#<name of the image>`` where the record has it, else ``<path>#<key>``."""
        own = self.own_path(i)
        return self._described(i) if own is None else f"{self.path}#{own}"

    def own_path(self, i: int) -> str | None:
        """The name of image ``i`` in its record, if it has one."""
        return self._record(self._key_of(i))[2]

    def content(self, i: int) -> bytes:
        """The image file of image ``i``, untouched.

        Raises:
            DataError: The record is broken.
        """
        key = self._key_of(i)
        if self._layout == "pickle":
            plain = _plain_pickle(self._get(key))
            if plain is not None:
                return plain[0]
        return self._record(key)[0]

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read.
            SizeError: It is not of the size of the set's first readable image.
        """
        return decode_sized(self.content(i), self.image_size, lambda: self._described(i), self._like)

    def read_into(self, i: int, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Image ``i`` in ``out`` (h, w, 3), which is returned. Raises as :meth:`read`."""
        return decode_sized(self.content(i), self.image_size, lambda: self._described(i), self._like, out)

    def sources(self) -> Iterable[str]:
        """The files that the images come from."""
        return [str(_file(self.path))]

    def digest(self) -> str:
        """From keys, labels, identities and the sizes of the image files, not from where the database lies."""
        labels = self.labels.tolist()
        names = (f"{self._key_of(i)!r}\0{self.identities[label]}" for i, label in enumerate(labels))
        return hashlib.sha256(set_digest(names, self.labels, self._sizes.tolist()).encode()).hexdigest()

    def _build(self) -> Index:
        keys = self._keys()
        if not keys:
            raise DataError(f"{self.path} has no records.")
        self._layout: str = self._find_layout(keys[0])
        people: list[int | str] = []
        sizes = np.empty(len(keys), dtype=np.int64)
        for i, key in enumerate(keys):
            image, who, _ = self._record(key)
            people.append(who)
            sizes[i] = len(image)
        labels, identities = dense_labels(people)
        with self._begin() as reading:
            listed = reading.get(NAMES_KEY)
        if listed is not None:
            source = self._said(NAMES_KEY)
            identities = names_for(identities, parse_names(listed, source), source)
        ends = np.cumsum([0, *map(len, keys)], dtype=np.int64)
        arrays: dict[str, NDArray[Any]] = {"ends": ends, "sizes": sizes, "labels": labels}
        arrays["keys"] = np.frombuffer(b"".join(keys), dtype=np.uint8)
        return Index(arrays, {"identities": identities, "layout": self._layout})

    def _take(self, index: Index) -> None:
        self._all: NDArray[np.uint8] = index.arrays["keys"]
        self._ends: NDArray[np.int64] = index.arrays["ends"]
        self._sizes: NDArray[np.int64] = index.arrays["sizes"]
        self.labels: NDArray[np.int64] = index.arrays["labels"]
        self.identities: list[str] = index.about["identities"]
        self._layout = index.about["layout"]

    def _key_of(self, i: int) -> bytes:
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} is not in [0, {len(self)})")
        return self._all[self._ends[i] : self._ends[i + 1]].tobytes()

    def _described(self, i: int) -> str:
        return self._said(self._key_of(i))

    def _decoded(self, i: int) -> NDArray[np.uint8]:
        return decode(self.content(i), name=self._described(i))

    def _begin(self) -> Any:
        return _reading(self.path, self._real, self._key)

    def _said(self, key: bytes) -> str:
        return f"{self.path}#{key.decode('utf-8', 'backslashreplace')}"

    def _keys(self) -> list[bytes]:
        with self._begin() as reading:
            there = [bytes(key) for key in reading.cursor().iternext(keys=True, values=False)]
            listed, length, samples = (reading.get(key) for key in (b"__keys__", b"__len__", b"num-samples"))
        keys = [key for key in there if not key.startswith(b"__")]
        if all(key.startswith((b"image-", b"label-", b"num-samples")) for key in keys):
            keys = [key for key in keys if key.startswith(b"image-")]
            if samples is not None and samples.isdigit() and len(samples) < 19:
                self._require_all("num-samples", keys, (b"image-%09d" % i for i in range(1, int(samples) + 1)))
            return keys
        if all(key.isdigit() for key in keys):
            keys.sort(key=int)
            # Many copies of the script count one too many. Lists in a form that is not read say nothing.
            named, length = _unpickled(listed), _unpickled(length)
            if _are_keys(named):
                self._require_all("__keys__", keys, _as_bytes(named[:-1]))
            if isinstance(length, int) and len(keys) < length - 1:
                width = len(keys[0])
                self._require_all("__len__", keys, (b"%0*d" % (width, i) for i in count(int(keys[0]))))
            return keys
        if listed is None:
            return keys
        named = parse_pickle(listed, f"{self.path}#__keys__")
        if not _are_keys(named):
            raise DataError(f"{self.path}#__keys__: expected a list of keys, got a {type(named).__name__}.")
        named = _as_bytes(named)
        if set(named) != set(keys) or len(named) != len(keys):
            raise DataError(f"{self.path}: __keys__ names {len(named)} records, but there are {len(keys)}, or others.")
        return named

    def _require_all(self, source: str, keys: list[bytes], expected: Iterable[bytes]) -> None:
        there = set(keys)
        missing = next((key for key in expected if key not in there), None)
        if missing is not None:
            raise DataError(
                f"{self._said(missing)} is not there, though {source} counts it: the database was not written to its "
                "end, or has lost records. Write it again."
            )

    def _get(self, key: bytes) -> bytes:
        with self._begin() as reading:
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

    def _record(self, key: bytes) -> tuple[bytes, int | str, str | None]:
        """Image file, label, and the image's name if the record has one."""
        readers: dict[str, Callable[[bytes, bytes], tuple[bytes, Any, Any]]] = {
            "pickle": self._pickled,
            "datum": self._datum,
            "parts": self._parts,
        }
        image, who, own = readers[self._layout](key, self._get(key))
        if isinstance(who, np.integer):
            who = int(who)
        if isinstance(who, bytes):
            who = who.decode("utf-8", "surrogateescape")
        if isinstance(who, str):
            who = number_or_name(who)
        if isinstance(who, bool) or not isinstance(who, int | str) or who == "":
            raise DataError(f"{self._said(key)}: expected a number or name as label, got {shown(who, 80)}.")
        return image, who, own if isinstance(own, str) else None

    def _pickled(self, key: bytes, value: bytes) -> tuple[bytes, Any, Any]:
        quick = _plain_pickle(value)
        if quick is not None:
            return quick
        found = parse_pickle(value, self._said(key))
        if not isinstance(found, list | tuple) or len(found) < 2:
            raise DataError(f"{self._said(key)}: expected a pickle of (image, label), got a {type(found).__name__}.")
        return image_file(found[0], self._said(key)), found[1], found[2] if len(found) > 2 else None

    def _parts(self, key: bytes, value: bytes) -> tuple[bytes, Any, Any]:
        return value, self._get(key.replace(b"image-", b"label-", 1)), None

    def _datum(self, key: bytes, value: bytes) -> tuple[bytes, Any, Any]:
        fields = _protobuf(value, self._said(key))
        image = fields.get(4)
        if not isinstance(image, bytes) or not image.startswith(_STARTS):
            raise DataError(f"{self._said(key)}: a Datum without an encoded image; raw pixels are not read.")
        return image, fields.get(5, 0), None

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self._cached:  # the worker maps the arrays
            for name in ("_all", "_ends", "_sizes", "labels"):
                del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if _state(self.path) != self._key:
            raise DataError(f"{self.path} has changed since it was opened. Start anew.")
        if "labels" not in state:
            self._take(load_index("lmdb", self._key, check=False) or self._build())


def _plain_pickle(value: bytes) -> tuple[bytes, int, str | None] | None:
    """What a pickle of (bytes, int) or (bytes, int, str) holds, if it is as Python 3 writes it; otherwise None.

    Saves most of the time of :func:`parse_pickle`, for every image.
    """
    if value[:3] != b"\x80\x04\x95" or len(value) < 16:
        return None
    kind = value[11]  # after the frame's length: BINBYTES or SHORT_BINBYTES
    begin, length = (16, int.from_bytes(value[12:16], "little")) if kind == ord("B") else (13, value[12])
    if kind not in b"BC":
        return None
    rest = _PICKLE_END.fullmatch(value, begin + length)
    if rest is None or (rest[3] is not None and rest[2][0] != len(rest[3])):
        return None
    try:
        own = None if rest[3] is None else rest[3].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    number = rest[1]  # K and M hold no sign, J does
    return value[begin : begin + length], int.from_bytes(number[1:], "little", signed=number[:1] == b"J"), own


def _are_keys(found: Any) -> bool:
    return isinstance(found, list | tuple) and all(isinstance(key, bytes | str) for key in found)


def _as_bytes(keys: Sequence[bytes | str]) -> list[bytes]:
    return [key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key for key in keys]


def _unpickled(value: bytes | None) -> Any:
    """What a pickle holds; None if there is none, or in a form that is not read."""
    if value is None:
        return None
    with suppress(DataError):
        return parse_pickle(value, "")
    return None


def _file(path: str) -> Path:
    return Path(path) / "data.mdb" if Path(path).is_dir() else Path(path)


def _state(path: str) -> str:
    """The key of the database as it is now."""
    return index_key([_file(path)], "lmdb", _VERSION)


@contextmanager
def _reading(path: str, real: str, state: str) -> Iterator[Any]:
    """A look into the database."""
    opened = _environment(path, real, state)
    import lmdb

    try:
        with opened.begin(buffers=False) as reading:
            yield reading
    except lmdb.Error as error:
        raise DataError(f"{path} is broken: {error}. Fetch it or write it again.") from error


def _environment(path: str, real: str, state: str) -> Any:
    """The database, opened once in each process."""
    if real in _open:
        process, known, opened = _open[real]
        if process == os.getpid() and known == state:
            return opened
        if _state(path) != state:
            raise DataError(f"{path} has changed since it was opened. Start anew.")
        opened.close()  # of the parent, or of what was here before
        del _open[real]
    try:
        import lmdb  # an extra: a plain install has none
    except ImportError as error:
        raise ConfigError("LMDB needs lmdb: pip install 'unpg[interop]'.") from error
    file = _file(path)
    if load_index("lmdb", state, check=False) is None:  # what is in the cache was made after the pages were checked
        check_lmdb_pages(file)
    try:
        opened = lmdb.open(
            real, subdir=Path(path).is_dir(), readonly=True, create=False, lock=False, readahead=False, meminit=False
        )
    except (OSError, MemoryError, lmdb.Error) as error:
        raise DataError(f"{path} cannot be opened as LMDB: {error}.") from error
    try:
        require_pages(opened, file)
    except DataError:
        opened.close()
        raise
    _open[real] = os.getpid(), state, opened
    return opened


def require_pages(opened: Any, file: Path) -> None:
    """Raise unless ``file`` has all pages that the database ``opened`` counts; to touch one beyond ends the process.

    Raises:
        DataError: It is cut off. Names the byte.
    """
    size, needed = file.stat().st_size, (opened.info()["last_pgno"] + 1) * opened.stat()["psize"]
    if size < needed:
        raise DataError(f"{file} is cut off at byte {size}: its pages end at byte {needed}. Fetch it again.")


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
