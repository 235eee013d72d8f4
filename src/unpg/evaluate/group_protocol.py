"""Verification by groups of people (RFW, and any set of pairs or identities that names groups).

Pairs are formed within groups. One common threshold serves all; beside it stands what each group would reach at its
own.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.data.image_set import ImageSet
from unpg.errors import ShapeError
from unpg.evaluate.benchmark import EmbedFunction, embedded
from unpg.evaluate.bootstrap import FEWEST_UNITS, Bootstrap, Intervals, Replicates, bootstrap
from unpg.evaluate.curves import Roc
from unpg.evaluate.evidence import Evidence, list_evidence
from unpg.evaluate.groups import GroupsResult, compare_groups, largest_over_smallest
from unpg.evaluate.judge import pair_scores
from unpg.evaluate.results import kept_replicates, told_intervals
from unpg.evaluate.verification import FoldAccuracy, fold_accuracy

__all__ = ["GROUP_TARGET", "GroupBenchmark", "GroupedResult", "judge_groups"]

GROUP_TARGET = 1e-2
"""FAR of the common threshold: RFW's groups have 3,000 impostor pairs each, which resolve no FAR much smaller."""


@dataclass(frozen=True, eq=False)
class GroupedResult:
    """Result over groups of pairs.

    Attributes:
        benchmark: Its name.
        compared: The rates at the common threshold.
        common_threshold: Pairs are accepted at and above this score; None if no pair may be.
        chosen: Where a threshold from another set comes from; empty for that of all pairs together.
        target: FAR that the common threshold was chosen for, and each group's own is.
        accuracy: Accuracy over the folds by group, each group with thresholds of its own; empty without folds.
        eer: Equal error rate by group.
        scores: Cosines (n,) float32 by group.
        same: Answers (n,) bool by group.
        people: (n, 2) int by group, who each image shows; None if nobody knows.
        folds: (n,) int by group; None without folds.
        left_out: Pairs that could not be judged, since an image of theirs is missing.
        intervals: Of the figures; None if nobody asked.
        replicates: What they were cut from.
    """

    benchmark: str
    compared: GroupsResult
    common_threshold: float | None
    chosen: str
    target: float
    accuracy: Mapping[str, FoldAccuracy]
    eer: Mapping[str, float]
    scores: Mapping[str, NDArray[np.float32]] = field(repr=False)
    same: Mapping[str, NDArray[np.bool_]] = field(repr=False)
    people: Mapping[str, NDArray[np.integer]] | None = field(default=None, repr=False)
    folds: Mapping[str, NDArray[np.integer]] | None = field(default=None, repr=False)
    left_out: int = 0
    intervals: Intervals | None = None
    replicates: Replicates | None = field(default=None, repr=False)
    protocol: str = "groups"

    @property
    def ratios(self) -> dict[str, float]:
        """Largest over smallest rate of the groups: ``fmr``, ``fnmr`` (common threshold) and ``skewed_error`` (error of
        the accuracy in the table); inf where a group has no error, NaN where none has.
        """
        errors = [1 - self._accuracy(group.group) for group in self.compared.groups]
        return {
            "fmr": self.compared.fmr_ratio,
            "fnmr": self.compared.fnmr_ratio,
            "skewed_error": largest_over_smallest(errors),
        }

    def metrics(self) -> dict[str, float]:
        """``accuracy``, ``fmr``, ``fnmr``, ``eer`` and ``tar`` (own threshold) of each group, as ``fmr/African``, their
        mean accuracy as ``accuracy``, and the finite ratios, as ``ratio/fmr``; fractions.
        """
        found: dict[str, float] = {}
        for group in self.compared.groups:
            name = group.group
            found[f"accuracy/{name}"] = self._accuracy(name)
            found |= {f"fmr/{name}": group.fmr, f"fnmr/{name}": group.fnmr, f"eer/{name}": self.eer[name]}
            if group.own.value is not None:
                found[f"tar/{name}"] = group.own.value
        found["accuracy"] = float(np.mean([self._accuracy(g.group) for g in self.compared.groups]))
        return found | {f"ratio/{name}": r for name, r in self.ratios.items() if math.isfinite(r)}

    def with_intervals(self, settings: Bootstrap) -> "GroupedResult":
        """The same with an interval for each rate of a group, by drawing people.

        The common threshold is chosen anew in each draw, unless it comes from another set. Ratios have none: where a
        group may have no error at all, a ratio has no upper end.
        """
        evidence = _GroupEvidence(self)
        figures = {name: value for name, value in self.metrics().items() if not name.startswith("ratio/")}
        intervals, replicates = bootstrap(evidence, figures, [self.target], settings)
        return replace(self, intervals=intervals, replicates=replicates)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the scores, fit for JSON."""
        groups = {
            g.group: {
                "genuine": g.genuine,
                "impostor": g.impostor,
                "accuracy": self._accuracy(g.group),
                "accuracy_std": self.accuracy[g.group].std if g.group in self.accuracy else None,
                "accuracy_common": g.accuracy,
                "eer": self.eer[g.group],
                "tar_at_far_own": g.own.to_dict(),
                "tar_at_far_common": 1 - g.fnmr,
                "fmr_common": g.fmr,
                "fnmr_common": g.fnmr,
            }
            for g in self.compared.groups
        }
        return {
            "benchmark": self.benchmark,
            "protocol": self.protocol,
            "genuine": sum(g.genuine for g in self.compared.groups),
            "impostor": sum(g.impostor for g in self.compared.groups),
            "left_out": self.left_out,
            "groups": groups,
            "accuracy_rule": "folds" if self.accuracy else "common threshold",
            "common_threshold": self.common_threshold,
            "chosen": self.chosen or f"all groups together:far={self.target:g}",
            "target": self.target,
            "ratios": {name: ratio if math.isfinite(ratio) else None for name, ratio in self.ratios.items()},
            "metrics": self.metrics(),
        } | told_intervals(self.intervals)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``scores/<group>`` (n,) float32 and ``same/<group>`` (n,) bool; with intervals ``replicates``."""
        found: dict[str, NDArray[Any]] = {f"scores/{name}": scores for name, scores in self.scores.items()}
        return found | {f"same/{name}": same for name, same in self.same.items()} | kept_replicates(self.replicates)

    def _accuracy(self, group: str) -> float:
        if group in self.accuracy:
            return self.accuracy[group].mean
        return next(g.accuracy for g in self.compared.groups if g.group == group)


