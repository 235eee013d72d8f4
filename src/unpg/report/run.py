"""What a report is made from: the files of a training run, or of a model judged without one."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from unpg.array_file import read_arrays
from unpg.config import parse_yaml
from unpg.errors import ConfigError, DataError, shown
from unpg.evaluate.diagnosis import load_diagnosis
from unpg.evaluate.results import load_results, names_path, scores_path
from unpg.json_file import parse_json, read_json_object
from unpg.report.checked import check_results

__all__ = ["SIMILARITY_SETS", "RunData", "as_text", "load_run"]

SIMILARITY_SETS = (
    "positives",
    "class_negatives",
    "batch_negatives",
    "batch_negatives_kept",
    "evaluation_genuine",
    "evaluation_impostor",
)
"""The histograms of ``similarities.json``; any may be absent or empty."""


@dataclass(frozen=True)
class RunData:
    """One model in a report.

    Attributes:
        name: What to call it.
        folder: Where it was read from, as given; empty if it was not.
        results: Benchmark -> figures, as ``Result.to_dict()`` gives them. At least ``metrics`` must be there.
        steps: The training steps logged: ``step``, ``epoch``, ``loss``, ``lr``, ``statistics`` ...
        evaluations: The evaluations during training: ``epoch``, ``results`` {benchmark: {metric: value}}.
        recipe: Runs with the same are one recipe with several training seeds; empty leaves that to the configuration.
        scores: Benchmark -> arrays that curves are drawn from (``scores``, ``same``, or ``genuine``,
            ``impostor``, ``edges`` ...), as ``Result.arrays()`` gives them.
        images: Benchmark -> what its images are called, for the ``pairs`` of its arrays to point into.
        similarities: ``similarities.json``: ``bins``, ``counts``, ``fences`` ...; None if the run has none.
        diagnosis: ``diagnosis.json``: ``sets`` ...; None if nobody diagnosed the run.
        config: The resolved configuration, YAML text; empty for a model without a run.
        summary: ``summary.json``, or what ``results.json`` says besides the results.
        faults: Number of images that could not be read; None where nobody counted.
        finished: The run wrote its summary. True for a model without a run.
    """

    name: str
    folder: str = ""
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[Mapping[str, Any]] = ()
    scores: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    images: Mapping[str, Sequence[str]] = field(default_factory=dict)
    similarities: Mapping[str, Any] | None = None
    diagnosis: Mapping[str, Any] | None = None
    config: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)
    faults: int | None = None
    finished: bool = True
    recipe: str = ""


def load_run(folder: str | os.PathLike[str], name: str | None = None) -> RunData:
    """Read a run folder, or a folder of results (``results.json`` and ``scores/``).

    Args:
        folder: Written by ``unpg train`` or ``unpg evaluate``.
        name: What to call the model; the folder's name if not given.

    Raises:
        DataError: The folder is missing, lacks the files of a run and of results, or a file is broken. Names the
            file, and the line where there are lines.
    """
    path = Path(folder)
    if not path.is_dir():
        raise DataError(f"{path} is no folder. Give a run folder, as `unpg train` writes it, or one of results.")
    trained = [(path / file).is_file() for file in ("config.yaml", "metrics.jsonl")]
    if not any(trained) and not (path / "results.json").is_file():
        raise DataError(
            f"{path} is neither a run nor a folder of results: it has no config.yaml and no metrics.jsonl "
            "(`unpg train` writes them) and no results.json (`unpg evaluate` writes it)."
        )
    if any(trained) and not all(trained):
        lacking = "metrics.jsonl" if trained[0] else "config.yaml"
        raise DataError(
            f"The run folder {path} lacks {lacking}. If training stopped before its first step, start it again; "
            "if files were moved, put them back."
        )
    events = list(_lines(path / "metrics.jsonl")) if all(trained) else []
    evaluations = [e for e in events if e.get("event") == "evaluation"]
    judged = load_results(path) if (path / "results.json").is_file() else {"results": _last(evaluations)}
    summary = _json(path / "summary.json") if (path / "summary.json").is_file() else {}
    extra = {key: value for key, value in judged.items() if key != "results"}
    faults = path / "faults.jsonl"
    similarities = path / "similarities.json"
    written = path / ("results.json" if (path / "results.json").is_file() else "metrics.jsonl")
    check_results(written, judged["results"])
    kinds = {scores_path(path, name).name: str(of.get("protocol", "pairs")) for name, of in judged["results"].items()}
    scores = sorted((path / "scores").glob("*.npz"))
    return RunData(
        name=as_text(name or str(extra.get("model") or path.resolve().name)),
        folder=str(path),
        results=judged["results"],
        steps=[e for e in events if e.get("event") == "step"],
        evaluations=evaluations,
        scores={npz.stem: _arrays(npz, kinds.get(npz.name, "")) for npz in scores},
        images={
            npz.stem: _text(names_path(npz), "surrogateescape").splitlines()
            for npz in scores
            if names_path(npz).is_file()
        },
        similarities=_similarities(similarities) if similarities.is_file() else None,
        diagnosis=load_diagnosis(path) if (path / "diagnosis.json").is_file() else None,
        config=_text(path / "config.yaml") if all(trained) else "",
        summary={**extra, **summary},
        faults=sum(1 for _ in _lines(faults)) if faults.is_file() else (0 if all(trained) else None),
        finished=bool(summary) or not any(trained),
    )


def as_text(name: str) -> str:
    """A name as it can be drawn: bytes of file names that are no text are escaped."""
    return name.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _text(path: Path, errors: str = "strict") -> str:
    try:
        return path.read_text(encoding="utf-8", errors=errors)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def settings(run: RunData) -> dict[str, Any]:
    """The configuration as flat settings: ``{"optim.lr": 0.1, ...}``; empty for a model without a run.

    Raises:
        DataError: The configuration is not YAML, or not a mapping.
    """
    if not run.config.strip():
        return {}
    try:
        tree = parse_yaml(run.config, f"config.yaml of {run.folder or run.name}")
    except ConfigError as error:
        raise DataError(str(error)) from None
    return dict(_flat(tree, ""))


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _last(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The newest figures of each benchmark, for a run that has no results.json."""
    found: dict[str, dict[str, Any]] = {}
    for event in evaluations:
        for benchmark, metrics in event.get("results", {}).items():
            kind = "pairs" if any(m.startswith("accuracy") for m in metrics) else "all-pairs"
            found[benchmark] = {"protocol": kind, "metrics": metrics}
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    advice = "If it is the last line, the writer was stopped in it: delete the line."
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            event = parse_json(line, f"{path}, line {number}", advice)
            if not isinstance(event, dict):
                raise DataError(f"{path}, line {number} is not a JSON object.")
            yield event


