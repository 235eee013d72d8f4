"""Cosines spread over the whole range, with an additive margin on both sides."""

import math
from dataclasses import dataclass

from torch import Tensor

from unpg.errors import ConfigError
from unpg.margins.angular import Gradient, check_choice, straight_through
from unpg.margins.base import MARGINS, Margin
from unpg.similarity import Anchors, Reshape

__all__ = ["Lifted"]


@MARGINS.register("lifted")
@dataclass(frozen=True)
class Lifted(Margin):
    """``g(p) - m`` on the positive and ``g(n) + m`` on negatives, ``g(c) = 2 ((c + 1) / 2)^t - 1``: SphereFace2 (Wen et
    al. 2022, arXiv 2108.01513). Cosines of a high-dimensional space crowd around zero; g spreads them over [-1, 1].

    Args:
        t: The exponent, >= 1.
        m: The margin, in [0, 2].
        gradient: ``exact``; or ``straight_through``, slope one for g and both margins, as in the authors' code.
    """

    t: float = 3.0
    m: float = 0.4
    gradient: Gradient = "exact"

    def __post_init__(self) -> None:
        if not 1 <= self.t < math.inf or not 0 <= self.m <= 2:
            raise ConfigError(f"Lifted needs t >= 1 and m in [0, 2], got {self.t} and {self.m}.")
        check_choice("Lifted.gradient", self.gradient, Gradient)

    def lift(self, cosine: Tensor) -> Tensor:
        """g(c)."""
        return 2 * ((cosine + 1) / 2).clamp(min=0) ** self.t - 1

    def _through(self, cosine: Tensor, shaped: Tensor) -> Tensor:
        return shaped if self.gradient == "exact" else straight_through(cosine, shaped)

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        """(b, k) lifted positives less the margin."""
        return self._through(cosine, self.lift(cosine) - self.m)

    def class_negative(self) -> Reshape:
        """Lifted negatives plus the margin."""
        return lambda cosine: self._through(cosine, self.lift(cosine) + self.m)

    def batch_negative(self) -> Reshape:
        """The same."""
        return self.class_negative()
