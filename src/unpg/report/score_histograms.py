"""Genuine and impostor scores of a benchmark: one strip for each model, above one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.report.figures import DASHES, INK, Drawing, as_svg, legend_above, small_axes

__all__ = ["Strip", "score_histograms", "strip"]

_BINS = 128
_GENUINE: dict[str, Any] = {"color": "#0072B2", "linestyle": "-", "linewidth": 1.3}
_IMPOSTOR: dict[str, Any] = {"color": "#D55E00", "linestyle": DASHES[1], "linewidth": 1.3}


@dataclass(frozen=True, eq=False)
class Strip:
    """The histograms of one model: ``edges`` (b + 1,), ``genuine`` (b,) and ``impostor`` (b,) pairs."""

    label: str
    edges: NDArray[np.float64]
    genuine: NDArray[np.float64]
    impostor: NDArray[np.float64]


def strip(label: str, arrays: Mapping[str, NDArray[Any]]) -> Strip:
    """From the arrays of a result: scores and answers, or counts of many bins, which are merged to about 128."""
    if "scores" in arrays:
        edges = np.linspace(-1.0, 1.0, _BINS + 1)
        scores, same = arrays["scores"], arrays["same"]
        genuine, impostor = (np.histogram(np.clip(scores[k], -1, 1), edges)[0] for k in (same, ~same))
        return Strip(label, edges, genuine.astype(float), impostor.astype(float))
    edges, counts = np.asarray(arrays["edges"], dtype=float), [arrays["genuine"], arrays["impostor"]]
    wider = max(len(counts[0]) // _BINS, 1)
    starts = np.arange(0, len(counts[0]), wider)
    merged = [np.add.reduceat(np.asarray(c, dtype=float), starts) for c in counts]
    return Strip(label, np.append(edges[starts], edges[-1]), merged[0], merged[1])


def score_histograms(strips: Sequence[Strip], caption: str) -> Drawing:
    """Densities over cosine similarity; those of a strip share a height, lest a narrow one flatten the other away."""
    labels = ["genuine", "impostor"]
    with small_axes(labels, height=0.75 + 0.62 * len(strips)) as (figure, axes):
        drawn: list[Any] = []
        for row, one in enumerate(reversed(strips)):
            lines = []
            for counts, look in ((one.genuine, _GENUINE), (one.impostor, _IMPOSTOR)):
                density = counts / max(counts.sum(), 1) / np.diff(one.edges)
                height = row + 0.78 * density / (density.max() or 1.0)
                x, y = np.repeat(one.edges, 2)[1:-1], np.repeat(height, 2)
                lines += axes.plot(x, y, **look)
                axes.fill_between(x, row, y, color=look["color"], alpha=0.12, lw=0)
            drawn = drawn or lines
            axes.axhline(row, color=INK, linewidth=0.5)
            axes.annotate(
                one.label if len(one.label) <= 30 else f"{one.label[:18]}…{one.label[-10:]}",
                (0, row + 0.92),
                xycoords=("axes fraction", "data"),
                va="top",
                fontsize=8.5,
                color=INK,
            )
        held = [e for s in strips for e in _span(s)]
        air = 0.03 * (max(held) - min(held))
        axes.set_xlim(max(min(held) - air, -1.02), min(max(held) + air, 1.02))
        axes.set_ylim(0, len(strips))
        axes.set(xlabel="cosine similarity")
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)
        legend_above(axes, drawn, labels)
        return Drawing(as_svg(figure, caption), caption)


def _span(one: Strip) -> tuple[float, float]:
    held = np.flatnonzero(one.genuine + one.impostor)
    return float(one.edges[held[0]]), float(one.edges[held[-1] + 1])
