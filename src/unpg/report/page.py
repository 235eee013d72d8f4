"""The report's page: which tables and figures, in which order, with which captions."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from unpg.errors import DataError
from unpg.evaluate.curves import Roc
from unpg.evaluate.results import scores_path
from unpg.report.differences import difference_tables, run_differences
from unpg.report.figures import Drawing, Line, curve, det, lines, own_ids, similarity_histograms
from unpg.report.mismatch import mismatches
from unpg.report.run import SIMILARITY_SETS, RunData
from unpg.report.tables import differing_settings, result_tables, run_facts

__all__ = ["write_report"]

POINTS = 400
"""Points of a training curve at most; beyond, the mean of each stretch of steps is drawn."""


def write_report(
    out: str | os.PathLike[str],
    runs: Sequence[RunData],
    title: str = "Face embeddings, judged",
    *,
    figures: str | os.PathLike[str] | None = None,
) -> Path:
    """Write one HTML page about ``runs`` to ``out``; it needs no other file and no network.

    Args:
        out: The page.
        runs: What it is about.
        title: Of the page.
        figures: A folder in which every figure is also left as an SVG file, by its number on the page.

    Raises:
        DataError: There are no runs, two have one name, or none has anything to show.
    """
    names = [run.name for run in runs]
    if not runs:
        raise DataError("A report needs one run or more; give the run folders.")
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"Two models of the report are called {double!r}. Name them apart: --names on the command line, "
            f"load_run(folder, name=...) in Python."
        )
    bare = [
        run.name for run in runs if not run.results and not run.steps and not run.similarities and not run.diagnosis
    ]
    if len(bare) == len(runs):
        raise DataError(
            f"There is nothing to show for {', '.join(bare)}: no results, no logged steps. Let training log a step "
            "(see metrics.jsonl), or run `unpg evaluate`."
        )
    sections = {
        "curves": _curves(runs),
        "similarities": _similarities(runs),
        "training": _training(runs),
    }
    number = 0
    numbered: dict[str, list[tuple[int, Drawing]]] = {}
    for section, drawings in sections.items():
        numbered[section] = []
        for drawing in drawings:
            number += 1
            own = Drawing(own_ids(drawing.svg, f"f{number}-"), drawing.caption)
            numbered[section].append((number, own))
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template("page.html.j2").render(
        title=title,
        runs=runs,
        css=(here / "page.css").read_text(encoding="utf-8"),
        tables=result_tables(runs),
        differences=difference_tables(*run_differences(runs)),
        figures=numbered,
        differing=differing_settings(runs),
        facts=run_facts(runs),
        missing=[run.name for run in runs if run.steps and not run.similarities and not run.diagnosis],
    )
    if figures is not None:
        Path(figures).mkdir(parents=True, exist_ok=True)
        for n, drawing in (entry for section in numbered.values() for entry in section):
            (Path(figures) / f"figure-{n:02d}.svg").write_text(drawing.svg, encoding="utf-8")
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _curves(runs: Sequence[RunData]) -> list[Drawing]:
    drawings = []
    for benchmark in dict.fromkeys(b for run in runs for b in run.results):
        rocs = {}
        for style, run in enumerate(runs):
            arrays = run.scores.get(scores_path(Path(), benchmark).stem)
            if benchmark in run.results and arrays is not None:
                rocs[run.name] = (style, _roc(arrays))
        if not rocs:
            continue
        few = max(roc.impostor for _, roc in rocs.values())
        axis = f"The axis starts at one of {few:,} impostor pairs; in the shade fewer than thirty are accepted."
        drawings.append(
            curve(rocs, f"{benchmark}: genuine pairs accepted (TAR) over impostor pairs accepted (FAR). {axis}")
        )
        drawings.append(
            det(
                rocs,
                f"{benchmark}: genuine pairs refused (FNMR) over impostor pairs accepted (FMR); lower is better. "
                "Where a line ends on the right, no genuine pair is refused.",
            )
        )
    return drawings


def _roc(arrays: Any) -> Roc:
    if "scores" in arrays:
        return Roc.from_scores(arrays["scores"], arrays["same"])
    # A bin holds its lower edge: accepting from there on is an operating point of the exact curve.
    return Roc.from_counts(arrays["edges"][:-1], arrays["genuine"], arrays["impostor"])


def _similarities(runs: Sequence[RunData]) -> list[Drawing]:
    drawings = []
    for run in runs:
        if run.diagnosis is not None:  # shows the same from the whole set, and more
            drawings += mismatches(run.diagnosis, run.name)
            continue
        if run.similarities is None:
            continue
        counts = run.similarities["counts"]
        if not any(sum(counts.get(name, ())) for name in SIMILARITY_SETS):
            continue
        of = f" ({run.similarities['benchmark']})" if run.similarities.get("benchmark") else ""
        batches = run.similarities.get("batches")
        said = f"{run.name}: similarities that the loss compares"
        said += f" in {batches:,} training batches" if isinstance(batches, int) else ""
        said += f", and the pairs that the evaluation set{of} judges."
        offered = sum(counts.get("batch_negatives", ()))
        if run.similarities.get("unified", offered > 0):
            said += _kept(counts)
        else:
            said += " This loss takes no negatives from the batch"
            said += "; those drawn are what it leaves unused." if offered else "."
        drawings.append(similarity_histograms(run.similarities, said, log=False))
        tail = (
            f"{run.name}: the same on a logarithmic scale. The right end of the impostor curve makes the false "
            "accepts; see which negatives reach that far."
        )
        drawings.append(similarity_histograms(run.similarities, tail, log=True))
    return drawings


def _kept(counts: Any) -> str:
    offered, kept = (sum(counts.get(name, ())) for name in ("batch_negatives", "batch_negatives_kept"))
    return f" The filter keeps {100 * kept / offered:.1f} % of the batch negatives." if offered and kept else ""


def _training(runs: Sequence[RunData]) -> list[Drawing]:
    drawings: list[Drawing] = []

    def add(value: Callable[[Any], Any], caption: str, y: str, *, log: bool = False, from_zero: bool = True) -> None:
        found = [
            line for style, run in enumerate(runs) if (line := _series(run.steps, value, run.name, style)) is not None
        ]
        if found:
            drawings.append(lines(found, caption, x="epoch", y=y, log_y=log, from_zero=from_zero))

    add(lambda e: e.get("loss"), "Training loss. Losses with other terms are not comparable in height.", "loss")
    add(lambda e: e.get("lr"), "Learning rate.", "learning rate")
    drawings += _evaluations(runs)
    drawings += _shares(runs)
    add(_kept_share, "Share of the batch's negative pairs that the filter keeps.", "negatives kept (%)")
    add(
        _statistic("cosine/pairwise"),
        "Mean cosine between embeddings of a batch. Near 0 they use the whole sphere; near 1 they have collapsed.",
        "mean pairwise cosine",
        from_zero=False,
    )
    return drawings


def _evaluations(runs: Sequence[RunData]) -> list[Drawing]:
    drawings = []
    for benchmark in dict.fromkeys(b for run in runs for e in run.evaluations for b in e.get("results", {})):
        events = [[e for e in run.evaluations if benchmark in e.get("results", {})] for run in runs]
        metrics = {m for of_run in events for e in of_run for m in e["results"][benchmark]}
        metric = next((m for m in ("accuracy", "tar@far=1e-3", "eer") if m in metrics), min(metrics, default=None))
        if metric is None:
            continue
        found = []
        for style, (run, of_run) in enumerate(zip(runs, events, strict=True)):
            line = _series(of_run, partial(_metric, benchmark=benchmark, metric=metric), run.name, style)
            if line is not None:
                found.append(line)
        if found:
            name = metric.replace("tar@far=", "TAR at FAR ").replace("eer", "EER").replace("_", " ")
            caption = f"{benchmark}: {name} as training goes on."
            drawings.append(lines(found, caption, x="epoch", y=f"{name} (%)"))
    return drawings


def _shares(runs: Sequence[RunData]) -> list[Drawing]:
    drawings = []
    for run in runs:
        found = []
        for style, (key, label) in enumerate(
            (("share/target", "target"), ("share/classes", "other classes"), ("share/batch", "batch negatives"))
        ):
            line = _series(run.steps, partial(_share, key=key), label, style)
            if line is not None:
                found.append(line)
        if found:
            caption = (
                f"{run.name}: what the loss's denominator is made of. What has the larger share of the negatives has "
                "the larger share of their gradient."
            )
            drawings.append(lines(found, caption, x="epoch", y="share of the denominator (%)", from_zero=True))
    return drawings


def _series(events: Sequence[Any], value: Callable[[Any], Any], label: str, style: int) -> Line | None:
    points = [(e.get("epoch", e.get("step")), value(e)) for e in events]
    kept = [(x, y) for x, y in points if x is not None and y is not None and np.isfinite(y)]
    if not kept:
        return None
    x, y = np.array(kept, dtype=float).T
    return Line(label, _thinned(x), _thinned(y), style)


def _thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(values) <= POINTS:
        return values
    return np.array([part.mean() for part in np.array_split(values, POINTS)])


def _statistic(name: str) -> Callable[[Any], Any]:
    return lambda event: event.get("statistics", {}).get(name)


def _kept_share(event: Any) -> float | None:
    statistics = event.get("statistics", {})
    offered, kept = statistics.get("negatives/offered"), statistics.get("negatives/kept")
    return 100 * kept / offered if offered and kept is not None else None


def _metric(event: Any, benchmark: str, metric: str) -> float | None:
    return _percent(event["results"][benchmark].get(metric))


def _share(event: Any, key: str) -> float | None:
    return _percent(event.get("statistics", {}).get(key))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
