"""Similarities weighted by how far they are from where they should be."""

from dataclasses import dataclass

from torch import Tensor

from unpg.errors import ConfigError
from unpg.margins.base import MARGINS, Margin
from unpg.similarity import Anchors, Reshape, SelfPacedNegative

__all__ = ["SelfPaced"]


@MARGINS.register("self-paced")
@dataclass(frozen=True)
class SelfPaced(Margin):
    """``a_p (p - (1 - m))`` with ``a_p = max(1 + m - p, 0)``, and ``a_n (n - m)`` with ``a_n = max(n + m, 0)``: Circle
    loss (Sun et al. 2020, arXiv 2002.10857). The weights a carry no gradient.

    Args:
        m: The relaxation, in [0, 1]: positives are drawn above 1 - m, negatives pushed below m.
    """

    m: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.m <= 1:
            raise ConfigError(f"SelfPaced.m must be in [0, 1], got {self.m}.")

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        """(b, k) weighted positives."""
        return (1 + self.m - cosine.detach()).clamp(min=0) * (cosine - (1 - self.m))

    def class_negative(self) -> Reshape:
        """Weighted negatives."""
        return SelfPacedNegative(self.m)

    def batch_negative(self) -> Reshape:
        """The same: the weight depends on nothing but the similarity."""
        return SelfPacedNegative(self.m)
