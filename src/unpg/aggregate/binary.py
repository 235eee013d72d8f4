"""Sums of binary cross entropies: every pair on its own, against one threshold for all."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unpg.aggregate.base import AGGREGATES, Aggregated, log_weights, negative_reshape, positive_reshape, shares_of
from unpg.errors import ConfigError
from unpg.margins import Margin
from unpg.similarity import Anchors, LogSumExp, Pairs, Reduction, SumSoftplus

__all__ = ["BinarySum"]


@AGGREGATES.register("binary-sum")
class BinarySum(nn.Module):
    """``v_p sum_p log(1 + e^(b - s p)) + v_n sum_n log(1 + e^(s n - b))`` per anchor.

    b / s is a threshold on similarity that training learns. Further sets of negatives add their own sum of softplus,
    times their weight; a set that all anchors share adds the same number to each.

    Args:
        scale: s.
        bias: b to begin with; None: the mean over the first batch's anchors of ``log sum_n e^(s n)``, at which the
            negatives pull at b about as strongly as one positive does. The first is the first that trains with complete
            pairs (:class:`~unpg.similarity.Pairs`): each before it is judged by its own mean, which it does not train.
        positive: v_p.
        negative: v_n.
    """

    reductions: ClassVar[tuple[type[Reduction], ...]] = (SumSoftplus, LogSumExp)

    def __init__(self, scale: float, bias: float | None, positive: float = 1.0, negative: float = 1.0) -> None:
        super().__init__()
        if not 0 < scale < math.inf or not math.isfinite(bias or 0.0):
            raise ConfigError(f"BinarySum needs a finite scale > 0 and a finite bias, got {scale} and {bias}.")
        if not positive >= 0 or not negative >= 0:
            raise ConfigError(f"BinarySum needs weights >= 0, got {positive} and {negative}.")
        self.scale, self.positive, self.negative = scale, positive, negative
        self.bias = nn.Parameter(torch.tensor([bias or 0.0]))
        self._given = self._begun = bias is not None

    def forward(self, pairs: Pairs, margin: Margin, anchors: Anchors) -> Aggregated:
        """The loss of each anchor."""
        bias = (self.bias if self._begun else self._begin(pairs, margin)).to(anchors.unit.dtype)
        sums = [
            part.similarities.sum_softplus(self.scale, -bias, reshape=negative_reshape(margin, part))
            for part in pairs.negatives
        ]
        logs = [part.detach().log() for part in sums]
        rivals = pairs.negatives[0].similarities.summed()
        weights = log_weights(pairs.negatives, anchors, logs, rivals=rivals)
        negative, parts = torch.zeros_like(sums[0]), {}
        for part, own, log, log_weight in zip(pairs.negatives, sums, logs, weights, strict=True):
            negative = negative + own * (log_weight.exp() if isinstance(log_weight, Tensor) else math.exp(log_weight))
            parts[part.source] = log + log_weight + self._log_negative
        positive = pairs.positives.sum_softplus(-self.scale, bias, reshape=positive_reshape(margin, anchors))
        terms = self.positive * positive + self.negative * negative
        shares = shares_of({"target": (self.positive * positive.detach()).log(), **parts})
        return Aggregated(terms, terms.new_tensor(len(anchors)), "anchor", shares)

    @torch.no_grad()
    def _first(self, pairs: Pairs, margin: Margin) -> Tensor:
        part = pairs.negatives[0]
        return part.similarities.logsumexp(self.scale, reshape=negative_reshape(margin, part)).mean().reshape(1)

    def _begin(self, pairs: Pairs, margin: Margin) -> Tensor:
        """The bias of a batch before which there was none: its own, kept from the first that trains and is whole."""
        self._begun = bool(self.bias != 0)  # a checkpoint has one already
        if self._begun or not (first := self._first(pairs, margin)).isfinite():
            return self.bias
        if not (self.training and torch.is_grad_enabled() and pairs.complete):
            return first
        with torch.no_grad():
            self.bias.copy_(first)
        self._begun = True
        return self.bias

    def remember(self) -> Callable[[], None]:
        """What puts the threshold back where it is now, begun or not: for a step that is not to count."""
        bias, begun = self.bias.detach().clone(), self._begun

        def put_back() -> None:
            with torch.no_grad():
                self.bias.copy_(bias)
            self._begun = begun

        return put_back

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._begun = self._given  # else what was loaded says it

    @property
    def _log_negative(self) -> float:
        return math.log(self.negative) if self.negative > 0 else -math.inf

    def extra_repr(self) -> str:
        """Settings, for ``repr``."""
        return f"scale={self.scale}, positive={self.positive}, negative={self.negative}"
