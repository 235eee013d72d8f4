"""A distribution of similarities: distinct values with how much each counts, and how far two of them lie apart.

Axes: k distinct values.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.curves import Roc

__all__ = ["Distribution"]


@dataclass(frozen=True, eq=False)
class Distribution:
    """Similarities, each value once.

    Attributes:
        values: (k,) float64, strictly rising.
        counts: (k,) float64, all above zero: how many similarities have the value, or what they weigh.
    """

    values: NDArray[np.float64]
    counts: NDArray[np.float64]

    @classmethod
    def of_counts(cls, values: ArrayLike, counts: ArrayLike) -> "Distribution":
        """From a histogram: ``values`` (k,) strictly rising, ``counts`` (k,) >= 0; empty entries are left out.

        Raises:
            ShapeError: They are not vectors of one length, or the values do not rise.
            DataError: All counts are zero, or one is negative or not finite.
        """
        v, c = np.asarray(values, dtype=np.float64), np.asarray(counts, dtype=np.float64)
        if v.ndim != 1 or v.shape != c.shape or not bool(np.all(v[1:] > v[:-1])):
            raise ShapeError(
                f"values and counts must be vectors of one length and the values must rise; got {v.shape} and {c.shape}"
            )
        held = c != 0
        if not held.any() or not np.isfinite(c).all() or c.min() < 0:
            raise DataError("A distribution needs one similarity or more, and counts that are finite and >= 0.")
        return cls(v[held], c[held])

    @classmethod
    def of_scores(cls, scores: ArrayLike) -> "Distribution":
        """From similarities (n,), finite; each counts 1.

        Raises:
            ShapeError: Not a vector.
            DataError: There are none, or one is not finite.
        """
        s = np.asarray(scores, dtype=np.float64)
        if s.ndim != 1:
            raise ShapeError(f"scores must be a vector; got shape {s.shape}.")
        if not np.isfinite(s).all():
            raise DataError(f"{np.count_nonzero(~np.isfinite(s)):,} of {len(s):,} similarities are not finite.")
        values, counts = np.unique(s, return_counts=True)
        return cls.of_counts(values, counts)

    @classmethod
    def of_roc(cls, roc: Roc) -> "tuple[Distribution, Distribution]":
        """The genuine and the impostor scores that a curve was made from."""
        values = roc.thresholds[:0:-1]
        genuine, impostor = (np.diff(accepts)[::-1] for accepts in (roc.true_accepts, roc.false_accepts))
        return cls.of_counts(values, genuine), cls.of_counts(values, impostor)

    @property
    def total(self) -> float:
        """What all similarities count together."""
        return float(self.counts.sum())

    @property
    def minimum(self) -> float:
        """The smallest similarity."""
        return float(self.values[0])

    @property
    def maximum(self) -> float:
        """The largest similarity."""
        return float(self.values[-1])

    @property
    def mean(self) -> float:
        """Mean similarity."""
        return float(self.values @ self.counts / self.total)

    def quantile(self, q: float) -> float:
        """The smallest value that the share ``q`` of the similarities does not exceed; q = 0 is the minimum.

        By nearest rank (numpy's ``inverted_cdf``): always a similarity that occurs, never one between two.

        Raises:
            ConfigError: ``q`` is not in [0, 1].
        """
        if not 0 <= q <= 1:
            raise ConfigError(f"A quantile lies in [0, 1]; got {q}.")
        running = np.cumsum(self.counts)
        # 0.999 * 1000 is a hair below 999: without the slack the rank would slip by one.
        at = int(np.searchsorted(running, q * running[-1] * (1 - 1e-12)))
        return float(self.values[min(at, len(self.values) - 1)])

    def cdf(self, points: ArrayLike) -> NDArray[np.float64]:
        """Share of the similarities <= each point (p,): the distribution function."""
        running = np.concatenate([[0.0], np.cumsum(self.counts)])
        shares: NDArray[np.float64] = running[np.searchsorted(self.values, points, side="right")] / running[-1]
        return shares

    def count_above(self, points: ArrayLike) -> NDArray[np.float64]:
        """What the similarities > each point (p,) count."""
        return self._from(np.searchsorted(self.values, points, side="right"))

    def count_at_least(self, points: ArrayLike) -> NDArray[np.float64]:
        """What the similarities >= each point (p,) count."""
        return self._from(np.searchsorted(self.values, points, side="left"))

    def _from(self, places: Any) -> NDArray[np.float64]:
        # Summed from the top: whole counts stay whole, and a tail is no small difference of large numbers.
        running: NDArray[np.float64] = np.concatenate([np.cumsum(self.counts[::-1])[::-1], [0.0]])
        return np.asarray(running[places])

    def largest(self, share: float) -> tuple[float, float]:
        """The hardest ``share``: how many that is, rounded up to a whole one, and the smallest value among them."""
        wanted = math.ceil(share * self.total * (1 - 1e-12))
        running = np.cumsum(self.counts[::-1])
        at = min(int(np.searchsorted(running, wanted)), len(running) - 1)
        return float(wanted), float(self.values[-1 - at])

    def histogram(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """What falls between the edges (b + 1,): (b,). A bin holds its lower edge, the last one both; what lies outside
        falls into the outermost bin.
        """
        # Rounding puts a cosine of equal vectors past 1.
        within = self.values.clip(edges[0], edges[-1])
        return np.histogram(within, edges, weights=self.counts)[0].astype(np.float64)

    def wasserstein(self, other: "Distribution") -> float:
        """Wasserstein-1 distance, in units of cosine: how far similarities must be moved to turn one into the other.

        The area between the two distribution functions.
        """
        points = np.union1d(self.values, other.values)
        gap = np.abs(self.cdf(points) - other.cdf(points))
        return float(gap[:-1] @ np.diff(points))

    def kolmogorov_smirnov(self, other: "Distribution") -> float:
        """The largest difference of the two distribution functions, in [0, 1]."""
        points = np.union1d(self.values, other.values)
        return float(np.abs(self.cdf(points) - other.cdf(points)).max())
