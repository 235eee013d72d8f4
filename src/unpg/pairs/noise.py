"""Which negatives of a mini-batch to believe.

Two images of one person under two names make a negative pair that is really positive; pushing it apart tears a
person in two. A filter leaves such pairs out by their similarity alone, before any weight or margin.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch

from unpg.errors import ConfigError
from unpg.registry import Registry
from unpg.similarity import Fences, SimilaritySet

__all__ = ["FILTERS", "BoxWhisker", "Filter", "KeepAll", "Quantile", "Sides", "TopK"]

Sides = Literal["both", "upper"]

FILTERS: Registry[type["Filter"]] = Registry("filter")

_FEWEST = 4  # below this, quartiles say nothing


class Filter(Protocol):
    """Leaves some pairs of a set out. No gradient flows through the choice."""

    def __call__(self, similarities: SimilaritySet) -> SimilaritySet:
        """The set without what is not believed."""
        ...


@FILTERS.register("all")
@dataclass(frozen=True)
class KeepAll:
    """Believe every pair."""

    def __call__(self, similarities: SimilaritySet) -> SimilaritySet:
        """The set as it is."""
        return similarities


@FILTERS.register("box-whisker")
@dataclass(frozen=True)
class BoxWhisker:
    """Leave out what lies beyond the whiskers of the box plot: keep ``Q1 - r IQR <= s <= Q3 + r IQR``.

    A shared set has one pair of fences, a set per anchor the fences of each anchor's own quartiles. Quartiles are
    values of the set by nearest rank, ``sorted[n // 4]`` and ``sorted[3 n // 4]``, bounds are inclusive; fewer than
    four pairs, or r = inf, are all kept.

    Args:
        r: Length of the whiskers in interquartile ranges. The authors' models use 1.5 (MS1MV2) and 1.0 (K-FACE).
        sides: ``both`` (the paper), or ``upper``: no pair is too easy. Below the lower fence a pair weighs next to
            nothing in a sum of exponentials anyway.

    Source: Jung et al. 2022, arXiv 2203.11593.
    """

    r: float = 1.5
    sides: Sides = "both"

    def __post_init__(self) -> None:
        if not self.r >= 0:  # also catches NaN
            raise ConfigError(f"BoxWhisker.r must be >= 0 (inf keeps every pair), got {self.r}.")
        if self.sides not in get_args(Sides):
            raise ConfigError(f"BoxWhisker.sides must be one of {', '.join(get_args(Sides))}; got {self.sides!r}.")

    def __call__(self, similarities: SimilaritySet) -> SimilaritySet:
        """The set within its fences. Shapes are static and nothing is read back from the device."""
        if math.isinf(self.r):
            return similarities
        n = similarities.count_offered()[:, None]
        q1, q3 = similarities.at_ranks(torch.cat([n // 4, 3 * n // 4], dim=1)).split(1, dim=1)
        reach = self.r * (q3 - q1)
        enough = n >= _FEWEST
        lower = torch.where(enough, q1 - reach, -torch.inf)
        return similarities.within(
            Fences(
                lower=lower if self.sides == "both" else torch.full_like(lower, -torch.inf),
                upper=torch.where(enough, q3 + reach, torch.inf),
            )
        )


@FILTERS.register("quantile")
@dataclass(frozen=True)
class Quantile:
    """Keep what lies between two quantiles: as many pairs are left out of a clean batch as of a noisy one.

    Quantiles are values of the set by nearest rank, ``sorted[min(floor(q n), n - 1)]``; bounds are inclusive.

    Args:
        lower: Part of the pairs below the first quantile, >= 0.
        upper: Part of the pairs below the second one, above lower and <= 1.
    """

    lower: float = 0.0
    upper: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.lower < self.upper <= 1:
            raise ConfigError(f"Quantile needs 0 <= lower < upper <= 1, got {self.lower} and {self.upper}.")

    def __call__(self, similarities: SimilaritySet) -> SimilaritySet:
        """The set between its quantiles; an empty set stays as it is."""
        n = similarities.count_offered()[:, None]
        # Ranks in float64, since float32 cannot count the pairs of a large batch.
        ranks = [(q * n.double()).long().minimum(n - 1) for q in (self.lower, self.upper)]
        low, high = similarities.at_ranks(torch.cat(ranks, dim=1)).split(1, dim=1)
        return similarities.within(Fences(lower=low, upper=high))


@FILTERS.register("top-k")
@dataclass(frozen=True)
class TopK:
    """Keep the k largest similarities, and all that equal the k-th: the hardest pairs, noisy ones among them.

    Args:
        k: How many, of the whole batch for a shared set, else of each anchor. A smaller set is kept whole.
    """

    k: int = 1000

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"TopK.k must be >= 1, got {self.k}. To use no batch negatives, train the base loss.")

    def __call__(self, similarities: SimilaritySet) -> SimilaritySet:
        """The hardest pairs of the set; an empty set stays as it is."""
        n = similarities.count_offered()[:, None]
        lower = similarities.at_ranks((n - self.k).clamp(min=0))
        return similarities.within(Fences(lower=lower, upper=torch.full_like(lower, torch.inf)))
