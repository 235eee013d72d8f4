"""Results of a study: one JSON line for each finished run, by digest; replicates beside them.

``results/<study>.jsonl`` holds all that tables and figures need but the paired intervals, which come from the
replicates of each final run in ``results/<study>/<digest>.npz``: the figures of every draw of the bootstrap, 4 bytes
each. Draws are a function of their seed, so the replicates of two runs can be subtracted, and the scores behind them
(20 MB for all pairs of LFW) need not be kept.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unpg.errors import DataError
from unpg.evaluate import Replicates
from unpg.json_file import parse_json
from unpg.train.log import finite

__all__ = ["Results", "results_path"]


def results_path(study_file: Path, name: str) -> Path:
    """Where the results of a study lie: ``results/<name>.jsonl`` beside its file."""
    return study_file.parent / "results" / f"{name}.jsonl"


class Results:
    """The lines of a study's file, by the digest of the run.

    Args:
        path: ``.jsonl``; need not exist.

    Raises:
        DataError: A line is no result.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, dict[str, Any]] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for number, line in enumerate(text.splitlines(), start=1):
            where = f"{path}, line {number}"
            found = parse_json(line, where, "Delete the line, and the run is made again.")
            if not isinstance(found, dict) or not isinstance(found.get("digest"), str):
                raise DataError(f'{where} must be a JSON object with a text "digest". Delete it.')
            self.lines[found["digest"]] = found

    def get(self, digest: str) -> dict[str, Any] | None:
        """The line of a run; None if it is not finished."""
        return self.lines.get(digest)

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line, whole or not at all, whoever else adds lines to the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        plain = json.dumps(finite(dict(line)), allow_nan=False)
        with _alone(self.path.parent):
            before = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
            partial = self.path.with_name(self.path.name + ".partial")
            partial.write_text(f"{before}{plain}\n", encoding="utf-8")
            partial.replace(self.path)
        self.lines[line["digest"]] = json.loads(plain)

    def replicates_path(self, digest: str) -> Path:
        """Where the replicates of a final run lie."""
        return self.path.with_suffix("") / f"{digest}.npz"

    def replicates(self, digest: str, benchmark: str) -> Replicates | None:
        """The replicates of a final run on a benchmark; None if the file is absent or has none of it.

        Raises:
            DataError: The file is damaged, or does not belong to the line.
        """
        told = self.lines[digest]["intervals"].get(benchmark)
        path = self.replicates_path(digest)
        if told is None or not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values = arrays[benchmark].astype(np.float64)
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(f"{path} cannot be read: {error}. Delete it, and its line in {self.path}.") from error
        figures = tuple(told["figures"])
        if values.shape != (told["replicates"], len(figures)):
            raise DataError(f"{path} holds {values.shape}, its line in {self.path} tells of another number of draws.")
        scores = self.lines[digest]["scores"][benchmark]
        return Replicates(
            figures, tuple(scores[f] for f in figures), values, told["seed"], told["unit"], told["digest"]
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: a lock on the folder, which leaves no file behind and ends with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
