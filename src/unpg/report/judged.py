"""What benchmarks found, as drawings: ROC, DET, score histograms, CMC."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.evaluate.curves import Roc
from unpg.evaluate.results import scores_path
from unpg.report.det import det
from unpg.report.figures import Curve, Drawing, Line, curve, lines
from unpg.report.recipes import looks
from unpg.report.run import RunData
from unpg.report.score_histograms import score_histograms, strip

__all__ = ["cmc_curves", "verification_curves"]

STRIPS = 8
"""Models in one drawing of histograms at most."""


def verification_curves(runs: Sequence[RunData]) -> list[Drawing]:
    """ROC, DET and score histograms of every benchmark over pairs whose scores or histograms are kept."""
    look = looks(runs)
    drawings = []
    for benchmark in dict.fromkeys(b for run in runs for b in run.results):
        held = {run.name: arrays for run in runs if (arrays := _arrays(run, benchmark)) and _of_pairs(arrays)}
        if not held:
            continue
        curves = [Curve(look[name].label, _roc(arrays), look[name].style) for name, arrays in held.items()]
        few = max(c.roc.impostor for c in curves)
        axis = f"The axis starts at one of {few:,} impostor pairs; in the shade fewer than thirty are accepted."
        drawings.append(
            curve(curves, f"{benchmark}: genuine pairs accepted (TAR) over impostor pairs accepted (FAR). {axis}")
        )
        trade_off = det(
            curves,
            f"{benchmark}: detection error trade-off, genuine pairs refused (FNMR) over impostor pairs accepted "
            "(FMR), on normal-deviate axes; lower is better. Lines start where one false match is expected, and are "
            "dashed where fewer than thirty errors of either kind are. The dotted line joins points of equal error.",
        )
        if trade_off is not None:
            drawings.append(trade_off)
        strips = [strip(name, arrays) for name, arrays in held.items()]
        for start in range(0, len(strips), STRIPS):
            said = f"{benchmark}: densities of genuine and impostor scores, each as high as its strip."
            drawings.append(score_histograms(strips[start : start + STRIPS], said))
    return drawings


def cmc_curves(runs: Sequence[RunData]) -> list[Drawing]:
    """Cumulative match characteristic of every identification benchmark."""
    look = looks(runs)
    drawings = []
    for benchmark in dict.fromkeys(b for run in runs for b in run.results):
        found = []
        galleries = 1
        for run in runs:
            arrays = _arrays(run, benchmark)
            if "cmc" in arrays and len(arrays["cmc"]):
                rates = np.asarray(arrays["cmc"], dtype=float)
                found.append(
                    Line(look[run.name].label, np.arange(1.0, len(rates) + 1), 100 * rates, look[run.name].style)
                )
                galleries = max(galleries, int(run.results[benchmark].get("galleries", 1)))
        if found:
            said = f"{benchmark}: cumulative match characteristic, mated searches whose mate is among the best (rank)"
            said += f", mean over {galleries} galleries." if galleries > 1 else "."
            drawings.append(lines(found, said, x="rank", y="identification rate (%)", log_x=True))
    return drawings


def _arrays(run: RunData, benchmark: str) -> Mapping[str, NDArray[Any]]:
    return run.scores.get(scores_path(Path(), benchmark).stem, {}) if benchmark in run.results else {}


def _of_pairs(arrays: Mapping[str, Any]) -> bool:
    return {"scores", "same"} <= arrays.keys() or {"genuine", "impostor", "edges"} <= arrays.keys()


def _roc(arrays: Mapping[str, Any]) -> Roc:
    if "scores" in arrays:
        return Roc.from_scores(arrays["scores"], arrays["same"])
    # A bin holds its lower edge: accepting from there on is an operating point of the exact curve.
    return Roc.from_counts(arrays["edges"][:-1], arrays["genuine"], arrays["impostor"])
