"""The paper's quantity in a report: S^p and S^n of every diagnosed set, as bars of quantiles and as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from unpg.report.figures import INK, Drawing, as_svg, legend_above, small_axes
from unpg.report.run import RunData
from unpg.report.table import Cell, Group, Table, number_cell, rate_cell

__all__ = ["quantile_bars", "sampling_table", "wdfs_table"]

_POSITIVE, _NEGATIVE = "#009E73", "#D55E00"
_SPANS = (("0.001", "0.999", 1.2), ("0.05", "0.95", 3.6), ("0.25", "0.75", 7.5))


def quantile_bars(runs: Sequence[RunData]) -> list[Drawing]:
    """One drawing for each set: quantiles of all positives and all negatives of each model above one another."""
    drawings = []
    of = _sets(runs)
    for name in dict.fromkeys(found["name"] for _, found in of):
        models = [(run.name, found["wdfs"]) for run, found in of if found["name"] == name]
        said = f"{name}: where similarities lie. The thin line holds the middle 99.8 % of a set, the thicker ones 90 % "
        said += "and 50 %, the tick is the median."
        said += " The ends that count leave out 0.1 % (robust). "
        said += "; ".join(f"{model}: overlap {w['overlap']:.3f}, {_gap(w['robust_gap'])}" for model, w in models) + "."
        labels = ["all positives Sᵖ", "all negatives Sⁿ"]
        with small_axes(labels, height=0.75 + 0.62 * len(models)) as (figure, axes):
            entries: list[Any] = []
            for row, (model, wdfs) in enumerate(reversed(models)):
                for place, key, color in ((0.42, "positives", _POSITIVE), (0.16, "negatives", _NEGATIVE)):
                    quantiles = wdfs[key]["quantiles"]
                    for low, high, width in _SPANS:
                        ends = [quantiles[low], quantiles[high]]
                        dashes: dict[str, Any] = {"solid_capstyle": "butt", "alpha": 1.0 if width < 3 else 0.75}
                        drawn = axes.plot(ends, [row + place] * 2, color=color, linewidth=width, **dashes)
                    axes.plot([quantiles["0.5"]], [row + place], marker="|", color=INK, markersize=9, linestyle="none")
                    entries += drawn if len(entries) < 2 else []
                axes.annotate(
                    model if len(model) <= 44 else f"{model[:30]}…{model[-12:]}",
                    (0, row + 0.92),
                    xycoords=("axes fraction", "data"),
                    va="top",
                    fontsize=8.5,
                    color=INK,
                )
                axes.annotate("Sᵖ", (1, row + 0.42), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
                axes.annotate("Sⁿ", (1, row + 0.16), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
            axes.set_ylim(0, len(models))
            axes.set(xlabel="cosine similarity")
            axes.yaxis.set_visible(False)
            axes.spines["left"].set_visible(False)
            legend_above(axes, entries, labels)
            drawings.append(Drawing(as_svg(figure, said), said))
    return drawings


def _gap(gap: float) -> str:
    return "inf Sᵖ − sup Sⁿ " + f"{gap:+.2f}".replace("-", "−")


def wdfs_table(runs: Sequence[RunData]) -> Table | None:
    """The ends inf S^p and sup S^n, their robust forms, overlap and violations; None if nobody diagnosed a run."""
    groups: list[Group] = []
    of = _sets(runs)
    for name in dict.fromkeys(found["name"] for _, found in of):
        rows = []
        for run, found in of:
            if found["name"] != name:
                continue
            w = found["wdfs"]
            cosines = [
                number_cell(w[key], ".3f")
                for key in (
                    "inf_positive",
                    "sup_negative",
                    "robust_inf_positive",
                    "robust_sup_negative",
                    "robust_gap",
                )
            ]
            cosines += [number_cell(w.get("relative_gap"), ".2f"), number_cell(w["overlap"], ".3f")]
            middle = [number_cell(w[key]["quantiles"]["0.5"], ".3f") for key in ("positives", "negatives")]
            shares = [rate_cell(w["violation"]), rate_cell(w["genuine_below"]["share"])]
            rows.append((Cell(run.name), *cosines, *middle, *shares, rate_cell(w["impostor_above"]["share"])))
        groups.append((name, _size([found for _, found in of if found["name"] == name]), tuple(rows)))
    if not groups:
        return None
    columns: tuple[str, ...] = ("Model", "inf Sᵖ", "sup Sⁿ", "robust inf Sᵖ", "robust sup Sⁿ", "robust gap")
    columns += (
        "relative gap",
        "overlap",
        "median Sᵖ",
        "median Sⁿ",
        "P(p ≤ n), %",
        "Sᵖ not above sup Sⁿ, %",
        "Sⁿ reaching inf Sᵖ, %",
    )
    note = (
        "Cosines. inf Sᵖ and sup Sⁿ belong to one pair each; the robust forms leave out 0.1 % of the pairs. The space "
        "is well-discriminative if the gap is above zero (arXiv 2203.11593). Relative: the robust gap over the "
        "distance of the means of Sᵖ and Sⁿ, which shrinks too when all similarities draw together."
    )
    return Table("Well-discriminative feature space", columns, tuple(groups), (note,))


def sampling_table(runs: Sequence[RunData]) -> Table | None:
    """What each way of sampling negatives sees of all of them; None if no run has samples."""
    groups: list[Group] = []
    for run, found in _sets(runs):
        rows = []
        for one in found["samples"]:
            distances = [number_cell(one[key], ".4f") for key in ("wasserstein", "kolmogorov_smirnov")]
            reach = number_cell(one["reach"], ".3f")
            tails = [rate_cell(one[key]) for key in ("tail_coverage", "tail_coverage_step")]
            dense, classes = number_cell(one["tail_density"], ".2f"), rate_cell(one["class_share"])
            filtered = one.get("filter") or {}
            cut = [rate_cell(filtered.get(key)) for key in ("precision", "recall")]
            rows.append((Cell(one["name"]), *distances, reach, *tails, dense, classes, *cut))
        if rows:
            groups.append((found["name"], run.name, tuple(rows)))
    if not groups:
        return None
    columns: tuple[str, ...] = (
        "Negatives seen",
        "W1",
        "KS",
        "reach",
        "tail in reach, %",
        "by one batch, %",
        "tail density",
    )
    columns += ("classes' share, %", "filter: precision, %", "filter: recall, %")
    if all(not cell.text for _, _, rows in groups for row in rows for cell in row[-2:]):  # without planted noise
        columns, groups = columns[:-2], [(a, b, tuple(row[:-2] for row in rows)) for a, b, rows in groups]
    note = (
        "Each sample against all negatives. W1: Wasserstein-1 distance, in cosine; KS: Kolmogorov-Smirnov distance; "
        "tail: the hardest 0.1 % of all negatives; tail density: how often the sample draws from it, 1 being right."
    )
    return Table("Sampled negatives and all negatives", columns, tuple(groups), (note,))


def _sets(runs: Sequence[RunData]) -> list[tuple[RunData, Mapping[str, Any]]]:
    return [(run, found) for run in runs if run.diagnosis is not None for found in run.diagnosis["sets"]]


def _size(found: Sequence[Mapping[str, Any]]) -> str:
    said = dict.fromkeys(
        f"{f['wdfs']['positives']['pairs']:,} positive and {f['wdfs']['negatives']['pairs']:,} negative pairs"
        for f in found
    )
    return "; ".join(said)
