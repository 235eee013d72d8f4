"""A margin on the angle's size, on the angle, and on the cosine at once."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unpg.errors import ConfigError
from unpg.margins.angular import Gradient, add_angle, angle, check_choice, straight_through
from unpg.margins.base import MARGINS, Margin
from unpg.similarity import Anchors

__all__ = ["Combined"]


@MARGINS.register("combined")
@dataclass(frozen=True)
class Combined(Margin):
    """``cos(m1 theta + m2) - m3`` on the positive (Deng et al. 2019, arXiv 1801.07698, combined margin).

    Where ``m1 theta + m2`` passes pi the cosine would rise again; from there on it falls as far as it would rise,
    ``-2 - cos``, and so on at 2 pi: the margin stays monotone, as SphereFace's does.

    Args:
        m1: Factor on the angle, >= 1.
        m2: Radians added, in [0, pi].
        m3: Taken off the cosine, in [0, 2].
        monotone: False lets it rise again, as arcface_torch does.
        gradient: As in :class:`Angular`.
    """

    m1: float = 1.0
    m2: float = 0.3
    m3: float = 0.2
    monotone: bool = True
    gradient: Gradient = "exact"

    def __post_init__(self) -> None:
        if not 1 <= self.m1 < math.inf or not 0 <= self.m2 <= math.pi or not 0 <= self.m3 <= 2:
            raise ConfigError(
                f"Combined needs m1 >= 1, m2 in [0, pi] (radians) and m3 in [0, 2]; got {self.m1}, {self.m2} and "
                f"{self.m3}."
            )
        check_choice("Combined.gradient", self.gradient, Gradient)

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        """(b, k) reshaped cosines."""
        if self.m1 == 1 and not self.monotone:
            shaped = add_angle(cosine, self.m2, "none")
        else:
            wide = self.m1 * angle(cosine) + self.m2
            shaped = falling_cosine(wide) if self.monotone else wide.cos()
        shaped = shaped - self.m3
        return shaped if self.gradient == "exact" else straight_through(cosine, shaped)


def falling_cosine(wide: Tensor) -> Tensor:
    """``(-1)^k cos(a) - 2 k`` with ``k = floor(a / pi)``: the cosine of a >= 0, but falling for ever."""
    turns = (wide.detach() / math.pi).floor()
    sign = 1 - 2 * torch.remainder(turns, 2)
    return sign * wide.cos() - 2 * turns
