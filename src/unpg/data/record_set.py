"""A RecordIO file of labeled images as an image set, with an index that is built once.

Axes: n images.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.data.decode import decode, decode_sized, first_size
from unpg.data.folder import file_size
from unpg.data.index_cache import Index, index_key, load_index, save_index
from unpg.data.names_file import NAMES_FILE, names_for, read_names
from unpg.data.recordio import Record, RecordFile, read_index
from unpg.errors import DataError

__all__ = ["RecordSet"]

_VERSION = 3  # of what lies in the cache
_MOST = np.float32(2**63)  # labels are float32 in the file and int64 here
_NAMES = f".{NAMES_FILE}"


class RecordSet:
    """Images of a ``.rec`` file, in the order of their keys.

    Two layouts are known. insightface's: record 0 has flag 2, no image and two labels, the key of the first
    identity record and the one past the last; images are records 1 to the first identity record. Plain: every
    record is an image. The identity is a record's label, or the first of its label array; :meth:`record` has
    the others. A missing index is rebuilt by scanning: keys are then the records' ids if these differ, else
    places. A ``.lst`` file of the same name names the images, and the identities by their folders, unless a file
    ``<name>.identities.json`` names those: a JSON list, name k being that of label k.

    The first opening reads the head of each record; what it found is kept in the user's cache folder for as
    long as path, sizes and times of the files stay, and is mapped from there, by workers too.

    Args:
        path: The ``.rec`` file, or a folder with ``train.rec`` or a single ``.rec`` file.

    Attributes:
        labels: (n,) int64, numbered from 0 without gaps in rising order of the file's labels.
        identities: Name of each label: that in the names file, else the folder in the list, else the label itself.
        image_size: (height, width) of the first readable image; :meth:`read` refuses others.
        index: Where the index came from: ``"idx"`` or ``"scan"``.

    Raises:
        DataError: A file is missing, broken, cut off, or at odds with another.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = _record_file(Path(path))
        self._file = RecordFile(self.path)
        self._key = _cache_key(self.path)
        found = load_index("recordio", self._key, check=True)
        self._cached = found is not None
        if found is None:
            built = _build(self.path, self._file)
            found = save_index("recordio", self._key, built)
            self._cached = found is not None
            found = found or built
        self._take(found)
        self.image_size, self._like = first_size(len(self), self._decoded, self._described, self.path)

    def __len__(self) -> int:
        return len(self.labels)

    def content(self, i: int) -> bytes:
        """The image file of image ``i``, untouched. Raises as :meth:`read`."""
        return self.record(i).content

    def record(self, i: int) -> Record:
        """The whole record of image ``i``: all labels, ids and the image file.

        Raises:
            DataError: It is broken. Names the byte.
        """
        return self._file.record(int(self._rows[0, i]))

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read. Names the file, key and byte.
            SizeError: It is not of the size of the set's first image.
        """
        return decode_sized(self.content(i), self.image_size, lambda: self._described(i), self._like)

    def read_into(self, i: int, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Image ``i`` in ``out`` (h, w, 3), which is returned. Raises as :meth:`read`."""
        return decode_sized(self.content(i), self.image_size, lambda: self._described(i), self._like, out)

    def name(self, i: int) -> str:
        """The path of image ``i`` in the list, else ``<rec file>#<key>``."""
        own = self.own_path(i)
        return f"{self.path}#{self._rows[1, i]}" if own is None else own

    def own_path(self, i: int) -> str | None:
        """The path of image ``i`` in the list, if it is there."""
        if self._rows[3, i] < 0:
            return None
        with open(self.path.with_suffix(".lst"), "rb") as file:
            file.seek(int(self._rows[3, i]))
            return _list_line(file.readline())[2]

    def sources(self) -> Iterable[str]:
        """The files that the images come from."""
        return [str(self.path)]

    def digest(self) -> str:
        """From keys, byte offsets (and so sizes), labels and identity names, not from where the file lies."""
        sha = hashlib.sha256(json.dumps([file_size(os.fspath(self.path)), self.identities]).encode())
        sha.update(np.ascontiguousarray(self._rows[:3]).data)
        return sha.hexdigest()

    def _take(self, index: Index) -> None:
        self._rows: NDArray[np.int64] = index.arrays["rows"]
        self.labels: NDArray[np.int64] = self._rows[2]
        self.identities: list[str] = index.about["identities"]
        self.index: str = index.about["index"]

    def _decoded(self, i: int) -> NDArray[np.uint8]:
        return decode(self.content(i), name=self._described(i))

    def _described(self, i: int) -> str:
        return f"{self.path}, record {self._rows[1, i]} at byte {self._rows[0, i]}"

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self._cached:  # the worker maps the arrays, of which millions of records make hundreds of megabytes
            del state["_rows"], state["labels"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_rows" not in state:
            if _cache_key(self.path) != self._key:
                raise DataError(f"{self.path} or its index has changed since it was opened. Start anew.")
            self._take(load_index("recordio", self._key, check=False) or _build(self.path, self._file))


def _record_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.rec"))
    if path / "train.rec" in found:
        return path / "train.rec"
    if len(found) != 1:
        raise DataError(f"{path} has {len(found)} .rec files and no train.rec among them. Name the file itself.")
    return found[0]


def _cache_key(path: Path) -> str:
    beside = (path.with_suffix(suffix) for suffix in (".idx", ".lst", _NAMES))
    return index_key([path, *beside], "recordio", _VERSION)


def _build(path: Path, file: RecordFile) -> Index:
    """Rows (4, n): offset in bytes, key, label, byte of the line in the list or -1; names, and where they are from."""
    index = path.with_suffix(".idx")
    if index.exists():
        keys, offsets = read_index(index)
        file.require_chain(offsets, str(index))
        heads = file.heads(offsets)
    else:
        offsets = file.scan()
        heads = file.heads(offsets)
        ids = heads.ids.astype(np.int64)
        keys = ids if len(np.unique(ids)) == len(ids) else np.arange(len(ids), dtype=np.int64)
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
        heads = heads._replace(
            flags=heads.flags[order], labels=heads.labels[order], ids=heads.ids[order], empty=heads.empty[order]
        )
    images = np.arange(len(keys))
    if len(keys) and keys[0] == 0 and heads.flags[0] == 2 and heads.empty[0]:
        images = _listed_images(path, file, keys, offsets, (heads.flags == 2) & heads.empty)
    if not len(images):
        raise DataError(f"{path} has no image records.")
    raw = heads.labels[images]
    wrong = np.flatnonzero(~((raw >= 0) & (raw < _MOST) & (raw == np.floor(raw))))
    if len(wrong):
        i = images[wrong[0]]
        raise DataError(
            f"{path}, byte {offsets[i]}: record {keys[i]} has the label {heads.labels[i]}; identities are whole "
            "numbers from 0 to 2**63 - 1."
        )
    numbers, labels = _without_gaps(raw.astype(np.int64))
    plain = [str(number) for number in numbers.tolist()]
    lines, identities = _from_list(path, keys[images], raw, labels, plain)
    names = read_names(path.with_suffix(_NAMES))
    if names is not None:
        identities = names_for(plain, names, str(path.with_suffix(_NAMES)))
    rows = np.stack([offsets[images], keys[images], labels, lines])
    return Index({"rows": rows}, {"identities": identities, "index": "idx" if index.exists() else "scan"})


def _without_gaps(raw: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct labels in rising order, and for each image (n,) the place of its own among them."""
    if raw.max() >= 4 * len(raw):
        numbers, labels = np.unique(raw, return_inverse=True)
        return numbers, labels.reshape(-1).astype(np.int64)
    # A table instead of sorting: a third of the time and memory for millions of images.
    there = np.zeros(int(raw.max()) + 1, dtype=np.bool_)
    there[raw] = True
    numbers = np.flatnonzero(there)
    place = np.cumsum(there, dtype=np.int64) - 1
    return numbers, place[raw]


def _listed_images(
    path: Path, file: RecordFile, keys: NDArray[np.int64], offsets: NDArray[np.int64], ranges: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Places of the image records in insightface's layout."""
    said = file.record(int(offsets[0])).labels[0]
    if not math.isfinite(said):
        raise DataError(f"{path}, byte {offsets[0]}: record 0 says that {said} is the first key without an image.")
    declared = int(said)
    after = np.flatnonzero(ranges[1:]) + 1
    first = int(keys[after[0]]) if len(after) else int(keys[-1]) + 1
    # float32 holds whole numbers up to 2**24; beyond, record 0 is off by some, but the records themselves are not.
    if abs(declared - first) > (0 if declared < 1 << 24 else int(np.spacing(np.float32(declared)))):
        raise DataError(
            f"{path}, byte {offsets[0]}: record 0 says that images are records 1 to {declared - 1}, but the first "
            f"record without an image has the key {first}. The file is cut off, or its index is of another file."
        )
    late = np.flatnonzero((keys >= first) & ~ranges)
    if len(late):
        raise DataError(
            f"{path}, byte {offsets[late[0]]}: record {keys[late[0]]} is an image, though the images end before record "
            f"{first}, the first of an identity. Write the file again, or remove what was added to it."
        )
    images = np.flatnonzero((keys >= 1) & (keys < first))
    if len(images) != first - 1:
        gap = int(np.flatnonzero(keys[images] != np.arange(1, len(images) + 1)).min(initial=len(images))) + 1
        raise DataError(
            f"{path}: record 0 says that images are records 1 to {first - 1}, but there is no record {gap}."
        )
    return images


def _list_line(line: bytes) -> tuple[int | None, float, str]:
    """(key or None, label, path) of a line of either grammar: mxnet's ``key, labels ..., path`` or insightface's
    ``aligned, path, label ...``.
    """
    cells = line.decode("utf-8", "surrogateescape").rstrip("\r\n").split("\t")
    if len(cells) < 3:
        raise ValueError("fewer than three cells")
    try:
        return int(cells[0]), float(cells[1]), cells[-1]
    except ValueError:
        int(cells[0])
        return None, float(cells[2]), cells[1]


def _from_list(
    path: Path, keys: NDArray[np.int64], raw: NDArray[np.float32], labels: NDArray[np.int64], names: list[str]
) -> tuple[NDArray[np.int64], list[str]]:
    """For each image, by rising keys, the byte of its line in the ``.lst`` or -1; and the names of the identities."""
    lines = np.full(len(keys), -1, dtype=np.int64)
    file = path.with_suffix(".lst")
    if not file.exists():
        return lines, names
    folders: dict[int, set[str]] = {}
    at = 0
    with open(file, "rb") as opened:
        for number, line in enumerate(opened, start=1):
            if line.strip():
                try:
                    key, label, image = _list_line(line)
                except ValueError as error:
                    raise DataError(
                        f"{file}, line {number}: expected '<key> <tab> <label> <tab> <path>', got {line[:80]!r}. "
                        "Correct or remove the list."
                    ) from error
                key = number if key is None else key
                # Sought, for a dictionary of all keys would take ten times the memory of what comes of it.
                i = int(keys.searchsorted(key)) if key.bit_length() < 64 else len(keys)
                if i < len(keys) and keys[i] == key:
                    if raw[i] != np.float32(label):
                        raise DataError(
                            f"{file}, line {number}: label {label:g}, but record {keys[i]} of {path} has {raw[i]:g}. "
                            "The list is of another file; correct or remove it."
                        )
                    lines[i] = at
                    folders.setdefault(int(labels[i]), set()).add(image.rpartition("/")[0].rpartition("/")[2])
            at += len(line)
    folder_of = {label: next(iter(found)) for label, found in folders.items() if len(found) == 1}
    unique = len(set(folder_of.values())) == len(names) == len(folder_of) and all(folder_of.values())
    return lines, [folder_of[label] for label in range(len(names))] if unique else names
