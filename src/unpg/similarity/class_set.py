"""The similarities of features with class weights, never as a (b, C) matrix.

Axes: b anchors, C classes, K centers of each, d embedding size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unpg.distributed import ALONE, World, reduced_sum, total
from unpg.similarity import fused
from unpg.similarity.products import rounded, wide_product
from unpg.similarity.reduction import LogSumExp, Reduction, SumSoftplus
from unpg.similarity.stream import Block, Reshape, Streaming, Walk, check_reshape, ranges

__all__ = ["ClassSet", "OwnClassSet", "Shard"]


class Shard(NamedTuple):
    """The classes whose weights this process takes, where those are not all.

    Attributes:
        places: (b,) int64, where the own class of each row is among them; -1 if elsewhere.
        num_classes: How many all processes take together.
        world: The processes; all must ask the same of the set, and all get the whole answer.
        inclusion: Probability of a class to be drawn, where a step takes a random part of them. A sum over classes is
            one over those drawn, divided by it, hence unbiased; a softmax is one over the classes taken.
        drawn: (c,) bool, which of the classes here were drawn; the others are taken as somebody's own. None: all.
        drawn_from: How many classes there are, of which those are drawn; None: ``num_classes``.
    """

    places: Tensor
    num_classes: int
    world: World = ALONE
    inclusion: float = 1.0
    drawn: Tensor | None = None
    drawn_from: int | None = None


class ClassSet:
    """S^n of CLPG: the cosine of each feature with every class but its own.

    With K > 1 centers a class has the largest cosine of its centers (Deng et al. 2020, Sub-center ArcFace, ECCV).

    Args:
        rows: (b, d) unit features.
        weights: (C * K, d) class weights as they are, the K centers of a class one after the other. Their directions
            count; a zero weight has cosine 0 with everything and gradient 0.
        labels: (b,) classes of the rows.
        centers: K.
        streaming: How many columns at once, and what is kept for the backward pass.
        shard: Which classes the weights are of; None if of all.
    """

    def __init__(
        self,
        rows: Tensor,
        weights: Tensor,
        labels: Tensor,
        *,
        centers: int = 1,
        streaming: Streaming = Streaming(),
        shard: Shard | None = None,
    ) -> None:
        self.rows = rows
        self.weights = weights
        self.labels = labels
        self.centers = centers
        self.streaming = streaming
        self.shard = Shard(labels, len(weights) // centers) if shard is None else shard
        self._own: Tensor | None = None  # found on the way by the first reduction
        self._shorter: tuple[ClassSet, Tensor] | None = None

    @property
    def num_classes(self) -> int:
        """C."""
        return self.shard.num_classes

    def reduce(self, reduction: Reduction, *, offset: Tensor | None = None, reshape: Reshape | None = None) -> Tensor:
        """A reduction over the other classes: (b,).

        Args:
            reduction: What to compute.
            offset: (b,) or (1,), added to the logits.
            reshape: An elementwise margin on (b, n) cosines.
        """
        check_reshape(reshape, self.rows)
        if self._fuses(reduction, reshape):
            keep = self._keeps(rounded(self.rows[:0], self.streaming.products))
            value, own = _fuse_classes(self.rows, self.weights, self, float(reduction.scale), reshape, keep)
            value = value if offset is None else value + offset
        else:
            keep = self._keeps(self.rows)
            value, own = _reduce_classes(self.rows, self.weights, offset, self, reduction, reshape, keep)
        if isinstance(reduction, SumSoftplus) and self.shard.inclusion < 1:
            value = value / self.shard.inclusion
        if not torch.is_grad_enabled():  # a cosine without gradient is not to be had later by who wants one
            return value
        if self._shorter is not None:
            base, lengths = self._shorter
            alive = lengths > 0
            base._own = torch.where(alive, own / torch.where(alive, lengths, 1), 0)
        elif self._own is None:
            self._own = own
        return value

    def _keeps(self, like: Tensor) -> bool:
        """Whether the similarities, or what has been made of them, are kept for the backward pass, in the type of
        ``like``.
        """
        return torch.is_grad_enabled() and self.streaming.keeps(len(self.rows) * len(self.weights), like)

    def _fuses(self, reduction: Reduction, reshape: Reshape | None) -> bool:
        """Whether there is a kernel for it, and it is wanted."""
        kernel, products = self.streaming.kernel, self.streaming.products
        return (
            fused.wanted(kernel, self.rows)
            and (kernel == "triton" or products == "bfloat16")
            and isinstance(reduction, LogSumExp)
            and isinstance(reduction.scale, float | int)
            and self.centers == 1
            and len(self.weights) > 0
            and self.rows.dtype == torch.float32
            and (reshape is None or isinstance(reshape, fused.NegativeMargin))
        )

    def logsumexp(self, scale: float, *, reshape: Reshape | None = None) -> Tensor:
        """``log sum exp(scale * reshape(cos))`` over the other classes: (b,); -inf with one class."""
        return self.reduce(LogSumExp(scale), reshape=reshape)

    def sum_softplus(self, scale: float, offset: Tensor, *, reshape: Reshape | None = None) -> Tensor:
        """``sum log(1 + e^(scale * reshape(cos) + offset))`` over the other classes: (b,)."""
        return self.reduce(SumSoftplus(scale), offset=offset, reshape=reshape)

    def times(self, lengths: Tensor) -> "ClassSet":
        """The same set with the similarities of each row multiplied by its length (b, 1)."""
        longer = ClassSet(
            self.rows * lengths,
            self.weights,
            self.labels,
            centers=self.centers,
            streaming=self.streaming,
            shard=self.shard,
        )
        longer._shorter = (self, lengths.squeeze(1))
        return longer

    def count(self) -> Tensor:
        """C - 1 for each anchor: (b,) int64."""
        return torch.full_like(self.labels, self.num_classes - 1, dtype=torch.int64)

    def summed(self) -> Tensor:
        """How many negatives of each anchor a sum is of, where those drawn stand for all: (b,) int64."""
        classes = self.num_classes if self.shard.drawn_from is None else self.shard.drawn_from
        return torch.full_like(self.labels, classes - 1, dtype=torch.int64)

    @torch.no_grad()
    def dense(self) -> tuple[Tensor, Tensor]:
        """All cosines with the weights that are here, and which are negatives: two (b, C). For tests and reports."""
        blocks = _ClassBlocks(self, self.rows, self.weights)
        cosines, _ = blocks.scaled(Block(0, len(blocks.weights), len(self.rows)), 1.0)
        return cosines, self.shard.places[:, None] != torch.arange(len(blocks.weights), device=self.labels.device)

    def own(self) -> Tensor:
        """(b,) cosines with the own class. Free after a reduction with gradient; else the rows are gathered."""
        return reduced_sum(self._own_centers()[0], self.shard.world) if self._own is None else self._own

    def own_detached(self) -> Tensor:
        """(b,) cosines with the own class, without gradient."""
        with torch.no_grad():
            return total(self._own_centers()[0], self.shard.world)

    def _own_centers(self) -> tuple[Tensor, Tensor]:
        """Largest cosine with the K centers of the own class, and the place of that center among the weights: two (b,).

        Where the own class is not here: 0, and -1.
        """
        if len(self.weights) == 0:
            return self.rows.sum(dim=1) * 0, self.shard.places
        here = self.shard.places >= 0
        first = torch.where(here, self.shard.places, 0) * self.centers
        own = self.weights[first[:, None] + torch.arange(self.centers, device=first.device)].to(self.rows.dtype)
        squares = own.square().sum(dim=2)
        alive = squares > 0
        inverse = torch.where(alive, torch.where(alive, squares, 1).rsqrt(), 0)
        best = ((own * self.rows[:, None]).sum(dim=2) * inverse).max(dim=1)
        return torch.where(here, best.values, 0), torch.where(here, first + best.indices, -1)


class OwnClassSet:
    """S^p of CLPG: the cosine of each feature with its own class, one positive per anchor."""

    def __init__(self, classes: ClassSet) -> None:
        self._classes = classes

    @property
    def values(self) -> Tensor:
        """The cosines, (b, 1)."""
        return self._classes.own()[:, None]

    def detached(self) -> Tensor:
        """The cosines without gradient, (b, 1), at the price of b products."""
        return self._classes.own_detached()[:, None]

    def reduce(self, reduction: Reduction, *, offset: Tensor | None = None, reshape: Reshape | None = None) -> Tensor:
        """A reduction over one term: (b,)."""
        values = self.values if reshape is None else reshape(self.values)
        logits = reduction.scale * values.squeeze(1)
        logits = logits if offset is None else logits + offset
        return reduction.of_one(logits)

    def logsumexp(self, scale: float, *, reshape: Reshape | None = None) -> Tensor:
        """``scale * reshape(cos)``: (b,)."""
        return self.reduce(LogSumExp(scale), reshape=reshape)

    def sum_softplus(self, scale: float, offset: Tensor, *, reshape: Reshape | None = None) -> Tensor:
        """``log(1 + e^(scale * reshape(cos) + offset))``: (b,)."""
        return self.reduce(SumSoftplus(scale), offset=offset, reshape=reshape)

    def count(self) -> Tensor:
        """One for each anchor: (b,) int64."""
        return torch.ones_like(self._classes.labels, dtype=torch.int64)

    def dense(self) -> tuple[Tensor, Tensor]:
        """All cosines, (b, 1) and detached, and which are pairs: all."""
        values = self.values.detach()
        return values, torch.ones_like(values, dtype=torch.bool)

    def mean(self) -> Tensor:
        """Mean over the anchors, a detached scalar; NaN of none."""
        return self.values.detach().mean()


class _ClassBlocks:
    """The class weights in chunks; norms are taken on the way, normalised weights are never written down."""

    def __init__(self, classes: ClassSet, rows: Tensor, weights: Tensor) -> None:
        self.rows = rows
        self.precision = classes.streaming.products
        self.factors = rounded(rows, self.precision)
        self.weights = weights.view(-1, classes.centers, weights.shape[1])
        self.labels = classes.shard.places
        self.centers = classes.centers
        width = classes.streaming.columns(len(rows) * classes.centers, rows.device)
        self.blocks = ranges(len(self.weights), len(rows), width)
        self.drawn: Tensor | None = None  # the classes that are in the sum; None for all
        self.inverse = rows.new_empty(weights.shape[0]).view(-1, classes.centers)
        self._known = 0

    def chunk(self, block: Block) -> tuple[Tensor, Tensor]:
        """The weights (n * K, d) of a block's classes, and one over their lengths (n * K,)."""
        weights = self.weights[block.start : block.stop].flatten(0, 1).to(self.rows.dtype)
        inverse = self.inverse[block.start : block.stop].view(-1)
        if self._known < block.stop:
            norms = torch.linalg.vector_norm(weights, dim=1)
            inverse.copy_(torch.where(norms > 0, 1 / norms, 0))
            self._known = block.stop
        return weights, inverse

    def scaled(self, block: Block, scale: float | Tensor) -> tuple[Tensor, Tensor | None]:
        """Scaled cosines (b, n), and with several centers which one is the nearest."""
        weights, inverse = self.chunk(block)
        products = wide_product(self.factors, rounded(weights, self.precision).T)
        products *= inverse * scale
        if self.centers == 1:
            return products, None
        sign = 1 if scale > 0 else -1
        best = (products.view(len(self.rows), block.stop - block.start, self.centers) * sign).max(dim=2)
        return best.values * sign, best.indices

    def exclude(self, logits: Tensor, block: Block) -> None:
        """Write -inf at the own class of each row. Without a mask: one entry a row."""
        if logits.shape[1] == 0:
            return
        if self.drawn is not None:
            logits.masked_fill_(~self.drawn[block.start : block.stop], -torch.inf)
        inside = ((self.labels >= block.start) & (self.labels < block.stop))[:, None]
        place = (self.labels - block.start).clamp(0, logits.shape[1] - 1)[:, None]
        logits.scatter_(1, place, torch.where(inside, -torch.inf, logits.gather(1, place)))

    def spread(self, slopes: Tensor, nearest: Tensor | None) -> Tensor:
        """Slopes of classes (b, n) as slopes of centers (b, n * K)."""
        if nearest is None:
            return slopes
        all_centers = slopes.new_zeros((*slopes.shape, self.centers))
        return all_centers.scatter_(2, nearest[..., None], slopes[..., None]).flatten(1)


