"""Triangles to pixels, with a depth buffer, in plain torch.

Axes: b pictures, v vertices, t triangles, h x w pixels. Pixel centers are at whole numbers: the top left one at (0, 0).
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Fragments", "rasterize"]


class Fragments(NamedTuple):
    """What the covered pixels see, n of them over all pictures, in order.

    pixel: (n,) int64, picture * h * w + row * w + column.
    picture: (n,) int64.
    triangle: (n,) int64, index into the triangles.
    corners: three (n,) int64, indices of its corners into the points of all pictures (b * v).
    weights: three (n,) float32, perspective-correct barycentric weights of the corners.
    nearness: (n,) float32, 1 / depth.
    """

    pixel: Tensor
    picture: Tensor
    triangle: Tensor
    corners: list[Tensor]
    weights: list[Tensor]
    nearness: Tensor


def rasterize(
    x: Tensor, y: Tensor, nearness: Tensor, triangles: Tensor, two_sided: Tensor, size: tuple[int, int]
) -> Fragments:
    """Which triangle is nearest at each pixel center.

    The depth buffer holds integers, the bits of 1 / depth above the number of the triangle: the winner is a maximum of
    integers, so it does not depend on the order in which triangles (or threads) come.

    Args:
        x: (b, v) float32, columns of the points in pixels.
        y: (b, v) float32, their rows.
        nearness: (b, v) float32, 1 / depth > 0, which is linear on the screen.
        triangles: (t, 3) int64. The front is where the corners run clockwise in the picture (row axis down).
        two_sided: (t,) bool: seen from behind, too.
        size: (height, width) of the picture.
    """
    height, width = size
    (b, v), t = x.shape, len(triangles)
    device = x.device
    picture = torch.arange(b, device=device)[:, None]
    numbers = [(triangles[:, k][None] + v * picture).reshape(-1) for k in range(3)]
    flat = [a.reshape(-1) for a in (x, y, nearness)]
    (x0, x1, x2), (y0, y1, y2) = ([c.index_select(0, k) for k in numbers] for c in flat[:2])
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    left = torch.minimum(torch.minimum(x0, x1), x2).ceil_().clamp_(0, width)
    top = torch.minimum(torch.minimum(y0, y1), y2).ceil_().clamp_(0, height)
    right = torch.maximum(torch.maximum(x0, x1), x2).floor_().clamp_(-1, width - 1)
    bottom = torch.maximum(torch.maximum(y0, y1), y2).floor_().clamp_(-1, height - 1)
    columns = right.sub_(left).add_(1)
    rows = bottom.sub_(top).add_(1)
    seen = (area > 1e-9).logical_or_((area < -1e-9).logical_and_(two_sided.repeat(b)))
    some = seen.logical_and_(columns > 0).logical_and_(rows > 0).nonzero()[:, 0]
    x0, x1, x2, y0, y1, y2, area, left, top, columns, rows = (
        c.index_select(0, some) for c in (x0, x1, x2, y0, y1, y2, area, left, top, columns, rows)
    )
    # Barycentric weights 1 and 2, and the nearness, are linear in (column, row) relative to the first corner.
    over = 1.0 / area
    a1, b1, a2, b2 = (y2 - y0) * over, (x0 - x2) * over, (y0 - y1) * over, (x1 - x0) * over
    first_pixel = (some // t) * (height * width) + (top * width + left).long()
    left, top = left - x0, top - y0
    c1, c2 = a1 * left + b1 * top, a2 * left + b2 * top
    count = (columns * rows).long()
    which = torch.repeat_interleave(torch.arange(len(some), device=device), count)
    start = (count.cumsum(0) - count).index_select(0, which)
    local = torch.arange(len(which), device=device).sub_(start).float()
    wide, c1, a1, b1, c2, a2, b2 = (c.index_select(0, which) for c in (columns, c1, a1, b1, c2, a2, b2))
    row = ((local + 0.5) / wide).floor_()
    column = local.sub_(row * wide)
    w1 = c1.add_(a1.mul_(column)).add_(b1.mul_(row))
    w2 = c2.add_(a2.mul_(column)).add_(b2.mul_(row))
    slack = -1e-4  # neighbors overlap by a hair, so that no pixel falls between them
    inside = torch.minimum(torch.minimum(w1, w2), (1.0 - w1).sub_(w2)) >= slack
    inside = inside.nonzero()[:, 0]
    which, row, column, w1, w2 = (c.index_select(0, inside) for c in (which, row, column, w1, w2))
    n0, n1, n2 = (flat[2].index_select(0, k.index_select(0, some)) for k in numbers)
    n0, n1, n2, first_pixel = (c.index_select(0, which) for c in (n0, n1 - n0, n2 - n0, first_pixel))
    near = n0.add_(n1.mul_(w1)).add_(n2.mul_(w2)).clamp_(min=1e-6)
    # Which place of the lists won. Of equally near triangles, that is the last.
    place = torch.arange(len(near), device=device)
    key = (near.view(torch.int32).long() << 32).bitwise_or_(place)
    pixel = row.mul_(width).add_(column).long().add_(first_pixel)
    buffer = torch.zeros(b * height * width, dtype=torch.int64, device=device)
    buffer.scatter_reduce_(0, pixel, key, "amax")
    covered = buffer.nonzero()[:, 0]
    place = buffer.index_select(0, covered) & 0xFFFFFFFF
    near, w1, w2 = (c.index_select(0, place) for c in (near, w1, w2))
    owner = some.index_select(0, which.index_select(0, place))
    corners = [k.index_select(0, owner) for k in numbers]
    n0, n1, n2 = (flat[2].index_select(0, k) for k in corners)
    # Perspective-correct: weights on the screen times nearness, to sum one.
    w1, w2 = w1.clamp_(0, 1), w2.clamp_(0, 1)
    w0 = (1 - w1 - w2).clamp_(min=0).mul_(n0)
    w1, w2 = w1.mul_(n1), w2.mul_(n2)
    total = w0 + w1 + w2
    picture = covered // (height * width)
    return Fragments(covered, picture, owner - picture * t, corners, [w0 / total, w1 / total, w2 / total], near)
