"""Files that only grow, and how far they are known to be whole: after a kill, writing goes on from there.

``journal.jsonl`` gets a line after the files were synced to disk: how many images are done, for each file that grew its
size and SHA-256, and a checksum of the line; one that is not as it was written ends the journal. On opening, the files
are read against these lines, cut back to the last one that all of them fulfil, and what came after is gone.
"""

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from unpg.errors import DataError

__all__ = ["JOURNAL", "Journal", "Stream"]

JOURNAL = "journal.jsonl"

_BLOCK = 1 << 20
_MARK_BYTES = 64 << 20  # bytes after which a mark is due


class Stream:
    """A file that only grows. Opened when it is written to."""

    def __init__(self, path: Path, size: int = 0, sha: Any = None) -> None:
        self.path, self.size = path, size
        self._sha = hashlib.sha256() if sha is None else sha
        self._file: BinaryIO | None = None
        self._marked = size

    @property
    def grown(self) -> int:
        """Bytes since the last mark."""
        return self.size - self._marked

    def write(self, data: bytes) -> int:
        """Append; returns the byte at which ``data`` begins."""
        if self._file is None:
            # Appended to, so that what another process writes makes it longer.
            self._file = open(self.path, "ab")  # noqa: SIM115  # closed by `close`
            self._file.truncate(self.size)
        self._file.write(data)
        self._sha.update(data)
        begin, self.size = self.size, self.size + len(data)
        return begin

    def digest(self) -> str:
        """SHA-256 of all that was written."""
        return str(self._sha.hexdigest())

    def sync(self) -> list[Any]:
        """Bring it to the disk; size and digest.

        Raises:
            DataError: It is not as long as what was written.
        """
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            there = os.fstat(self._file.fileno()).st_size
            if there != self.size:
                raise DataError(
                    f"{self.path} has {there:,} bytes, not the {self.size:,} written: another process writes to it. "
                    "Start again when it has ended."
                )
        elif self.grown:
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())
        self._marked = self.size
        return [self.size, self.digest()]

    def close(self) -> None:
        """Close the file; the digest stays."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Journal:
    """The streams of a folder.

    Args:
        folder: Where they lie.
        every: Images after which a mark is due, if 64 MiB have not been written before.

    Attributes:
        done: Images that the files hold for certain.
        state: What was noted with the last mark that holds.
        streams: The files that were begun before, by name, in order.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self._folder, self._every = folder, every
        self._path = folder / JOURNAL
        lines = self._lines()
        good, shas = self._verified(lines)
        self.done: int = good[-1]["done"] if good else 0
        self.state: dict[str, Any] = good[-1]["state"] if good else {}
        self.streams: dict[str, Stream] = {}
        for line in good:
            for name, (size, _) in line["files"].items():
                self.streams[name] = Stream(folder / name, size, shas[name, size])
        for name in {name for line in lines for name in line["files"]}:
            if name not in self.streams:
                (folder / name).unlink(missing_ok=True)
        for stream in self.streams.values():
            os.truncate(stream.path, stream.size)
        part = self._path.with_suffix(".part")
        part.write_bytes(b"".join(map(_written, good)))
        os.replace(part, self._path)
        self._last = self.done

    def stream(self, name: str) -> Stream:
        """The file called ``name``, as it was left or new."""
        return self.streams.setdefault(name, Stream(self._folder / name))

    def due(self, done: int) -> bool:
        """Whether it is time for a mark."""
        since = done - self._last
        # There may be thousands of streams, so they are not asked for each image.
        return since >= self._every or (since % 64 == 0 and sum(s.grown for s in self.streams.values()) >= _MARK_BYTES)

    def mark(self, done: int, state: dict[str, Any] | None = None) -> None:
        """Note that ``done`` images are in the files, after these were brought to the disk."""
        files = {name: stream.sync() for name, stream in self.streams.items() if stream.grown}
        with open(self._path, "ab") as file:
            file.write(_written({"done": done, "files": files, "state": state or {}}))
            file.flush()
            os.fsync(file.fileno())
        self._last = done

    def add_whole(self, name: str) -> None:
        """Take in a file that was written otherwise and is whole."""
        stream = Stream(self._folder / name)
        with open(stream.path, "rb") as file:
            os.fsync(file.fileno())
            while block := file.read(_BLOCK):
                stream._sha.update(block)
                stream.size += len(block)
        self.streams[name] = stream

    def _lines(self) -> list[dict[str, Any]]:
        """What the journal says, up to a line that a kill cut off or a disk has changed."""
        lines: list[dict[str, Any]] = []
        if self._path.exists():
            for text in self._path.read_bytes().split(b"\n")[:-1]:
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    break
                if not isinstance(line, dict) or line.pop("sum", None) != _sum(line) or not _is_ours(line):
                    break
                lines.append(line)
        return lines

    def _verified(self, lines: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[tuple[str, int], Any]]:
        """The lines that all files fulfil, and the running digest of each file at each of its marks."""
        good = len(lines)
        shas: dict[tuple[str, int], Any] = {}
        for name in {name: None for line in lines for name in line["files"]}:
            marks = [(number, *line["files"][name]) for number, line in enumerate(lines) if name in line["files"]]
            sha, at = hashlib.sha256(), 0
            try:
                with open(self._folder / name, "rb") as file:
                    for number, size, digest in marks:
                        while at < size and (block := file.read(min(_BLOCK, size - at))):
                            sha.update(block)
                            at += len(block)
                        if at != size or sha.hexdigest() != digest:
                            good = min(good, number)
                            break
                        shas[name, size] = sha.copy()
            except FileNotFoundError:
                good = min(good, marks[0][0])
        return lines[:good], shas


def _sum(line: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(line, sort_keys=True).encode())


def _written(line: dict[str, Any]) -> bytes:
    return json.dumps({**line, "sum": _sum(line)}).encode() + b"\n"


def _is_ours(line: dict[str, Any]) -> bool:
    """Whether a line can be followed: files are cut and removed by these names, so none may lead out of the folder."""
    done, files, state = line.get("done"), line.get("files"), line.get("state")
    if len(line) != 3 or not _is_count(done) or not isinstance(files, dict) or not isinstance(state, dict):
        return False
    return all(_is_plain(name) for name in files) and all(
        isinstance(mark, list) and len(mark) == 2 and _is_count(mark[0]) and isinstance(mark[1], str)
        for mark in files.values()
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not any(mark in name for mark in "/\\:\0")
