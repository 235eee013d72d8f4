"""What results look like on a terminal: one table a benchmark, one column a model."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from unpg.evaluate import Result
from unpg.evaluate.curves import target_name

__all__ = ["BEST_THRESHOLD", "show_results"]

BEST_THRESHOLD = "authors-best-threshold"
"""The accuracy at the threshold that is best on the very pairs that are judged; beside the fold rules."""


class _Row(NamedTuple):
    label: str
    value: float | None
    """None: refused."""
    interval: Mapping[str, Any] | None
    reliable: bool = True
    extra: str = ""
    percent: bool = True


def show_results(results: Mapping[str, Result], folds: str, console: Console) -> None:
    """Print the results of several models on one benchmark.

    Args:
        results: By model; of one benchmark.
        folds: The rule whose accuracy is shown: one of the fold rules, or :data:`BEST_THRESHOLD`.
        console: Where to; without markup, since names may look like it.
    """
    told = {label: result.to_dict() for label, result in results.items()}
    first = next(iter(told.values()))
    rows = {label: {row.label: row for row in _rows(found, folds)} for label, found in told.items()}
    console.print(Text.assemble("\n", (first["benchmark"], "bold"), f": {_counts(first)}"))
    for table in _tables(rows, console):
        console.print(table)
    notes = {note for found in told.values() for note in _notes(found, folds)}
    shown = [row for of_model in rows.values() for row in of_model.values()]
    if any(row.value is None for row in shown):
        notes.add("refused: less than one false accept (or false positive) is expected at this rate")
    if any(row.value is not None and not row.reliable for row in shown):
        notes.add("*: fewer than thirty false accepts (or false positives) are expected at this rate")
    for note in sorted(notes):
        console.print(note, highlight=False, markup=False)


def _tables(rows: Mapping[str, Mapping[str, _Row]], console: Console) -> Iterator[Table]:
    """As many models side by side as the terminal is wide; the others below."""
    names = list(dict.fromkeys(name for of_model in rows.values() for name in of_model))

    def table(models: Sequence[str]) -> Table:
        made = Table()
        made.add_column("percent", no_wrap=True)
        for model in models:
            made.add_column(model, justify="right", no_wrap=True)
        for name in names:
            made.add_row(name, *(_cell(rows[model].get(name)) for model in models))
        return made

    left = list(rows)
    wide = console.options.update(max_width=10_000)
    while left:
        count = len(left)
        while count > 1 and Measurement.get(console, wide, table(left[:count])).maximum > console.width:
            count -= 1
        yield table(left[:count])
        left = left[count:]


def _counts(found: Mapping[str, Any]) -> str:
    if found["protocol"] == "identification":
        several = f"{found['galleries']} galleries of up to" if found["galleries"] > 1 else "one gallery of"
        said = f"{found['probes']:,} searches in {several} {found['subjects']:,} subjects"
        said += f", {found['mated']:,} of them mated"
        return said + (f"; {found['distractors']:,} distractors" if found["distractors"] else "")
    said = f"{found['genuine']:,} genuine, {found['impostor']:,} impostor pairs"
    if found["protocol"] == "templates":
        said += f" of {found['templates']:,} templates"
    if found.get("left_out"):
        said += f"; {found['left_out']} pairs left out: an image is missing"
    return said


def _rows(found: Mapping[str, Any], folds: str) -> Iterator[_Row]:
    intervals = found.get("intervals", {}).get("figures", {})
    if found["protocol"] == "pairs":
        if folds == BEST_THRESHOLD:
            yield _Row("accuracy (authors' best threshold)", found["best_threshold"]["accuracy"], None)
        elif found["accuracy"]:
            rate = found["accuracy"][folds]
            metric = "accuracy" if folds == "exact" else f"accuracy_{folds.replace('-', '_')}"
            spread = f" ± {100 * rate['std']:.2f}"
            yield _Row(f"accuracy ({folds})", rate["mean"], intervals.get(metric), extra=spread)
    if found["protocol"] == "groups":
        yield from _group_rows(found, intervals)
    for metric in ("auc", "eer"):
        if metric in found:
            yield _Row(metric.upper(), found[metric], intervals.get(metric))
    for k, rate in found.get("rank", {}).items():
        yield _Row(f"rank {k}", rate, intervals.get(f"rank={k}"))
    for kind, bound in (("tpir", "fpir"), ("tar", "far")):
        for point in found.get(f"{kind}_at_{bound}", ()):
            name = f"{kind}@{bound}={target_name(point['target'])}"
            label = f"{kind.upper()} at {bound.upper()} {point['target']:g}"
            yield _Row(label, point["value"], intervals.get(name), point["reliable"])
    for name, value in found["metrics"].items():
        if name.endswith("(mean - std)"):
            yield _Row(_in_words(name), value, None)
    at = found.get("at_threshold")
    if at is not None:
        for name in ("fmr", "fnmr", "accuracy", "fpir", "fnir", "tpir"):
            if at.get(name) is None:
                continue
            said = name.upper() if name != "accuracy" else name
            yield _Row(f"{said} at T of {at['chosen']}", at[name], at["intervals"].get(name))


def _in_words(metric: str) -> str:
    """``tpir@fpir=1e-2 (mean - std)`` as the rows of its mean are called."""
    name, _, value = metric.removesuffix(" (mean - std)").partition("=")
    if "@" not in name:
        return f"{name} {value}, mean - std"
    kind, _, bound = name.upper().partition("@")
    return f"{kind} at {bound} {float(value):g}, mean - std"


def _group_rows(found: Mapping[str, Any], intervals: Mapping[str, Any]) -> Iterator[_Row]:
    for group, rates in found["groups"].items():
        label = f"{group}: accuracy ({found['accuracy_rule']})"
        yield _Row(label, rates["accuracy"], intervals.get(f"accuracy/{group}"))
        for name in ("fmr", "fnmr"):
            yield _Row(f"{group}: {name.upper()}", rates[f"{name}_common"], intervals.get(f"{name}/{group}"))
        own = rates["tar_at_far_own"]
        label = f"{group}: TAR at FAR {found['target']:g}, own threshold"
        yield _Row(label, own["value"], intervals.get(f"tar/{group}"), own["reliable"])
    for name, ratio in found["ratios"].items():
        if ratio is not None:
            yield _Row(f"largest over smallest {name.replace('_', ' ')}", ratio, None, percent=False)


def _cell(row: _Row | None) -> str:
    if row is None:
        return ""
    if row.value is None:
        return "refused"
    if not row.percent:
        return f"{row.value:.2f} times"
    digits = 2
    if 0 < row.value < 1e-3:  # false matches may be few
        digits = max(4, -1 - math.floor(math.log10(row.value)))
    said = f"{100 * row.value:.{digits}f}{row.extra}{'' if row.reliable else ' *'}"
    if row.interval is None or row.interval["low"] is None:
        return said
    return f"{said} [{100 * row.interval['low']:.{digits}f}, {100 * row.interval['high']:.{digits}f}]"


def _notes(found: Mapping[str, Any], folds: str) -> Iterator[str]:
    yield from found.get("notes", ())
    if found.get("pooling"):
        way = found["pooling"]
        unit = "each medium at length one" if way["unit_media"] else "media as long as they are"
        yield f"pooling {way['preset'] or 'own'}: lengths {way['lengths']}, {unit}"
    if found["protocol"] == "pairs" and folds == BEST_THRESHOLD:
        yield "authors' best threshold: chosen on the very pairs that it is judged on, hence optimistic; no interval"
    if found["protocol"] == "groups":
        threshold = found["common_threshold"]
        said = "no pair" if threshold is None else f"cosine >= {threshold:.4f}"
        yield f"common threshold from {found['chosen']}: {said}"
        yield from (f"largest over smallest {n}: a group has none" for n, r in found["ratios"].items() if r is None)
    at = found.get("at_threshold")
    if at is not None:
        yield f"threshold of {at['chosen']}: cosine >= {at['threshold']:.4f}, kept as it is in the draws"
        if at["refused"]:
            yield at["refused"]
    intervals = found.get("intervals")
    if intervals is None:
        return
    if intervals["refused"]:
        yield intervals["refused"]
        return
    yield (f"{100 * intervals['confidence']:.4g} % intervals: {intervals['method']}, {intervals['replicates']:,} draws")
    yield from intervals["notes"]
