"""The tables of a report: figures as they are printed, and what must be said about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unpg.evaluate.curves import target_name
from unpg.report.run import RunData, settings

__all__ = ["Cell", "Table", "differing_settings", "heading", "result_tables", "run_facts"]

REFUSED, MARK = "n/r", "†"

PROTOCOLS = {
    "pairs": "Pair lists",
    "all-pairs": "All pairs of a set",
}


@dataclass(frozen=True)
class Cell:
    """One entry: its text, a sign after it, the reason for either (shown on hover and below the table), and below the
    text its interval.
    """

    text: str
    mark: str = ""
    reason: str = ""
    interval: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a heading per column; ``rows`` have as many cells. ``groups``: rows of one benchmark
    each.
    """

    title: str
    columns: tuple[str, ...]
    groups: tuple[tuple[str, str, tuple[tuple[Cell, ...], ...]], ...]
    notes: tuple[str, ...]


def result_tables(runs: Sequence[RunData]) -> list[Table]:
    """One table per protocol; one group of rows per benchmark, in it one row per model. Rates in per cent."""
    tables = []
    protocols = sorted({_protocol(f) for run in runs for f in run.results.values()}, key=_protocol_order)
    for protocol in protocols:
        judged = {run.name: {b: f for b, f in run.results.items() if _protocol(f) == protocol} for run in runs}
        figures = [f for found in judged.values() for f in found.values()]
        benchmarks = list(dict.fromkeys(b for found in judged.values() for b in found))
        columns = [c for c in _columns(figures) if any(_cell(f, c).text for f in figures)]
        groups, notes = [], dict[str, None]()
        for benchmark in benchmarks:
            rows = []
            for run in runs:
                found = judged[run.name].get(benchmark)
                if found is None:
                    continue
                cells = [replace(_cell(found, c), interval=_interval(found, c)) for c in columns]
                notes |= {f"{benchmark}: {c.reason}.": None for c in cells if c.reason}
                notes |= {f"{benchmark}: {note}.": None for note in _interval_notes(found)}
                rows.append((Cell(run.name), *cells))
            groups.append((benchmark, _size(runs, judged, benchmark), tuple(rows)))
        headings = ("Model", *(heading(c) for c in columns))
        title = PROTOCOLS.get(protocol, protocol)
        tables.append(Table(title, headings, tuple(groups), _legend(groups, notes)))
    return tables


HEADINGS = {
    "accuracy": "Accuracy, folds",
    "accuracy_insightface_grid": "Accuracy, insightface grid",
    "accuracy_best_threshold": "Accuracy, all-pairs best threshold",
    "auc": "AUC",
    "eer": "EER",
}


