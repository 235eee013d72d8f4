"""Error-versus-discard curves (ISO/IEC 29794-1) in a report: does the length of an embedding know which pairs fail?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unpg.errors import DataError
from unpg.evaluate.curves import RELIABLE_FALSE_ACCEPTS, target_name
from unpg.evaluate.quality import DiscardCurve, error_versus_discard
from unpg.evaluate.results import scores_path
from unpg.report.figures import MUTED, Drawing, as_svg, legend_above, line_style, small_axes
from unpg.report.recipes import looks
from unpg.report.run import RunData
from unpg.report.table import Cell, Group, Table, number_cell, rate_cell

__all__ = ["discard_drawings", "discard_table"]

TARGETS = (1e-3, 1e-2, 1e-1)
"""FMRs of the threshold: the first at which thirty false matches are expected, else the last."""

UNTIL = 0.2
"""Share of discarded pairs up to which curves are drawn and areas taken."""


@dataclass(frozen=True, eq=False)
class _Found:
    benchmark: str
    run: str
    curve: DiscardCurve | None
    reason: str = ""


def discard_drawings(runs: Sequence[RunData]) -> list[Drawing]:
    """One for each benchmark of which qualities are kept: FNMR over the share discarded, and the ideal."""
    look = looks(runs)
    drawings = []
    found = _curves(runs)
    for benchmark in dict.fromkeys(one.benchmark for one in found):
        drawn = [(one.run, one.curve) for one in found if one.benchmark == benchmark and one.curve is not None]
        if not drawn:
            continue
        labels = [look[name].label for name, _ in drawn]
        rates = dict.fromkeys(target_name(curve.fmr) for _, curve in drawn)
        said = (
            f"{benchmark}: genuine pairs refused (FNMR) when the pairs of lowest quality are discarded, at the "
            f"threshold that has FMR ≤ {' or '.join(rates)} on all pairs. Quality: the length of the embedding, of a "
            "pair the smaller. A quality that knows the failures falls like the grey line below its curve, where "
            "failures are discarded first; one that knows nothing stays level."
        )
        with small_axes(labels) as (figure, axes):
            entries: list[Any] = []
            for name, curve in drawn:
                shown = curve.discarded <= UNTIL
                share = 100 * curve.discarded[shown]
                axes.plot(share, 100 * curve.ideal[shown], color=MUTED, linewidth=0.8, linestyle=(0, (1, 1.5)))
                entries += axes.plot(share, 100 * curve.fnmr[shown], **line_style(look[name].style))
            axes.set(xlabel="genuine pairs discarded (%)", ylabel="FNMR (%)")
            axes.set_xlim(0, 100 * UNTIL)
            axes.set_ylim(bottom=0)
            legend_above(axes, entries, labels)
            drawings.append(Drawing(as_svg(figure, said), said))
    return drawings


def discard_table(runs: Sequence[RunData]) -> Table | None:
    """FNMR after discarding nothing, 5, 10 and 20 %, and the area above the ideal; None without qualities."""
    groups: list[Group] = []
    notes: dict[str, None] = {}
    found = _curves(runs)
    for benchmark in dict.fromkeys(one.benchmark for one in found):
        rows = []
        for one in (o for o in found if o.benchmark == benchmark):
            if one.curve is None:
                notes[f"{benchmark}, {one.run}: {one.reason}"] = None
                continue
            curve = one.curve
            at = [float(curve.fnmr[np.searchsorted(curve.discarded, share)]) for share in _shares(curve)]
            fnmr = [rate_cell(rate) for rate in at] + [Cell("")] * (4 - len(at))
            area = number_cell(100 * curve.area_above_ideal(UNTIL), ".3f")
            rows.append((Cell(one.run), Cell(target_name(curve.fmr), value=curve.fmr), *fnmr, area))
        if rows:
            groups.append((benchmark, "", tuple(rows)))
    if not groups and not notes:
        return None
    said = (
        "At the first cut between two qualities that discards the share of genuine pairs in the heading or more.",
        f"Area: between the curve and the ideal, up to {100 * UNTIL:.0f} % discarded, in hundredths of FNMR × share; "
        "0 is perfect.",
    )
    columns = (
        "Model",
        "FMR of the threshold",
        *(f"FNMR, {100 * s:.0f} % discarded" for s in (0, 0.05, 0.1, 0.2)),
        "Area",
    )
    return Table("Error versus discard", columns, tuple(groups), (*(said if groups else ()), *notes))


def _shares(curve: DiscardCurve) -> list[float]:
    return [share for share in (0.0, 0.05, 0.1, 0.2) if curve.discarded[-1] >= share]


def _curves(runs: Sequence[RunData]) -> list[_Found]:
    found = []
    for benchmark in dict.fromkeys(b for run in runs for b in run.results):
        for run in runs:
            arrays = run.scores.get(scores_path(Path(), benchmark).stem, {})
            if benchmark in run.results and {"quality", "scores", "same"} <= arrays.keys():
                found.append(_curve(benchmark, run.name, arrays))
    return found


def _curve(benchmark: str, name: str, arrays: Any) -> _Found:
    impostors = int(np.count_nonzero(~arrays["same"]))
    target = next((t for t in TARGETS if t * impostors >= RELIABLE_FALSE_ACCEPTS), TARGETS[-1])
    try:
        curve = error_versus_discard(arrays["scores"], arrays["same"], arrays["quality"], fmr=target)
    except DataError as error:
        return _Found(benchmark, name, None, str(error))
    if np.count_nonzero(curve.discarded <= UNTIL) < 2:
        return _Found(
            benchmark, name, None, "its embeddings (nearly) all have one length, which tells pairs not apart."
        )
    return _Found(benchmark, name, curve)
