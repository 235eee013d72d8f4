"""Walking a set of similarities block by block, so that the matrix need not exist.

Axes: r rows (anchors), n columns of a block.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from unpg.errors import ConfigError
from unpg.similarity.products import Precision
from unpg.similarity.reduction import Reduction, State

__all__ = ["Block", "Blocks", "Kernel", "Reshape", "Streaming", "Walk", "check_reshape", "ranges"]

Kernel = Literal["auto", "plain", "triton"]

Reshape = Callable[[Tensor], Tensor]
"""An elementwise function of similarities, (r, n) to (r, n): the part of a margin that touches every pair."""

_MIB = 2**20
# Entries of a block. On a CPU a block and its factors should stay in cache; a GPU wants large products.
_ENTRIES = {"cpu": 2**20, "cuda": 2**24}
_KEEP_MIB = {"cpu": 256.0, "cuda": 2048.0}


@dataclass(frozen=True)
class Streaming:
    """How the similarities with the class weights are computed. But for ``products``, settings change speed and memory,
    and results by rounding alone.

    Args:
        chunk: Classes at once; null chooses by the batch size (2**20 similarities on a CPU, 2**24 on a GPU).
        keep_mib: MiB of similarities that may be kept for the backward pass. If all (batch, classes) of them need
            more, none is kept and the backward pass computes them again: four matrix products a step in place of
            three. Null is 256 on a CPU, 2048 on a GPU.
        products: Type of the factors of matrix products: float32; or bfloat16, with float32 sums, for the tensor cores
            of a GPU (a CPU is slower so). Norms, target cosines, margins and reductions are float32 either way.
        kernel: plain torch; or triton, which on a GPU fuses product, margin and reduction wherever it can (one center
            a class, a softmax; exponentials are what it keeps, with no margin on the negatives and a scale up to about
            78), and takes the pairs of the batch likewise. auto is triton on a GPU where Triton is installed, for the
            classes if their products are bfloat16 ones: it multiplies float32 without tensor cores.
    """

    chunk: int | None = None
    keep_mib: float | None = None
    products: Precision = "float32"
    kernel: Kernel = "auto"

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise ConfigError(f"streaming.chunk must be >= 1 classes, or null to choose; got {self.chunk}.")
        if self.keep_mib is not None and not self.keep_mib >= 0:
            raise ConfigError(f"streaming.keep_mib must be >= 0 MiB (0 keeps nothing), got {self.keep_mib}.")
        for name, value, allowed in ("products", self.products, Precision), ("kernel", self.kernel, Kernel):
            if value not in get_args(allowed):
                raise ConfigError(f"streaming.{name} must be one of {', '.join(get_args(allowed))}; got {value!r}.")

    def columns(self, rows: int, device: torch.device) -> int:
        """Columns of a block with so many rows."""
        if self.chunk is not None:
            return self.chunk
        entries = _ENTRIES.get(device.type, _ENTRIES["cuda"])
        return max(64, entries // max(rows, 1))

    def keeps(self, entries: int, like: Tensor) -> bool:
        """Whether so many similarities of the type of ``like`` are kept for the backward pass."""
        most = _KEEP_MIB.get(like.device.type, _KEEP_MIB["cuda"]) if self.keep_mib is None else self.keep_mib
        return entries * like.element_size() <= most * _MIB


class Block(NamedTuple):
    """The columns ``start .. stop`` with the first ``rows`` rows."""

    start: int
    stop: int
    rows: int


def ranges(
    columns: int, rows: int, width: int, limit: Callable[[int], int | None] = lambda stop: None, first: int = 0
) -> list[Block]:
    """Blocks of ``width`` columns, ``first`` to ``columns``; ``limit`` says how many rows matter before a column."""
    blocks = []
    for start in range(first, columns, width):
        stop = min(start + width, columns)
        at_most = limit(stop)
        blocks.append(Block(start, stop, rows if at_most is None else min(rows, at_most)))
    return blocks


class Blocks(Protocol):
    """A set of similarities, as a walk sees it."""

    blocks: list[Block]

    def scaled(self, block: Block, scale: float | Tensor) -> tuple[Tensor, Tensor | None]:
        """``scale`` times the similarities of a block, (rows, n), to be overwritten; and what else
        :meth:`pull` will need.
        """
        ...

    def exclude(self, logits: Tensor, block: Block) -> None:
        """Write -inf where a block has no pair."""
        ...


class Kept(NamedTuple):
    """What is left of an absorbed block.

    Attributes:
        slopes: d value / d logit up to the reduction's factor, (rows, n); None where the similarities were kept.
        similarities: Before a reshape, (rows, n); None without one.
        state: What the reduction knows of the block.
        aside: What the blocks want to have back.
    """

    slopes: Tensor | None
    similarities: Tensor | None
    state: State
    aside: Tensor | None


class Pull(NamedTuple):
    """``slopes * factor`` is d loss / d similarity of a block: (rows, n) times (rows, 1) or (1, 1); ``to_offset`` is
    what the block adds to the gradient of the offset, of its shape, where that was asked for.
    """

    block: Block
    slopes: Tensor
    factor: Tensor
    aside: Tensor | None
    to_offset: Tensor | None


@dataclass(frozen=True, eq=False)
class Walk:
    """A reduction of a set, forward and back.

    Args:
        blocks: The set.
        reduction: What is computed for each anchor.
        reshape: Applied to the similarities before they are scaled.
        offset: (r,) or (1,), added to the logits.
        shared: All rows form one anchor.
    """

    blocks: Blocks
    reduction: Reduction
    reshape: Reshape | None = None
    offset: Tensor | None = None
    shared: bool = False

    def absorb(self, block: Block) -> Kept:
        """The state of one block."""
        plain = self.reshape is None
        similarities, aside = self.blocks.scaled(block, self.reduction.scale if plain else 1.0)
        logits = similarities if plain else self._logits(similarities)
        state = self._absorb(logits, block)
        return Kept(logits, None if plain else similarities, state, aside)

    def _logits(self, similarities: Tensor) -> Tensor:
        assert self.reshape is not None
        return self.reshape(similarities) * self.reduction.scale

    def _absorb(self, logits: Tensor, block: Block) -> State:
        if self.offset is not None:
            logits += self.offset[:, None]
        self.blocks.exclude(logits, block)
        return self.reduction.absorb(logits.view(1, -1) if self.shared else logits)

    def forward(self, like: Tensor, keep: bool) -> tuple[State, list[Kept]]:
        """The state of the whole set, and its blocks if they are to be kept.

        Args:
            like: The rows; says how many anchors there are, and the type.
            keep: Whether to keep the blocks for the way back.
        """
        anchors = 1 if self.shared else len(like)
        whole = self.reduction.absorb(like.new_empty((anchors, 0)))
        kept = []
        for block in self.blocks.blocks:
            entry = self.absorb(block)
            whole = self.reduction.merge(whole, entry.state)
            if keep:
                # One matrix is enough: from the similarities the slopes can be had without a product.
                kept.append(entry if entry.similarities is None else entry._replace(slopes=None))
        return whole, kept

    def backward(self, whole: State, grad: Tensor, kept: list[Kept], *, to_offset: bool) -> Iterator[Pull]:
        """Block by block, the gradient of the loss with respect to the similarities.

        Args:
            whole: The state of the whole set.
            grad: d loss / d value, (r,) or (1,).
            kept: What :meth:`forward` kept.
            to_offset: Whether the gradient of the offset is needed.
        """
        for place, block in enumerate(self.blocks.blocks):
            entry = kept[place] if kept else self.absorb(block)
            slopes = entry.slopes
            if slopes is None:
                assert entry.similarities is not None
                slopes = self._logits(entry.similarities)
                self._absorb(slopes, block)
            parts = self.reduction.factor(entry.state, whole)
            factor = (grad if parts is None else grad * parts)[:, None]
            down = None
            if to_offset:
                assert self.offset is not None
                flat = slopes.view(1, -1) if self.shared else slopes
                down = (flat.sum(dim=1) * factor[:, 0]).sum_to_size(self.offset.shape)
            factor = factor * self.reduction.scale
            if entry.similarities is not None:
                slopes = self._through_reshape(entry.similarities, slopes * factor)
                factor = torch.ones_like(factor)
            yield Pull(block, slopes, factor, entry.aside, down)

    def _through_reshape(self, similarities: Tensor, grad: Tensor) -> Tensor:
        assert self.reshape is not None
        with torch.enable_grad():
            leaf = similarities.detach().requires_grad_()
            shaped = self.reshape(leaf)
        slope: Tensor = torch.autograd.grad(shaped, leaf, grad)[0]
        return torch.where(grad == 0, 0, slope)  # no pair, no gradient, however steep the reshape is there


def check_reshape(reshape: Reshape | None, like: Tensor) -> None:
    """Refuse a reshape whose own gradient a walk would lose.

    Raises:
        ConfigError: The reshape depends on something with a gradient besides the similarities.
    """
    if reshape is None or not torch.is_grad_enabled():
        return
    probe = reshape(like.new_zeros((len(like), 1)))
    if probe.requires_grad:
        raise ConfigError(
            "This margin has a gradient besides that of the similarities (of feature lengths, or of a learned "
            "number), which pairs of a batch would lose. Use it on class positives: a loss over ClassPairs."
        )
