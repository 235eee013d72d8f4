"""Which negatives of a mini-batch to believe.

Two images of one person under two names make a negative pair that is really positive; pushing it apart tears a
person in two. A filter leaves such pairs out by their similarity alone, before any weight or margin.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from unpg.errors import ConfigError
from unpg.registry import Registry
from unpg.similarity import Fences, SimilaritySet

__all__ = ["FILTERS", "BoxWhisker", "Filter", "KeepAll"]

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

    Source: Jung et al. 2022, arXiv 2203.11593.
    """

    r: float = 1.5

    def __post_init__(self) -> None:
        if not self.r >= 0:  # also catches NaN
            raise ConfigError(f"BoxWhisker.r must be >= 0 (inf keeps every pair), got {self.r}.")

    def __call__(self, similarities: SimilaritySet) -> SimilaritySet:
        """The set within its fences. Shapes are static and nothing is read back from the device."""
        values, offered = similarities.dense()
        if math.isinf(self.r) or values.shape[1] < _FEWEST:
            return similarities
        ranked = values.masked_fill(~offered, torch.inf).sort(dim=1).values
        n = offered.sum(dim=1, keepdim=True)
        q1, q3 = ranked.gather(1, n // 4), ranked.gather(1, (3 * n // 4).clamp(max=ranked.shape[1] - 1))
        reach = self.r * (q3 - q1)
        enough = n >= _FEWEST
        return similarities.within(
            Fences(
                lower=torch.where(enough, q1 - reach, -torch.inf),
                upper=torch.where(enough, q3 + reach, torch.inf),
            )
        )
