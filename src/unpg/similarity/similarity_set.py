"""S^p and S^n of a batch: sets of similarities whose matrix is the most that is ever written down.

Axes: r anchors, k similarities of each, d embedding size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unpg.distributed import ALONE, World, largest, part, smallest, total
from unpg.errors import ConfigError
from unpg.similarity import fused
from unpg.similarity.mask import DifferentLabel, EachPairOnce, MaskRule
from unpg.similarity.rank import at_ranks
from unpg.similarity.reduction import HingeSum, LogSumExp, Reduction, Sum, SumSoftplus
from unpg.similarity.stream import Block, Kernel, Reshape, Streaming, Walk, check_reshape, ranges

__all__ = ["Fences", "Reducible", "SimilaritySet"]


class Reducible(Protocol):
    """What an aggregate asks of a set of similarities."""

    def reduce(self, reduction: Reduction, *, offset: Tensor | None = None, reshape: Reshape | None = None) -> Tensor:
        """The reduction of ``scale * reshape(s) + offset`` over the pairs of each anchor."""
        ...

    def logsumexp(self, scale: float, *, reshape: Reshape | None = None) -> Tensor:
        """``log sum exp(scale * reshape(s))`` of each anchor."""
        ...

    def sum_softplus(self, scale: float, offset: Tensor, *, reshape: Reshape | None = None) -> Tensor:
        """``sum log(1 + e^(scale * reshape(s) + offset))`` of each anchor."""
        ...

    def count(self) -> Tensor:
        """How many pairs each anchor has, int64."""
        ...


@dataclass(frozen=True, eq=False)
class Fences:
    """Inclusive bounds on similarity; shapes (1, 1) for all anchors or (r, 1) for each."""

    lower: Tensor
    upper: Tensor


@dataclass(frozen=True, eq=False)
class SimilaritySet:
    """The similarities of rows with columns that a rule calls pairs.

    The products are computed once, on first use, and kept; whatever else has their size lives for one block.

    Args:
        rows: (r, d) unit vectors.
        columns: (k, d) unit vectors.
        rule: Which entries are pairs.
        shared: The pairs of all rows form one set that every anchor sees. Reductions then have shape (1,): this is
            what makes UNPG cost one number instead of one copy of the set per row.
        fences: Pairs outside are left out; None leaves none out.
        kernel: ``triton``, or ``auto`` where it can, takes the log-sum-exp of a shared set of a batch's negatives by a
            fused kernel, and counts for order statistics by another.
        world: Processes that all have the rows and the columns, and each walk their own part of the columns. All of
            them must ask the same of the set; all of them get the whole answer.
    """

    rows: Tensor
    columns: Tensor
    rule: MaskRule
    shared: bool = False
    fences: Fences | None = None
    kernel: Kernel = "plain"
    world: World = ALONE

    @cached_property
    def _products(self) -> Tensor:
        """(r, own columns), detached; where the rule limits the rows of a block, the rest is not computed."""
        with torch.no_grad():
            if self.world.alone and all(block.rows == len(self.rows) for block in self._blocks):
                return self.rows @ self.columns.T
            products = self.rows.new_zeros(len(self.rows), sum(stop - start for start, stop in self._own))
            for block in self._blocks:
                factors = self.columns[block.start : block.stop]
                products[: block.rows, self._place(block)] = self.rows[: block.rows] @ factors.T
            return products

    @cached_property
    def _own(self) -> list[tuple[int, int]]:
        """The ranges of columns that this process walks.

        Of 2 W parts the r-th from the left and the r-th from the right: under a diagonal, too, all have equal work.
        """
        k, size = len(self.columns), 2 * self.world.size
        if self.world.alone:
            return [(0, k)]
        return [part(k, place, size) for place in (self.world.rank, size - 1 - self.world.rank)]

    def _place(self, block: Block) -> slice:
        """Where the products of a block lie."""
        (start, stop), *rest = self._own
        if block.start < stop or not rest:
            return slice(block.start - start, block.stop - start)
        offset = stop - start - rest[0][0]
        return slice(block.start + offset, block.stop + offset)

    def _values(self, block: Block) -> Tensor:
        """The products of a block, (rows, n)."""
        return self._products[: block.rows, self._place(block)]

    @cached_property
    def _blocks(self) -> list[Block]:
        width = Streaming().columns(len(self.rows), self.rows.device)
        limit = self.rule.rows if self.shared else lambda stop: None
        return [b for start, stop in self._own for b in ranges(stop, len(self.rows), width, limit, first=start)]

    @cached_property
    def _masks(self) -> dict[tuple[bool, Block], Tensor]:
        """Masks by (kept, block). Those of a set of one block are written down, being small."""
        return {}

    def _offered(self, block: Block) -> Tensor:
        return self._mask(False, block, lambda: self.rule(block.start, block.stop)[: block.rows])

    def _kept(self, block: Block) -> Tensor:
        fences = self.fences
        if fences is None:
            return self._offered(block)
        values = self._values(block)

        def inside() -> Tensor:
            return self._offered(block) & (values >= fences.lower) & (values <= fences.upper)

        return self._mask(True, block, inside)

    def _mask(self, kept: bool, block: Block, make: Callable[[], Tensor]) -> Tensor:
        if len(self._blocks) > 1:
            return make()
        if (kept, block) not in self._masks:
            self._masks[kept, block] = make()
        return self._masks[kept, block]

    def _masked(self, kept: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Similarities and whether they are in, block by block: two (r, n), or (1, rows * n) if shared."""
        for block in self._blocks:
            values = self._values(block)
            inside = self._kept(block) if kept else self._offered(block)
            yield self._by_anchor(values), self._by_anchor(inside)

    def _by_anchor(self, entries: Tensor) -> Tensor:
        return entries.reshape(1, -1) if self.shared else entries

    @property
    def _anchors(self) -> int:
        return 1 if self.shared else len(self.rows)

    def within(self, fences: Fences) -> "SimilaritySet":
        """The same set, with what lies outside the fences left out; the products are not computed again."""
        fenced = replace(self, fences=fences)
        offered = {key: mask for key, mask in self._masks.items() if not key[0]}
        fenced.__dict__.update(_products=self._products, _blocks=self._blocks, _own=self._own, _masks=offered)
        return fenced

    def among(self, rule: MaskRule) -> "SimilaritySet":
        """The pairs of another rule on the same products, which are not computed again; without fences.

        The rule must not reach below the rows that this set's rule limits a block to (:meth:`MaskRule.rows`).
        """
        other = replace(self, rule=rule, fences=None)
        other.__dict__.update(_products=self._products, _blocks=self._blocks, _own=self._own)
        return other

    def reduce(self, reduction: Reduction, *, offset: Tensor | None = None, reshape: Reshape | None = None) -> Tensor:
        """A reduction over the pairs of each anchor: (r,), or (1,) if shared.

        Args:
            reduction: What to compute.
            offset: (r,) or (1,), added to the logits; may carry a gradient.
            reshape: An elementwise margin on (r, n) similarities.
        """
        return self._reduce(reduction, offset, reshape)[0]

    def _reduce(self, reduction: Reduction, offset: Tensor | None, reshape: Reshape | None) -> tuple[Tensor, Tensor]:
        check_reshape(reshape, self.rows)
        labels = self._fused_labels(reduction, reshape)
        if labels is not None:
            value = _fuse_pairs(self.rows, labels, self.fences, float(reduction.scale))
            return value if offset is None else value + offset, torch.full_like(value, torch.nan).detach()
        return _reduce_pairs(self.rows, self.columns, offset, self, reduction, reshape)

    def _fused_labels(self, reduction: Reduction, reshape: Reshape | None) -> Tensor | None:
        """The labels of the batch, if there is a kernel for it."""
        rule = self.rule.rule if isinstance(self.rule, EachPairOnce) else None
        fits = (
            fused.wanted(self.kernel, self.rows)
            and self.shared
            and isinstance(rule, DifferentLabel)
            and rule.others is None
            and isinstance(reduction, LogSumExp)
            and isinstance(reduction.scale, float | int)
            and reshape is None
            and self.rows.dtype == torch.float32
        )
        return rule.labels if fits and isinstance(rule, DifferentLabel) else None

    def logsumexp(self, scale: float, *, reshape: Reshape | None = None) -> Tensor:
        """``log sum exp(scale * reshape(s))`` of each anchor: (r,), or (1,) if shared; -inf of no pairs."""
        return self.reduce(LogSumExp(scale), reshape=reshape)

    def sum_softplus(self, scale: float, offset: Tensor, *, reshape: Reshape | None = None) -> Tensor:
        """``sum log(1 + e^(scale * reshape(s) + offset))`` of each anchor: (r,), or (1,) if shared."""
        return self.reduce(SumSoftplus(scale), offset=offset, reshape=reshape)

    def sum(self) -> Tensor:
        """``sum s`` of each anchor: (r,), or (1,) if shared."""
        return self.reduce(Sum())

    def hinge_sum(self, scale: float, offset: float, *, reshape: Reshape | None = None) -> tuple[Tensor, Tensor]:
        """``sum max(scale * reshape(s) + offset, 0)`` of each anchor, and how many terms are above zero."""
        constant = torch.full((1,), offset, dtype=self.rows.dtype, device=self.rows.device)
        return self._reduce(HingeSum(scale), constant, reshape)

    def times(self, lengths: Tensor) -> "SimilaritySet":
        """The same set with the similarities of each row multiplied by its length (r, 1); fences are kept.

        Which pairs are in is decided on the set as it is, so lengths move no pair across a fence.
        """
        longer = replace(self, rows=self.rows * lengths, rule=_Decided(self), fences=None)
        longer.__dict__.update(_blocks=self._blocks, _own=self._own)
        return longer

    @torch.no_grad()
    def maximum(self) -> Tensor:
        """The largest similarity of each anchor, detached: (r,) or (1,); -inf of no pairs."""
        most = self.rows.new_full((self._anchors,), -torch.inf)
        for values, inside in self._masked(kept=True):
            if values.shape[1]:
                most = torch.maximum(most, values.masked_fill(~inside, -torch.inf).amax(dim=1))
        return largest(most, self.world)

    @torch.no_grad()
    def minimum(self) -> Tensor:
        """The smallest similarity of each anchor, detached: (r,) or (1,); inf of no pairs."""
        least = self.rows.new_full((self._anchors,), torch.inf)
        for values, inside in self._masked(kept=True):
            if values.shape[1]:
                least = torch.minimum(least, values.masked_fill(~inside, torch.inf).amin(dim=1))
        return smallest(least, self.world)

    @torch.no_grad()
    def mean(self) -> Tensor:
        """Mean similarity over all pairs, a detached scalar; NaN of no pairs."""
        added = self.rows.new_zeros(())
        for values, inside in self._masked(kept=True):
            added += torch.where(inside, values, 0).sum()
        return total(added, self.world) / self.count().sum()

    def count(self) -> Tensor:
        """How many pairs each anchor has: (r,) or (1,), int64."""
        return self.count_offered() if self.fences is None else self._count_kept

    def summed(self) -> Tensor:
        """How many a sum is of: all of them."""
        return self.count()

    def count_offered(self) -> Tensor:
        """How many pairs each anchor had before the fences: (r,) or (1,), int64."""
        return self._count_offered

    @cached_property
    def _count_offered(self) -> Tensor:
        return self._counted(kept=False)

    @cached_property
    def _count_kept(self) -> Tensor:
        return self._counted(kept=True)

    def _counted(self, kept: bool) -> Tensor:
        count = torch.zeros(self._anchors, dtype=torch.int64, device=self.rows.device)
        for block in self._blocks:
            count += self._by_anchor(self._kept(block) if kept else self._offered(block)).sum(dim=1)
        return total(count, self.world)

    def at_ranks(self, ranks: Tensor) -> Tensor:
        """Similarities by rank, before the fences: (a, q) of (a, q) int64 ranks from 0, a being r or 1. Exact, and
        nothing is sorted; inf where an anchor has no such rank.
        """
        fuse = fused.wanted(self.kernel, self.rows)
        return at_ranks(lambda: self._masked(kept=False), ranks, self.rows.dtype, self.world, fuse=fuse)

    def values(self) -> tuple[Tensor, Tensor]:
        """All similarities with their gradient, and which are pairs: two (r, k). For losses over pairs of pairs."""
        return _Products.apply(self.rows, self.columns), self._kept(self._whole)

    def dense(self) -> tuple[Tensor, Tensor]:
        """All similarities and which of them are in: two (r, k), or (1, r * k) if shared. Detached."""
        whole = self._whole
        return self._by_anchor(self._products), self._by_anchor(self._kept(whole))

    def dense_offered(self) -> tuple[Tensor, Tensor]:
        """Like :meth:`dense`, before the fences."""
        whole = self._whole
        return self._by_anchor(self._products), self._by_anchor(self._offered(whole))

    @property
    def _whole(self) -> Block:
        if not self.world.alone:
            raise ConfigError("A set that is split over processes is never whole in one of them: ask for a reduction.")
        return Block(0, len(self.columns), len(self.rows))


