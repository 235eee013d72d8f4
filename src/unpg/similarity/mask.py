"""Which entries of rows x columns are pairs of the set.

A rule is a function of labels and positions, so a mask of any block can be made when it is needed.
Axes: r rows (anchors), k columns.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["DifferentLabel", "EachPairOnce", "MaskRule", "NotOwnClass", "SameLabel"]


class MaskRule(Protocol):
    """Says which of the columns ``start .. stop`` form a pair with each row: (r, stop - start) bool."""

    def __call__(self, start: int, stop: int) -> Tensor:
        """The mask of a block of columns."""
        ...


@dataclass(frozen=True, eq=False)
class NotOwnClass:
    """Rows are features with ``labels`` (r,), columns are classes: all classes but the row's own."""

    labels: Tensor

    def __call__(self, start: int, stop: int) -> Tensor:
        """The mask of the classes ``start .. stop``."""
        return self.labels[:, None] != torch.arange(start, stop, device=self.labels.device)


@dataclass(frozen=True, eq=False)
class DifferentLabel:
    """Rows and columns are features of a batch with ``labels`` (b,): negatives of each row."""

    labels: Tensor

    def __call__(self, start: int, stop: int) -> Tensor:
        """The mask of the columns ``start .. stop``."""
        return self.labels[:, None] != self.labels[start:stop]


@dataclass(frozen=True, eq=False)
class SameLabel:
    """Rows and columns are features of a batch with ``labels`` (b,): positives of each row, itself left out."""

    labels: Tensor

    def __call__(self, start: int, stop: int) -> Tensor:
        """The mask of the columns ``start .. stop``."""
        place = torch.arange(len(self.labels), device=self.labels.device)
        return (self.labels[:, None] == self.labels[start:stop]) & (place[:, None] != place[start:stop])


@dataclass(frozen=True, eq=False)
class EachPairOnce:
    """The entries of ``rule`` above the diagonal: every unordered pair of a batch of ``size`` once."""

    rule: MaskRule
    size: int

    def __call__(self, start: int, stop: int) -> Tensor:
        """The mask of the columns ``start .. stop``."""
        inside = self.rule(start, stop)
        place = torch.arange(self.size, device=inside.device)
        return inside & (place[:, None] < place[start:stop])
