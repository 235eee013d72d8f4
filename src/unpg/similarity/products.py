"""Matrix products whose operands may be rounded while their sums are not."""

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Precision", "add_wide_product", "rounded", "wide_product"]

Precision = Literal["float32", "bfloat16"]


def rounded(x: Tensor, precision: Precision) -> Tensor:
    """The operand of a product: as it is, or in bfloat16. float64 is left alone, for tests of the gradient."""
    return x.bfloat16() if precision == "bfloat16" and x.dtype == torch.float32 else x


def wide_product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """``a @ b`` outside autocast, with float32 sums and a float32 result for bfloat16 operands; into ``out`` if given.

    A CPU has no such product for two dimensions; there the operands are widened, which is exact and not fast.
    """
    with torch.autocast(a.device.type, enabled=False):
        if a.dtype != torch.bfloat16:
            return torch.mm(a, b, out=out)
        if not a.is_cuda:
            return torch.mm(a.float(), b.float(), out=out)
        return torch.mm(a, b, out_dtype=torch.float32, out=out)


def add_wide_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """``total += a @ b``, as :func:`wide_product`."""
    with torch.autocast(a.device.type, enabled=False):
        if a.dtype != torch.bfloat16:
            total.addmm_(a, b)
        elif not a.is_cuda:
            total.addmm_(a.float(), b.float())
        else:
            torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
