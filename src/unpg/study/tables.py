"""The tables of a study, for the screen and for Markdown."""

from collections.abc import Mapping
from typing import Any

from unpg.report.table import Cell, Table, heading, number_cell, rate_text
from unpg.study.budget import seed_spread
from unpg.study.diagnoses import DRAWN
from unpg.study.recipe import Study
from unpg.study.summary import SEEDS, Summary

__all__ = ["endpoint_heading", "study_tables"]


def study_tables(study: Study, summary: Summary) -> list[Table]:
    """Endpoints, differences, what was chosen, and what the similarities and the loss were at the end."""
    tables = [_endpoints(study, summary), _differences(study, summary), _choices(study, summary)]
    tables += [_similarities(study, summary), _seen(study, summary), _noise(study, summary)]
    return [table for table in tables if table.length]


def endpoint_heading(endpoint: str) -> str:
    """An endpoint as it heads a column.

    >>> endpoint_heading("lfw-allpairs/tar@far=1e-4")
    'lfw-allpairs: TAR at FAR 10⁻⁴'
    """
    benchmark, _, figure = endpoint.rpartition("/")
    return f"{benchmark}: {heading(figure)}"


def _endpoints(study: Study, summary: Summary) -> Table:
    of = {(m.arm, m.endpoint): m for m in summary.means}
    rows = []
    for arm, (finished, wanted) in summary.finals.items():
        means = [of.get((arm, endpoint)) for endpoint in study.endpoints]
        if finished:
            rows.append(
                (
                    Cell(study.label(arm)),
                    Cell(f"{finished}" if finished == wanted else f"{finished} of {wanted}"),
                    *(Cell("") if m is None else _rate(m.mean, m.low, m.high) for m in means),
                )
            )
    spread = seed_spread([m.values for m in summary.of(summary.primary)[0]])
    notes = [f"Per cent; mean over seeds, in brackets the {100 * summary.confidence:.4g} % interval of the mean."]
    notes += _methods(summary)
    if spread is not None:
        notes.append(
            f"{endpoint_heading(summary.primary)}: standard deviation between seeds {rate_text(spread)} points, pooled."
        )
    if summary.diverged:
        notes.append(f"Diverged: {'; '.join(summary.diverged)}.")
    notes += [f"{study.label(arm)}: all trials diverged, so it has no settings." for arm in summary.barren]
    columns = ("Arm", "Seeds", *map(endpoint_heading, study.endpoints))
    return Table(f"{study.name}: endpoints", columns, (("", "", tuple(rows)),), tuple(notes))


def _differences(study: Study, summary: Summary) -> Table:
    rows = []
    for arm in study.arms:
        other = study.compared_with(arm)
        of = {d.endpoint: d for d in summary.differences if d.arm == arm}
        if not of or other is None:
            continue
        first = of.get(study.primary)
        rows.append(
            (
                Cell(f"{study.label(arm)} − {study.label(other)}"),
                *(
                    _rate(of[e].estimate, of[e].low, of[e].high, sign=True) if e in of else Cell("")
                    for e in study.endpoints
                ),
                *((Cell(""), Cell("")) if first is None else (_p(first.p), _p(first.p_holm))),
            )
        )
    notes = [
        "Percentage points, in brackets the interval; of an EER less is better. p is two-sided, of the first column; "
        "of one seed there is none, since training's chance is not known.",
        f"Holm: corrected for the {summary.comparisons} comparisons that the study asks for, finished or not. The "
        "other columns are secondary, their intervals uncorrected.",
    ]
    columns = ("Difference", *map(endpoint_heading, study.endpoints), "p", "p, Holm")
    return Table(f"{study.name}: differences", columns, (("", "", tuple(rows)),), tuple(notes))


def _choices(study: Study, summary: Summary) -> Table:
    rows = []
    for choice in summary.choices:
        scores = ", ".join("diverged" if s is None else rate_text(s) for s in choice.scores)
        settings = ", ".join(f"{name} {_short(value)}" for name, value in choice.changes.items())
        cells = (study.label(choice.arm), str(choice.trial), settings or "the base's", scores)
        rows.append(tuple(map(Cell, cells)))
    figure = "" if study.tuning is None else heading(study.tuning.figure)
    notes = (f"Scores: {figure} over all pairs of the training people kept out, per cent, of trials 0, 1, ...",)
    columns = ("Arm", "Trial chosen", "Settings", "Scores of the trials")
    return Table(f"{study.name}: settings chosen", columns, (("", "", tuple(rows)),), notes, words=True)


_SIMILARITIES = {
    "robust_inf_positive": "inf Sᵖ, robust",
    "robust_sup_negative": "sup Sⁿ, robust",
    "overlap": "Overlap",
    "violation": "P(p ≤ n)",
}
_STATISTICS = {
    "share/classes": "Share of classes",
    "share/batch": "Share of batch",
    "effective_rank": "Effective rank",
    "cosine/pairwise": "Mean pairwise cosine",
}


