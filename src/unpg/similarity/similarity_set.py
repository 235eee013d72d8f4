"""S^p and S^n: sets of similarities that nobody has to write down.

A set holds its two factors and the rule that says which products are pairs. What a loss needs of it are
reductions; the matrix itself is for tests and reports.
Axes: r anchors, k similarities per anchor, d embedding size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from unpg.similarity.logsumexp import masked_logsumexp
from unpg.similarity.mask import MaskRule

__all__ = ["Fences", "OwnClassSet", "Reducible", "SimilaritySet"]

Reshape = Callable[[Tensor], Tensor]


class Reducible(Protocol):
    """What an aggregate asks of a set."""

    def logsumexp(self, scale: float, reshape: Reshape | None = None) -> Tensor:
        """``log sum exp(scale * reshape(s))`` of each anchor."""
        ...

    def mean(self) -> Tensor:
        """Mean similarity over all pairs, a detached scalar."""
        ...


@dataclass(frozen=True, eq=False)
class Fences:
    """Inclusive bounds on similarity; shapes (1, 1) for all anchors or (r, 1) for each."""

    lower: Tensor
    upper: Tensor


@dataclass(frozen=True, eq=False)
class SimilaritySet:
    """The cosines of rows with columns that a rule calls pairs.

    Args:
        rows: (r, d) unit vectors.
        columns: (k, d) unit vectors.
        rule: Which entries are pairs.
        shared: The pairs of all rows form one set that every anchor sees. Reductions then have shape (1,): this is
            what makes UNPG cost one number instead of one copy of the set per row.
        fences: Pairs outside are left out; None leaves none out.
    """

    rows: Tensor
    columns: Tensor
    rule: MaskRule
    shared: bool = False
    fences: Fences | None = None

    @cached_property
    def _product(self) -> Tensor:
        return self.rows @ self.columns.T

    @cached_property
    def _offered(self) -> Tensor:
        return self.rule(0, len(self.columns))

    @cached_property
    def _kept(self) -> Tensor:
        if self.fences is None:
            return self._offered
        values = self._product.detach()
        return self._offered & (values >= self.fences.lower) & (values <= self.fences.upper)

    def _by_anchor(self, entries: Tensor) -> Tensor:
        return entries.reshape(1, -1) if self.shared else entries

    def within(self, fences: Fences) -> "SimilaritySet":
        """The same set, with what lies outside the fences left out; the product is not computed again."""
        fenced = replace(self, fences=fences)
        fenced.__dict__.update(_product=self._product, _offered=self._offered)
        return fenced

    def logsumexp(self, scale: float, reshape: Reshape | None = None) -> Tensor:
        """``log sum exp(scale * reshape(s))`` of each anchor: (r,), or (1,) if shared; -inf of no pairs.

        Args:
            scale: Multiplies the similarities; negative for positives.
            reshape: An elementwise margin on (r, k) similarities.
        """
        values = self._product if reshape is None else reshape(self._product)
        return masked_logsumexp(self._by_anchor(scale * values), self._by_anchor(self._kept))

    def maximum(self) -> Tensor:
        """The largest similarity of each anchor, detached: (r,) or (1,); -inf of no pairs."""
        values = self._by_anchor(self._product.detach().masked_fill(~self._kept, -torch.inf))
        return values.amax(dim=1) if values.shape[1] else values.sum(dim=1) - torch.inf

    def mean(self) -> Tensor:
        """Mean similarity over all pairs, a detached scalar; NaN of no pairs."""
        return torch.where(self._kept, self._product.detach(), 0).sum() / self._kept.sum()

    def count(self) -> Tensor:
        """How many pairs each anchor has: (r,) or (1,), int64."""
        return self._by_anchor(self._kept).sum(dim=1)

    def count_offered(self) -> Tensor:
        """How many pairs each anchor had before the fences: (r,) or (1,), int64."""
        return self._by_anchor(self._offered).sum(dim=1)

    def dense(self) -> tuple[Tensor, Tensor]:
        """All similarities and which of them are in: two (r, k), or (1, r * k) if shared. Detached."""
        return self._by_anchor(self._product.detach()), self._by_anchor(self._kept)

    def dense_offered(self) -> tuple[Tensor, Tensor]:
        """Like :meth:`dense`, before the fences."""
        return self._by_anchor(self._product.detach()), self._by_anchor(self._offered)


@dataclass(frozen=True, eq=False)
class OwnClassSet:
    """The similarity of each feature to the weight of its own class: one positive per anchor.

    Args:
        rows: (r, d) unit features.
        own: (r, d) unit weights, row i that of the class of feature i.
    """

    rows: Tensor
    own: Tensor

    @cached_property
    def values(self) -> Tensor:
        """The cosines, (r, 1)."""
        return (self.rows * self.own).sum(dim=1, keepdim=True)

    def logsumexp(self, scale: float, reshape: Reshape | None = None) -> Tensor:
        """``scale * reshape(s)``: (r,). A sum of one term."""
        values = self.values if reshape is None else reshape(self.values)
        return (scale * values).squeeze(1)

    def mean(self) -> Tensor:
        """Mean over the anchors, a detached scalar; NaN of none."""
        return self.values.detach().mean()