def heading(column: str) -> str:
    """A metric as it heads a column."""
    if not column.startswith("tar@far="):
        return HEADINGS.get(column, column)
    factor, _, exponent = column.removeprefix("tar@far=").partition("e")
    power = "10" + exponent.translate(str.maketrans("-+0123456789", "⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"TAR at FAR {power if factor == '1' else f'{factor}·{power}'}"


def _protocol(figures: Mapping[str, Any]) -> str:
    return str(figures.get("protocol", "pairs"))


def _protocol_order(protocol: str) -> tuple[int, str]:
    known = list(PROTOCOLS)
    return (known.index(protocol) if protocol in known else len(known)), protocol


def _columns(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """All metrics in reading order: accuracies, AUC, EER, TAR from the loosest FAR to the strictest, the
    rest.
    """
    named = {m for f in figures for m in f.get("metrics", {})} - {"accuracy_std"}
    targets = {p["target"] for f in figures for p in f.get("tar_at_far", ())}
    tars = {f"tar@far={target_name(t)}": float(t) for t in targets}
    tars |= {m: float(m.removeprefix("tar@far=")) for m in named if m.startswith("tar@far=")}
    first = [m for m in HEADINGS if m in named]
    return first + sorted(tars, key=lambda m: -tars[m]) + sorted(named - set(first) - set(tars))


def _cell(figures: Mapping[str, Any], column: str) -> Cell:
    metrics = figures.get("metrics", {})
    for point in figures.get("tar_at_far", ()):
        if column == f"tar@far={target_name(point['target'])}":
            if not point["resolvable"]:
                return Cell(REFUSED, reason=point["reason"])
            return Cell(f"{100 * point['value']:.2f}", "" if point["reliable"] else MARK, point["reason"])
    if metrics.get(column) is None:
        return Cell("")
    if column == "accuracy" and metrics.get("accuracy_std") is not None:
        return Cell(f"{100 * metrics['accuracy']:.2f} ± {100 * metrics['accuracy_std']:.2f}")
    return Cell(f"{100 * metrics[column]:.2f}")


def _interval(figures: Mapping[str, Any], column: str) -> str:
    found = ((figures.get("intervals") or {}).get("figures") or {}).get(column)
    if not found or found["low"] is None:
        return ""
    return f"{100 * found['low']:.2f} to {100 * found['high']:.2f}"


def _interval_notes(figures: Mapping[str, Any]) -> list[str]:
    said = figures.get("intervals")
    if not said:
        return []
    if said["refused"]:
        return [said["refused"]]
    made = (
        f"{100 * said['confidence']:.4g} % intervals by {said['method']}; {said['replicates']:,} draws of "
        f"{said['units']:,} {'pairs' if said['unit'] == 'pair' else 'identities'}, seed {said['seed']}"
    )
    bounded = [heading(name) for name, i in said["figures"].items() if i["method"] == "rule of three"]
    three = [f"no error or no success seen, interval by the rule of three: {', '.join(bounded)}"] if bounded else []
    unsure = [f"{heading(name)} has no interval: {i['reason']}" for name, i in said["figures"].items() if i["reason"]]
    return [made, *said["notes"], *three, *unsure]


def _size(runs: Sequence[RunData], judged: Mapping[str, Mapping[str, Mapping[str, Any]]], benchmark: str) -> str:
    """How many pairs were judged; said once where all models judged the same."""
    said = []
    for run in runs:
        found = judged[run.name].get(benchmark, {})
        if "genuine" not in found:
            continue
        text = f"{found['genuine']:,} genuine and {found['impostor']:,} impostor pairs"
        left_out = found.get("left_out", 0)
        said.append(text + (f", {left_out:,} left out for missing images" if left_out else ""))
    return "; ".join(dict.fromkeys(said))


def _legend(groups: Sequence[Any], notes: Mapping[str, None]) -> tuple[str, ...]:
    cells = [cell for _, _, rows in groups for row in rows for cell in row]
    said = []
    if any(c.text == REFUSED for c in cells):
        said.append(f"{REFUSED}: not resolvable; the set has too few impostor pairs for that FAR.")
    if any(c.mark == MARK for c in cells):
        said.append(f"{MARK} fewer than thirty false accepts expected: the value may move a lot by chance.")
    return (*said, *notes)


def differing_settings(runs: Sequence[RunData]) -> Table | None:
    """The settings in which the runs differ; None if fewer than two have a configuration, or none differs."""
    known = [(run, settings(run)) for run in runs if run.config.strip()]
    if len(known) < 2:
        return None
    keys = list(dict.fromkeys(k for _, s in known for k in s))
    rows = []
    for key in keys:
        values = [_setting(s[key]) if key in s else "not set" for _, s in known]
        if len(set(values)) > 1:
            rows.append((Cell(key), *map(Cell, values)))
    if not rows:
        return None
    return Table("Settings that differ", ("Setting", *(run.name for run, _ in known)), (("", "", tuple(rows)),), ())


def run_facts(runs: Sequence[RunData]) -> Table | None:
    """What the summaries say, one row per fact and one column per model; None if they say nothing."""
    said = [dict(_facts(run)) for run in runs]
    keys = list(dict.fromkeys(k for facts in said for k in facts))
    if not keys:
        return None
    rows = tuple((Cell(key), *(Cell(facts.get(key, "")) for facts in said)) for key in keys)
    return Table("Facts", ("", *(run.name for run in runs)), (("", "", rows),), ())


def _facts(run: RunData) -> list[tuple[str, str]]:
    found = [(key.replace("_", " ").replace(".", " · "), _fact(v)) for key, v in _scalars(run.summary)]
    if run.faults is not None:
        found.append(("unreadable images", f"{run.faults:,}"))
    if not run.finished:
        found.append(("state", "not finished: there is no summary.json"))
    return found


def _scalars(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if f"{prefix}{key}" in ("results", "run", "model"):  # shown elsewhere: tables, and the column's heading
            continue
        if isinstance(value, Mapping):
            found += _scalars(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float) or value is None:
            found.append((f"{prefix}{key}", value))
    return found


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return "none" if value is None else str(value)


def _setting(value: Any) -> str:
    """As it stands in YAML."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
