"""What chooses pairs."""

from typing import Protocol

from unpg.similarity import Anchors, Pairs

__all__ = ["PairGenerator"]


class PairGenerator(Protocol):
    """Chooses which similarities of a batch to compare."""

    def __call__(self, anchors: Anchors) -> Pairs:
        """The pairs of a batch of b features."""
        ...
