"""Which entries of rows x columns are pairs of the set.

A rule is a function of labels and positions, so that the mask of any block of columns can be made when it is needed.
Axes: r rows (anchors), k columns.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["DifferentLabel", "DifferentSample", "EachPairOnce", "MaskRule", "SameLabel"]


class MaskRule(ABC):
    """Says which entries form a pair."""

    @abstractmethod
    def __call__(self, start: int, stop: int) -> Tensor:
        """The mask of all rows with the columns ``start .. stop``: (r, stop - start) bool."""

    def rows(self, stop: int) -> int | None:
        """With columns before ``stop``, only so many of the first rows can form a pair; None for all rows."""
        return None


@dataclass(frozen=True, eq=False)
class DifferentLabel(MaskRule):
    """Rows with ``labels`` (r,) and columns with ``others`` (k,), by default the same: negatives of each row."""

    labels: Tensor
    others: Tensor | None = None

    def __call__(self, start: int, stop: int) -> Tensor:
        """The mask of the columns ``start .. stop``."""
        others = self.labels if self.others is None else self.others
        return self.labels[:, None] != others[start:stop]


@dataclass(frozen=True, eq=False)
class SameLabel(MaskRule):
    """Rows and columns are features of a batch with ``labels`` (b,): positives of each row, itself left out."""

    labels: Tensor

    def __call__(self, start: int, stop: int) -> Tensor:
        """The mask of the columns ``start .. stop``."""
        place = torch.arange(len(self.labels), device=self.labels.device)
        return (self.labels[:, None] == self.labels[start:stop]) & (place[:, None] != place[start:stop])


@dataclass(frozen=True, eq=False)
class DifferentSample(MaskRule):
    """The entries of ``rule`` whose row and column come from different images: ``ids`` (r,) and ``others`` (k,)."""

    rule: MaskRule
    ids: Tensor
    others: Tensor

    def __call__(self, start: int, stop: int) -> Tensor:
        """The mask of the columns ``start .. stop``."""
        return self.rule(start, stop) & (self.ids[:, None] != self.others[start:stop])


@dataclass(frozen=True, eq=False)
class EachPairOnce(MaskRule):
    """The entries of ``rule`` above the diagonal: every unordered pair of a batch of ``size`` once."""

    rule: MaskRule
    size: int

    def __call__(self, start: int, stop: int) -> Tensor:
        """The mask of the columns ``start .. stop``."""
        inside = self.rule(start, stop)
        place = torch.arange(self.size, device=inside.device)
        return inside & (place[:, None] < place[start:stop])

    def rows(self, stop: int) -> int:
        """Rows below the last column are under the diagonal."""
        return stop
