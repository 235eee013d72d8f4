"""Sums of exponentials in log space, whose gradients survive empty sets.

``torch.logsumexp`` over a row of -inf has value -inf but gradient NaN, and NaN times zero stays NaN on the way
back. Here an empty sum is -inf with gradient zero.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["log_add_exp", "masked_logsumexp", "softplus"]


def masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    """``log sum exp`` over the last axis, of the values (..., k) whose mask (..., k) is true: (...,).

    -inf where no value is in. The gradient is the softmax of the values that are in, and exactly zero for the rest.
    """
    if values.shape[-1] == 0:
        return values.sum(dim=-1) - torch.inf
    # Zeros stand in for what is out, so that nothing overflows on the path whose gradient is discarded.
    peak = values.detach().masked_fill(~mask, -torch.inf).amax(dim=-1, keepdim=True)
    peak = torch.where(peak > -torch.inf, peak, 0)
    exponents = torch.where(mask, values - peak, -torch.inf)
    total = exponents.exp().sum(dim=-1)
    some = total > 0
    return torch.where(some, torch.where(some, total, 1).log() + peak.squeeze(-1), -torch.inf)


def log_add_exp(a: Tensor, b: Tensor) -> Tensor:
    """``log(e^a + e^b)``, broadcast. Where both are -inf the result is -inf and the gradient zero."""
    a, b = torch.broadcast_tensors(a, b)
    some = (a > -torch.inf) | (b > -torch.inf)
    return torch.where(some, torch.logaddexp(torch.where(some, a, 0), torch.where(some, b, 0)), -torch.inf)


def softplus(x: Tensor) -> Tensor:
    """``log(1 + e^x)``, without the linear branch that ``torch.nn.functional.softplus`` takes above 20."""
    return -F.logsigmoid(-x)
