"""LMDB: a pickle of (image file, label, name) per record under its number. Needs the extra ``interop``."""

import hashlib
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.data.content import content
from unpg.data.convert.form import FORMS, Job
from unpg.data.convert.journal import JOURNAL, Journal
from unpg.data.lmdb_pages import check_lmdb_pages
from unpg.data.lmdb_set import NAMES_KEY, require_pages
from unpg.data.names_file import names_bytes
from unpg.errors import ConfigError, DataError

__all__ = ["LmdbForm"]

_LISTS = 3  # records that are no images
_FIRST_MAP = 1 << 26  # bytes; doubled when the database is full


@FORMS.register("lmdb")
class LmdbForm:
    """``data.mdb`` with the keys ``000000000``, ...; ``__keys__`` and ``__len__`` as copies of ``folder2lmdb.py`` read.

    Transactions hold ``every`` images each, whatever happens, so the file is the same after a kill: lmdb falls back
    to the last whole one, which the journal's digest of all records then has to confirm.
    """

    def __init__(self, folder: Path, job: Job) -> None:
        try:
            import lmdb  # an extra: a plain install has none
        except ImportError as error:
            raise ConfigError("LMDB needs lmdb: pip install 'unpg[interop]'.") from error
        self._lmdb, self._folder, self._job = lmdb, folder, job
        self._journal = Journal(folder, job.every)
        self._waiting: list[tuple[bytes, bytes]] = []
        self._sha: Any = hashlib.sha256()
        self.done, self._ended = 0, False
        file = folder / "data.mdb"
        try:
            if file.exists():
                check_lmdb_pages(file, writing=True)  # lmdb believes all that a file says
                with self._opened() as database:
                    require_pages(database, file)
                    self.done, self._ended = self._verified(database)
        except (lmdb.Error, DataError):  # killed while the file was made, or cut off
            self.done = -1
        if self.done < 0 or (self._journal.done and not file.exists()):
            file.unlink(missing_ok=True)
            (folder / JOURNAL).unlink()
            self._journal, self._sha, self.done = Journal(folder, job.every), hashlib.sha256(), 0

    @staticmethod
    def fits(inside: str) -> bool:
        """Any name will do."""
        return True

    @staticmethod
    def require(identities: list[str]) -> None:
        """Any name will do."""

    @staticmethod
    def order(labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """As they are."""
        return np.arange(len(labels), dtype=np.int64)

    def add(self, place: int, i: int, data: bytes) -> None:
        """Add a record; commit when there are enough."""
        self._waiting.append(self._entry(place, i, data))
        if (place + 1) % self._job.every == 0:
            self._commit(place + 1)

    def finish(self) -> list[tuple[str, str]]:
        """Commit the rest and the lists; the one file."""
        n = len(self._job.image_set)
        if not self._ended:
            self._waiting += [
                (b"__keys__", pickle.dumps([_key(place) for place in range(n)], protocol=4)),
                (b"__len__", pickle.dumps(n, protocol=4)),
                (NAMES_KEY, names_bytes(self._job.identities)),
            ]
            self._commit(None)
        with open(self._folder / "data.mdb", "rb") as file:
            return [(hashlib.file_digest(file, "sha256").hexdigest(), "data.mdb")]

    def close(self) -> None:
        """Nothing is open."""

    def _opened(self, map_size: int = 0) -> Any:
        # Without a lock file: nobody else writes here.
        opened = self._lmdb.open(str(self._folder), map_size=max(map_size, _FIRST_MAP), lock=False)
        # The size of the map stands in the file. lmdb would take what is just enough; it must be as without a stop.
        size, needed = _FIRST_MAP, (opened.info()["last_pgno"] + 1) * opened.stat()["psize"]
        while size < max(needed, map_size):
            size *= 2
        opened.set_mapsize(size)
        return opened

    def _entry(self, place: int, i: int, data: bytes) -> tuple[bytes, bytes]:
        value = (data, int(self._job.image_set.labels[i]), self._job.naming.name(i, ""))
        return _key(place), pickle.dumps(value, protocol=4)

    def _commit(self, done: int | None) -> None:
        # Opened for each transaction: lmdb does not clear a page's memory that it uses again, so what stands between
        # the records would tell of the transactions before.
        size, written = 0, False
        while not written:
            with self._opened(size) as database:
                try:
                    with database.begin(write=True) as writing:
                        for key, value in self._waiting:
                            writing.put(key, value)
                    written = True
                except self._lmdb.MapFullError:
                    size = 2 * database.info()["map_size"]
                except self._lmdb.Error as error:
                    raise DataError(
                        f"{self._folder / 'data.mdb'} cannot be written on: {error}. Remove {self._folder}, then start "
                        "again."
                    ) from error
        for key, value in self._waiting:
            _update(self._sha, key, value)
        self._waiting = []
        if done is not None:
            self._journal.mark(done, {"sha256": self._sha.hexdigest()})

    def _verified(self, database: Any) -> tuple[int, bool]:
        """Images that are there for certain, -1 if something is not as it was written; and whether all is there."""
        n, every = len(self._job.image_set), self._job.every
        entries = database.stat()["entries"]
        with database.begin() as reading:
            ended = reading.get(NAMES_KEY) is not None
            found = entries - _LISTS if ended else entries
            if found != (n if ended else min(found, n) // every * every):
                return -1, False
            marked, digest = self._journal.done, self._journal.state.get("sha256")
            if found < marked:
                return -1, False
            for place, (key, value) in enumerate(islice(reading.cursor().iternext(), found)):
                if place == marked and marked and self._sha.hexdigest() != digest:
                    return -1, False
                # What was committed after the last line of the journal is compared with its source.
                if place >= marked and (key, value) != self._entry(place, place, content(self._job.image_set, place)):
                    return -1, False
                _update(self._sha, key, value)
            if found and found == marked and self._sha.hexdigest() != digest:
                return -1, False
        return found, ended


def _key(place: int) -> bytes:
    return b"%09d" % place


def _update(sha: Any, key: bytes, value: bytes) -> None:
    sha.update(b"%d %d " % (len(key), len(value)) + key + value)
