"""Accuracy over the folds of a verification list: the protocol of LFW, CFP and their kin.

The threshold is chosen on the other folds and tested on the one left out. Two ways of choosing are in use and
differ by some hundredths of a per cent; a third one, the best threshold on the very pairs that are tested,
flatters the model and therefore has its own name.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unpg.errors import ConfigError, DataError, ShapeError, did_you_mean
from unpg.evaluate.curves import check_scores, tally

__all__ = [
    "FOLD_RULES",
    "INSIGHTFACE_GRID",
    "BestThreshold",
    "FoldAccuracy",
    "best_threshold",
    "fold_accuracy",
    "strictest_best",
]

INSIGHTFACE_GRID: NDArray[np.float64] = np.arange(0, 4, 0.01)
"""Thresholds of ``insightface-grid``, on the squared Euclidean distance of unit vectors."""


@dataclass(frozen=True)
class FoldAccuracy:
    """Accuracy with the threshold of each fold chosen on the others.

    Attributes:
        rule: How the threshold is chosen, one of :data:`FOLD_RULES`.
        mean: Mean over the folds, a fraction.
        std: Standard deviation over the folds (divided by their number, as the field does). It is the spread
            of one model over folds that share identities, not a confidence interval.
        accuracies: One per fold, in the order of the fold numbers.
        thresholds: Cosine at and above which a pair of that fold was accepted; None if none was. With the
            insightface grid a squared distance *below* 2 - 2 * threshold was asked for.
    """

    rule: str
    mean: float
    std: float
    accuracies: tuple[float, ...]
    thresholds: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class BestThreshold:
    """The accuracy at the threshold that is best on the tested pairs themselves: optimistic.

    Attributes:
        accuracy: A fraction.
        threshold: Score at and above which pairs are accepted; None if accepting none is best.
    """

    accuracy: float
    threshold: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


Chooser = Callable[
    [NDArray[np.floating[Any]], NDArray[np.bool_]], tuple[float, Callable[[NDArray[Any]], NDArray[np.bool_]]]
]


def fold_accuracy(scores: ArrayLike, same: ArrayLike, folds: ArrayLike, rule: str = "exact") -> FoldAccuracy:
    """Accuracy over the folds, each judged with the threshold that is best on all others.

    Args:
        scores: (n,) real, higher = more alike. With ``insightface-grid``, cosines.
        same: (n,) bool, True for one identity.
        folds: (n,) int, the fold of each pair.
        rule: ``"exact"``: the candidates are all distinct scores of the other folds, and "accept none";
            accept when score >= T. ``"insightface-grid"``: the candidates are 0, 0.01 .. 3.99 on the squared
            Euclidean distance of unit vectors (2 - 2 cos); accept when distance < T. Where several candidates
            are equally good, the strictest is taken in both; the choice never looks at the fold under test.

    Raises:
        ShapeError: The three are not vectors of one length.
        DataError: A score is not finite, or there are fewer than two folds.
        ConfigError: The rule is unknown, or the grid is asked for on scores that are no cosines.

    Source: G. B. Huang et al., Labeled Faces in the Wild, 2007 (View 2); the grid: insightface,
    ``arcface_torch/eval/verification.py``.
    """
    if rule not in FOLD_RULES:
        raise ConfigError(f"folds={rule!r} is no rule for choosing thresholds.{did_you_mean(str(rule), FOLD_RULES)}")
    values, truth = check_scores(scores, same)
    number = np.asarray(folds)
    if number.shape != values.shape:
        raise ShapeError(f"folds must have one entry per pair, shape {values.shape}; got {number.shape}.")
    names = np.unique(number)
    if len(names) < 2:
        raise DataError(
            f"Accuracy over folds needs two folds or more; got {len(names)}. "
            "A list without folds can be judged by EER, TAR at FAR, or the all-pairs best threshold."
        )
    if rule == "insightface-grid" and np.abs(values).max() > 1.001:
        raise ConfigError("folds='insightface-grid' needs cosines in [-1, 1]; for other scores use folds='exact'.")
    accuracies, thresholds = [], []
    for name in names:
        test = number == name
        threshold, accept = FOLD_RULES[rule](values[~test], truth[~test])
        accuracies.append(float(np.mean(accept(values[test]) == truth[test])))
        thresholds.append(threshold if np.isfinite(threshold) else None)
    return FoldAccuracy(
        rule, float(np.mean(accuracies)), float(np.std(accuracies)), tuple(accuracies), tuple(thresholds)
    )


def best_threshold(scores: ArrayLike, same: ArrayLike) -> BestThreshold:
    """The all-pairs best threshold: chosen on the pairs it is tested on, as the UNPG authors do (optimistic).

    Same conventions as :func:`fold_accuracy` with ``rule="exact"``; the strictest of several best is taken.

    Source: Jung-Jun-Uk/UNPG, ``common_metrics.py``.
    """
    values, truth = check_scores(scores, same)
    threshold, right = _strictest_best(values, truth)
    return BestThreshold(right / len(values), threshold if np.isfinite(threshold) else None)


def _strictest_best(scores: NDArray[Any], same: NDArray[np.bool_]) -> tuple[float, int]:
    thresholds, true_accepts, false_accepts = tally(scores, same)
    at = strictest_best(true_accepts, false_accepts)
    return float(thresholds[at]), int(true_accepts[at] + false_accepts[-1] - false_accepts[at])


def strictest_best(true_accepts: NDArray[np.int64], false_accepts: NDArray[np.int64]) -> int:
    """The first of the operating points (t,), from "accept nothing" on, that judges most pairs rightly."""
    return int(np.argmax(true_accepts - false_accepts))  # the first, and thresholds fall


def _exact(scores: NDArray[Any], same: NDArray[np.bool_]) -> tuple[float, Callable[[NDArray[Any]], NDArray[np.bool_]]]:
    threshold, _ = _strictest_best(scores, same)
    return threshold, lambda held_out: held_out >= threshold


def _insightface_grid(
    scores: NDArray[Any], same: NDArray[np.bool_]
) -> tuple[float, Callable[[NDArray[Any]], NDArray[np.bool_]]]:
    grid = INSIGHTFACE_GRID
    # Distances below each grid point, by kind, from one sort each.
    accepted = [np.searchsorted(np.sort(_squared_distance(scores[kind])), grid) for kind in (same, ~same)]
    limit = float(grid[np.argmax(accepted[0] - accepted[1])])
    return 1 - limit / 2, lambda held_out: _squared_distance(held_out) < limit


def _squared_distance(cosine: NDArray[Any]) -> NDArray[np.float64]:
    return np.maximum(2 - 2 * cosine.astype(np.float64), 0.0)


FOLD_RULES: dict[str, Chooser] = {"exact": _exact, "insightface-grid": _insightface_grid}
"""The ways to choose a threshold on the other folds, by name."""
