"""How far an embedding is from a well-discriminative feature space: inf S^p > sup S^n (Jung et al. 2022, arXiv
2203.11593).

S^p: the similarities of all pairs of one identity. S^n: those of all pairs of two.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.evaluate.distribution import Distribution

__all__ = ["OVERLAP_BIN", "QUANTILES", "TAIL", "Wdfs", "overlap"]

TAIL = 1e-3
"""The robust inf S^p is the quantile of this share, the robust sup S^n that of one less this share.

The bare ones belong to a single pair each: one mislabelled picture makes them whatever it likes.
"""

QUANTILES = (TAIL, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1 - TAIL)

OVERLAP_BIN = 2**-6
"""Width of the bins (0.0156 of cosine) over which the overlap is summed: some hundred pairs have few in each of the
finer ones, and histograms of holes overlap too little.
"""

_BINS = np.linspace(-1, 1, round(2 / OVERLAP_BIN) + 1)


@dataclass(frozen=True, eq=False)
class Wdfs:
    """S^p and S^n of a labelled set, side by side.

    Args:
        positives: S^p.
        negatives: S^n.
    """

    positives: Distribution
    negatives: Distribution

    @property
    def gap(self) -> float:
        """``inf S^p - sup S^n``; the space is well-discriminative if it is above zero."""
        return self.positives.minimum - self.negatives.maximum

    @property
    def robust_inf(self) -> float:
        """The 0.1 % quantile of S^p."""
        return self.positives.quantile(TAIL)

    @property
    def robust_sup(self) -> float:
        """The 99.9 % quantile of S^n."""
        return self.negatives.quantile(1 - TAIL)

    @property
    def robust_gap(self) -> float:
        """``robust_inf - robust_sup``."""
        return self.robust_inf - self.robust_sup

    @property
    def relative_gap(self) -> float | None:
        """``robust_gap`` in units of the distance of the means of S^p and S^n; None unless S^p has the larger mean.

        A gap in cosine narrows when all similarities draw together, and nothing is told apart any better. This one does
        not see how wide they are spread.
        """
        between = self.positives.mean - self.negatives.mean
        return self.robust_gap / between if between > 0 else None

    @property
    def overlap(self) -> float:
        """Overlapping coefficient of S^p and S^n: see :func:`overlap`."""
        return overlap(self.positives, self.negatives)

    @property
    def genuine_below(self) -> float:
        """Positive pairs that do not exceed the largest negative one."""
        return self.positives.total - float(self.positives.count_above(self.negatives.maximum))

    @property
    def impostor_above(self) -> float:
        """Negative pairs that reach the smallest positive one."""
        return float(self.negatives.count_at_least(self.positives.minimum))

    @property
    def violation(self) -> float:
        """P(p <= n) of a positive pair and a negative pair drawn apart. Ties violate: WDFS asks for p > n."""
        return self._chance(self.negatives.count_at_least(self.positives.values))

    @property
    def auc_complement(self) -> float:
        """1 - AUC: the same with ties as one half, so that 0.5 is chance."""
        return (self.violation + self._chance(self.negatives.count_above(self.positives.values))) / 2

    def _chance(self, beyond: NDArray[np.float64]) -> float:
        """Mean over S^p of the share of S^n that lies ``beyond`` each of its values."""
        return float(beyond / self.negatives.total @ self.positives.counts / self.positives.total)

    def to_dict(self) -> dict[str, Any]:
        """All figures, fit for JSON. Similarities are cosines, shares are fractions."""
        p, n = self.positives, self.negatives
        return {
            "positives": _described(p),
            "negatives": _described(n),
            "inf_positive": p.minimum,
            "sup_negative": n.maximum,
            "gap": self.gap,
            "robust_share": TAIL,
            "robust_inf_positive": self.robust_inf,
            "robust_sup_negative": self.robust_sup,
            "robust_gap": self.robust_gap,
            "relative_gap": self.relative_gap,
            "overlap": self.overlap,
            "overlap_bin": OVERLAP_BIN,
            "genuine_below": {"pairs": int(self.genuine_below), "share": self.genuine_below / p.total},
            "impostor_above": {"pairs": int(self.impostor_above), "share": self.impostor_above / n.total},
            "violation": self.violation,
            "auc_complement": self.auc_complement,
        }


def overlap(a: Distribution, b: Distribution) -> float:
    """Overlapping coefficient: the area under the lower of two densities, 0 (apart) to 1 (the same).

    Densities are shares of bins of :data:`OVERLAP_BIN`. Bins can only enlarge it, and it is at most one less the
    Kolmogorov-Smirnov distance, which needs none: the smaller of the two counts, so that sets which meet in a bin but
    do not mix have overlap 0.
    """
    shared = np.minimum(a.histogram(_BINS) / a.total, b.histogram(_BINS) / b.total).sum()
    return float(np.clip(min(shared, 1 - a.kolmogorov_smirnov(b)), 0, 1))


def _described(similarities: Distribution) -> dict[str, Any]:
    return {
        "pairs": int(similarities.total),
        "minimum": similarities.minimum,
        "maximum": similarities.maximum,
        "mean": similarities.mean,
        "quantiles": {f"{q:g}": similarities.quantile(q) for q in QUANTILES},
    }
