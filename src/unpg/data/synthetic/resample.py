"""Pictures with fewer pixels, and back: each of a batch has its own size, in the upper left corner of one canvas.

Places and weights are quotients of whole numbers, so a picture does not depend on what is resampled with it.

Axes: b pictures, c planes, h x w pixels of the canvas.
"""

import torch
from torch import Tensor

__all__ = ["enlarge", "pick", "reduce"]


def pick(images: Tensor, axis: int, index: Tensor) -> Tensor:
    """Rows (axis 2) or columns (axis 3) of images (b, c, h, w), for each picture those of ``index`` (b, n)."""
    shape = list(images.shape)
    shape[axis] = index.shape[1]
    return images.gather(
        axis, index[:, None, :, None].expand(shape) if axis == 2 else index[:, None, None].expand(shape)
    )


def reduce(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images (b, c, h, w) with ``rows`` x ``columns``, each (b, 1) int64, of larger pixels: the mean over their area.

    Right and below of them values have no meaning.
    """
    for axis, count in ((2, rows), (3, columns)):
        size = images.shape[axis]
        at = torch.arange(size, device=images.device)[None]
        # In units of 1 / (size * count): pixel i of the result covers i * size on, pixel k of the source k * count on.
        first = at * size // count
        total = torch.zeros_like(images)
        for tap in range(-(-size // int(count.min())) + 1):
            k = first + tap
            common = ((k + 1) * count).minimum((at + 1) * size) - (k * count).maximum(at * size)
            weight = common.clamp(min=0) / size
            weight = weight[:, None, :, None] if axis == 2 else weight[:, None, None]
            total = total.add_(pick(images, axis, k.clamp(max=size - 1)).mul_(weight))
        images = total
    return images


def enlarge(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The upper left ``rows`` x ``columns``, each (b, 1) int64, over the whole of images (b, c, h, w): bilinear."""
    for axis, count in ((2, rows), (3, columns)):
        size = images.shape[axis]
        at = torch.arange(size, device=images.device)[None]
        # Centers of pixels: (i + 1/2) count / size - 1/2, in units of 1 / (2 size).
        place = (2 * at + 1) * count - size
        low = place.div(2 * size, rounding_mode="floor")
        share = (place - low * 2 * size) / (2 * size)
        share = share[:, None, :, None] if axis == 2 else share[:, None, None]
        one, next_ = (pick(images, axis, i.clamp(min=0).minimum(count - 1)) for i in (low, low + 1))
        images = one + share * (next_ - one)
    return images
