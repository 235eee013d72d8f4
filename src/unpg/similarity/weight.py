"""How much a set of negatives counts in a union.

A row's denominator is ``sum_classes e^(s c) + w * sum_batch e^(s n)``. The paper has w = 1, with 85,742 classes and
about 130,000 batch pairs. With few classes the batch set would take nearly the whole sum: the class weights are then
no longer pushed apart. So w is a setting, and every rule here answers with ``log w``, detached.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unpg.errors import ConfigError

__all__ = ["Balanced", "Constant", "Scheduled", "Share", "Weight", "as_weight"]


class Weight(ABC):
    """A rule for the weight w of a set."""

    @abstractmethod
    def log(self, *, own: Tensor, others: Tensor, kept: Tensor, rivals: Tensor, step: int | None) -> Tensor | float:
        """``log w``.

        Args:
            own: Detached logarithm of the set's sum, (r,) or (1,).
            others: Likewise of the sets before it in the union, with their weights.
            kept: Pairs in the set, (r,) or (1,).
            rivals: Negatives of each anchor that the sum of the union's first set is of, the other classes: (r,).
            step: Optimizer steps done so far, or None if the caller does not say.
        """


@dataclass(frozen=True)
class Constant(Weight):
    """The same w always. 1 is the paper; 0 leaves the set out exactly."""

    value: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.value < math.inf:
            raise ConfigError(f"A weight must be a finite number >= 0, got {self.value}.")

    def log(self, *, own: Tensor, others: Tensor, kept: Tensor, rivals: Tensor, step: int | None) -> float:
        """``log w``; -inf for 0."""
        return math.log(self.value) if self.value > 0 else -math.inf


@dataclass(frozen=True)
class Balanced(Weight):
    """``w = rho (C - 1) / K``: K kept pairs count as much as the C - 1 negative classes, times rho."""

    rho: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.rho < math.inf:
            raise ConfigError(f"Balanced.rho must be a finite number > 0, got {self.rho}.")

    def log(self, *, own: Tensor, others: Tensor, kept: Tensor, rivals: Tensor, step: int | None) -> Tensor:
        """``log (rho (C - 1) / K)``; 0 where K = 0, since an empty set is no term whatever its weight."""
        ratio = self.rho * rivals.to(own.dtype) / kept.clamp(min=1).to(own.dtype)
        return torch.where(kept > 0, ratio.log(), 0)


@dataclass(frozen=True)
class Share(Weight):
    """The w of each row and step with which the set takes ``share`` of the row's negatives."""

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"Share.share must lie strictly between 0 and 1, got {self.share}.")

    def log(self, *, own: Tensor, others: Tensor, kept: Tensor, rivals: Tensor, step: int | None) -> Tensor:
        """``log(share / (1 - share)) + others - own``; 0 where either set is empty."""
        odds = math.log(self.share / (1 - self.share))
        both = (own > -torch.inf) & (others > -torch.inf)
        return torch.where(both, others - own + odds, 0)


@dataclass(frozen=True)
class Scheduled(Weight):
    """Another weight, times a factor that is 0 before ``start`` and 1 from ``start + ramp`` on.

    Args:
        start: Optimizer steps with the base loss alone.
        ramp: Steps over which the factor rises linearly; 0 switches at once.
        then: The weight to reach: a rule, a number or ``"balanced"``.
    """

    start: int
    ramp: int = 0
    then: "Weight | float | Literal['balanced']" = 1.0

    def __post_init__(self) -> None:
        if self.start < 0 or self.ramp < 0:
            raise ConfigError(f"A schedule needs start >= 0 and ramp >= 0, got {self.start} and {self.ramp}.")
        object.__setattr__(self, "then", as_weight(self.then))

    def factor(self, step: int) -> float:
        """What the weight is multiplied with at ``step``."""
        if step < self.start:
            return 0.0
        return min(1.0, (step - self.start + 1) / (self.ramp + 1))

    def log(self, *, own: Tensor, others: Tensor, kept: Tensor, rivals: Tensor, step: int | None) -> Tensor | float:
        """The log of the weight at ``step``.

        Raises:
            ConfigError: The caller did not say which step it is.
        """
        if step is None:
            raise ConfigError("The weight follows a schedule: call the loss with step=<optimizer steps done so far>.")
        factor = self.factor(step)
        if factor == 0:
            return -math.inf
        assert isinstance(self.then, Weight)
        return self.then.log(own=own, others=others, kept=kept, rivals=rivals, step=step) + math.log(factor)


def as_weight(weight: "Weight | float | Literal['balanced']") -> Weight:
    """A rule from what users write: a rule, a number, or ``"balanced"``."""
    if isinstance(weight, Weight):
        return weight
    if weight == "balanced":
        return Balanced()
    if isinstance(weight, int | float) and not isinstance(weight, bool):
        return Constant(float(weight))
    raise ConfigError(
        f'A weight is a number >= 0, "balanced", or a rule (Constant, Balanced, Share, Scheduled); got {weight!r}.'
    )
