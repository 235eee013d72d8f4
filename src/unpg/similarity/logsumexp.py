"""Sums in log space whose gradients survive empty sets.

An empty sum is -inf with gradient zero, where torch's own functions give NaN: inf - inf on the way back, and NaN times
zero stays NaN.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["log_add_exp", "softplus"]


def log_add_exp(a: Tensor, b: Tensor) -> Tensor:
    """``log(e^a + e^b)``, broadcast. Where both are -inf the result is -inf and the gradient zero."""
    a, b = torch.broadcast_tensors(a, b)
    some = (a > -torch.inf) | (b > -torch.inf)
    return torch.where(some, torch.logaddexp(torch.where(some, a, 0), torch.where(some, b, 0)), -torch.inf)


def softplus(x: Tensor) -> Tensor:
    """``log(1 + e^x)``, without the linear branch that ``torch.nn.functional.softplus`` takes above 20."""
    return -F.logsigmoid(-x)
