"""What a pair generator makes of a batch."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from unpg.pairs.weight import Constant, Weight
from unpg.similarity import Reducible, SimilaritySet

__all__ = ["Negatives", "PairGenerator", "Pairs"]


@dataclass(frozen=True, eq=False)
class Negatives:
    """A set of negatives in a union, and how much it counts there.

    Attributes:
        source: Where they come from, for statistics: ``classes`` or ``batch``.
        similarities: The set S^n.
        weight: Multiplies the set's sum of exponentials.
    """

    source: str
    similarities: SimilaritySet
    weight: Weight = Constant(1.0)


@dataclass(frozen=True, eq=False)
class Pairs:
    """S^p of each anchor, and the union of sets that is its S^n."""

    positives: Reducible
    negatives: tuple[Negatives, ...]


class PairGenerator(Protocol):
    """Chooses which similarities of a batch to compare."""

    def __call__(self, features: Tensor, labels: Tensor) -> Pairs:
        """Pairs of (b, d) unit features with (b,) labels."""
        ...
