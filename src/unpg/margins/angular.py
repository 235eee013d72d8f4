"""The additive angular margin, with a gradient that is finite at every cosine."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from unpg.errors import ConfigError
from unpg.margins.base import MARGINS, Margin

__all__ = ["Angular", "Tail", "add_angle", "check_tail"]

Tail = Literal["none", "linear", "keep"]

_SMALLEST_SINE = 1e-4


def check_tail(owner: str, tail: str) -> None:
    """Raise :class:`ConfigError` unless ``tail`` is one of the known ways to go on beyond pi."""
    if tail not in get_args(Tail):
        raise ConfigError(f"{owner}.tail must be one of {', '.join(get_args(Tail))}; got {tail!r}.")


def _sine(cosine: Tensor) -> Tensor:
    """``sqrt(1 - c^2)`` with slope ``-c / max(sin, 1e-4)``, also where rounding has pushed |c| past one."""
    square = 1 - cosine * cosine
    steep = square < _SMALLEST_SINE**2
    smooth = torch.where(steep, 1, square).sqrt()
    # Near +-1 the value is exact and the slope is the bounded one.
    still = cosine.detach()
    edge = (1 - still * still).clamp(min=0).sqrt() - (cosine - still) * still / _SMALLEST_SINE
    return torch.where(steep, edge, smooth)


def add_angle(cosine: Tensor, m: Tensor | float, tail: Tail) -> Tensor:
    """``cos(theta + m)`` from ``cos theta``, as ``c cos m - sin theta sin m``: no arc cosine, no clamp on c.

    Args:
        cosine: Any shape.
        m: The angle to add in radians, a number or a tensor that broadcasts with ``cosine``.
        tail: What to do where ``theta + m`` passes pi and the cosine would rise again. ``none``: nothing (the UNPG
            authors, arcface_torch); ``linear``: ``c - m sin m`` (ArcFace's first code, MagFace); ``keep``: no margin.
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
    return torch.where(cosine > -cos_m, turned, cosine - shift if tail == "linear" else cosine)


@MARGINS.register("angular")
@dataclass(frozen=True)
class Angular(Margin):
    """``cos(theta + m)`` on the positive: ArcFace (Deng et al. 2019, arXiv 1801.07698).

    Args:
        m: The margin in radians, in [0, pi].
        tail: Beyond pi, see :func:`add_angle`.
    """

    m: float = 0.5
    tail: Tail = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.m <= math.pi:
            raise ConfigError(f"Angular.m is an angle in radians in [0, pi], got {self.m}.")
        check_tail("Angular", self.tail)

    def positive(self, cosine: Tensor, norms: Tensor) -> Tensor:
        """(r, k) cosines of the widened angles."""
        return add_angle(cosine, self.m, self.tail)
