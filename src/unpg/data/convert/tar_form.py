"""WebDataset's tar shards: ``<key>.jpg`` beside ``<key>.cls`` with the label's number, and the names of the labels."""

import tarfile
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from unpg.data.convert.form import FORMS, Job
from unpg.data.convert.journal import JOURNAL, Journal, Stream
from unpg.data.names_file import NAMES_FILE, names_bytes
from unpg.errors import DataError, shown

__all__ = ["TarForm"]

_BLOCK = 512
_RECORD = 20 * _BLOCK  # archives end at a multiple of this
_SHARD_BYTES = 1 << 30  # a shard is closed when it has as many
_KINDS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


@FORMS.register("webdataset")
class TarForm:
    """``train-000000.tar`` and so on, with ``identities.json``."""

    def __init__(self, folder: Path, job: Job) -> None:
        self._job = job
        self._journal = Journal(folder, job.every)
        self.done = self._journal.done
        state = self._journal.state
        self._shard, self._inside = (state.get(name, 0) for name in ("shard", "inside"))
        if not all(isinstance(value, int) and 0 <= value <= self.done for value in (self._shard, self._inside)):
            raise DataError(
                f"{folder / JOURNAL}: of {self.done} images, it says to be in shard {shown(self._shard)} with "
                f"{shown(self._inside)} images. Remove {folder}, then start again."
            )
        self._stream = self._opened()

    @staticmethod
    def fits(inside: str) -> bool:
        """A sample's key ends at the first dot of the file's name."""
        path = PurePosixPath(inside)
        return path.name.count(".") == 1 and path.suffix.lower() in _KINDS

    @staticmethod
    def require(identities: list[str]) -> None:
        """Any name will do."""

    @staticmethod
    def order(labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """As they are."""
        return np.arange(len(labels), dtype=np.int64)

    def add(self, place: int, i: int, data: bytes) -> None:
        """Append a sample; begin another shard where this one is full."""
        if self._inside and (self._inside >= self._job.shard_images or self._stream.size >= _SHARD_BYTES):
            self._end()
            self._shard, self._inside = self._shard + 1, 0
            self._stream = self._opened()
        name = self._job.name(i, data)
        key = str(PurePosixPath(name).with_suffix(""))
        self._stream.write(_member(name, data) + _member(f"{key}.cls", b"%d" % self._job.image_set.labels[i]))
        self._inside += 1
        if self._journal.due(place + 1):
            self._mark(place + 1)

    def finish(self) -> list[tuple[str, str]]:
        """End the last shard, write the names; all files."""
        names = self._journal.stream(NAMES_FILE)
        if not names.size:
            self._end()
            names.write(names_bytes(self._job.identities))
            self._mark(len(self._job.image_set))
        return [(stream.digest(), name) for name, stream in self._journal.streams.items()]

    def close(self) -> None:
        """Close the files."""
        for stream in self._journal.streams.values():
            stream.close()

    def _opened(self) -> Stream:
        return self._journal.stream(f"train-{self._shard:06d}.tar")

    def _mark(self, done: int) -> None:
        self._journal.mark(done, {"shard": self._shard, "inside": self._inside})

    def _end(self) -> None:
        end = 2 * _BLOCK
        self._stream.write(bytes(end + -(self._stream.size + end) % _RECORD))
        self._stream.close()


def _member(name: str, data: bytes) -> bytes:
    """A file of an archive, with nothing in its head that differs from run to run."""
    head = tarfile.TarInfo(name)
    head.size = len(data)
    return head.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + data + bytes(-len(data) % _BLOCK)
