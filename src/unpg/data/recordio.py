"""RecordIO, the field's container (``.rec`` with ``.idx``), read and written without mxnet.

A file is a chain of parts: the magic word, a word with the length (29 bits) and the kind of part (3 bits), the
bytes, zeros up to a multiple of 4. A record is one part of kind 0, or parts 1, 2 ..., 3 that the magic word
joins (it is cut out where it stands at a multiple of 4, so that it never occurs within a part). An image record
begins with ``<IfQQ``: flag, label, id, id2; with flag > 0 that many float32 labels follow in the label's stead.
Then comes the image file. All numbers are little endian.
"""

import io
import mmap
import os
import re
import struct
from array import array
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpg.data.mapped import require_all_there
from unpg.errors import DataError

__all__ = ["Heads", "Record", "RecordFile", "RecordWriter", "frame", "pack", "read_index", "unpack"]

MAGIC = 0xCED7230A
MAX_PART = (1 << 29) - 1
"""Longest part, in bytes."""

_MAGIC_BYTES = struct.pack("<I", MAGIC)
_HEADER = struct.Struct("<IfQQ")
_PART = struct.Struct("<II")
# At most 18 digits, which int64 holds; possessive, for backtracking through millions of lines takes gigabytes.
_INDEX_LINES = re.compile(rb"(?:[0-9]{1,18}+\t[0-9]{1,18}+\r?+\n)*+(?:[0-9]{1,18}+\t[0-9]{1,18}+)?+")
_INDEX_BLOCK = 1 << 25  # bytes of an index read at once
_CHUNK = 1 << 18  # records whose heads are gathered at once: bounds the memory


class Record(NamedTuple):
    """An image record, taken apart."""

    labels: tuple[float, ...]
    """One label, or the label array."""
    id: int
    id2: int
    content: bytes
    """The image file, untouched."""
    flag: int
    """0, or the number of labels in the array."""


class Heads(NamedTuple):
    """The heads of n image records."""

    flags: NDArray[np.int64]
    """(n,) number of labels in the array, 0 for a single label."""
    labels: NDArray[np.float32]
    """(n,) the label, or the first of the array (0 if the array is cut off)."""
    ids: NDArray[np.uint64]
    """(n,)."""
    empty: NDArray[np.bool_]
    """(n,) True where no image follows."""


def pack(labels: float | Sequence[float], content: bytes, *, id: int = 0, id2: int = 0) -> bytes:
    """The bytes of an image record. A sequence of labels becomes a label array, even if it has one only.

    Raises:
        DataError: An empty label array; flag 0 would mean a single label.
    """
    if isinstance(labels, int | float):
        return _HEADER.pack(0, labels, id, id2) + content
    if not len(labels):
        raise DataError("A record's label array is empty; give one label or more.")
    return _HEADER.pack(len(labels), 0, id, id2) + struct.pack(f"<{len(labels)}f", *labels) + content


def unpack(payload: bytes, name: str) -> Record:
    """An image record from its bytes.

    Raises:
        DataError: It is shorter than its header says. Begins with ``name``.
    """
    if len(payload) < _HEADER.size:
        raise DataError(f"{name} has {len(payload)} bytes, fewer than the {_HEADER.size} of an image record's header.")
    flag, label, own, second = _HEADER.unpack_from(payload)
    begin = _HEADER.size + 4 * flag
    if len(payload) < begin:
        raise DataError(
            f"{name} announces {flag} labels, {begin} bytes with its header, but has {len(payload)}. "
            "It is broken, or not an image record."
        )
    labels = struct.unpack_from(f"<{flag}f", payload, _HEADER.size) if flag else (label,)
    return Record(labels, own, second, payload[begin:], flag)


