"""Supervised contrast: the logarithm inside the mean over positives."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from unpg.aggregate.base import AGGREGATES, Aggregated, batch_rows, no_margin
from unpg.errors import ConfigError
from unpg.margins import Margin
from unpg.similarity import Anchors, LogSumExp, Pairs, Reduction, Sum, log_add_exp

__all__ = ["Contrast"]


@AGGREGATES.register("contrast")
@dataclass(frozen=True)
class Contrast:
    """``log(sum_p e^(s s_p) + sum_n e^(s s_n)) - mean_p s s_p`` per anchor, the mean over anchors with positives.

    All positives are in the denominator. There is no place for a margin.

    Args:
        scale: s, the inverse temperature.
    """

    reductions: ClassVar[tuple[type[Reduction], ...]] = (LogSumExp, Sum)
    scale: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"The scale s must be a finite number > 0, got {self.scale}.")

    def __call__(self, pairs: Pairs, margin: Margin, anchors: Anchors) -> Aggregated:
        """The loss of each anchor; 0 of one without positives."""
        positives, negatives = batch_rows(pairs, "Contrast")
        no_margin(margin, "Contrast")
        everything = log_add_exp(negatives.logsumexp(self.scale), positives.logsumexp(self.scale))
        count = positives.count()
        mean = self.scale * positives.sum() / count.clamp(min=1)
        some = count > 0
        terms = torch.where(some, torch.where(some, everything, 0) - mean, 0)
        return Aggregated(terms, some.sum().to(terms.dtype), "anchor", {})
