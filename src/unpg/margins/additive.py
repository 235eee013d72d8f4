"""The additive cosine margin."""

from dataclasses import dataclass

from torch import Tensor

from unpg.errors import ConfigError
from unpg.margins.base import MARGINS, Margin
from unpg.similarity import Anchors

__all__ = ["Additive"]


@MARGINS.register("additive")
@dataclass(frozen=True)
class Additive(Margin):
    """``cos theta - m`` on the positive: CosFace (Wang et al. 2018, arXiv 1801.09414).

    Args:
        m: The margin, a difference of cosines, in [0, 2].
    """

    m: float = 0.35

    def __post_init__(self) -> None:
        if not 0 <= self.m <= 2:
            raise ConfigError(f"Additive.m is a difference of cosines in [0, 2], got {self.m}.")

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        """(b, k) cosines less the margin."""
        return cosine - self.m
