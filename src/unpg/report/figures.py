"""Drawings of the report, as SVG text that scales with the page and needs nothing from outside.

All are small (fit for a phone). Lines are told apart by color, dashes and marker, so that each of the three is enough
for five of them. Colors: Okabe and Ito's set, which color-blind readers can tell apart.
"""

import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from unpg.evaluate.curves import RELIABLE_FALSE_ACCEPTS, Roc

__all__ = [
    "Curve",
    "Drawing",
    "Line",
    "as_svg",
    "curve",
    "legend_above",
    "line_style",
    "lines",
    "mismatch",
    "operating_points",
    "own_ids",
    "power",
    "similarity_histograms",
    "small_axes",
    "write_text",
]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (6, 1.6, 1.2, 1.6)), (0, (1.3, 1.3)), (0, (8, 2, 1.2, 2, 1.2, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "*", "h")  # more than colors: line 8 is not line 1
HATCHES = ("", "////", "....", "xxxx", "----", "\\\\\\\\", "++++")
INK, MUTED, GRID = "#222222", "#666666", "#e4e4e4"
WIDTH = 4.8  # inches; at 96 pixels each as wide as a phone, so that text of 9 points stays readable there

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unpg",
    "text.parse_math": False,  # names of runs may hold a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
}


@dataclass(frozen=True)
class Drawing:
    """A figure of the page: SVG text, and the caption that says what one sees."""

    svg: str
    caption: str


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a diagram: ``x`` and ``y`` (n,), drawn in style number ``style``."""

    label: str
    x: NDArray[np.floating[Any]]
    y: NDArray[np.floating[Any]]
    style: int = 0


def line_style(number: int) -> dict[str, Any]:
    """Color, dashes and marker of line ``number``: the same model looks the same in all figures."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        # Every line has its marks at other places, lest those of lines that coincide hide each other.
        "markevery": (0.02 + 0.03 * (number % 7), 0.22),
        "markersize": 4,
    }


def lines(
    data: Sequence[Line],
    caption: str,
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    from_zero: bool = False,
) -> Drawing:
    """Lines over a common axis, as training curves are. ``from_zero``: the axis of ``y`` starts at 0 at the latest."""
    with small_axes([line.label for line in data]) as (figure, axes):
        drawn = []
        for line in data:
            look = line_style(line.style)
            if len(line.x) <= 12:  # a few evaluations: show where they are
                look |= {"markevery": 1}
            drawn += axes.plot(line.x, line.y, **look)
        axes.set(xlabel=x, ylabel=y)
        if log_x:
            axes.set_xscale("log")
            ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= max(max(line.x) for line in data)]
            axes.xaxis.set_ticks(ticks, [str(t) for t in ticks])
            axes.xaxis.set_minor_formatter(NullFormatter())
        if log_y:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(power))
            axes.yaxis.set_minor_formatter(NullFormatter())
        elif from_zero:
            low, high = axes.get_ylim()
            # Autoscaling leaves no air above when the values hardly vary.
            axes.set_ylim(min(0.0, low), high + 0.03 * (high - min(0.0, low)))
        legend_above(axes, drawn, [line.label for line in data])
        return Drawing(as_svg(figure, caption), caption)


@dataclass(frozen=True, eq=False)
class Curve:
    """The operating points of a model, drawn in style number ``style``."""

    label: str
    roc: Roc
    style: int = 0


def curve(curves: Sequence[Curve], caption: str) -> Drawing:
    """TAR over FAR, FAR logarithmic."""
    labels = [c.label for c in curves]
    with small_axes(labels) as (figure, axes):
        drawn = []
        for c in curves:
            far, at = operating_points(c.roc)
            drawn += axes.plot(far, 100 * c.roc.tar[at], drawstyle="steps-post", **line_style(c.style))
        axes.set(xlabel="FAR", ylabel="TAR (%)")
        _far_axis(axes, [c.roc for c in curves])
        axes.set_ylim(-2, 102)
        legend_above(axes, drawn, labels)
        return Drawing(as_svg(figure, caption), caption)


HISTOGRAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "positives": ("positives S\u1d56", {"color": "#009E73", "linestyle": "-"}),
    "class_negatives": ("class negatives (CLPG)", {"color": "#0072B2", "linestyle": DASHES[2]}),
    "batch_negatives": ("batch negatives (MLPG)", {"color": "#E69F00", "linestyle": DASHES[1]}),
    "batch_negatives_kept": ("batch negatives, filtered", {"color": "#D55E00", "linestyle": "-"}),
    "evaluation_impostor": ("all impostor pairs", {"color": "#000000", "linestyle": DASHES[3], "linewidth": 1.9}),
    "evaluation_genuine": ("all genuine pairs", {"color": "#888888", "linestyle": DASHES[4]}),
}


