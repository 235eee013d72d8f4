"""What a study has found: means over seeds, paired differences of each arm and its base, and what was chosen.

With the replicates of the final runs, intervals hold both chances, of people and of training
(:func:`~unpg.evaluate.comparison.seed_means`, :func:`~unpg.evaluate.comparison.compare_by_seed`). Without them they
come from the seeds alone, by Student's t, and say so; unless ``<study>.summary.json`` beside the results has those of
the very same runs, which are then taken over.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from unpg.config import from_dict
from unpg.errors import ConfigError, DataError
from unpg.evaluate import Replicates, compare_by_seed, holm, seed_means
from unpg.evaluate.intervals import t_p_value, t_quantile
from unpg.json_file import read_json_object
from unpg.study.diagnoses import Diagnosed
from unpg.study.plan import HELD_OUT, Plan

__all__ = ["ArmDifference", "ArmMean", "Choice", "Summary", "sum_up", "summary_path", "write_summary"]

T = TypeVar("T", "ArmMean", "ArmDifference")

BOOTSTRAP, SEEDS = "bootstrap over people and seeds", "Student's t over seeds"
PEOPLE = "bootstrap over people (one seed: no chance of training in it)"
_DRAWN = (BOOTSTRAP, PEOPLE)


@dataclass(frozen=True)
class ArmMean:
    """An endpoint of an arm.

    Attributes:
        arm: Its name.
        endpoint: <benchmark>/<figure>.
        seeds: Those that are finished.
        values: The endpoint of each, a fraction.
        mean: Over the seeds.
        low: Lower end of the interval of the mean; None with one seed and no replicates.
        high: Upper end.
        spread: Standard deviation between seeds; None with one.
        method: How the interval was made; empty if there is none.
        runs: Digests of the runs.
    """

    arm: str
    endpoint: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    spread: float | None
    method: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class ArmDifference:
    """An endpoint of an arm less that of the arm it is compared with.

    Attributes:
        arm: Its name.
        of: That of the other.
        endpoint: <benchmark>/<figure>.
        estimate: Mean difference over the seeds that both have, a fraction.
        low: Lower end of its interval.
        high: Upper end.
        p: Two-sided; None with one seed: what training would do with another is not in it, and may be all there is.
        p_holm: The same after Holm's correction over all comparisons that the study asks for, in this endpoint: those
            that are not finished, or have no p, count too, or each look at a growing study would test with a smaller
            family.
        by_seed: Difference of each seed that both have.
        method: How interval and p were made.
        runs: Digests of the runs of both.
    """

    arm: str
    of: str
    endpoint: str
    estimate: float
    low: float
    high: float
    p: float | None
    p_holm: float | None
    by_seed: tuple[float, ...]
    method: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """What the held-out people have chosen for an arm.

    Attributes:
        arm: Its name.
        trial: Number of the trial.
        changes: Settings in which it departs from the study's base.
        scores: Of each trial; None for one that diverged.
    """

    arm: str
    trial: int
    changes: dict[str, Any]
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class Summary:
    """All of it.

    Attributes:
        study: Name.
        primary: The primary endpoint.
        confidence: Of the intervals.
        means: By endpoint, then arm.
        differences: Likewise; of arms that are compared, and have two runs or replicates on both sides.
        choices: Of arms that are tuned.
        similarities: By arm, then benchmark: what WDFS asks of the pairs, means over seeds.
        statistics: By arm: what the loss says of itself in the last epoch, means over seeds.
        seen: By arm: which negatives its loss sees over the training set, by sample and figure, means over the seeds
            that ``unpg study diagnose`` has diagnosed.
        training: By arm: the similarities of those diagnoses.
        finals: By arm: finished final runs, of how many.
        comparisons: That the study asks for, and Holm's method corrects for.
        without_replicates: Files that are absent, whose runs are here by seeds alone.
        diverged: Runs that diverged.
        barren: Arms all of whose trials diverged, so that there are no settings for them.
    """

    study: str
    primary: str
    confidence: float
    means: tuple[ArmMean, ...]
    differences: tuple[ArmDifference, ...]
    choices: tuple[Choice, ...]
    similarities: dict[str, dict[str, dict[str, float]]]
    statistics: dict[str, dict[str, float]]
    seen: dict[str, dict[str, dict[str, float]]]
    training: dict[str, dict[str, float]]
    finals: dict[str, tuple[int, int]]
    comparisons: int
    without_replicates: tuple[str, ...]
    diverged: tuple[str, ...]
    barren: tuple[str, ...]

    def of(self, endpoint: str) -> tuple[list[ArmMean], list[ArmDifference]]:
        """Means and differences of one endpoint."""
        return [m for m in self.means if m.endpoint == endpoint], [
            d for d in self.differences if d.endpoint == endpoint
        ]


def summary_path(results: Path) -> Path:
    """Where the numbers are written: ``<study>.summary.json`` beside the results."""
    return results.with_suffix(".summary.json")


def write_summary(path: Path, summary: Summary) -> None:
    """Write as JSON, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(asdict(summary), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def sum_up(plan: Plan, diagnosed: Mapping[str, Sequence[Diagnosed]] = MappingProxyType({})) -> Summary:
    """The summary of what is finished.

    Args:
        plan: The study and its results.
        diagnosed: By arm, the diagnoses of its final runs.

    Raises:
        DataError: Nothing is finished, or a file of replicates or an earlier summary is damaged.
    """
    study = plan.study
    done = {arm: _done(plan, arm) for arm in study.arms}
    if not any(done.values()):
        raise DataError(f"No final run of {study.name!r} is in {plan.results.path}. Run `unpg study run` first.")
    known = _known(summary_path(plan.results.path))
    confidence = study.intervals.confidence
    missing = [
        str(plan.results.replicates_path(digest))
        for lines in done.values()
        for _, digest in lines
        if not plan.results.replicates_path(digest).exists()
    ]
    means: list[ArmMean] = []
    differences: list[ArmDifference] = []
    for endpoint in study.endpoints:
        found = {arm: _mean(plan, arm, endpoint, lines, confidence) for arm, lines in done.items()}
        means += [_better(mean, known) for mean in found.values() if mean is not None]
        compared = [
            _difference(plan, found[arm], found[of], confidence)
            for arm, of in ((name, study.compared_with(name)) for name in study.arms)
            if of is not None
        ]
        here = [_better(difference, known) for difference in compared if difference is not None]
        here = [difference for difference in here if not math.isnan(difference.low)]
        tested = [d.p for d in here if d.p is not None]
        corrected = iter(holm(tested + [1.0] * (study.comparisons - len(tested))))
        differences += [d if d.p is None else replace(d, p_holm=next(corrected)) for d in here]
    return Summary(
        study=study.name,
        primary=study.primary,
        confidence=confidence,
        means=tuple(means),
        differences=tuple(differences),
        choices=tuple(_choices(plan)),
        similarities={arm: _similarities(plan, [d for _, d in lines]) for arm, lines in done.items() if lines},
        statistics={arm: _statistics(plan, [d for _, d in lines]) for arm, lines in done.items() if lines},
        seen={arm: _by_group([one.samples for one in found]) for arm, found in diagnosed.items() if found},
        training={arm: _means([one.similarities for one in found]) for arm, found in diagnosed.items() if found},
        finals={arm: (len(lines), len(study.seeds)) for arm, lines in done.items()},
        comparisons=study.comparisons,
        without_replicates=tuple(dict.fromkeys(missing)),
        diverged=tuple(
            f"{line['arm']}, " + (f"seed {line['seed']}" if line["trial"] is None else f"trial {line['trial']}")
            for line in plan.results.lines.values()
            if line["diverged"]
        ),
        barren=tuple(arm for arm in study.arms if plan.barren(arm)),
    )


def _done(plan: Plan, arm: str) -> list[tuple[int, str]]:
    """Seeds and digests of the finished final runs."""
    runs = [run for run in plan.finals(arm) if run is not None]
    lines = [(run, plan.results.get(run.digest)) for run in runs]
    return [(run.seed, run.digest) for run, line in lines if line is not None and not line["diverged"]]


def _mean(plan: Plan, arm: str, endpoint: str, done: Sequence[tuple[int, str]], confidence: float) -> ArmMean | None:
    benchmark, _, figure = endpoint.rpartition("/")
    if not done:
        return None
    lines = [plan.results[digest] for _, digest in done]
    values = tuple(line["scores"].get(benchmark, {}).get(figure) for line in lines)
    if any(value is None for value in values):
        raise ConfigError(
            f"The endpoint {endpoint!r} is none that {benchmark} gives: {', '.join(lines[0]['scores'][benchmark])}."
        )
    found = ArmMean(
        arm=arm,
        endpoint=endpoint,
        seeds=tuple(seed for seed, _ in done),
        values=values,
        mean=statistics.fmean(values),
        low=None,
        high=None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        method="",
        runs=tuple(digest for _, digest in done),
    )
    replicates = _replicates(plan, found)
    if replicates is not None:
        effective = lines[0]["intervals"][benchmark]["effective_units"]
        one = next((m for m in seed_means(replicates, effective, confidence) if m.figure == figure), None)
        if one is not None and one.interval.low is not None:
            return replace(found, low=one.interval.low, high=one.interval.high, method=_method(done))
    if found.spread is None:
        return found
    half = _half(found.spread, len(values), confidence)
    return replace(found, low=found.mean - half, high=found.mean + half, method=SEEDS)


def _difference(plan: Plan, arm: ArmMean | None, of: ArmMean | None, confidence: float) -> ArmDifference | None:
    if arm is None or of is None:
        return None
    shared = [seed for seed in arm.seeds if seed in of.seeds]
    if not shared:
        return None
    of, arm = _only(of, shared), _only(arm, shared)
    by_seed = tuple(v - w for v, w in zip(arm.values, of.values, strict=True))
    found = ArmDifference(
        arm=arm.arm,
        of=of.arm,
        endpoint=arm.endpoint,
        estimate=statistics.fmean(by_seed),
        low=math.nan,
        high=math.nan,
        p=None,
        p_holm=None,
        by_seed=by_seed,
        method="",
        runs=(*of.runs, *arm.runs),
    )
    figure = arm.endpoint.rpartition("/")[2]
    sides = [_replicates(plan, side) for side in (of, arm)]
    if sides[0] is not None and sides[1] is not None:
        one = next((d for d in compare_by_seed(sides[0], sides[1], confidence) if d.figure == figure), None)
        if one is not None:
            tested = one.p if len(shared) > 1 else None
            return replace(found, low=one.low, high=one.high, p=tested, method=_method(shared))
    if len(by_seed) < 2:
        return found  # an earlier summary may know more
    mean, spread = found.estimate, statistics.stdev(by_seed)
    half = _half(spread, len(by_seed), confidence)
    t = mean / (spread / math.sqrt(len(by_seed))) if spread else math.copysign(math.inf, mean) if mean else 0.0
    return replace(found, low=mean - half, high=mean + half, p=t_p_value(t, len(by_seed) - 1), method=SEEDS)


def _method(seeds: Sequence[Any]) -> str:
    return BOOTSTRAP if len(seeds) > 1 else PEOPLE


def _only(mean: ArmMean, seeds: Sequence[int]) -> ArmMean:
    """The runs of these seeds, in this order."""
    at = [mean.seeds.index(seed) for seed in seeds]
    return replace(
        mean, seeds=tuple(seeds), values=tuple(mean.values[i] for i in at), runs=tuple(mean.runs[i] for i in at)
    )


def _half(spread: float, n: int, confidence: float) -> float:
    """Half the width of Student's interval of a mean."""
    return t_quantile((1 + confidence) / 2, n - 1) * spread / math.sqrt(n)


def _replicates(plan: Plan, mean: ArmMean) -> list[Replicates] | None:
    """Those of all runs of an arm; None if one is absent."""
    benchmark = mean.endpoint.rpartition("/")[0]
    found = [plan.results.replicates(digest, benchmark) for digest in mean.runs]
    there = [one for one in found if one is not None]
    return there if len(there) == len(found) else None


def _known(path: Path) -> dict[tuple[Any, ...], Any]:
    """Intervals of an earlier summary that had the replicates, by what they are of."""
    if not path.exists():
        return {}
    told = read_json_object(path, "Delete it and sum up again.")
    entries: list[ArmMean | ArmDifference] = [from_dict(ArmMean, entry) for entry in told.get("means", [])]
    entries += [from_dict(ArmDifference, entry) for entry in told.get("differences", [])]
    return {(type(one), one.endpoint, one.runs): one for one in entries if one.method in _DRAWN}


def _better(now: T, known: dict[tuple[Any, ...], Any]) -> T:
    """The entry with the interval that an earlier summary had of the very same runs, if it has none itself.

    No more than the interval: the earlier one may have been under the name of another arm.
    """
    before: T | None = None if now.method in _DRAWN else known.get((type(now), now.endpoint, now.runs))
    if before is None:
        return now
    taken = {name: getattr(before, name) for name in ("low", "high", "method")}
    if isinstance(before, ArmDifference):
        taken["p"] = before.p if before.method == BOOTSTRAP else None
    return replace(now, **taken)


def _choices(plan: Plan) -> list[Choice]:
    found = []
    for arm in plan.study.arms:
        trial = plan.chosen(arm)
        if trial is None or plan.study.tuning is None:
            continue
        runs = [run for run in plan.trials(arm) if run is not None]
        scores = [plan.results[run.digest]["scores"] for run in runs]
        changes = {name: value for name, value in runs[trial].changes.items() if not name.startswith("hold_out")}
        values = tuple(score.get(HELD_OUT, {}).get(plan.study.tuning.figure) for score in scores)
        found.append(Choice(arm, trial, changes, values))
    return found


def _similarities(plan: Plan, digests: Sequence[str]) -> dict[str, dict[str, float]]:
    return _by_group([plan.results[digest]["similarities"] for digest in digests])


def _by_group(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over runs, in the groups that all of them have."""
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: _means([run[name] for run in runs]) for name in shared}


def _means(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over runs, of the figures that all of them have."""
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: statistics.fmean(run[name] for run in runs) for name in shared}


def _statistics(plan: Plan, digests: Sequence[str]) -> dict[str, float]:
    last = [{k: v[-1] for k, v in plan.results[d]["by_epoch"].items() if v[-1] is not None} for d in digests]
    return {name: statistics.fmean(one[name] for one in last if name in one) for name in last[0]}
