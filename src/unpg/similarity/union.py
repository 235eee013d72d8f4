"""What a loss compares: S^p of each anchor, and the union of sets that is its S^n."""

from dataclasses import dataclass

from unpg.similarity.similarity_set import Reducible, SimilaritySet
from unpg.similarity.weight import Constant, Weight

__all__ = ["Negatives", "Pairs"]


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