def similarity_histograms(similarities: Mapping[str, Any], caption: str, *, log: bool) -> Drawing:
    """The paper's picture: densities of the similarities that the loss compares, and of those that count.

    ``similarities`` as in ``similarities.json``; empty histograms are left out. ``log``: logarithmic density,
    for the tails.
    """
    edges = np.asarray(similarities["bins"], dtype=float)
    found = {k: np.asarray(similarities["counts"].get(k, []), dtype=float) for k in HISTOGRAMS}
    found = {k: v for k, v in found.items() if v.sum() > 0}
    labels = [HISTOGRAMS[k][0] for k in found]
    with small_axes(labels) as (figure, axes):
        drawn: list[Line2D] = []
        for key, counts in found.items():
            density = counts / counts.sum() / np.diff(edges)
            look = HISTOGRAMS[key][1]
            shown = np.where(density > 0, density, np.nan) if log else density
            drawn += axes.plot((edges[1:] + edges[:-1]) / 2, shown, **look)
            if key in ("positives", "batch_negatives_kept") and not log:
                axes.fill_between((edges[1:] + edges[:-1]) / 2, density, color=look["color"], alpha=0.14, lw=0)
        fences = [f for f in similarities.get("fences") or () if f is not None and abs(f) < 1]
        for fence in fences:
            drawn_fence = axes.axvline(fence, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
        if fences:
            drawn.append(drawn_fence)
            labels.append("fences of the filter")
        axes.set(xlabel="cosine similarity", ylabel="density (log)" if log else "density")
        axes.set_xlim(*_span(edges, list(found.values()), fences))
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(power))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(bottom=0)
        legend_above(axes, drawn, labels)
        return Drawing(as_svg(figure, caption), caption)


def mismatch(diagnosed: Mapping[str, Any], caption: str) -> Drawing:
    """What samples of negatives show, beside all negatives and all positives: densities above, their logarithm below.

    ``diagnosed``: one of the sets of ``diagnosis.json``. Of the filtered samples the one that it says is drawn.
    """
    histograms = diagnosed["histograms"]
    edges = np.asarray(histograms["edges"], dtype=float)
    looks = _mismatch_looks(diagnosed)
    found = {label: np.asarray(counts, dtype=float) for label, (counts, _) in looks.items()}
    wdfs = diagnosed["wdfs"]
    inf, sup, hardest = (wdfs[k] for k in ("robust_inf_positive", "robust_sup_negative", "sup_negative"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 5.2 + 0.19 * legend_rows(list(found))), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.25))
        for axes in (above, below):
            axes.axvspan(sup, hardest, color="#eeeeee", linewidth=0, zorder=0)
            lines_here: list[Line2D] = []
            for label, counts in found.items():
                centers, density = _density(edges, counts)
                shown = np.where(density > 0, density, np.nan) if axes is below else density
                lines_here += axes.plot(centers, shown, **looks[label][1])
            axes.axvline(inf, color="#009E73", linewidth=0.9)
            axes.axvline(sup, color="#000000", linewidth=0.9)
        above.set(ylabel="density")
        above.set_ylim(bottom=0)
        below.set(xlabel="cosine similarity", ylabel="density (log)")
        below.set_yscale("log")
        below.yaxis.set_major_formatter(FuncFormatter(power))
        below.yaxis.set_minor_formatter(NullFormatter())
        below.set_xlim(*_span(edges, list(found.values()), [inf, sup]))
        _mark(above, inf, "inf S\u1d56", 0.97, inf > sup)
        _mark(above, sup, "sup S\u207f", 0.86, sup >= inf)
        legend_above(above, lines_here, list(found))
        return Drawing(as_svg(figure, caption), caption)