class RecordFile:
    """A ``.rec`` file, mapped into memory. It can be sent to a worker, which maps it anew.

    Args:
        path: The file.

    Raises:
        DataError: It cannot be read, or is empty.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._said = str(path)
        self._map = self._mapped()

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return len(self._map)

    def payload(self, offset: int) -> bytes:
        """The bytes of the record that begins at byte ``offset``, its parts joined.

        Raises:
            DataError: No whole record begins there. Names the byte. Or the file has become shorter since it was opened.
        """
        require_all_there(self.path, self.size)
        parts, at = [], offset
        while True:
            kind, length = self._part(at, first=at == offset)
            parts.append(self._map[at + 8 : at + 8 + length])
            at += 8 + _padded(length)
            if kind in (0, 3):
                return parts[0] if kind == 0 else _MAGIC_BYTES.join(parts)

    def end(self, offset: int) -> int:
        """The byte after the record that begins at ``offset``, padding included. Raises as :meth:`payload`."""
        at = offset
        while True:
            kind, length = self._part(at, first=at == offset)
            at += 8 + _padded(length)
            if kind in (0, 3):
                return at

    def scan(self) -> NDArray[np.int64]:
        """(n,) where each record begins, by walking through the whole file.

        Raises:
            DataError: A record is broken or cut off. Names the byte.
        """
        offsets, at = array("q"), 0
        while at < self.size:
            offsets.append(at)
            at = self.end(at)
        return np.array(offsets, dtype=np.int64)

    def require_chain(self, offsets: NDArray[np.int64], source: str) -> None:
        """Raise unless the records at ``offsets`` (n,), in any order, are all records of the file.

        Raises:
            DataError: An offset at which no record begins, a record that no offset names, or one cut off.
        """
        ordered = offsets if (offsets[1:] >= offsets[:-1]).all() else np.sort(offsets)
        advice = f"{source} is not the index of this file, or is cut off. Delete it to have it rebuilt by scanning."
        at = 0
        for start in range(0, len(ordered), _CHUNK):
            chunk = ordered[start : start + _CHUNK]
            outside = chunk[(chunk < 0) | (chunk > self.size - 8)]
            if len(outside):
                raise DataError(f"{self.path} has {self.size} bytes, no record begins at byte {outside[0]}. {advice}")
            words = self._gather(chunk, 8).view("<u4")
            wrong = np.flatnonzero(words[:, 0] != MAGIC)
            if len(wrong):
                raise DataError(f"{self.path}, byte {chunk[wrong[0]]}: no record begins here. {advice}")
            ends = chunk + 8 + ((words[:, 1].astype(np.int64) & MAX_PART) + 3) // 4 * 4
            for i in np.flatnonzero(words[:, 1] >> 29 != 0):
                ends[i] = self.end(int(chunk[i]))
            gaps = np.flatnonzero(np.concatenate([[at], ends[:-1]]) != chunk)
            if len(gaps):
                gap = int(gaps[0])
                expected = at if gap == 0 else int(ends[gap - 1])
                self._part(expected, first=True)  # the fault may be the file's
                raise DataError(
                    f"{self.path}: after byte {expected} the next record named by the index is at byte {chunk[gap]}, "
                    f"so it names another one than the file has there. {advice}"
                )
            at = int(ends[-1])
        if at != self.size:
            if at < self.size:
                self.end(at)
            self._cut(int(ordered[-1]) if len(ordered) else 0, at)
            raise DataError(f"{self.path}, byte {at}: the index names no record from here on. {advice}")

    def heads(self, offsets: NDArray[np.int64]) -> Heads:
        """The heads of the image records at ``offsets`` (n,), which must be records of the file.

        Raises:
            DataError: A record is shorter than the header of an image record.
        """
        n = len(offsets)
        found = Heads(np.zeros(n, np.int64), np.zeros(n, np.float32), np.zeros(n, np.uint64), np.zeros(n, np.bool_))
        for start in range(0, n, _CHUNK):
            chunk = offsets[start : start + _CHUNK]
            place = slice(start, start + len(chunk))
            head = self._gather(chunk, 36)
            words = head.view("<u4")
            flags = words[:, 2].astype(np.int64)
            found.flags[place] = flags
            found.labels[place] = np.where(flags > 0, words[:, 8].view("<f4"), words[:, 3].view("<f4"))
            found.ids[place] = head[:, 16:24].copy().view("<u8")[:, 0]
            lengths = words[:, 1].astype(np.int64) & MAX_PART
            found.empty[place] = lengths <= 24 + 4 * flags
            # In parts, short or with a label array that is cut off: rare, and worth a closer look.
            for i in np.flatnonzero((words[:, 1] >> 29 != 0) | (lengths < 24 + 4 * flags)):
                record = self.record(int(chunk[i]))
                found.flags[start + i], found.labels[start + i] = record.flag, record.labels[0]
                found.ids[start + i], found.empty[start + i] = record.id, not record.content
        return found

    def record(self, offset: int) -> Record:
        """The image record that begins at byte ``offset``.

        Raises:
            DataError: There is none. Names the byte.
        """
        return unpack(self.payload(offset), f"{self._said}, byte {offset}: the record")

    def _gather(self, offsets: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
        """(n, width) the bytes from each offset on; zeros beyond the end of the file."""
        data = np.frombuffer(self._map, dtype=np.uint8)
        at = offsets[:, None] + np.arange(width)
        rows: NDArray[np.uint8] = data[np.minimum(at, self.size - 1)]
        rows[at >= self.size] = 0
        return rows

    def _part(self, at: int, *, first: bool) -> tuple[int, int]:
        """Kind and length of the part at byte ``at``."""
        if not 0 <= at <= self.size - 8:
            raise DataError(
                f"{self.path}, byte {at}: a record should begin or go on here, but the file ends at byte {self.size}. "
                "It is cut off; fetch it again."
            )
        magic, word = _PART.unpack_from(self._map, at)
        kind, length = word >> 29, word & MAX_PART
        if magic != MAGIC:
            raise DataError(
                f"{self.path}, byte {at}: expected the magic word {MAGIC:#x} of a RecordIO record, got {magic:#x}. "
                "The file is broken or of another format."
            )
        if kind not in ((0, 1) if first else (2, 3)):
            expected = "0 or 1 (the first of a record)" if first else "2 or 3 (a later one of a record)"
            raise DataError(f"{self.path}, byte {at}: a part of kind {kind}, expected {expected}. The file is broken.")
        self._cut(at, at + 8 + _padded(length))
        return kind, length

    def _cut(self, begin: int, end: int) -> None:
        if end > self.size:
            raise DataError(
                f"{self.path}, byte {begin}: the record goes on to byte {end}, but the file ends at byte {self.size}. "
                "It is cut off; fetch it again."
            )

    def _mapped(self) -> mmap.mmap:
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    raise DataError(f"{self.path} is empty (0 bytes). Fetch it again.")
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}.") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._said = str(self.path)
        self._map = self._mapped()
        if self.size != state["size"]:
            raise DataError(f"{self.path} had {state['size']} bytes when it was opened, now {self.size}. Start anew.")


class RecordWriter:
    """Writes a ``.rec`` file and its ``.idx``: lines ``<key> <tab> <offset>``.

    Both are written under other names (``.part`` at the end) and get their own when :meth:`close` or the end of
    a ``with`` block is reached without an error, so half a file never looks like a whole one.

    Args:
        path: The file to write, ending in ``.rec``; an older one is replaced.

    Raises:
        DataError: Another ending.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.suffix != ".rec":
            raise DataError(f"A RecordIO file ends in .rec, got {self.path}. The index beside it ends in .idx.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.index = self.path.with_suffix(".idx")
        self._parts = [file.with_name(file.name + ".part") for file in (self.path, self.index)]
        self._rec = io.BufferedWriter(io.FileIO(self._parts[0], "w"))
        self._idx = io.BufferedWriter(io.FileIO(self._parts[1], "w"))
        self._keys: set[int] = set()

    def write(self, key: int, payload: bytes) -> int:
        """Append a record; returns the byte at which it begins.

        Raises:
            DataError: A key for the second time, or a part of 512 MiB or more.
        """
        if key in self._keys:
            raise DataError(f"{self.path}: the key {key} is given twice; each record needs its own.")
        self._keys.add(key)
        begin = self._rec.tell()
        self._rec.write(frame(payload, f"{self.path}: record {key}"))
        self._idx.write(f"{key}\t{begin}\n".encode())
        return begin

    def close(self) -> None:
        """Finish both files and give them their names, the index last."""
        for file, part, final in zip((self._rec, self._idx), self._parts, (self.path, self.index), strict=True):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            if final == self.path:
                self.index.unlink(missing_ok=True)  # an older index must never stand beside the new file
            os.replace(part, final)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        for file, part in zip((self._rec, self._idx), self._parts, strict=True):
            file.close()
            part.unlink(missing_ok=True)


def read_index(path: str | PathLike[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys and offsets (bytes) of an ``.idx`` file, (n,) each, in the order of the keys.

    Raises:
        DataError: A line is not ``<key> <tab> <offset>`` (with its number), or a key is given twice.
    """
    found, line, rest = [np.zeros(0, dtype=np.int64)], 1, b""
    try:
        with open(path, "rb") as file:
            # Millions of lines in seconds: one parse of all numbers of a block, once its lines are known to be sound.
            while block := file.read(_INDEX_BLOCK):
                block = rest + block
                end = block.rfind(b"\n") + 1
                rest = block[end:]
                found.append(_index_numbers(path, block[:end], line))
                line += block.count(b"\n", 0, end)
                if len(rest) > max(_INDEX_BLOCK, 64):  # no line is so long
                    raise _blamed(path, rest, line)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    found.append(_index_numbers(path, rest, line))
    numbers = np.concatenate(found)
    del found
    keys, offsets = numbers[0::2], numbers[1::2]
    if (keys[1:] < keys[:-1]).any():
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        raise DataError(f"{path}: the key {keys[twice[0]]} is given twice. Delete the file to have it rebuilt.")
    return keys, offsets


def _index_numbers(path: str | PathLike[str], data: bytes, line: int) -> NDArray[np.int64]:
    """Keys and offsets in turn from whole lines, of which the first is line ``line`` of the file."""
    if not _INDEX_LINES.fullmatch(data):
        raise _blamed(path, data, line)
    return np.fromstring(data.decode("ascii"), dtype=np.int64, sep=" ")


def _blamed(path: str | PathLike[str], data: bytes, line: int) -> DataError:
    """The error that names the first line that is no index line."""
    number, text = next(
        (number, text)
        for number, text in enumerate(data.split(b"\n"), start=line)
        if not _INDEX_LINES.fullmatch(text + b"\n")
    )
    return DataError(
        f"{path}, line {number}: expected '<key> <tab> <byte offset>', got {text[:80]!r}. "
        "Delete the file to have it rebuilt by scanning."
    )


def frame(payload: bytes, name: str) -> bytes:
    """A record as it stands in the file: ``payload`` cut into parts, each with its head and padding.

    Raises:
        DataError: A part of 512 MiB or more. Begins with ``name``.
    """
    pieces = _split_at_magic(payload)
    framed = bytearray()
    for i, piece in enumerate(pieces):
        if len(piece) > MAX_PART:
            raise DataError(f"{name} has a part of {len(piece)} bytes, more than {MAX_PART}.")
        kind = 0 if len(pieces) == 1 else 1 if i == 0 else 3 if i == len(pieces) - 1 else 2
        framed += _PART.pack(MAGIC, kind << 29 | len(piece)) + piece + bytes(-len(piece) % 4)
    return bytes(framed)


def _split_at_magic(payload: bytes) -> list[bytes]:
    pieces, begin, at = [], 0, payload.find(_MAGIC_BYTES)
    while at >= 0:
        if at % 4 == 0:
            pieces.append(payload[begin:at])
            begin = at + 4
            at = payload.find(_MAGIC_BYTES, begin)
        else:
            at = payload.find(_MAGIC_BYTES, at + 1)
    return [*pieces, payload[begin:]]


def _padded(length: int) -> int:
    return (length + 3) // 4 * 4
