"""The softmax family: ``log(1 + sum_n sum_p e^(s (s_n - s_p)))`` of each anchor."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from unpg.aggregate.base import (
    AGGREGATES,
    Aggregated,
    log_union,
    log_weights,
    negative_reshape,
    positive_reshape,
    shares_of,
)
from unpg.errors import ConfigError
from unpg.margins import Margin
from unpg.similarity import Anchors, LogSumExp, Negatives, OwnClassSet, Pairs, Reduction, softplus

__all__ = ["Softmax", "SoftmaxSum"]


@AGGREGATES.register("softmax")
@dataclass(frozen=True)
class Softmax:
    """``softplus(LSE_n + LSE_p)`` per anchor, ``LSE_n = log sum e^(s s_n)``, ``LSE_p = log sum e^(-s s_p)``.

    With one positive this is softmax cross entropy. A union of sets is a ``logaddexp`` of their numbers; a set that
    all anchors share enters as one number for the whole batch. An anchor without positives or negatives has loss 0.
    Where positives and negatives are both shared, the batch has one term.

    Args:
        scale: s, the inverse temperature; or ``"norm"``: the length of each feature, which then carries gradient. Such
            scales differ by row, so a set that all anchors share has no place in them.
    """

    reductions: ClassVar[tuple[type[Reduction], ...]] = (LogSumExp,)
    scale: float | Literal["norm"] = 64.0

    def __post_init__(self) -> None:
        if self.scale != "norm" and not (isinstance(self.scale, float | int) and 0 < self.scale < float("inf")):
            raise ConfigError(f'The scale s must be a finite number > 0, or "norm"; got {self.scale!r}.')

    def __call__(self, pairs: Pairs, margin: Margin, anchors: Anchors) -> Aggregated:
        """The loss of each anchor."""
        # Negatives first: a set of classes finds the target cosines on the way.
        sums = [self._negative(part, margin, anchors) for part in pairs.negatives]
        lse_n, parts = log_union(pairs.negatives, anchors, sums)
        lse_p = self._positive(pairs, margin, anchors)
        terms = softplus(lse_n + lse_p)
        batch = len(terms) == 1 and getattr(pairs.positives, "shared", False)
        count = terms.new_ones(()) if batch else terms.new_tensor(len(anchors))
        return Aggregated(terms, count, "batch" if batch else "anchor", shares_of({"target": -lse_p.detach(), **parts}))

    def _negative(self, part: Negatives, margin: Margin, anchors: Anchors) -> Tensor:
        reshape = negative_reshape(margin, part)
        if not isinstance(self.scale, str):
            return part.similarities.logsumexp(self.scale, reshape=reshape)
        if getattr(part.similarities, "shared", False):
            raise ConfigError(
                "This loss scales each row by the length of its own feature, so its anchors cannot share one set of "
                'negatives. Use scope="anchor": each anchor then sees the negatives of its own row.'
            )
        if reshape is not None:
            raise ConfigError('Softmax(scale="norm") takes margins on positives only.')
        return part.similarities.times(anchors.norms).logsumexp(1.0)

    def _positive(self, pairs: Pairs, margin: Margin, anchors: Anchors) -> Tensor:
        reshape = positive_reshape(margin, anchors)
        if not isinstance(self.scale, str):
            return pairs.positives.logsumexp(-self.scale, reshape=reshape)
        if not isinstance(pairs.positives, OwnClassSet):
            raise ConfigError('Softmax(scale="norm") takes class positives: a loss over ClassPairs.')
        return -(anchors.norms * reshape(pairs.positives.values)).squeeze(1)


@AGGREGATES.register("softmax-sum")
@dataclass(frozen=True)
class SoftmaxSum(Softmax):
    """A softmax loss for each set of negatives, and their weighted sum: ``sum_k w_k softplus(LSE_nk + LSE_p)``.

    What :class:`Softmax` puts into one denominator, each with a denominator of its own: every set then has the whole
    gradient of its own loss, however small its sum is beside the other's. Weights are factors of losses here: only
    numbers and their schedules make sense. There is no common denominator to have shares of.

    Args:
        scale: As in :class:`Softmax`.
    """

    def __call__(self, pairs: Pairs, margin: Margin, anchors: Anchors) -> Aggregated:
        """The loss of each anchor."""
        sums = [self._negative(part, margin, anchors) for part in pairs.negatives]
        lse_p = self._positive(pairs, margin, anchors)
        logs = [
            torch.as_tensor(w, dtype=lse_p.dtype, device=lse_p.device)
            for w in log_weights(pairs.negatives, anchors, sums)
        ]
        terms = torch.stack([w.exp() * softplus(n + lse_p) for w, n in zip(logs, sums, strict=True)]).sum(dim=0)
        return Aggregated(terms, terms.new_tensor(len(anchors)), "anchor", {})
