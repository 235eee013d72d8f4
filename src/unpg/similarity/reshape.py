"""Elementwise functions of similarities that a kernel knows, too."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["HardenedNegative", "SelfPacedNegative"]


@dataclass(frozen=True)
class SelfPacedNegative:
    """``max(c + m, 0) (c - m)``, the first factor without gradient: Circle's negatives (Sun et al. 2020,
    arXiv 2002.10857).
    """

    m: float = 0.25

    def __call__(self, cosine: Tensor) -> Tensor:
        """(r, n) to (r, n)."""
        return (cosine.detach() + self.m).clamp(min=0) * (cosine - self.m)


@dataclass(frozen=True, eq=False)
class HardenedNegative:
    """``c (t + c)`` in place of c where it is above the threshold of its row: CurricularFace's negatives (Huang et al.
    2020, arXiv 2004.00288).

    Args:
        threshold: (r, 1), detached.
        t: Scalar, detached.
    """

    threshold: Tensor
    t: Tensor

    def __call__(self, cosine: Tensor) -> Tensor:
        """(r, n) to (r, n)."""
        return torch.where(cosine > self.threshold, cosine * (self.t + cosine), cosine)
