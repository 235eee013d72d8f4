"""What a loss compares: S^p of each anchor, and the union of sets that is its S^n."""

from dataclasses import dataclass

from torch import Tensor

from unpg.similarity.class_set import ClassSet, OwnClassSet
from unpg.similarity.similarity_set import SimilaritySet
from unpg.similarity.weight import Constant, Weight

__all__ = ["Negatives", "Pairs"]


@dataclass(frozen=True, eq=False)
class Negatives:
    """A set of negatives in a union, and how much it counts there.

    Attributes:
        source: Where they come from, for statistics: ``classes``, ``batch`` or ``memory``.
        similarities: The set S^n.
        weight: Multiplies the set's sum.
    """

    source: str
    similarities: ClassSet | SimilaritySet
    weight: Weight = Constant(1.0)


@dataclass(frozen=True, eq=False)
class Pairs:
    """S^p of each anchor, and the union of sets that is its S^n.

    Attributes:
        positives: S^p.
        negatives: The sets of S^n.
        complete: All of them are there: of a memory that still fills up, they are not.
    """

    positives: OwnClassSet | SimilaritySet
    negatives: tuple[Negatives, ...]
    complete: bool = True

    def target(self) -> Tensor | None:
        """Detached similarity of each anchor to its own class, (b, 1); None where positives are in the batch."""
        return self.positives.detached() if isinstance(self.positives, OwnClassSet) else None
