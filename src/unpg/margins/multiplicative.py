"""Margins that multiply the angle."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from unpg.errors import ConfigError
from unpg.margins.angular import Gradient, angle, check_choice, straight_through
from unpg.margins.base import MARGINS, Margin
from unpg.margins.combined import falling_cosine
from unpg.similarity import Anchors, Reshape

__all__ = ["Annealed", "Multiplicative"]

Form = Literal["falling", "capped", "others"]


@MARGINS.register("multiplicative")
@dataclass(frozen=True)
class Multiplicative(Margin):
    """``cos(m theta)`` in place of the positive ``cos theta``: SphereFace (Liu et al. 2017, arXiv 1704.08063) and
    SphereFace-R (Liu et al. 2022, arXiv 2109.05565).

    Args:
        m: The factor, >= 1.
        form: Where ``m theta`` passes pi, ``falling`` goes on down as ``(-1)^k cos(m theta) - 2 k`` (SphereFace, and
            version 0 of SphereFace-R); ``capped`` stays at -1 (version 1); ``others`` leaves the positive alone and
            takes ``cos(theta / m)`` of the negatives (version 2), those of the batch included.
        gradient: ``exact``, or ``straight_through``: slope one everywhere, SphereFace-R's characteristic gradient
            detachment.
    """

    m: float = 4.0
    form: Form = "falling"
    gradient: Gradient = "exact"

    def __post_init__(self) -> None:
        if not 1 <= self.m < math.inf:
            raise ConfigError(f"Multiplicative.m must be >= 1, got {self.m}.")
        check_choice("Multiplicative.form", self.form, Form)
        check_choice("Multiplicative.gradient", self.gradient, Gradient)

    def _through(self, cosine: Tensor, shaped: Tensor) -> Tensor:
        return shaped if self.gradient == "exact" else straight_through(cosine, shaped)

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        """(b, k) cosines of the multiplied angles."""
        if self.form == "others":
            return cosine
        wide = self.m * angle(cosine)
        return self._through(cosine, falling_cosine(wide) if self.form == "falling" else wide.clamp(max=math.pi).cos())

    def class_negative(self) -> Reshape | None:
        """Cosines of the divided angles, with form ``others``."""
        if self.form != "others":
            return None
        return lambda cosine: self._through(cosine, (angle(cosine) / self.m).cos())

    def batch_negative(self) -> Reshape | None:
        """The same."""
        return self.class_negative()


@MARGINS.register("annealed")
@dataclass(frozen=True)
class Annealed(Margin):
    """``(l c + p(c)) / (1 + l)``: another margin's positive p, mixed with none at first.

    ``l = max(least, first / (1 + rate t))`` at step t = 1, 2, ...; SphereFace needs it to get started.

    Args:
        margin: The margin to reach, one without state (which would be in no checkpoint).
        first: Of l, >= 0. The defaults are those of SphereFace's training script.
        rate: Of l, >= 0.
        least: Of l, >= 0.
    """

    margin: Margin = Multiplicative()
    first: float = 1000.0
    rate: float = 0.12
    least: float = 5.0

    def __post_init__(self) -> None:
        if not min(self.first, self.rate, self.least) >= 0:
            raise ConfigError(
                f"Annealed needs first, rate and least >= 0, got {self.first}, {self.rate} and {self.least}."
            )
        if isinstance(self.margin, nn.Module):
            raise ConfigError(
                f"Annealed takes a margin without state (angular, multiplicative, ...), got {self.margin}."
            )

    def for_batch(self, anchors: Anchors, target: Tensor | None) -> Margin:
        """Mixed with the other margin of this batch."""
        return replace(self, margin=self.margin.for_batch(anchors, target))

    def share(self, step: int) -> float:
        """The value of l after ``step`` optimizer steps."""
        return max(self.least, self.first / (1 + self.rate * (step + 1)))

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        """(b, k) mixed cosines.

        Raises:
            ConfigError: The caller did not say which step it is.
        """
        if anchors.step is None:
            raise ConfigError("The margin is annealed: call the loss with step=<optimizer steps done so far>.")
        share = self.share(anchors.step)
        return (share * cosine + self.margin.positive(cosine, anchors)) / (1 + share)

    def class_negative(self) -> Reshape | None:
        """As the other margin has it."""
        return self.margin.class_negative()

    def batch_negative(self) -> Reshape | None:
        """As the other margin has it."""
        return self.margin.batch_negative()

    def penalty(self, anchors: Anchors) -> Tensor | None:
        """As the other margin has it."""
        return self.margin.penalty(anchors)

    def statistics(self, anchors: Anchors) -> dict[str, Tensor]:
        """As the other margin has them."""
        return self.margin.statistics(anchors)
