"""Hinges: a pair or a triplet that is right by a margin costs nothing."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from unpg.aggregate.base import AGGREGATES, Aggregated, batch_rows, negative_reshape, positive_reshape
from unpg.errors import ConfigError
from unpg.margins import Margin
from unpg.similarity import Anchors, HingeSum, Pairs, Reduction, Reshape, SimilaritySet

__all__ = ["Mining", "PairHinge", "TripletHinge"]

Mining = Literal["all", "hard", "semihard"]


@AGGREGATES.register("pair-hinge")
@dataclass(frozen=True)
class PairHinge:
    """``mean max(above - s_p, 0) + mean max(s_n - below, 0)``, each mean over the pairs that cost something.

    Args:
        above: Where positives should be, on the margin's scale of similarity.
        below: Where negatives should be.
    """

    reductions: ClassVar[tuple[type[Reduction], ...]] = (HingeSum,)
    above: float = 1.0
    below: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.above) or not math.isfinite(self.below):
            raise ConfigError(f"PairHinge needs finite margins, got {self.above} and {self.below}.")

    def __call__(self, pairs: Pairs, margin: Margin, anchors: Anchors) -> Aggregated:
        """What each anchor adds to the two means."""
        positives, negatives = batch_rows(pairs, "PairHinge")
        reshape = negative_reshape(margin, pairs.negatives[0])
        pull, pulled = positives.hinge_sum(-1.0, self.above, reshape=positive_reshape(margin, anchors))
        push, pushed = negatives.hinge_sum(1.0, -self.below, reshape=reshape)
        terms = pull / pulled.sum().clamp(min=1) + push / pushed.sum().clamp(min=1)
        return Aggregated(terms, terms.new_ones(()), "batch", {})


@AGGREGATES.register("triplet-hinge")
@dataclass(frozen=True)
class TripletHinge:
    """``max(s_n - s_p + m, 0)`` over triplets of an anchor, a positive and a negative.

    Args:
        m: The margin, on the scale of similarity.
        mining: ``all``: the mean over the triplets that cost something. ``semihard``: over those whose negative is
            less alike than the positive, but not by m (Schroff et al. 2015, arXiv 1503.03832). ``hard``: the least
            similar positive and the most similar negative of each anchor that has both (Hermans et al. 2017,
            arXiv 1703.07737), the mean over those anchors.
    """

    reductions: ClassVar[tuple[type[Reduction], ...]] = ()
    m: float = 0.2
    mining: Mining = "all"

    def __post_init__(self) -> None:
        if not 0 <= self.m < math.inf:
            raise ConfigError(f"TripletHinge.m must be a finite number >= 0, got {self.m}.")
        if self.mining not in get_args(Mining):
            raise ConfigError(f"TripletHinge.mining must be one of {', '.join(get_args(Mining))}; got {self.mining!r}.")

    def __call__(self, pairs: Pairs, margin: Margin, anchors: Anchors) -> Aggregated:
        """What each anchor adds."""
        positives, negatives = batch_rows(pairs, "TripletHinge")
        p, is_p = _reshaped(positives, positive_reshape(margin, anchors))
        n, is_n = _reshaped(negatives, negative_reshape(margin, pairs.negatives[0]))
        if self.mining == "hard":
            return self._hard(p, is_p, n, is_n)
        terms, count = self._ranged(p, is_p, n, is_n)
        return Aggregated(terms, count, "triplet", {})

    def _hard(self, p: Tensor, is_p: Tensor, n: Tensor, is_n: Tensor) -> Aggregated:
        if len(p) == 0:
            return Aggregated(p.sum(dim=1), p.new_zeros(()), "anchor", {})
        both = is_p.any(dim=1) & is_n.any(dim=1)
        # One of them, should several be equally hard.
        worst_p = p.gather(1, p.detach().masked_fill(~is_p, torch.inf).argmin(dim=1, keepdim=True)).squeeze(1)
        worst_n = n.gather(1, n.detach().masked_fill(~is_n, -torch.inf).argmax(dim=1, keepdim=True)).squeeze(1)
        terms = torch.where(both, (worst_n - worst_p + self.m).clamp(min=0), 0)
        return Aggregated(terms, both.sum().to(terms.dtype), "anchor", {})

    def _ranged(self, p: Tensor, is_p: Tensor, n: Tensor, is_n: Tensor) -> tuple[Tensor, Tensor]:
        """Over triplets without writing them down: with the negatives of an anchor in order, those of one positive
        are a range, whose sum is a difference of running sums. In float64, since it is a difference.
        """
        ranked, order = n.detach().masked_fill(~is_n, torch.inf).sort(dim=1)
        count = is_n.sum(dim=1, keepdim=True)
        in_order = torch.where(is_n, n, 0).gather(1, order).double()
        running = torch.nn.functional.pad(in_order.cumsum(dim=1), (1, 0))
        target = p.detach()
        first = torch.searchsorted(ranked, target - self.m, right=True)
        last = count.expand_as(first) if self.mining == "all" else torch.searchsorted(ranked, target, right=False)
        some = is_p & (last > first)
        last, first = torch.where(some, last, 0), torch.where(some, first, 0)
        width = last - first
        hinges = (
            running.gather(1, last) - running.gather(1, first) + width * (self.m - torch.where(some, p, 0).double())
        )
        return hinges.sum(dim=1).to(p.dtype), width.sum().to(p.dtype)


def _reshaped(similarities: SimilaritySet, reshape: Reshape | None) -> tuple[Tensor, Tensor]:
    values, pairs = similarities.values()
    return values if reshape is None else reshape(values), pairs
