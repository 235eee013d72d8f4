"""Image files in folders: one per identity, or beside a table with commas."""

import csv
import hashlib
import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unpg.data.convert.form import FORMS, Job
from unpg.data.convert.naming import safe_folders
from unpg.data.names_file import NAMES_FILE, folder_names_bytes, is_utf8
from unpg.errors import DataError

__all__ = ["TABLE", "CsvForm", "FolderForm"]

TABLE = "labels.csv"


class _Files:
    """Image files below a folder; a file that is there and has the right bytes is left."""

    done = 0
    below = ""

    def __init__(self, folder: Path, job: Job) -> None:
        self._folder, self._job = folder, job
        self.written: list[tuple[str, str, int]] = []

    @staticmethod
    def fits(inside: str) -> bool:
        return True

    @staticmethod
    def require(identities: list[str]) -> None:
        """Raise for names that are too long for a folder."""
        safe_folders(identities)

    @staticmethod
    def order(labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.arange(len(labels), dtype=np.int64)

    def add(self, place: int, i: int, data: bytes) -> None:
        name = self.below + self._job.name(i, data)
        self._write(name, data)
        self.written.append((hashlib.sha256(data).hexdigest(), name, int(self._job.image_set.labels[i])))

    def _write(self, name: str, data: bytes) -> str:
        file = self._folder / name
        # What is there is compared: a kill may have left anything.
        if not file.exists() or file.stat().st_size != len(data) or file.read_bytes() != data:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = self._folder / ".part"  # no identity's folder begins with a dot
            part.write_bytes(data)
            os.replace(part, file)
        return hashlib.sha256(data).hexdigest()

    def finish(self) -> list[tuple[str, str]]:
        (self._folder / ".part").unlink(missing_ok=True)
        return [(digest, name) for digest, name, _ in self.written]

    def close(self) -> None:
        """Nothing is open."""


@FORMS.register("folder")
class FolderForm(_Files):
    """``<identity>/<image>``; ``identities.json`` names the identities whose folder cannot be called so."""

    def finish(self) -> list[tuple[str, str]]:
        """The image files, and the names file if there is need of one."""
        files = super().finish()
        pairs = zip(self._job.folders, self._job.identities, strict=True)
        there = {self._job.folders[label] for label in np.unique(self._job.image_set.labels)}
        renamed = {folder: who for folder, who in pairs if folder != who and folder in there}
        if renamed:
            files.append((self._write(NAMES_FILE, folder_names_bytes(renamed)), NAMES_FILE))
        return files


@FORMS.register("csv")
class CsvForm(_Files):
    """``labels.csv`` with the columns ``path`` and ``identity``, and the files under ``images``."""

    below = "images/"

    @staticmethod
    def fits(inside: str) -> bool:
        """Names that are no UTF-8 cannot stand in the table."""
        return is_utf8(inside)

    @staticmethod
    def require(identities: list[str]) -> None:
        """Raise for names that cannot stand in the table, or are too long for a folder."""
        _Files.require(identities)
        for who in identities:
            if not is_utf8(who) or not who.strip():
                raise DataError(
                    f"The identity {who!r:.100} cannot stand in a table: it is no UTF-8 or blank. Convert to recordio, "
                    "lmdb or webdataset."
                )

    def finish(self) -> list[tuple[str, str]]:
        """The image files and the table."""
        files = super().finish()
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        # A carriage return ends a line for readers, though the writer does not quote it.
        quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        table.writerow(["path", "identity"])
        for _, name, label in self.written:
            who = self._job.identities[label]
            (quoted if "\r" in who else table).writerow([name, who])
        files.append((self._write(TABLE, text.getvalue().encode("utf-8")), TABLE))
        return files