def _density(edges: NDArray[Any], counts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Centers and densities of bins, the wider the fewer pairs there are, lest a line be all noise."""
    wider = next((w for w, pairs in ((1, 3e5), (2, 7.5e4), (4, 2e4)) if counts.sum() >= pairs), 8)
    if len(counts) % wider:
        wider = 1
    merged, at = counts.reshape(-1, wider).sum(axis=1), edges[::wider]
    return (at[1:] + at[:-1]) / 2, merged / merged.sum() / np.diff(at)


def _mismatch_looks(diagnosed: Mapping[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Label -> (histogram, line), in the order of the legend; samples that the set lacks are left out."""
    histograms = diagnosed["histograms"]
    samples = histograms["samples"]
    own = (diagnosed.get("sampling") or {}).get("drawn", "")
    filtered = next((name for name in (f"UNPG, {own}", f"MLPG, {own}") if name in samples), "")
    wanted = {
        "CLPG": ("class negatives (CLPG)", {"color": "#0072B2", "linestyle": DASHES[2]}),
        "MLPG": ("batch negatives (MLPG)", {"color": "#E69F00", "linestyle": DASHES[1]}),
        filtered: (filtered, {"color": "#D55E00", "linestyle": "-", "linewidth": 1.2}),
    }
    looks = {
        "all positives S\u1d56": (histograms["positives"], {"color": "#009E73", "linestyle": DASHES[4]}),
        "all negatives S\u207f": (
            histograms["negatives"],
            {"color": "#000000", "linestyle": DASHES[3], "linewidth": 2.1},
        ),
    }
    return looks | {label: (samples[name], look) for name, (label, look) in wanted.items() if name in samples}


def _mark(axes: Axes, x: float, text: str, height: float, right: bool) -> None:
    """Write beside a vertical line, on the side where the other one is not."""
    axes.annotate(
        text,
        (x, height),
        xycoords=("data", "axes fraction"),
        xytext=(3 if right else -3, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
        fontsize=8.5,
        color=INK,
    )


def _span(edges: NDArray[Any], histograms: list[NDArray[Any]], fences: list[float]) -> tuple[float, float]:
    """From the lowest to the highest bin that holds anything, with a little air."""
    held = np.flatnonzero(np.sum(histograms, axis=0)) if histograms else np.array([0, len(edges) - 2])
    low, high = min([edges[held[0]], *fences]), max([edges[held[-1] + 1], *fences])
    air = 0.03 * (high - low)
    return float(max(low - air, edges[0])), float(min(high + air, edges[-1]))


def operating_points(roc: Roc) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """FARs, evenly spaced on a logarithmic axis, and the operating point of the largest TAR at each."""
    far = np.unique(np.concatenate([np.geomspace(1 / roc.impostor, 1, 240), roc.fmr[-1:]]))
    return far, np.searchsorted(roc.fmr, far * (1 + 1e-12), side="right") - 1


def _far_axis(axes: Axes, rocs: Sequence[Roc]) -> None:
    resolved = min(1 / roc.impostor for roc in rocs)
    axes.set_xscale("log")
    axes.set_xlim(min(resolved, 0.1), 1)  # an axis needs a length, however few the pairs
    axes.xaxis.set_major_locator(LogLocator(10, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(power))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvspan(resolved, min(1.0, RELIABLE_FALSE_ACCEPTS * resolved), color="#f1f1f1", linewidth=0, zorder=0)


def power(value: float, _: object = None) -> str:
    """Powers of ten as 10 with a superscript, short numbers as they are."""
    if value <= 0:
        return "0"
    exponent = round(np.log10(value))
    if not np.isclose(value, 10.0**exponent):
        return f"{value:g}"
    if -2 < exponent < 3:
        return f"{value:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@contextmanager
def small_axes(labels: Sequence[str], height: float = 2.9) -> Iterator[tuple[Figure, Axes]]:
    """A small figure with room for the legend above the drawing, so that it never hides a line."""
    rows = legend_rows(labels)
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Names may hold letters that matplotlib's font lacks; the browser has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height + 0.19 * rows), layout="constrained")
        yield figure, figure.add_subplot()


def legend_rows(labels: Sequence[str]) -> int:
    """Lines of text of the legend."""
    columns = 1 if any(len(label) > 26 for label in labels) else 2
    return -(-len(set(labels)) // columns)


def legend_above(axes: Axes, drawn: Sequence[Artist], labels: Sequence[str]) -> None:
    """A legend above the drawing; what has the same label, as seeds of a recipe have, shares an entry."""
    first = dict(zip(reversed(labels), reversed(drawn), strict=True))
    labels = list(dict.fromkeys(labels))
    drawn = [first[label] for label in labels]
    # A leading underscore would hide the entry, a very long name would squeeze the drawing.
    shown = [f"\u200b{_short(label)}" if label.startswith("_") else _short(label) for label in labels]
    axes.figure.legend(
        drawn,
        shown,
        loc="outside upper left",
        ncols=1 if any(len(label) > 26 for label in labels) else 2,
        handlelength=2.8,
        borderaxespad=0.2,
        columnspacing=1.4,
        labelspacing=0.35,
    )


def _short(label: str) -> str:
    return label if len(label) <= 44 else f"{label[:30]}…{label[-12:]}"


def as_svg(figure: Figure, label: str) -> str:
    """The figure as an SVG element that fits its column; ids are made its own, since all share one page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, count=1, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    # Hundredths of a point are finer than any screen. Attributes only: text may hold names of runs.
    text = re.sub(
        r' (?:d|x|y|x1|x2|y1|y2|transform|points)="[^"]*"',
        lambda found: re.sub(r"(\d\.\d\d)\d+", r"\1", found[0]),
        text,
    )
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def own_ids(svg: str, prefix: str) -> str:
    """``svg`` with all ids, and what refers to them, made the figure's own: many figures share one page."""
    ids = set(re.findall(r' id="([^"]+)"', svg))
    svg = re.sub(r' id="([^"]+)"', rf' id="{prefix}\1"', svg)
    return re.sub(r"(url\(#|href=\"#)([^)\"]+)", lambda f: f"{f[1]}{prefix if f[2] in ids else ''}{f[2]}", svg)


def write_text(path: Path, text: str) -> None:
    """Write a page, a figure or tables: UTF-8, in which bytes of file names that are no text are shown escaped."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
