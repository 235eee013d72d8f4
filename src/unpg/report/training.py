"""What training did, as curves: loss, learning rate, evaluations, what the loss's denominator is made of."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.report.figures import Drawing, Line, lines
from unpg.report.recipes import Look, looks
from unpg.report.run import RunData
from unpg.report.table import heading

__all__ = ["training_curves"]

POINTS = 400
"""Points of a training curve at most; beyond, the mean of each stretch of steps is drawn."""


def training_curves(runs: Sequence[RunData]) -> list[Drawing]:
    """One drawing for each quantity that a run logged; runs of one recipe are drawn alike."""
    drawings: list[Drawing] = []
    look = looks(runs)

    def add(value: Callable[[Any], Any], caption: str, y: str, *, log: bool = False, from_zero: bool = True) -> None:
        found = [line for run in runs if (line := _series(run.steps, value, look[run.name])) is not None]
        if found:
            drawings.append(lines(found, caption, x="epoch", y=y, log_y=log, from_zero=from_zero))

    add(lambda e: e.get("loss"), "Training loss. Losses with other terms are not comparable in height.", "loss")
    add(lambda e: e.get("lr"), "Learning rate.", "learning rate")
    drawings += _evaluations(runs, look)
    drawings += _shares(runs)
    add(_kept_share, "Share of the batch's negative pairs that the filter keeps.", "negatives kept (%)")
    add(
        _statistic("cosine/pairwise"),
        "Mean cosine between embeddings of a batch. Near 0 they use the whole sphere; near 1 they have collapsed.",
        "mean pairwise cosine",
        from_zero=False,
    )
    return drawings


def _evaluations(runs: Sequence[RunData], look: Mapping[str, Look]) -> list[Drawing]:
    drawings = []
    for benchmark in dict.fromkeys(b for run in runs for e in run.evaluations for b in e.get("results", {})):
        events = [[e for e in run.evaluations if benchmark in e.get("results", {})] for run in runs]
        metrics = {m for of_run in events for e in of_run for m in e["results"][benchmark]}
        metric = next((m for m in ("accuracy", "tar@far=1e-3", "eer") if m in metrics), min(metrics, default=None))
        if metric is None:
            continue
        found = []
        for run, of_run in zip(runs, events, strict=True):
            line = _series(of_run, partial(_metric, benchmark=benchmark, metric=metric), look[run.name])
            if line is not None:
                found.append(line)
        if found:
            name = heading(metric)
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
            line = _series(run.steps, partial(_share, key=key), Look(style, label))
            if line is not None:
                found.append(line)
        if found:
            caption = (
                f"{run.name}: what the loss's denominator is made of. What has the larger share of the negatives has "
                "the larger share of their gradient."
            )
            drawings.append(lines(found, caption, x="epoch", y="share of the denominator (%)", from_zero=True))
    return drawings


def _series(events: Sequence[Any], value: Callable[[Any], Any], look: Look) -> Line | None:
    points = [(e.get("epoch", e.get("step")), value(e)) for e in events]
    kept = [(x, y) for x, y in points if x is not None and y is not None and np.isfinite(y)]
    if not kept:
        return None
    x, y = np.array(kept, dtype=float).T
    return Line(look.label, _thinned(x), _thinned(y), look.style)


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
