"""RecordIO in insightface's layout: record 0, the images grouped by identity, a record per identity."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unpg.data.convert.form import FORMS, Job
from unpg.data.convert.journal import Journal
from unpg.data.names_file import NAMES_FILE, names_bytes
from unpg.data.recordio import frame, pack
from unpg.errors import DataError

__all__ = ["RecordForm"]

_MOST_PEOPLE = 1 << 24  # labels are float32


@FORMS.register("recordio")
class RecordForm:
    """``train.rec``, ``train.idx``, ``train.lst`` with the images' names, ``train.identities.json``."""

    def __init__(self, folder: Path, job: Job) -> None:
        self._job = job
        self._journal = Journal(folder, job.every)
        self.done = self._journal.done
        names = ("train.rec", "train.idx", "train.lst", f"train.{NAMES_FILE}")
        self._rec, self._idx, self._lst, self._names = (self._journal.stream(name) for name in names)
        if self.done == 0:
            n = len(job.image_set)
            self._record(0, pack([n + 1, n + 1 + len(job.identities)], b""))

    @staticmethod
    def fits(inside: str) -> bool:
        """A list's cells hold no tabs or line ends; those are refused everywhere."""
        return True

    @staticmethod
    def require(identities: list[str]) -> None:
        """Raise where float32 does not tell all labels apart."""
        if len(identities) > _MOST_PEOPLE:
            raise DataError(f"RecordIO numbers {_MOST_PEOPLE:,} identities at most, the set has {len(identities):,}.")

    @staticmethod
    def order(labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """By identity, otherwise as they are."""
        return labels.argsort(kind="stable")

    def add(self, place: int, i: int, data: bytes) -> None:
        """Append a record, and its lines in index and list."""
        key, label = place + 1, int(self._job.image_set.labels[i])
        self._record(key, pack(label, data, id=key))
        name = self._job.naming.name(i, "")
        self._lst.write(f"{key}\t{label}\t{name}\n".encode("utf-8", "surrogateescape"))
        if self._journal.due(key):
            self._journal.mark(key)

    def finish(self) -> list[tuple[str, str]]:
        """Append the identities' records; all files."""
        n = len(self._job.image_set)
        if not self._names.size:  # else a run before this one came as far as here
            counts = np.bincount(self._job.image_set.labels, minlength=len(self._job.identities))
            ends = (np.cumsum(counts) + 1).tolist()
            for label, (end, count) in enumerate(zip(ends, counts.tolist(), strict=True)):
                self._record(n + 1 + label, pack([end - count, end], b"", id=n + 1 + label))
            self._names.write(names_bytes(self._job.identities))
            self._journal.mark(n)
        streams = (self._rec, self._idx, self._lst, self._names)
        return [(stream.digest(), stream.path.name) for stream in streams]

    def close(self) -> None:
        """Close the files."""
        for stream in self._journal.streams.values():
            stream.close()

    def _record(self, key: int, payload: bytes) -> None:
        begin = self._rec.write(frame(payload, f"{self._rec.path}: record {key}"))
        self._idx.write(f"{key}\t{begin}\n".encode())
