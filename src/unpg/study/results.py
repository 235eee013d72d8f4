"""Results of a study: one JSON line for each finished run, by digest; replicates beside them.

``results/<study>.jsonl`` holds all that tables and figures need but the paired intervals, which come from the
replicates of each final run in ``results/<study>/<digest>.npz``: the figures of every draw of the bootstrap, 4 bytes
each. Draws are a function of their seed, so the replicates of two runs can be subtracted, and the scores behind them
(20 MB for all pairs of LFW) need not be kept.

What a study asks for may be there already, in another study's file beside its own: the same digest is the same run.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unpg.array_file import read_arrays
from unpg.errors import ConfigError, DataError, shown
from unpg.evaluate import Replicates
from unpg.folder_lock import alone_in
from unpg.json_file import parse_json
from unpg.train.log import finite

__all__ = ["Results", "results_path"]

_AGAIN = "Delete the line, and the run is made again."
_BOTH = "Delete it, and its line, and the run is made again."
_WORDS = {str: "a text", int: "a whole number", dict: "an object"}


def results_path(study_file: Path, name: str) -> Path:
    """Where the results of a study lie: ``results/<name>.jsonl`` beside its file."""
    return study_file.parent / "results" / f"{name}.jsonl"


class Results:
    """The lines of a study's file, by the digest of the run, and those of the other ``.jsonl`` files beside it.

    Args:
        path: ``.jsonl``; need not exist.

    Attributes:
        lines: Of this file alone.

    Raises:
        ConfigError: The path has another ending.
        DataError: A line is no result.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix != ".jsonl":  # replicates lie in the folder of that name without it
            raise ConfigError(f"Results are kept in a file that ends in .jsonl; got {path}.")
        self.path = path
        self.lines = _lines(path)
        self._others: dict[str, tuple[Path, dict[str, Any]]] = {}
        for other in sorted(path.parent.glob("*.jsonl")):
            if other != path and _holds_results(other):
                self._others = {digest: (other, line) for digest, line in _lines(other).items()} | self._others

    def get(self, digest: str) -> dict[str, Any] | None:
        """The line of a run; None if it is not finished."""
        return self.lines.get(digest) or self._others.get(digest, (None, None))[1]

    def __getitem__(self, digest: str) -> dict[str, Any]:
        """The line of a finished run."""
        line = self.get(digest)
        if line is None:
            raise KeyError(digest)
        return line

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line, whole or not at all, whoever else adds lines to the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        plain = json.dumps(finite(dict(line)), allow_nan=False)
        with alone_in(self.path.parent):
            before = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
            if before and not before.endswith("\n"):  # an editor's
                before += "\n"
            partial = self.path.with_name(self.path.name + ".partial")
            partial.write_text(f"{before}{plain}\n", encoding="utf-8")
            partial.replace(self.path)
        self.lines[line["digest"]] = json.loads(plain)

    def replicates_path(self, digest: str) -> Path:
        """Where the replicates of a final run lie."""
        path = self._others[digest][0] if digest in self._others and digest not in self.lines else self.path
        return path.with_suffix("") / f"{digest}.npz"

    def replicates(self, digest: str, benchmark: str) -> Replicates | None:
        """The replicates of a final run on a benchmark; None if the file is absent or has none of it.

        Raises:
            DataError: The file is damaged, or does not belong to the line.
        """
        told = self[digest].get("intervals", {}).get(benchmark)
        path = self.replicates_path(digest)
        if told is None or not path.exists():
            return None
        values = read_arrays(path, "a file of replicates", _BOTH).get(benchmark)
        figures = tuple(told["figures"])
        scores = self[digest]["scores"].get(benchmark, {})
        if values is None or values.dtype != np.float32 or values.shape != (told["replicates"], len(figures)):
            what = None if values is None else f"{values.dtype} {values.shape}"
            raise DataError(
                f"{path} must hold float32 {(told['replicates'], len(figures))} of {benchmark}, as its line in "
                f"{path.parent}.jsonl says; it has {what}. {_BOTH}"
            )
        return Replicates(
            figures,
            tuple(scores.get(f) for f in figures),
            values.astype(np.float64),
            told["seed"],
            told["unit"],
            told["digest"],
        )


def _holds_results(path: Path) -> bool:
    """Whether any line looks like that of a run; a training log, say, ends in .jsonl too."""
    return any(b'"digest"' in line and b'"arm"' in line for line in path.read_bytes().splitlines())


def _lines(path: Path) -> dict[str, dict[str, Any]]:
    found = {}
    text = path.read_bytes() if path.exists() else b""
    for number, text_line in enumerate(text.splitlines(), start=1):
        where = f"{path}, line {number}"
        line = parse_json(text_line, where, _AGAIN)
        _check(line, where)
        found[line["digest"]] = line
    return found


def _check(line: Any, where: str) -> None:
    """Raise unless a line has what is asked of lines, in the types that are meant."""
    if not isinstance(line, dict):
        raise DataError(f"{where} must be a JSON object, got {shown(line)}. {_AGAIN}")
    for name, kind in {"digest": str, "arm": str, "seed": int, "diverged": str, "scores": dict}.items():
        if not isinstance(line.get(name), kind):
            raise DataError(f"{where}: {name} must be {_WORDS[kind]}, got {shown(line.get(name))}. {_AGAIN}")
    for name, figures in line["scores"].items():
        numbers = isinstance(figures, dict) and all(isinstance(x, int | float | None) for x in figures.values())
        if not numbers:
            raise DataError(f"{where}: scores.{name} must be numbers by name, got {shown(figures)}. {_AGAIN}")
    for name in ("intervals", "curves", "machine", "changes"):
        if not isinstance(line.get(name, {}), dict):
            raise DataError(f"{where}: {name} must be an object, got {shown(line[name])}. {_AGAIN}")
    for name, told in line.get("intervals", {}).items():
        wanted = {"figures": list, "replicates": int, "seed": int, "unit": str, "digest": str}
        if not isinstance(told, dict) or not all(isinstance(told.get(key), kind) for key, kind in wanted.items()):
            raise DataError(f"{where}: intervals.{name} must have {', '.join(wanted)}; got {shown(told)}. {_AGAIN}")
        if not all(isinstance(figure, str) for figure in told["figures"]):
            raise DataError(f"{where}: intervals.{name}.figures must be names, got {shown(told['figures'])}. {_AGAIN}")