@dataclass(frozen=True, eq=False)
class GroupBenchmark:
    """Pairs within groups of people.

    Args:
        name: Name in tables.
        images: The images of all groups.
        pairs: (n, 2) int, indices into ``images``.
        same: (n,) bool.
        groups: (n,) the group of each pair.
        folds: (n,) int, numbered within each group; None without folds.
        identities: (f,) int, who each image shows; None if nobody knows.
        left_out: Pairs that cannot be judged.
        target: FAR of the operating points.
        threshold: The common threshold, from another set; None takes that of all pairs together.
        chosen: Where that threshold comes from.
    """

    name: str
    images: ImageSet
    pairs: NDArray[np.integer]
    same: NDArray[np.bool_]
    groups: NDArray[Any]
    folds: NDArray[np.integer] | None = None
    identities: NDArray[np.integer] | None = None
    left_out: int = 0
    target: float = GROUP_TARGET
    threshold: float | None = None
    chosen: str = ""

    def run(self, embed: EmbedFunction) -> GroupedResult:
        """Rates of each group at the common threshold and at its own, and their ratios."""
        vectors, _ = embedded(self.images, embed)
        return judge_groups(
            self.name,
            pair_scores(vectors, self.pairs),
            self.same,
            self.groups,
            self.folds,
            None if self.identities is None else self.identities[self.pairs],
            left_out=self.left_out,
            target=self.target,
            threshold=self.threshold,
            chosen=self.chosen,
        )


def judge_groups(
    name: str,
    scores: NDArray[np.float32],
    same: NDArray[np.bool_],
    groups: NDArray[Any],
    folds: NDArray[np.integer] | None = None,
    people: NDArray[np.integer] | None = None,
    *,
    left_out: int = 0,
    target: float = GROUP_TARGET,
    threshold: float | None = None,
    chosen: str = "",
) -> GroupedResult:
    """Judge scores (n,) of pairs by their groups (n,); see :class:`GroupBenchmark`.

    Raises:
        ShapeError: The columns do not fit each other.
        DataError: As :func:`~unpg.evaluate.groups.compare_groups`.
    """
    names = np.asarray(groups)
    compared = compare_groups(scores, same, names, target=target, threshold=threshold)
    member = {str(group): names == group for group in np.unique(names)}
    if folds is not None and np.asarray(folds).shape != names.shape:
        raise ShapeError(f"folds must have one entry per pair, {names.shape}; got {np.asarray(folds).shape}.")
    return GroupedResult(
        benchmark=name,
        compared=compared,
        common_threshold=compared.common.threshold if threshold is None else threshold,
        chosen=chosen if threshold is not None else "",
        target=target,
        accuracy={}
        if folds is None
        else {group: fold_accuracy(scores[m], same[m], folds[m]) for group, m in member.items()},
        eer={group: Roc.from_scores(scores[m], same[m]).eer for group, m in member.items()},
        scores={group: scores[m] for group, m in member.items()},
        same={group: same[m] for group, m in member.items()},
        people=None if people is None else {group: people[m] for group, m in member.items()},
        folds=None if folds is None else {group: folds[m] for group, m in member.items()},
        left_out=left_out,
    )


