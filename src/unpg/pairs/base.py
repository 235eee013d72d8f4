"""What chooses pairs."""

from typing import Protocol

from torch import Tensor

from unpg.similarity import Pairs

__all__ = ["PairGenerator"]


class PairGenerator(Protocol):
    """Chooses which similarities of a batch to compare."""

    def __call__(self, features: Tensor, labels: Tensor) -> Pairs:
        """Pairs of (b, d) unit features with (b,) labels."""
        ...
