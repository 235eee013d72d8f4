"""Softmax with one term for each positive pair: N-pair, InfoNCE, SN-pair."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unpg.aggregate.base import AGGREGATES, Aggregated, log_union, negative_reshape, positive_reshape
from unpg.errors import ConfigError
from unpg.margins import Margin
from unpg.similarity import Anchors, LogSumExp, Pairs, Reduction, SumSoftplus

__all__ = ["PerPositive"]


@AGGREGATES.register("per-positive")
@dataclass(frozen=True)
class PerPositive:
    """``log(1 + sum_n e^(s (s_n - s_p)))`` for each positive pair, the mean over positive pairs.

    Other positives of the anchor are in no denominator. A pair without negatives counts 0.

    Args:
        scale: s, the inverse temperature; None takes ``ln |S^n| + ln((1 - epsilon) / epsilon)`` of each batch
            (MixFace, Jung et al. 2021, arXiv 2111.01717), for negatives that all anchors share.
        epsilon: See scale.
    """

    reductions: ClassVar[tuple[type[Reduction], ...]] = (LogSumExp, SumSoftplus)
    scale: float | None = 16.0
    epsilon: float = 1e-22

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ConfigError(f"The scale s must be a finite number > 0, or None; got {self.scale}.")
        if not 0 < self.epsilon < 0.5:
            raise ConfigError(f"PerPositive.epsilon must be in (0, 0.5), got {self.epsilon}.")

    def __call__(self, pairs: Pairs, margin: Margin, anchors: Anchors) -> Aggregated:
        """The sum over the positive pairs of each anchor.

        Raises:
            ConfigError: All anchors share the positives, but not the negatives; or s follows negatives not shared.
        """
        shared = [getattr(part.similarities, "shared", False) for part in pairs.negatives]
        if getattr(pairs.positives, "shared", False) and not all(shared):
            raise ConfigError(
                "PerPositive over positives that all anchors share needs negatives that they share, too: "
                'BatchPairs("batch", positives="batch"), or BatchPairs("anchor").'
            )
        scale = self._scale(pairs, anchors)
        sums = [
            part.similarities.reduce(LogSumExp(scale), reshape=negative_reshape(margin, part))
            for part in pairs.negatives
        ]
        lse_n, _ = log_union(pairs.negatives, anchors, sums)
        terms = pairs.positives.reduce(SumSoftplus(-scale), offset=lse_n, reshape=positive_reshape(margin, anchors))
        return Aggregated(terms, pairs.positives.count().sum().to(terms.dtype), "positive pair", {})

    def _scale(self, pairs: Pairs, anchors: Anchors) -> float | Tensor:
        if self.scale is not None:
            return self.scale
        count = torch.stack([part.similarities.count() for part in pairs.negatives]).sum(dim=0)
        if len(count) != 1:
            raise ConfigError("PerPositive(scale=None) counts the negatives of the batch: give them scope='batch'.")
        scale = count.clamp(min=1).double().log() + math.log((1 - self.epsilon) / self.epsilon)
        return scale.to(anchors.unit.dtype)
