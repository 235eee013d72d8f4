"""The detection error trade-off curve (ISO/IEC 19795-1): FNMR over FMR on normal-deviate axes.

Both axes are those of the probit function, so that normally distributed scores give straight lines. Where a rate
rests on less than one error it isn't drawn; where it rests on fewer than thirty the line is dashed.

Source: A. Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997, 1895-1898.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from unpg.evaluate.curves import RELIABLE_FALSE_ACCEPTS, Roc
from unpg.report.figures import MUTED, Curve, Drawing, as_svg, legend_above, line_style, operating_points, small_axes

__all__ = ["det", "det_points", "probit"]

TICKS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999, 0.9999)

HIGHEST_FMR = 0.5


def probit(rate: ArrayLike) -> NDArray[np.float64]:
    """The normal deviate of a rate in [0, 1]: where the standard normal distribution function has it."""
    deviate: NDArray[np.float64] = torch.special.ndtri(torch.as_tensor(np.asarray(rate, dtype=np.float64))).numpy()
    return deviate


def det_points(roc: Roc) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """FMR (k,) rising, FNMR (k,) and whether both rest on thirty errors or more (k,).

    Points start where one false match is expected, and end where no genuine pair is refused or all are.
    """
    fmr, at = operating_points(roc)
    misses = roc.genuine - roc.true_accepts[at]
    real = (fmr >= 1 / roc.impostor) & (fmr <= HIGHEST_FMR) & (misses >= 1) & (misses < roc.genuine)
    fmr, misses = fmr[real], misses[real]
    sure = (np.round(fmr * roc.impostor, 6) >= RELIABLE_FALSE_ACCEPTS) & (misses >= RELIABLE_FALSE_ACCEPTS)
    return fmr, misses / roc.genuine, sure


def det(curves: Sequence[Curve], caption: str) -> Drawing | None:
    """FNMR over FMR, both as normal deviates, ticks in per cent; None if no curve has a point to draw."""
    points = [(c, *det_points(c.roc)) for c in curves]
    bare = dict.fromkeys(c.label for c, fmr, *_ in points if not len(fmr))
    points = [found for found in points if len(found[1])]
    if not points:
        return None
    if bare:
        caption += f" Without a point that has errors of both kinds: {', '.join(bare)}."
    labels = [c.label for c, *_ in points]
    with small_axes(labels, height=3.6) as (figure, axes):
        entries = []
        for c, fmr, fnmr, sure in points:
            x, y = probit(fmr), probit(fnmr)
            look: dict[str, Any] = line_style(c.style) | {"linestyle": "-"}
            axes.plot(x, np.where(_with_neighbor(sure), y, np.nan), color=look["color"], linestyle="-")
            axes.plot(x, np.where(_with_neighbor(~sure), y, np.nan), color=look["color"], linestyle=(0, (4, 2)))
            every = max(len(x) // 5, 1)
            start = min((7 * c.style) % every + every // 3, len(x) - 1)
            marks = look | {"linestyle": "none", "markevery": 1}
            axes.plot(x[start::every], y[start::every], **marks)
            entries += axes.plot([], [], **(look | {"markevery": 1}))
        _rates(axes, [f for _, f, *_ in points], [f for _, _, f, _ in points])
        legend_above(axes, entries, labels)
        return Drawing(as_svg(figure, caption), caption)


def _with_neighbor(these: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """So that the solid and the dashed stretch meet."""
    both: NDArray[np.bool_] = these | np.append(False, these[:-1])
    return both


def _rates(axes: Axes, fmr: Sequence[NDArray[np.float64]], fnmr: Sequence[NDArray[np.float64]]) -> None:
    low, high = min(float(f.min()) for f in fmr), max(float(f.max()) for f in fmr)
    least, most = min(float(f.min()) for f in fnmr), max(float(f.max()) for f in fnmr)
    for axis, start, end in ((axes.xaxis, low, max(high, 0.5)), (axes.yaxis, least, max(most, 0.5))):
        air = 0.02 * (probit(end) - probit(start))
        span = float(probit(start) - air), float(probit(end) + air)
        held: list[float] = []
        closest = (0.1 if axis is axes.xaxis else 0.04) * (span[1] - span[0])  # labels are wide, but not high
        for tick in reversed(TICKS):
            inside = span[0] <= probit(tick) <= span[1]
            if inside and (not held or probit(held[-1]) - probit(tick) >= closest):
                held.append(tick)
        axis.set_ticks([float(probit(t)) for t in held], [f"{100 * t:.7g}" for t in held])
        (axes.set_xlim if axis is axes.xaxis else axes.set_ylim)(span)
    # Where this line meets a curve, both errors are equal.
    ends = np.array([max(axes.get_xlim()[0], axes.get_ylim()[0]), min(axes.get_xlim()[1], axes.get_ylim()[1])])
    if ends[0] < ends[1]:
        axes.plot(ends, ends, color=MUTED, linewidth=0.7, linestyle=(0, (1, 2)))
        axes.annotate("EER", (ends[1], ends[1]), xytext=(-3, 3), textcoords="offset points", ha="right", fontsize=8)
    axes.set(xlabel="FMR (%)", ylabel="FNMR (%)")
