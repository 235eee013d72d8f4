"""Figures of scored pairs when each pair counts with a weight that its identities give it.

Identity i has weight w_i, how often it was drawn. A genuine pair of i counts w_i times; an impostor pair of i and j
w_i w_j times, once for each copy of i with each copy of j. Copies of one identity make no impostor pair. Scores are
sorted once; a new set of weights costs two look-ups and a running sum.

Axes: g genuine pairs, m impostor pairs, u units (identities, or single pairs where nobody knows the identities),
f folds, n pairs of a list, t thresholds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Weighed", "WeightedCurve", "WeightedFolds"]


@dataclass(frozen=True, eq=False)
class Weighed:
    """The operating points under one set of weights; see :class:`~unpg.evaluate.curves.Roc` for the conventions.

    Attributes:
        true_accepts: (g + 1,) weight of the k highest genuine pairs.
        false_accepts: (m + 1,) weight of the k highest impostor pairs.
        curve: What was weighed.
    """

    true_accepts: NDArray[np.float64]
    false_accepts: NDArray[np.float64]
    curve: "WeightedCurve"

    @property
    def empty(self) -> bool:
        """No genuine or no impostor pair has a weight: there are no rates."""
        return not (self.true_accepts[-1] > 0 and self.false_accepts[-1] > 0)

    def tar_at_far(self, target: float) -> float:
        """The largest TAR among thresholds with FAR <= ``target``; NaN without pairs."""
        if self.empty:
            return math.nan
        total = self.false_accepts[-1]
        # Compared as quotients, as Roc.tar_at_far does.
        at = self._last(lambda k: bool(self.false_accepts[self.curve.impostor_at[k]] / total <= target))
        return float(self.true_accepts[self.curve.genuine_at[at]] / self.true_accepts[-1])

    @property
    def eer(self) -> float:
        """Equal error rate, joined by straight lines; NaN without pairs."""
        if self.empty:
            return math.nan
        before = self._last(lambda k: self._rates(k)[0] < self._rates(k)[1])
        (low, fnmr), (high, next_fnmr) = self._rates(before), self._rates(before + 1)
        gap, next_gap = low - fnmr, high - next_fnmr
        return low + gap / (gap - next_gap) * (high - low)

    def false_accepts_at(self, threshold: float) -> float:
        """Weight of the impostor pairs with score >= ``threshold``."""
        at = int(np.searchsorted(self.curve.fallen, -threshold, side="right"))
        return float(self.false_accepts[self.curve.impostor_at[at]])

    def rates_at(self, threshold: float) -> tuple[float, float, float]:
        """FMR, FNMR and accuracy when scores >= ``threshold`` are accepted; NaN without pairs."""
        if self.empty:
            return math.nan, math.nan, math.nan
        at = int(np.searchsorted(self.curve.fallen, -threshold, side="right"))
        genuine, impostor = self.true_accepts[-1], self.false_accepts[-1]
        accepted = self.true_accepts[self.curve.genuine_at[at]]
        false = self.false_accepts[self.curve.impostor_at[at]]
        right = accepted + impostor - false
        return float(false / impostor), float((genuine - accepted) / genuine), float(right / (genuine + impostor))

    @property
    def auc(self) -> float:
        """Area under the ROC curve; ties are one half. NaN without pairs."""
        if self.empty:
            return math.nan
        above, not_below = self.curve.impostors_above, self.curve.impostors_not_below
        lost = np.dot(np.diff(self.true_accepts), self.false_accepts[above] + self.false_accepts[not_below])
        return float(1 - lost / (2 * self.true_accepts[-1] * self.false_accepts[-1]))

    def _rates(self, k: int) -> tuple[float, float]:
        genuine, impostor = self.true_accepts[-1], self.false_accepts[-1]
        accepted = self.true_accepts[self.curve.genuine_at[k]]
        return (
            float(self.false_accepts[self.curve.impostor_at[k]] / impostor),
            float((genuine - accepted) / genuine),
        )

    def _last(self, holds: Callable[[int], bool]) -> int:
        """The last threshold, from the strictest on, at which a condition holds that holds up to some threshold."""
        low, high = 0, len(self.curve.genuine_at)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low


class WeightedCurve:
    """Genuine and impostor scores, sorted, and whose they are.

    Args:
        genuine: (g,) real scores.
        genuine_units: (g,) int, the unit of each.
        impostor: (m,) real scores.
        impostor_units: Arrays (m,) int, the units of each: two identities, or the pair itself.
        exact: So many of the highest impostor scores are all that there are; the others are a uniform sample of the
            rest, scaled so that the total is right. None: all are there.
        total: The weight of all impostor pairs under weights (u,). Needed with a sample.
    """

    def __init__(
        self,
        genuine: NDArray[np.floating[Any]],
        genuine_units: NDArray[np.integer[Any]],
        impostor: NDArray[np.floating[Any]],
        impostor_units: tuple[NDArray[np.integer[Any]], ...],
        *,
        exact: int | None = None,
        total: Callable[[NDArray[np.int64]], int] | None = None,
    ) -> None:
        order, other = np.argsort(-genuine, kind="stable"), np.argsort(-impostor, kind="stable")
        self.genuine_units = genuine_units[order].astype(np.intp)
        self.impostor_units = tuple(units[other].astype(np.intp) for units in impostor_units)
        self.exact = len(impostor) if exact is None else exact
        self.total = total
        fallen, fallen_other = -genuine[order], -impostor[other]
        self.impostors_above = np.searchsorted(fallen_other, fallen, side="left")
        self.impostors_not_below = np.searchsorted(fallen_other, fallen, side="right")
        # Accept nothing, then at every distinct score: how many pairs of each kind are accepted.
        thresholds = np.unique(np.concatenate([fallen, fallen_other]))
        self.fallen = thresholds  # negated, hence rising
        self.genuine_at = np.append(0, np.searchsorted(fallen, thresholds, side="right"))
        self.impostor_at = np.append(0, np.searchsorted(fallen_other, thresholds, side="right"))

    def weighed(self, weights: NDArray[np.int64]) -> Weighed:
        """The operating points under ``weights`` (u,)."""
        real = weights.astype(np.float64)  # whole numbers still, and sums need no conversion
        pairs = real[self.impostor_units[0]]
        for units in self.impostor_units[1:]:
            pairs *= real[units]
        accepted = _sums(pairs)
        if self.exact < len(pairs):
            assert self.total is not None
            total = self.total(weights)
            tail = accepted[self.exact]
            drawn = accepted[-1] - tail
            rest = accepted[self.exact + 1 :]
            rest[:] = tail + (rest - tail) * ((total - tail) / drawn if drawn else 0.0)
            accepted[-1] = total
        return Weighed(_sums(real[self.genuine_units]), accepted, self)


class WeightedFolds:
    """A pair list in folds, so that accuracies follow from weights.

    Args:
        scores: (n,) real.
        same: (n,) bool.
        units: Arrays (n,) int, the units of each pair: two identities, or the pair itself.
        folds: (n,) int.
        grid: Thresholds on the squared distance, ``insightface-grid``; None leaves that rule out.
    """

    def __init__(
        self,
        scores: NDArray[np.floating[Any]],
        same: NDArray[np.bool_],
        units: tuple[NDArray[np.integer[Any]], ...],
        folds: NDArray[np.integer[Any]],
        grid: NDArray[np.float64] | None = None,
    ) -> None:
        order = np.argsort(-scores, kind="stable")
        fallen = -scores[order]
        self.sign = np.where(same[order], 1, -1)
        self.same = same[order]
        self.units = tuple(u[order].astype(np.intp) for u in units)
        names, self.fold = np.unique(folds[order], return_inverse=True)
        self.folds = len(names)
        last = np.append(np.flatnonzero(fallen[1:] != fallen[:-1]), len(fallen) - 1)
        self.candidates = {"exact": np.append(0, last + 1)}
        if grid is not None:
            distance = np.maximum(2 + 2 * fallen.astype(np.float64), 0.0)
            self.candidates["insightface-grid"] = np.searchsorted(distance, grid, side="left")

    def accuracies(self, weights: NDArray[np.int64]) -> dict[str, float]:
        """Mean accuracy over the folds by rule, as :func:`~unpg.evaluate.verification.fold_accuracy` defines it.

        Folds in which no pair has a weight are left out; NaN if fewer than two are left.
        """
        pair = weights[self.units[0]]
        for units in self.units[1:]:
            pair = np.where(self.same, pair, pair * weights[units])
        weight = np.zeros((self.folds, len(pair)), dtype=np.int64)
        weight[self.fold, np.arange(len(pair))] = pair
        impostors = np.sum(weight, axis=1, where=~self.same)
        totals = weight.sum(axis=1)
        # Right answers of each fold, less its impostors, when the k highest pairs are accepted.
        gained = np.zeros((self.folds, len(pair) + 1), dtype=np.int64)
        np.cumsum(weight * self.sign, axis=1, out=gained[:, 1:])
        others = gained.sum(axis=0) - gained
        held = totals > 0
        found = {}
        for rule, candidates in self.candidates.items():
            best = candidates[np.argmax(others[:, candidates], axis=1)]  # the first, hence the strictest
            right = gained[np.arange(self.folds), best] + impostors
            found[rule] = float(np.mean(right[held] / totals[held])) if held.sum() > 1 else math.nan
        return found


def _sums(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k + 1,) running sums from 0; of whole numbers, hence exact up to 2^53."""
    sums = np.empty(len(weights) + 1)
    sums[0] = 0.0
    np.cumsum(weights, out=sums[1:])
    return sums
