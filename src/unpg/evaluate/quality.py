"""Does a quality score know which images fail? Error-versus-discard curves (ISO/IEC 29794-1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.curves import Roc, check_scores

__all__ = ["DiscardCurve", "error_versus_discard", "pair_quality"]


@dataclass(frozen=True, eq=False)
class DiscardCurve:
    """FNMR at a fixed threshold while the pairs of lowest quality are discarded.

    Attributes:
        discarded: (k,) share of the genuine pairs left out, rising from 0.
        fnmr: (k,) false non-match rate of the rest.
        ideal: (k,) what a quality that discards failures first would reach.
        threshold: Score at and above which pairs are accepted.
        fmr: What that threshold was chosen for.
    """

    discarded: NDArray[np.float64]
    fnmr: NDArray[np.float64]
    ideal: NDArray[np.float64]
    threshold: float
    fmr: float

    def area_above_ideal(self, until: float = 0.2) -> float:
        """Area between curve and ideal from 0 to the discard share ``until``, points joined by lines: 0 is perfect.

        Raises:
            ConfigError: ``until`` is not in (0, 1].
            DataError: Fewer than two points of the curve lie below ``until``.
        """
        if not 0 < until <= 1:
            raise ConfigError(f"The area is taken up to a share in (0, 1]; got {until}.")
        inside = self.discarded <= until
        if inside.sum() < 2:
            raise DataError(f"Fewer than two points of the curve lie below a discard share of {until}.")
        gap = self.fnmr - self.ideal
        # A curve whose next cut lies beyond ends in between; one whose last cut lies before ends there.
        end = min(until, float(self.discarded[-1]))
        x = np.append(self.discarded[inside], end)
        y = np.append(gap[inside], np.interp(end, self.discarded, gap))
        return float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)))


def pair_quality(first: ArrayLike, second: ArrayLike) -> NDArray[Any]:
    """Quality (n,) of pairs: the worse of their two images."""
    worse: NDArray[Any] = np.minimum(np.asarray(first), np.asarray(second))
    return worse


def error_versus_discard(
    scores: ArrayLike, same: ArrayLike, quality: ArrayLike, *, fmr: float = 1e-3, steps: int = 100
) -> DiscardCurve:
    """The curve of a quality score.

    Pairs of equal quality are discarded together; the threshold is that of all pairs at FAR <= ``fmr`` and stays.

    Args:
        scores: (n,) real, higher = more alike.
        same: (n,) bool.
        quality: (n,) real, higher = better; of pairs, see :func:`pair_quality`.
        fmr: False match rate of the threshold.
        steps: Points of the curve, at most.

    Raises:
        ShapeError: The columns do not fit each other.
        DataError: A quality is not finite, or the pairs cannot resolve ``fmr``.
    """
    values, truth = check_scores(scores, same)
    good = np.asarray(quality, dtype=np.float64)
    if good.shape != values.shape:
        raise ShapeError(f"quality must have one entry per pair, {values.shape}; got {good.shape}.")
    if not np.isfinite(good).all():
        raise DataError(f"Quality {int(np.flatnonzero(~np.isfinite(good))[0])} is not finite.")
    point = Roc.from_scores(values, truth).tar_at_far(fmr)
    if not point.resolvable:
        raise DataError(f"No threshold: {point.reason}. Take a larger fmr.")
    threshold = np.inf if point.threshold is None else point.threshold
    order = np.argsort(good[truth], kind="stable")
    ranked, failed = good[truth][order], (values[truth] < threshold)[order]
    n = len(ranked)
    # A cut lies only between different qualities.
    cuts = np.append(0, np.flatnonzero(ranked[1:] != ranked[:-1]) + 1)
    if len(cuts) > steps:
        wanted = np.linspace(0, cuts[-1], steps)
        cuts = np.unique(cuts[np.searchsorted(cuts, wanted).clip(max=len(cuts) - 1)])
    left = n - cuts
    failures = failed.sum() - np.concatenate([[0], np.cumsum(failed)])[cuts]
    ideal = np.maximum(failed.sum() - cuts, 0) / left
    return DiscardCurve(cuts / n, failures / left, ideal, float(threshold), fmr)