def _json(path: Path) -> dict[str, Any]:
    return read_json_object(path, "Write it again by ending the run with --resume.")


_NEEDED: Mapping[str, tuple[str, ...]] = {
    "pairs": ("scores", "same"),
    "all-pairs": ("genuine", "impostor", "edges"),
    "templates": ("genuine", "impostor", "edges"),
    "identification": ("cmc",),
}


def _arrays(path: Path, protocol: str) -> dict[str, NDArray[Any]]:
    found = read_arrays(path, "a file of scores", "Run `unpg evaluate` again.")
    lacking = [name for name in _NEEDED.get(protocol, ()) if name not in found]
    if lacking:
        raise DataError(
            f"{path} holds {', '.join(sorted(found)) or 'nothing'}; needed are {', '.join(_NEEDED[protocol])}. "
            "Run `unpg evaluate` again."
        )
    return found


def _similarities(path: Path) -> dict[str, Any]:
    found = _json(path)
    bins, counts = found.get("bins"), found.get("counts")
    if not isinstance(bins, list) or not isinstance(counts, dict):
        raise DataError(f'{path} needs "bins" (a list of edges) and "counts" (histograms by name).')
    for name, histogram in counts.items():
        if not isinstance(histogram, list):
            raise DataError(f"{path}: counts.{name} must be a list of numbers, got {shown(histogram)}.")
        if len(histogram) != len(bins) - 1:
            raise DataError(
                f"{path}: counts.{name} has {len(histogram)} entries for {len(bins)} edges; needed are {len(bins) - 1}."
            )
    return found
