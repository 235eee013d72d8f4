"""From features to directions and lengths, with a gradient that is finite everywhere."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Unit", "normalize"]


class Unit(NamedTuple):
    """Vectors split into direction and length.

    Attributes:
        vectors: (n, d), of length one; zero where the feature is zero.
        norms: (n, 1), lengths of the features.
    """

    vectors: Tensor
    norms: Tensor


def normalize(features: Tensor) -> Unit:
    """Split (n, d) features into unit vectors and norms, in float32 (float64 stays).

    A zero feature has no direction: its unit vector is zero, its cosine with anything is zero, and its gradient is
    zero (``torch.nn.functional.normalize`` gives it a gradient of 1e12). Half precision is widened first, because
    the square of a float16 above 255 overflows. So does that of a float32 above 2e19: such a row is scaled down on the
    way, for a feature that has grown out of bounds must not be taken for one without direction.
    """
    wide = features if features.dtype == torch.float64 else features.float()
    with torch.no_grad():
        finite = wide.isfinite().all(dim=1, keepdim=True)  # NaN and inf must reach the loss
        overflows = finite & wide.square().sum(dim=1, keepdim=True).isinf()
        scale = wide.new_ones(overflows.shape).masked_fill(overflows, torch.finfo(wide.dtype).max ** -0.65)
    wide = wide * scale
    squares = wide.square().sum(dim=1, keepdim=True)
    alive = squares != 0  # NaN is not zero: it must reach the loss
    norms = torch.where(alive, squares, 1).sqrt()  # the inner where keeps sqrt'(0) = inf out of the gradient
    zero = torch.zeros((), dtype=wide.dtype, device=wide.device)
    return Unit(torch.where(alive, wide / norms, zero), torch.where(alive, norms / scale, zero))
