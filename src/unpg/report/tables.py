"""The tables of a report: figures as they are printed, and what must be said about them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unpg.evaluate.curves import target_name
from unpg.report.groups import group_tables
from unpg.report.run import RunData, settings
from unpg.report.table import HEADINGS, MARK, REFUSED, Cell, Group, Table, heading, is_ratio, number_cell, rate_cell

__all__ = ["differing_settings", "gallery_table", "result_tables", "run_facts", "threshold_tables"]

PROTOCOLS = {
    "pairs": "Pair lists",
    "all-pairs": "All pairs of a set",
    "templates": "Templates",
    "identification": "Identification",
}
"""Kinds of results whose figures share a table with a column each."""

_POINTS = {"tar_at_far": "tar@far=", "tpir_at_fpir": "tpir@fpir="}


def result_tables(runs: Sequence[RunData]) -> list[Table]:
    """One table per protocol; one group of rows per benchmark, in it one row per model. Rates in per cent.

    Results of a kind that nobody here knows are shown as they are, in a table of their own.
    """
    tables = []
    found = {_protocol(f) for run in runs for f in run.results.values()}
    for protocol in (p for p in PROTOCOLS if p in found):
        judged = {run.name: {b: f for b, f in run.results.items() if _protocol(f) == protocol} for run in runs}
        figures = [f for of in judged.values() for f in of.values()]
        columns = [c for c in _columns(figures) if any(_cell(f, c).text for f in figures)]
        groups: list[Group] = []
        notes = dict[str, None]()
        if any(c.startswith("tpir@") for c in columns):
            notes[
                "TPIR at FPIR: at rank 1, with the smallest threshold T of the gallery at which no more than N × FPIR "
                "of its N non-mated searches return a candidate of T or above."
            ] = None
        for benchmark in dict.fromkeys(b for of in judged.values() for b in of):
            rows = []
            for run in runs:
                of = judged[run.name].get(benchmark)
                if of is None:
                    continue
                cells = [_cell(of, c) for c in columns]
                notes |= {f"{benchmark}: {c.reason}.": None for c in cells if c.reason}
                notes |= {f"{benchmark}: {note}.": None for note in (*_interval_notes(of), *of.get("notes", ()))}
                rows.append((Cell(run.name), *cells))
            groups.append((benchmark, _size(runs, judged, benchmark), tuple(rows)))
        headings = ("Model", *(heading(c) for c in columns))
        tables.append(Table(PROTOCOLS[protocol], headings, tuple(groups), tuple(notes)))
    if "identification" in found and (galleries := gallery_table(runs)) is not None:
        tables.append(galleries)
    tables += group_tables(runs)
    tables += [_unknown(runs, protocol) for protocol in sorted(found - set(PROTOCOLS) - {"groups"})]
    return tables


def gallery_table(runs: Sequence[RunData]) -> Table | None:
    """The figures of each gallery or trial by itself; None if no result has several."""
    groups: list[Group] = []
    told = [
        (benchmark, run.name, figures["per_gallery"])
        for benchmark in dict.fromkeys(b for run in runs for b in run.results)
        for run in runs
        if len((figures := run.results.get(benchmark, {})).get("per_gallery") or {}) > 1
    ]
    columns = _columns([_gallery_metrics(g) for *_, of in told for g in of.values()])
    for benchmark, model, of in told:
        rows = []
        for name, gallery in of.items():
            counts = [Cell(f"{gallery[key]:,}", value=gallery[key]) for key in ("subjects", "probes", "mated")]
            rows.append((Cell(name), *counts, *(_cell(_gallery_metrics(gallery), c) for c in columns)))
        groups.append((benchmark, model, tuple(rows)))
    if not groups:
        return None
    headings = ("Gallery", "Subjects", "Searches", "Mated", *map(heading, columns))
    return Table("Identification, each gallery", headings, tuple(groups))


def _gallery_metrics(gallery: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {f"rank={k}": rate for k, rate in gallery["rank"].items()}
    for key, start in _POINTS.items():
        metrics |= {f"{start}{target_name(p['target'])}": p["value"] for p in gallery[key] if p["value"] is not None}
    return {**gallery, "metrics": metrics}


def threshold_tables(runs: Sequence[RunData]) -> list[Table]:
    """Error rates at a threshold that another set chose, of pairs and of searches; none if nobody asked for any."""
    tables = []
    for searched, title, rates in (
        (False, "At a threshold from another set", {"fmr": "FMR", "fnmr": "FNMR", "accuracy": "Accuracy"}),
        (True, "Searches at a threshold from elsewhere", {"fpir": "FPIR", "fnir": "FNIR", "tpir": "TPIR"}),
    ):
        groups: list[Group] = []
        notes = dict[str, None]()
        for benchmark in dict.fromkeys(b for run in runs for b in run.results):
            rows = []
            for run in runs:
                figures = run.results.get(benchmark, {})
                at = figures.get("at_threshold")
                if at and (_protocol(figures) == "identification") == searched:
                    cells = [rate_cell(at[name], at["intervals"].get(name)) for name in rates]
                    rows.append((Cell(run.name), Cell(at["chosen"]), number_cell(at["threshold"], ".4f"), *cells))
                    if at.get("refused"):
                        notes[f"{benchmark}: {at['refused']}."] = None
            if rows:
                groups.append((benchmark, "", tuple(rows)))
        if groups:
            kept = "The threshold is kept as it was chosen: how it would vary itself is not in the intervals."
            headings = ("Model", "Chosen on", "Threshold", *rates.values())
            tables.append(Table(title, headings, tuple(groups), (kept, *notes)))
    return tables


def _unknown(runs: Sequence[RunData], protocol: str) -> Table:
    groups: list[Group] = []
    for benchmark in dict.fromkeys(b for run in runs for b, f in run.results.items() if _protocol(f) == protocol):
        told = {run.name: dict(_leaves(run.results.get(benchmark, {}))) for run in runs}
        keys = list(dict.fromkeys(k for of in told.values() for k in of if k not in ("benchmark", "protocol")))
        groups.append((benchmark, "", tuple((Cell(k), *(_leaf(of.get(k)) for of in told.values())) for k in keys)))
    note = f"This version knows no results of the kind {protocol!r}: they are shown as results.json holds them."
    return Table(
        f"Results of the kind {protocol}", ("", *(run.name for run in runs)), tuple(groups), (note,), words=True
    )


def _leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        return [
            leaf for key, value in tree.items() for leaf in _leaves(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(tree, list):
        return [leaf for n, value in enumerate(tree) for leaf in _leaves(value, f"{prefix}[{n}]")]
    return [(prefix, tree)]


def _leaf(value: Any) -> Cell:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell("" if value is None else _setting(value), value=float(value) if number else None)


def _protocol(figures: Mapping[str, Any]) -> str:
    return str(figures.get("protocol", "pairs"))


def _columns(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """All metrics in reading order: accuracies, AUC, EER, ranks, TPIR and TAR from the loosest rate to the strictest,
    the rest.
    """
    named = {m for f in figures for m in f.get("metrics", {})} - {"accuracy_std"}
    first = [m for m in HEADINGS if m in named]
    ranks = {m: int(m.removeprefix("rank=")) for m in named if m.removeprefix("rank=").isdigit()}
    ordered = first + sorted(ranks, key=lambda m: ranks[m])
    for key, start in (("tpir_at_fpir", "tpir@fpir="), ("tar_at_far", "tar@far=")):
        targets = {f"{start}{target_name(p['target'])}": float(p["target"]) for f in figures for p in f.get(key, ())}
        for metric in named:
            if metric.startswith(start) and _is_number(metric.removeprefix(start)):
                targets[metric] = float(metric.removeprefix(start))
        ordered += sorted(targets, key=lambda m: -targets[m])
    ordered += [spread for m in ordered if (spread := f"{m} (mean - std)") in named]
    return ordered + sorted(named - set(ordered))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _cell(figures: Mapping[str, Any], column: str) -> Cell:
    metrics = figures.get("metrics", {})
    interval = ((figures.get("intervals") or {}).get("figures") or {}).get(column)
    for key, start in _POINTS.items():
        for point in figures.get(key, ()):
            if column == f"{start}{target_name(point['target'])}":
                if point["value"] is None:
                    return Cell(REFUSED, reason=point["reason"])
                mark = "" if point["reliable"] else MARK
                return rate_cell(point["value"], interval, mark=mark, reason=point["reason"])
    value = metrics.get(column)
    if value is None:
        return Cell("")
    if is_ratio(column):
        return number_cell(value, ".2f", "×")
    spread = metrics.get("accuracy_std") if column == "accuracy" else None
    return rate_cell(value, interval, spread=spread if spread and math.isfinite(spread) else 0.0)


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
    """How much was judged, and how it was pooled; said once where all models judged the same."""
    said = []
    for run in runs:
        found = judged[run.name].get(benchmark, {})
        parts = []
        if "genuine" in found:
            parts.append(f"{found['genuine']:,} genuine and {found['impostor']:,} impostor pairs")
        if "templates" in found:
            parts.append(f"{found['templates']:,} templates of {found['images']:,} images")
        if "galleries" in found:
            parts.append(f"{found['probes']:,} searches, {found['mated']:,} of them mated")
            several = f" in {found['galleries']:,} galleries" if found["galleries"] > 1 else ""
            parts.append(f"{found['subjects']:,} subjects enrolled{several}")
        if found.get("distractors"):
            parts.append(f"{found['distractors']:,} distractors")
        if found.get("left_out"):
            parts.append(f"{found['left_out']:,} left out for missing images")
        if found.get("pooling"):
            parts.append("pooling " + ", ".join(_pooling(found["pooling"])))
        if parts:
            said.append(", ".join(parts))
    return "; ".join(dict.fromkeys(said))


def _pooling(how: Mapping[str, Any]) -> list[str]:
    preset = [str(how["preset"])] if how.get("preset") else []
    rest = [f"{key.replace('_', ' ')} {_setting(value)}" for key, value in how.items() if key != "preset"]
    return preset or rest


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
    return Table("Settings that differ", ("Setting", *(r.name for r, _ in known)), (("", "", tuple(rows)),), words=True)


def run_facts(runs: Sequence[RunData]) -> Table | None:
    """What the summaries say, one row per fact and one column per model; None if they say nothing."""
    said = [dict(_facts(run)) for run in runs]
    keys = list(dict.fromkeys(k for facts in said for k in facts))
    if not keys:
        return None
    rows = tuple((Cell(key), *(Cell(facts.get(key, "")) for facts in said)) for key in keys)
    return Table("Versions, digests and other facts", ("", *(run.name for run in runs)), (("", "", rows),), words=True)


def _facts(run: RunData) -> list[tuple[str, str]]:
    found = [(key.replace("_", " ").replace(".", " · "), _fact(v)) for key, v in _scalars(run.summary)]
    for benchmark, figures in run.results.items():
        if (figures.get("intervals") or {}).get("digest"):
            found.append((f"pairs digest · {benchmark}", figures["intervals"]["digest"]))
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
