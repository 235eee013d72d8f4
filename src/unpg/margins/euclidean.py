"""Distances in place of cosines."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unpg.margins.base import MARGINS, Margin
from unpg.similarity import Anchors, Reshape

__all__ = ["Euclidean"]

_SMALLEST_DISTANCE = 1e-4


def _negative_distance(cosine: Tensor) -> Tensor:
    """``-sqrt(2 - 2 c)`` with slope ``1 / max(distance, 1e-4)``."""
    square = 2 - 2 * cosine
    steep = square < _SMALLEST_DISTANCE**2
    smooth = torch.where(steep, 1, square).sqrt()
    still = cosine.detach()
    edge = (2 - 2 * still).clamp(min=0).sqrt() - (cosine - still) / _SMALLEST_DISTANCE
    return -torch.where(steep, edge, smooth)


@MARGINS.register("euclidean")
@dataclass(frozen=True)
class Euclidean(Margin):
    """``-|x - y|`` of unit vectors, ``-sqrt(2 - 2 c)``: what triplet and contrastive losses are written in."""

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        """(b, k) distances with a minus sign, so that larger is more alike."""
        return _negative_distance(cosine)

    def class_negative(self) -> Reshape:
        """The same."""
        return _negative_distance

    def batch_negative(self) -> Reshape:
        """The same."""
        return _negative_distance
