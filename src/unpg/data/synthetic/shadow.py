"""Cast shadows: what the far light sees is lit, what is behind that is not (Williams 1978).

Each head has a small map of depths toward its light. It covers the head and is independent of the size of the picture,
so shadows have soft edges of about half a centimeter.

Axes: b heads, v vertices, n pixels.
"""

import torch
from torch import Tensor

from unpg.data.synthetic.parameters import Columns, PerPixel
from unpg.data.synthetic.raster import rasterize

__all__ = ["cast", "lit"]

_SIDE = 64
_REACH = 14.5
"""Centimeters from the head's center to the edge of the map."""
_FAR = 60.0
"""Centimeters: depths are kept as (depth + _FAR) / (2 _FAR), which is positive."""


def _seen(p: Columns, x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    """Column and row on the map, and depth toward the light as it is kept there."""
    across, along, toward = (
        p[f"{name}_x"] * x + p[f"{name}_y"] * y + p[f"{name}_z"] * z for name in ("across", "along", "toward")
    )
    cell = (_SIDE / 2) / _REACH
    middle = (_SIDE - 1) / 2
    return [across * cell + middle, middle - along * cell, (toward + _FAR) * (0.5 / _FAR)]


def cast(p: Columns, points: list[Tensor], triangles: Tensor, two_sided: Tensor) -> Tensor:
    """Maps (b, side * side) of the points nearest to the light; 0 where the light meets nothing.

    Args:
        p: Measures, each (b, 1).
        points: x, y, z, each (b, v).
        triangles: (t, 3) int64, those that cast shadows.
        two_sided: (t,) bool.
    """
    column, row, near = _seen(p, *points)
    seen = rasterize(column, row, near, triangles, two_sided, (_SIDE, _SIDE))
    maps = torch.zeros(len(column) * _SIDE * _SIDE, device=column.device)
    return maps.index_copy_(0, seen.pixel, seen.nearness).reshape(len(column), -1)


def lit(p: PerPixel, maps: Tensor, picture: Tensor, places: list[Tensor], facing: Tensor) -> Tensor:
    """The share (n,) of the far light that reaches places: 0 in full shadow.

    Args:
        p: Measures of the pixels.
        maps: From :func:`cast`.
        picture: (n,) int64, whose map.
        places: x, y, z, each (n,).
        facing: (n,), cosine between the normal and the light.
    """
    column, row, depth = _seen(p, *places)
    # A surface must not shade itself: the steeper it is to the light, the farther apart are a cell's depths.
    slope = (1.0 - facing.square()).clamp(min=0.0).sqrt() / facing.clamp(min=0.2)
    soft = (2.0 * _FAR) / (0.4 + 0.35 * slope)
    depth = depth + (0.3 + 0.32 * slope) * (0.5 / _FAR)
    column, row = column.clamp(0.0, _SIDE - 1.001), row.clamp(0.0, _SIDE - 1.001)
    left, top = column.floor(), row.floor()
    right_share, low_share = column - left, row - top
    flat = maps.reshape(-1)
    corner = picture * (_SIDE * _SIDE) + (top * _SIDE + left).long()
    open_ = []
    for offset in (0, 1, _SIDE, _SIDE + 1):
        # Not at once dark: a fifth of a centimeter behind is half in shadow, more where the light grazes.
        behind = flat.index_select(0, corner + offset).sub_(depth).mul_(soft)
        open_.append(behind.neg_().add_(1.0).clamp_(0.0, 1.0))
    high = open_[0] + right_share * (open_[1] - open_[0])
    low = open_[2] + right_share * (open_[3] - open_[2])
    return high + low_share * (low - high)
