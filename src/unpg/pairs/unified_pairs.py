"""UNPG: the positives of one generator, the negatives of both."""

from dataclasses import replace

from torch import Tensor, nn

from unpg.pairs.base import PairGenerator
from unpg.similarity import Pairs, Weight

__all__ = ["UnifiedPairs"]


class UnifiedPairs(nn.Module):
    """Unified negative pair generation (Jung et al. 2022, arXiv 2203.11593).

    Args:
        of: Gives the positives and the first set of negatives: :class:`ClassPairs`.
        extra: Gives further negatives: :class:`BatchPairs`. Its positives are not used.
        weight: How much the further negatives count.
    """

    def __init__(self, of: PairGenerator, extra: PairGenerator, weight: Weight) -> None:
        super().__init__()
        self.of = of
        self.extra = extra
        self.weight = weight

    def forward(self, features: Tensor, labels: Tensor) -> Pairs:
        """Pairs of (b, d) unit features with (b,) labels."""
        first = self.of(features, labels)
        more = tuple(replace(n, weight=self.weight) for n in self.extra(features, labels).negatives)
        return Pairs(first.positives, first.negatives + more)

    def extra_repr(self) -> str:
        """The parts that are no modules, for ``repr``."""
        return f"extra={self.extra}, weight={self.weight}"
