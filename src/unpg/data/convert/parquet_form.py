"""Parquet files of images, a part after the other. Needs the extra ``interop``."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.data.convert.form import FORMS, Job
from unpg.data.convert.journal import Journal
from unpg.data.names_file import is_utf8
from unpg.errors import ConfigError, DataError

__all__ = ["ParquetForm"]

_PART_BYTES = 1 << 28  # a part is written when its images have as many


@FORMS.register("parquet")
class ParquetForm:
    """``part-00000.parquet`` and so on: ``image`` (a structure of ``bytes`` and ``path``) and ``identity``."""

    def __init__(self, folder: Path, job: Job) -> None:
        try:
            import pyarrow  # type: ignore[import-untyped]  # an extra: a plain install has none
            import pyarrow.parquet  # type: ignore[import-untyped]
        except ImportError as error:
            raise ConfigError("Parquet needs pyarrow: pip install 'unpg[interop]'.") from error
        self._pyarrow: Any = pyarrow
        self._folder, self._job = folder, job
        self._journal = Journal(folder, job.every)
        self.done = self._journal.done
        self._part: int = len(self._journal.streams)
        self._rows: list[tuple[bytes, str, str]] = []
        self._bytes = 0

    @staticmethod
    def fits(inside: str) -> bool:
        """Texts are UTF-8."""
        return is_utf8(inside)

    @staticmethod
    def require(identities: list[str]) -> None:
        """Raise for a name that is no UTF-8."""
        for who in identities:
            if not is_utf8(who):
                raise DataError(
                    f"The identity {who!r:.100} is no UTF-8, which Parquet needs. Convert to recordio, lmdb or "
                    "webdataset."
                )

    @staticmethod
    def order(labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """As they are."""
        return np.arange(len(labels), dtype=np.int64)

    def add(self, place: int, i: int, data: bytes) -> None:
        """Add a row; write a part when there are enough."""
        who = self._job.identities[self._job.image_set.labels[i]]
        self._rows.append((data, self._job.naming.name(i, ""), who))
        self._bytes += len(data)
        if self._bytes >= _PART_BYTES or len(self._rows) == self._job.shard_images:
            self._write(place + 1)

    def finish(self) -> list[tuple[str, str]]:
        """Write the rest; all files."""
        if self._rows:
            self._write(len(self._job.image_set))
        return [(stream.digest(), name) for name, stream in self._journal.streams.items()]

    def close(self) -> None:
        """Nothing is open."""

    def _write(self, done: int) -> None:
        name = f"part-{self._part:05d}.parquet"
        pa = self._pyarrow
        images = [{"bytes": data, "path": path} for data, path, _ in self._rows]
        schema = pa.schema(
            [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("identity", pa.string())]
        )
        table = pa.table({"image": images, "identity": [who for *_, who in self._rows]}, schema=schema)
        part = self._folder / f"{name}.part"
        # Image files are compressed already.
        pa.parquet.write_table(table, part, compression="none", use_dictionary=["identity"])
        os.replace(part, self._folder / name)
        self._journal.add_whole(name)
        self._journal.mark(done)
        self._part, self._rows, self._bytes = self._part + 1, [], 0