def _similarities(study: Study, summary: Summary) -> Table:
    benchmark = summary.primary.rpartition("/")[0]
    rows = []
    for arm, by_benchmark in summary.similarities.items():
        seen, stats = by_benchmark.get(benchmark, {}), summary.statistics[arm]
        cells = [number_cell(seen.get(name)) for name in _SIMILARITIES]
        cells.append(number_cell(_relative_gap(seen)))
        rows.append((Cell(study.label(arm)), *cells, *(number_cell(stats.get(name)) for name in _STATISTICS)))
    notes = (
        f"Similarities of the pairs of {benchmark} (robust: 0.1 % left out; gap: inf less sup, over the distance of "
        "the means); shares of the softmax denominator, rank and pairwise cosine of a training batch in the last "
        "epoch. Means over seeds.",
    )
    columns = ("Arm", *_SIMILARITIES.values(), "Gap", *_STATISTICS.values())
    return Table(f"{study.name}: similarities", columns, (("", "", tuple(rows)),), notes)


def _relative_gap(seen: Mapping[str, float]) -> float | None:
    """:attr:`unpg.evaluate.wdfs.Wdfs.relative_gap` of means over seeds."""
    if not {"mean_positive", "mean_negative"} <= seen.keys():
        return None
    between = seen["mean_positive"] - seen["mean_negative"]
    return (seen["robust_inf_positive"] - seen["robust_sup_negative"]) / between if between > 0 else None


_DENSITIES = {"CLPG": "Classes", "MLPG": "Batch", DRAWN: "Union, filtered", "UNPG, all kept": "Union, unfiltered"}


def _seen(study: Study, summary: Summary) -> Table:
    rows = []
    for arm, samples in summary.seen.items():
        cells = [number_cell(summary.training[arm][name]) for name in _SIMILARITIES]
        cells += [number_cell(samples.get(name, {}).get("tail_density")) for name in _DENSITIES]
        cells.append(number_cell(samples.get(DRAWN, {}).get("class_share")))
        rows.append((Cell(study.label(arm)), *cells))
    notes = (
        "All pairs of the training set, in evaluation mode. Tail density: how often a sample of negatives draws from "
        "the hardest 0.1 % of all negatives, 1 being right; 'filtered' as the arm filters, r = 1.5 without UNPG. "
        "Share: of class similarities in the union. Means over seeds.",
    )
    densities = [f"{name}: tail density" for name in _DENSITIES.values()]
    columns = ("Arm", *_SIMILARITIES.values(), *densities, "Share of classes")
    return Table(f"{study.name}: negatives seen", columns, (("", "", tuple(rows)),), notes)


_QUALITY = {
    "cut": "Batch negatives cut",
    "precision": "Noise among them (precision)",
    "recall": "Noise that is cut (recall)",
    "twins_kept": "Near-twins kept",
}


def _noise(study: Study, summary: Summary) -> Table:
    rows = []
    for arm, samples in summary.seen.items():
        found = samples.get(DRAWN, {})
        if "cut" in found:
            shares = [found.get(name) for name in _QUALITY]
            rows.append((Cell(study.label(arm)), *(Cell("") if s is None else _rate(s, None, None) for s in shares)))
    notes = (
        "Per cent; the filter of the arm, r = 1.5 without UNPG, over batches of the training set. Noise: negatives by "
        "their labels that really are of one person. Near-twins: negatives of a person and a near-twin, hard and no "
        "noise. Means over seeds.",
    )
    return Table(f"{study.name}: the filter", ("Arm", *_QUALITY.values()), (("", "", tuple(rows)),), notes)


def _methods(summary: Summary) -> list[str]:
    methods = sorted(({m.method for m in summary.means} | {d.method for d in summary.differences}) - {""})
    notes = [f"Intervals: {'; '.join(methods)}."] if methods else []
    if SEEDS in methods and summary.without_replicates:
        files = ", ".join(summary.without_replicates[:3])
        more = f" and {len(summary.without_replicates) - 3} more" if len(summary.without_replicates) > 3 else ""
        notes.append(f"Without replicates, hence by seeds alone (no chance of people in it): {files}{more}.")
    return notes


def _rate(value: float, low: float | None, high: float | None, *, sign: bool = False) -> Cell:
    def text(rate: float) -> str:
        return (f"{100 * rate:+.2f}" if sign else rate_text(rate)).replace("-", "−")

    interval = "" if low is None or high is None else f"{text(low)} to {text(high)}"
    return Cell(text(value), interval=interval, value=value, low=low, high=high)


def _p(p: float | None) -> Cell:
    if p is None:
        return Cell("")
    return Cell(f"{p:.3f}" if p >= 0.001 else "< 0.001", value=p)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
