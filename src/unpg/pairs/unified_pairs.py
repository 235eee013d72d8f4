"""UNPG: the positives of one generator, the negatives of several."""

from dataclasses import replace

from torch import nn

from unpg.pairs.base import PairGenerator
from unpg.pairs.memory_pairs import MemoryPairs
from unpg.similarity import Anchors, Pairs, Weight

__all__ = ["UnifiedPairs"]


class UnifiedPairs(nn.Module):
    """Unified negative pair generation (Jung et al. 2022, arXiv 2203.11593).

    Args:
        of: Gives the positives and the first set of negatives: :class:`ClassPairs`.
        extra: Gives further negatives: :class:`BatchPairs`. Its positives are not used.
        weight: How much the further negatives count.
        memory: Gives more negatives, from the batches before.
        memory_weight: How much those count.
    """

    def __init__(
        self,
        of: PairGenerator,
        extra: PairGenerator,
        weight: Weight,
        memory: MemoryPairs | None = None,
        memory_weight: Weight | None = None,
    ) -> None:
        super().__init__()
        self.of = of
        self.extra = extra
        self.weight = weight
        self.memory = memory
        self.memory_weight = weight if memory_weight is None else memory_weight

    def forward(self, anchors: Anchors) -> Pairs:
        """The pairs of a batch."""
        first = self.of(anchors)
        more = [replace(n, weight=self.weight) for n in self.extra(anchors).negatives]
        if self.memory is not None:
            more += [replace(n, weight=self.memory_weight) for n in self.memory(anchors).negatives]
        return replace(first, negatives=(*first.negatives, *more))

    def extra_repr(self) -> str:
        """The parts that are no modules, for ``repr``."""
        memory = f", memory_weight={self.memory_weight}" if self.memory is not None else ""
        return f"extra={self.extra}, weight={self.weight}{memory}"