class _ReduceClasses(torch.autograd.Function):
    """A reduction over the other classes, and the cosine with the own class.

    One node for both: the own class would otherwise bring a (C, d) gradient of its own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weights: Tensor,
        offset: Tensor | None,
        classes: ClassSet,
        reduction: Reduction,
        reshape: Reshape | None,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        blocks = _ClassBlocks(classes, rows, weights)
        if isinstance(reduction, SumSoftplus):
            blocks.drawn = classes.shard.drawn
        walk = Walk(blocks, reduction, reshape, offset)
        part, kept = walk.forward(rows, keep)
        whole = reduction.across(part, classes.shard.world)
        own, place = classes._own_centers()
        own = total(own, classes.shard.world)
        ctx.save_for_backward(rows, weights, own, place)
        ctx.walk, ctx.whole, ctx.kept, ctx.world = walk, whole, kept, classes.shard.world
        return reduction.value(whole).clone(), own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_own: Tensor) -> tuple[Tensor | None, ...]:
        rows, weights, own, place = ctx.saved_tensors
        walk: Walk = ctx.walk
        blocks = walk.blocks
        grad, grad_own = grad * ctx.world.size, grad_own * ctx.world.size  # rule 2 of unpg.distributed.collectives
        assert isinstance(blocks, _ClassBlocks)
        to_offset = ctx.needs_input_grad[2]
        d_offset = torch.zeros_like(walk.offset) if to_offset and walk.offset is not None else None
        with torch.autocast(rows.device.type, enabled=False):
            d_rows = torch.zeros_like(rows)
            to_weights = ctx.needs_input_grad[1]
            d_weights = torch.empty_like(weights) if to_weights else None
            for pull in walk.backward(ctx.whole, grad, ctx.kept, to_offset=to_offset):
                chunk, inverse = blocks.chunk(pull.block)
                slopes = blocks.spread(pull.slopes, pull.aside)
                slopes *= inverse
                factors = rounded(slopes, blocks.precision)
                d_rows.addcmul_(wide_product(factors, rounded(chunk, blocks.precision)), pull.factor)
                if d_offset is not None and pull.to_offset is not None:
                    d_offset += pull.to_offset
                if d_weights is None:
                    continue
                at = slice(pull.block.start * blocks.centers, pull.block.stop * blocks.centers)
                if d_weights.dtype == factors.dtype:
                    down = torch.mm(factors.T, rows * pull.factor, out=d_weights[at])
                else:
                    down = wide_product(factors.T, rounded(rows * pull.factor, blocks.precision))
                # Of the gradient of a direction, only what is across the weight moves it.
                along = (down * chunk).sum(dim=1) * inverse.square()
                down.addcmul_(chunk, along[:, None], value=-1)
                if d_weights.dtype != factors.dtype:
                    d_weights[at] = down
            _pull_own(rows, weights, blocks.inverse.view(-1), place, own, grad_own, d_rows, d_weights)
            d_offset = None if d_offset is None else total(d_offset, ctx.world) / ctx.world.size
        ctx.kept = []  # the slopes have been overwritten
        return d_rows, d_weights, d_offset, None, None, None, None


def _pull_own(
    rows: Tensor,
    weights: Tensor,
    inverse: Tensor,
    place: Tensor,
    own: Tensor,
    grad: Tensor,
    d_rows: Tensor,
    d_weights: Tensor | None,
) -> None:
    """Add the gradient of the cosines with the own class to those of rows and weights: b rows of each.

    A place of -1 is a class that is not here.
    """
    if len(weights) == 0:
        return
    pulled = torch.where(place >= 0, grad, 0)[:, None]
    place = place.clamp(min=0)
    short = inverse[place][:, None]
    unit = weights[place].to(rows.dtype) * short
    d_rows += unit * pulled
    if d_weights is not None:
        across = (rows - unit * own[:, None]) * short * pulled
        d_weights.index_add_(0, place, across.to(d_weights.dtype))


class _FuseClasses(torch.autograd.Function):
    """:class:`_ReduceClasses` for a log-sum-exp, by the kernels of :mod:`unpg.similarity.fused`."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weights: Tensor,
        classes: ClassSet,
        scale: float,
        margin: fused.NegativeMargin | None,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        norms = torch.linalg.vector_norm(weights, dim=1, dtype=torch.float32)
        inverse = torch.where(norms > 0, 1 / norms, 0)
        options: dict[str, Any] = {"margin": margin, "products": classes.streaming.products}
        ctx.shares = [] if keep and fused.keeps_shares(scale, margin, len(weights)) else None
        labels = classes.shard.places
        part = fused.class_forward(rows, weights, inverse, labels, scale, **options, shares=ctx.shares)
        peak, exponentials = LogSumExp(scale).across(part, classes.shard.world)
        own, place = classes._own_centers()
        own = total(own, classes.shard.world)
        ctx.save_for_backward(rows, weights, inverse, labels, peak, exponentials, own, place)
        ctx.scale, ctx.options, ctx.world = scale, options, classes.shard.world
        return peak + exponentials.log(), own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_own: Tensor) -> tuple[Tensor | None, ...]:
        rows, weights, inverse, labels, peak, exponentials, own, place = ctx.saved_tensors
        grad, grad_own = grad * ctx.world.size, grad_own * ctx.world.size  # rule 2 of unpg.distributed.collectives
        d_rows, d_weights = fused.class_backward(
            rows, weights, inverse, labels, ctx.scale, peak, exponentials, grad, **ctx.options, shares=ctx.shares
        )
        _pull_own(rows, weights, inverse, place, own, grad_own, d_rows, d_weights)
        return d_rows, d_weights.to(weights.dtype), None, None, None, None


_fuse_classes: Callable[..., tuple[Tensor, Tensor]] = torch.compiler.disable(_FuseClasses.apply)
_reduce_classes: Callable[..., tuple[Tensor, Tensor]] = torch.compiler.disable(_ReduceClasses.apply)
