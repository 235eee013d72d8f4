"""Reductions over the pairs of an anchor, as a map and an associative merge.

A set of similarities is walked in blocks. The *logits* of a block, (a, n) for a anchors and n pairs of each, are
``scale * similarity + offset``, and -inf where there is no pair. A reduction absorbs one block after the other and
merges what it has learned; how the blocks were cut changes nothing but rounding.

To go back, a block is absorbed again: that leaves the slopes of the result in place of the logits, up to a factor per
anchor that depends on the whole.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unpg.distributed import World, largest, total
from unpg.similarity.logsumexp import softplus

__all__ = ["HingeSum", "LogSumExp", "Reduction", "State", "Sum", "SumSoftplus"]

State = tuple[Tensor, ...]
"""What a reduction knows so far, tensors of shape (a,)."""


@dataclass(frozen=True)
class Reduction(ABC):
    """One number for each anchor.

    Args:
        scale: Multiplies the similarities; negative for positives, whose logits fall as they get easier. A number, or
            a detached tensor of one.
    """

    scale: float | Tensor = 1.0

    @abstractmethod
    def absorb(self, logits: Tensor) -> State:
        """Take a block (a, n) in, and leave the slopes d value / d logit there, up to :meth:`factor`."""

    @abstractmethod
    def value(self, state: State) -> Tensor:
        """The result, (a,)."""

    @abstractmethod
    def of_one(self, logit: Tensor) -> Tensor:
        """The result where each anchor has one pair, with autograd's gradient: (a,) from (a,)."""

    def merge(self, a: State, b: State) -> State:
        """What is known of two blocks together."""
        return tuple(x + y for x, y in zip(a, b, strict=True))

    def across(self, state: State, world: World) -> State:
        """What the processes of ``world`` know together, each of its own part of the pairs."""
        return tuple(total(x, world) for x in state)

    def factor(self, part: State, whole: State) -> Tensor | None:
        """What the slopes of a block that gave ``part`` are to be multiplied with, (a,); None for one."""
        return None

    def active(self, state: State) -> Tensor | None:
        """How many pairs of each anchor have a slope, (a,), where a loss averages over those; None if all have."""
        return None


@dataclass(frozen=True)
class LogSumExp(Reduction):
    """``log sum e^logit``; -inf of no pairs, with slope zero."""

    def absorb(self, logits: Tensor) -> State:
        """Peak, and the sum of exponentials relative to it."""
        lowest = torch.finfo(logits.dtype).min  # finite, so that a block without pairs makes no inf - inf
        if logits.shape[1] == 0:
            return torch.full_like(logits.sum(dim=1), lowest), logits.sum(dim=1)
        peak = logits.amax(dim=1).clamp(min=lowest)
        logits.sub_(peak[:, None]).exp_()
        return peak, logits.sum(dim=1)

    def merge(self, a: State, b: State) -> State:
        """The higher peak, and both sums relative to it."""
        peak = torch.maximum(a[0], b[0])
        return peak, a[1] * (a[0] - peak).exp() + b[1] * (b[0] - peak).exp()

    def across(self, state: State, world: World) -> State:
        """The highest peak, and all sums relative to it."""
        peak = largest(state[0], world)
        return peak, total(state[1] * (state[0] - peak).exp(), world)

    def value(self, state: State) -> Tensor:
        """The peak plus the logarithm of the sum relative to it."""
        peak, exponentials = state
        return peak + exponentials.log()

    def of_one(self, logit: Tensor) -> Tensor:
        """The logit."""
        return logit

    def factor(self, part: State, whole: State) -> Tensor:
        """From exponentials relative to the block's peak to parts of the whole sum."""
        peak, exponentials = whole
        return (part[0] - peak).exp() / torch.where(exponentials > 0, exponentials, 1)


@dataclass(frozen=True)
class SumSoftplus(Reduction):
    """``sum log(1 + e^logit)``: a binary cross entropy for each pair."""

    def absorb(self, logits: Tensor) -> State:
        """The sum; the slope is the sigmoid."""
        state = (softplus(logits).sum(dim=1),)
        logits.sigmoid_()
        return state

    def value(self, state: State) -> Tensor:
        """The sum."""
        return state[0]

    def of_one(self, logit: Tensor) -> Tensor:
        """The softplus."""
        return softplus(logit)


@dataclass(frozen=True)
class HingeSum(Reduction):
    """``sum max(logit, 0)``, and how many are above zero."""

    def absorb(self, logits: Tensor) -> State:
        """The sum, and the count."""
        above = logits.clamp(min=0).sum(dim=1)
        logits.copy_(logits > 0)
        return above, logits.sum(dim=1)

    def value(self, state: State) -> Tensor:
        """The sum."""
        return state[0]

    def of_one(self, logit: Tensor) -> Tensor:
        """What is above zero."""
        return logit.clamp(min=0)

    def active(self, state: State) -> Tensor:
        """How many logits are above zero."""
        return state[1]


@dataclass(frozen=True)
class Sum(Reduction):
    """``sum logit`` over the pairs there are."""

    def absorb(self, logits: Tensor) -> State:
        """The sum; every pair has slope one."""
        pair = logits > -torch.inf
        state = (torch.where(pair, logits, 0).sum(dim=1),)
        logits.copy_(pair)
        return state

    def value(self, state: State) -> Tensor:
        """The sum."""
        return state[0]

    def of_one(self, logit: Tensor) -> Tensor:
        """The logit."""
        return logit