class _GroupEvidence:
    """The pairs of all groups, ready for weights of people; what :func:`~unpg.evaluate.bootstrap.bootstrap` asks for.

    People of all groups are drawn together; those of different groups are different people. The figures of a group
    rest on its own.
    """

    counted = "genuine pairs"
    sampled = 0
    tail = 1.0

    def __init__(self, result: GroupedResult) -> None:
        self.result = result
        self.parts: dict[str, Evidence] = {}
        for group, scores in result.scores.items():
            people = None if result.people is None else result.people[group]
            folds = None if result.folds is None else result.folds[group]
            self.parts[group] = list_evidence(scores, result.same[group], people, folds)
        first = next(iter(self.parts.values()))
        self.unit = first.unit
        self.units = sum(part.units for part in self.parts.values())
        self.genuine_pairs: NDArray[np.int64] = np.concatenate([p.genuine_pairs for p in self.parts.values()])
        self.digest = hashlib.sha256("".join(p.digest for p in self.parts.values()).encode()).hexdigest()
        held = {group: np.count_nonzero(part.genuine_pairs) for group, part in self.parts.items()}
        units = "identities" if self.unit == "identity" else "pairs"
        self.notes = [
            f"no intervals of {group!r} from {n} {units} with genuine pairs; {FEWEST_UNITS} are needed"
            for group, n in held.items()
            if n < FEWEST_UNITS
        ]
        self.candidates: NDArray[np.float32] = np.unique(np.concatenate(list(result.scores.values())))[::-1]

    def genuine_pairs_of(self, figure: str) -> NDArray[np.int64]:
        """Those of the group that a figure names; all of a figure of all."""
        _, _, group = figure.partition("/")
        return self.parts[group].genuine_pairs if group else self.genuine_pairs

    def figures(self, weights: NDArray[np.int64], targets: Sequence[float]) -> dict[str, float]:
        """Rates by name, as in ``metrics()``, under ``weights`` (u,)."""
        ends = np.cumsum([part.units for part in self.parts.values()])
        drawn = dict(zip(self.parts, np.split(weights, ends[:-1]), strict=True))
        weighed = {group: part.curve.weighed(drawn[group]) for group, part in self.parts.items()}
        threshold = self.result.common_threshold if self.result.chosen else self._common(weighed, targets[0])
        found: dict[str, float] = {}
        for group, part in self.parts.items():
            fmr, fnmr, right = weighed[group].rates_at(math.inf if threshold is None else threshold)
            accuracy = part.folds.accuracies(drawn[group])["exact"] if part.folds is not None else right
            found |= {f"accuracy/{group}": accuracy, f"fmr/{group}": fmr, f"fnmr/{group}": fnmr}
            found[f"eer/{group}"] = weighed[group].eer
            found[f"tar/{group}"] = weighed[group].tar_at_far(targets[0])
        found["accuracy"] = float(np.mean([found[f"accuracy/{group}"] for group in self.parts]))
        return found

    def _common(self, weighed: Mapping[str, Any], target: float) -> float | None:
        """The lowest score at which all groups together have FAR <= ``target``; None if no score has."""
        total = sum(w.false_accepts[-1] for w in weighed.values())
        if not total > 0:
            return None
        candidates = self.candidates  # falling
        low, high = -1, len(candidates)  # candidates[low] holds (-1: nothing is accepted), candidates[high] does not
        while high - low > 1:
            middle = (low + high) // 2
            false = sum(w.false_accepts_at(candidates[middle]) for w in weighed.values())
            low, high = (middle, high) if false / total <= target else (low, middle)
        return float(candidates[low]) if low >= 0 else None
