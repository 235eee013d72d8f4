"""Groups of people in a report: their rates at one threshold as a table, as bars, and the ratios in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from unpg.report.figures import COLORS, HATCHES, INK, Drawing, as_svg, legend_above, small_axes
from unpg.report.run import RunData, as_text
from unpg.report.table import MARK, REFUSED, Cell, Group, Table, number_cell, rate_cell, small_rate_text, target_heading

__all__ = ["group_bars", "group_tables", "ratio_sentences"]

_RATES = {"fmr": ("FMR", "fmr_common"), "fnmr": ("FNMR", "fnmr_common")}
_MODELS = 4
"""Models side by side in a drawing at most; more make more drawings."""


def group_tables(runs: Sequence[RunData]) -> list[Table]:
    """One table; in it rows for each group of people, below one another for each benchmark and model."""
    found: list[Group] = []
    notes: dict[str, None] = {}
    targets: dict[float, None] = {}
    for benchmark, run, figures in _grouped(runs):
        targets[figures["target"]] = None
        at = figures["common_threshold"]
        said = f"{run.name}; common threshold " + (f"{at:.4f}" if at is not None else "at which no pair is accepted")
        said += f" ({figures['chosen']})" if figures.get("chosen") else ""
        said += f"; {figures['left_out']:,} pairs left out for missing images" if figures.get("left_out") else ""
        rows = [_row(name, rates, _intervals(figures)) for name, rates in figures["groups"].items()]
        rows.append(_ratios(figures["ratios"]))
        notes |= {f"{sentence}": None for sentence in ratio_sentences(benchmark, run.name, figures)}
        rule = figures.get("accuracy_rule", "folds")
        notes[f"{benchmark}: the accuracy is that of the {rule}."] = None
        notes |= {f"{benchmark}, {name}: {p['reason']}.": None for name, p in _own(figures).items() if p["reason"]}
        found.append((benchmark, said, tuple(rows)))
    if not found:
        return []
    own = target_heading("tar@far=", next(iter(targets))) if len(targets) == 1 else "TAR at the target FAR"
    columns: tuple[str, ...] = ("Group", "Genuine", "Impostor", "Accuracy", "EER", f"{own}, own threshold")
    columns += ("TAR, common threshold", "FMR, common threshold", "FNMR, common threshold")
    meaning = "Largest over smallest: of the accuracy the error rates are compared (skewed error ratio)."
    return [Table("Groups of people", columns, tuple(found), (meaning, *notes))]


def ratio_sentences(benchmark: str, model: str, figures: Mapping[str, Any]) -> list[str]:
    """The ratios of the error rates in words."""
    said = []
    for name, (short, key) in _RATES.items():
        what = "false matches" if name == "fmr" else "false non-matches"
        rates = {group: float(of[key]) for group, of in figures["groups"].items()}
        least, most = min(rates, key=lambda g: rates[g]), max(rates, key=lambda g: rates[g])
        ratio = figures["ratios"].get(name)
        if ratio is not None:
            said.append(
                f"{benchmark}, {model}: {what} are {ratio:.2f} times as frequent in {most} ({short} "
                f"{small_rate_text(rates[most])} %) as in {least} ({small_rate_text(rates[least])} %)."
            )
        elif rates[most] > 0:
            said.append(
                f"{benchmark}, {model}: {what} occur in {most} ({short} {small_rate_text(rates[most])} %) and not once "
                f"in {least}, so their ratio has no value."
            )
        else:
            said.append(f"{benchmark}, {model}: no {what} occur in any group, so there is no ratio.")
    return said


def group_bars(runs: Sequence[RunData]) -> list[Drawing]:
    """FMR and FNMR of each group at the common threshold, some models beside each other in each drawing."""
    drawings = []
    of: dict[str, list[tuple[int, str, Mapping[str, Any]]]] = {}
    for benchmark, run, figures in _grouped(runs):
        of.setdefault(benchmark, []).append((len(of.get(benchmark, ())), run.name, figures))
    for benchmark, models in of.items():
        for start in range(0, len(models), _MODELS):
            part = models[start : start + _MODELS]
            words = [s for _, name, figures in part for s in ratio_sentences(benchmark, name, figures)]
            said = f"{benchmark}: error rates of each group at the threshold that all share. " + " ".join(words)
            if any(_intervals(figures) for *_, figures in part):
                said += " The lines at the ends of the bars are intervals."
            drawings.append(_bars(part, said))
    return drawings


def _bars(models: Sequence[tuple[int, str, Mapping[str, Any]]], caption: str) -> Drawing:
    names = list(dict.fromkeys(name for *_, figures in models for name in figures["groups"]))
    labels = [name for _, name, _ in models]
    thick = 0.8 / len(models)
    with small_axes(labels, height=0.9 + len(names) * (0.2 + 0.17 * len(models))) as (figure, first):
        figure.delaxes(first)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (name, (short, key)) in zip(panels, _RATES.items(), strict=True):
            ends = [0.0]
            for place, (style, _, figures) in enumerate(models):
                intervals = _intervals(figures)
                for row, group in enumerate(names):
                    if group not in figures["groups"]:
                        continue
                    rate = 100 * float(figures["groups"][group][key])
                    at = row - 0.4 + thick * (place + 0.5)
                    axes.barh(
                        at,
                        rate,
                        0.9 * thick,
                        color=COLORS[style % len(COLORS)],
                        hatch=HATCHES[style % len(HATCHES)],
                        edgecolor="white",
                        linewidth=0,
                    )
                    ends.append(_end(axes, at, rate, intervals.get(f"{name}/{group}")))
            axes.set(xlabel=f"{short} (%)", yticks=range(len(names)), yticklabels=[as_text(name) for name in names])
            axes.set_xlim(0, 1.32 * max(ends) or 1.0)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
        entries = [
            Patch(facecolor=COLORS[s % len(COLORS)], hatch=HATCHES[s % len(HATCHES)], edgecolor="white", linewidth=0)
            for s, *_ in models
        ]
        legend_above(panels[0], entries, labels)
        return Drawing(as_svg(figure, caption), caption)


def _end(axes: Axes, at: float, rate: float, interval: Mapping[str, Any] | None) -> float:
    """Write the rate behind its bar and interval; how far right they reach."""
    end = rate
    if interval and interval["low"] is not None:
        low, end = 100 * interval["low"], max(100 * interval["high"], rate)
        axes.plot([low, end], [at, at], color=INK, linewidth=1.0)
    axes.annotate(
        f"{rate:.3g}", (end, at), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8, color=INK
    )
    return end


def _grouped(runs: Sequence[RunData]) -> list[tuple[str, RunData, Mapping[str, Any]]]:
    names = dict.fromkeys(b for run in runs for b, f in run.results.items() if f.get("protocol") == "groups")
    return [(b, run, run.results[b]) for b in names for run in runs if b in run.results]


def _intervals(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (figures.get("intervals") or {}).get("figures") or {}
    return found


def _own(figures: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: rates["tar_at_far_own"] for name, rates in figures["groups"].items()}


def _row(name: str, rates: Mapping[str, Any], intervals: Mapping[str, Any]) -> tuple[Cell, ...]:
    own = rates["tar_at_far_own"]
    own_cell = (
        Cell(REFUSED, reason=own["reason"])
        if own["value"] is None
        else rate_cell(
            own["value"], intervals.get(f"tar/{name}"), mark="" if own["reliable"] else MARK, reason=own["reason"]
        )
    )
    return (
        Cell(name),
        Cell(f"{rates['genuine']:,}", value=rates["genuine"]),
        Cell(f"{rates['impostor']:,}", value=rates["impostor"]),
        rate_cell(rates["accuracy"], intervals.get(f"accuracy/{name}"), spread=float(rates.get("accuracy_std") or 0.0)),
        rate_cell(rates["eer"], intervals.get(f"eer/{name}")),
        own_cell,
        rate_cell(rates["tar_at_far_common"]),
        rate_cell(rates["fmr_common"], intervals.get(f"fmr/{name}")),
        rate_cell(rates["fnmr_common"], intervals.get(f"fnmr/{name}")),
    )


def _ratios(ratios: Mapping[str, float | None]) -> tuple[Cell, ...]:
    def cell(name: str) -> Cell:
        ratio = ratios.get(name)
        return Cell("none", reason="a group has no error") if ratio is None else number_cell(ratio, ".2f", "×")

    empty = Cell("")
    row = (empty, empty, cell("skewed_error"), empty, empty, empty, cell("fmr"), cell("fnmr"))
    return (Cell("Largest over smallest"), *row)
