"""Additive angular margins, with a gradient that is finite at every cosine."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from unpg.errors import ConfigError
from unpg.margins.base import MARGINS, Margin
from unpg.similarity import Anchors

__all__ = ["Angular", "Gradient", "Tail", "add_angle", "angle", "check_choice", "straight_through"]

Tail = Literal["none", "linear", "keep", "easy", "clamp"]
Gradient = Literal["exact", "straight_through"]

_SMALLEST_SINE = 1e-4


def check_choice(setting: str, value: str, allowed: object) -> None:
    """Raise :class:`ConfigError` unless ``value`` is one of the literals ``allowed``."""
    if value not in get_args(allowed):
        raise ConfigError(f"{setting} must be one of {', '.join(get_args(allowed))}; got {value!r}.")


def _sine(cosine: Tensor) -> Tensor:
    """``sqrt(1 - c^2)`` with slope ``-c / max(sin, 1e-4)``, also where rounding has pushed |c| past one."""
    square = 1 - cosine * cosine
    steep = square < _SMALLEST_SINE**2
    smooth = torch.where(steep, 1, square).sqrt()
    # Near +-1 the value is exact and the slope is the bounded one.
    still = cosine.detach()
    edge = (1 - still * still).clamp(min=0).sqrt() - (cosine - still) * still / _SMALLEST_SINE
    return torch.where(steep, edge, smooth)


def angle(cosine: Tensor) -> Tensor:
    """``arccos c`` in radians, in [0, pi], with slope ``-1 / max(sin, 1e-4)``."""
    steep = 1 - cosine * cosine < _SMALLEST_SINE**2
    smooth = torch.where(steep, 0, cosine).acos()
    still = cosine.detach()
    edge = still.clamp(-1, 1).acos() - (cosine - still) / _SMALLEST_SINE
    return torch.where(steep, edge, smooth)


def add_angle(cosine: Tensor, m: Tensor | float, tail: Tail) -> Tensor:
    """``cos(theta + m)`` from ``cos theta``, as ``c cos m - sin theta sin m``: no arc cosine, no clamp on c.

    Args:
        cosine: Any shape.
        m: The angle to add in radians, a number or a tensor that broadcasts with ``cosine``.
        tail: What to do where ``theta + m`` passes pi and the cosine would rise again. ``none``: nothing (the UNPG
            authors, arcface_torch); ``linear``: ``c - m sin m`` (ArcFace's first code); ``keep``: no margin;
            ``easy``: none wherever the cosine is not above 0, long before pi (MagFace's code); ``clamp``: stay at -1,
            and for a negative m at 1 where ``theta + m`` falls below zero (AdaFace's code).
    """
    if isinstance(m, Tensor):
        cos_m, sin_m = m.cos(), m.sin()
        shift: Tensor | float = m * sin_m
    else:
        cos_m, sin_m = math.cos(m), math.sin(m)  # type: ignore[assignment]
        shift = m * sin_m
    turned = cosine * cos_m - _sine(cosine) * sin_m
    if tail == "none":
        return turned
    if tail == "clamp":
        down = torch.as_tensor(m, dtype=cosine.dtype, device=cosine.device) < 0
        turned = torch.where(down & (cosine >= cos_m), 1, turned)
        return torch.where(~down & (cosine <= -cos_m), -1, turned)
    widened = cosine > (0 if tail == "easy" else -cos_m)
    return torch.where(widened, turned, cosine - shift if tail == "linear" else cosine)


def straight_through(cosine: Tensor, shaped: Tensor) -> Tensor:
    """The value of ``shaped`` with the gradient of ``cosine``."""
    return cosine + (shaped - cosine).detach()


@MARGINS.register("angular")
@dataclass(frozen=True)
class Angular(Margin):
    """``cos(theta + m)`` on the positive: ArcFace (Deng et al. 2019, arXiv 1801.07698).

    Args:
        m: The margin in radians, in [0, pi].
        tail: Beyond pi, see :func:`add_angle`.
        gradient: ``exact``, that of the formula; or ``straight_through``, in which the margin has slope one, as
            arcface_torch has it since it adds the angle outside of autograd.
    """

    m: float = 0.5
    tail: Tail = "none"
    gradient: Gradient = "exact"

    def __post_init__(self) -> None:
        if not 0 <= self.m <= math.pi:
            raise ConfigError(f"Angular.m is an angle in radians in [0, pi], got {self.m}.")
        check_choice("Angular.tail", self.tail, Tail)
        check_choice("Angular.gradient", self.gradient, Gradient)

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        """(b, k) cosines of the widened angles."""
        turned = add_angle(cosine, self.m, self.tail)
        return turned if self.gradient == "exact" else straight_through(cosine, turned)