@dataclass(frozen=True, eq=False)
class _Decided(MaskRule):
    """What another set keeps."""

    of: SimilaritySet

    def __call__(self, start: int, stop: int) -> Tensor:
        return self.of._kept(Block(start, stop, len(self.of.rows)))


class _PairBlocks:
    """A set as a walk sees it."""

    def __init__(self, similarities: SimilaritySet) -> None:
        self.set = similarities
        self.blocks = similarities._blocks

    def scaled(self, block: Block, scale: float | Tensor) -> tuple[Tensor, None]:
        """``scale`` times the products of a block."""
        return self.set._values(block) * scale, None

    def exclude(self, logits: Tensor, block: Block) -> None:
        """Write -inf where there is no pair."""
        logits.masked_fill_(~self.set._kept(block), -torch.inf)


class _Products(torch.autograd.Function):
    """``rows @ columns.T``. The way back, too, is outside of the autocast that ``backward()`` may be called in."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        return rows @ columns.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = ctx.saved_tensors
        with torch.autocast(rows.device.type, enabled=False):
            return grad @ columns, grad.T @ rows


class _ReducePairs(torch.autograd.Function):
    """A reduction of a set, and how many pairs are active in it (NaN where the reduction does not say)."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        offset: Tensor | None,
        similarities: SimilaritySet,
        reduction: Reduction,
        reshape: Reshape | None,
    ) -> tuple[Tensor, Tensor]:
        walk = Walk(_PairBlocks(similarities), reduction, reshape, offset, similarities.shared)
        own, _ = walk.forward(rows, keep=False)
        whole = reduction.across(own, similarities.world)
        value = reduction.value(whole).clone()
        active = reduction.active(whole)
        active = torch.full_like(value, torch.nan) if active is None else active.clone()
        ctx.mark_non_differentiable(active)
        ctx.save_for_backward(rows, columns)
        ctx.walk, ctx.whole, ctx.world = walk, whole, similarities.world
        return value, active

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns = ctx.saved_tensors
        walk: Walk = ctx.walk
        to_offset = ctx.needs_input_grad[2]
        d_offset = torch.zeros_like(walk.offset) if to_offset and walk.offset is not None else None
        with torch.autocast(rows.device.type, enabled=False):
            d_rows, d_columns = torch.zeros_like(rows), torch.zeros_like(columns)
            # Rules 2 and 3 of unpg.distributed.collectives.
            for pull in walk.backward(ctx.whole, grad * ctx.world.size, [], to_offset=to_offset):
                start, stop, top = pull.block
                d_rows[:top].addcmul_(pull.slopes @ columns[start:stop], pull.factor)
                d_columns[start:stop].addmm_(pull.slopes.T, rows[:top] * pull.factor)
                if d_offset is not None and pull.to_offset is not None:
                    d_offset += pull.to_offset
            d_offset = None if d_offset is None else total(d_offset, ctx.world) / ctx.world.size
        return d_rows, d_columns, d_offset, None, None, None


class _FusePairs(torch.autograd.Function):
    """The log-sum-exp of a batch's negatives, each pair once, by the kernels of :mod:`unpg.similarity.fused`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, labels: Tensor, fences: Fences | None, scale: float) -> Tensor:
        far = rows.new_full((), torch.inf)
        lower, upper = (-far, far) if fences is None else (fences.lower.reshape(()), fences.upper.reshape(()))
        peak, total = fused.pair_forward(rows, labels, scale, lower, upper)
        ctx.save_for_backward(rows, labels, lower, upper, peak, total)
        ctx.scale = scale
        return (peak + total.log())[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, labels, lower, upper, peak, total = ctx.saved_tensors
        d_rows = fused.pair_backward(rows, labels, ctx.scale, lower, upper, peak, total, grad.reshape(()))
        return d_rows, None, None, None


_fuse_pairs: Callable[..., Tensor] = torch.compiler.disable(_FusePairs.apply)
_reduce_pairs: Callable[..., tuple[Tensor, Tensor]] = torch.compiler.disable(_ReducePairs.apply)
