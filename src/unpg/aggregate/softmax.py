"""The softmax family: ``log(1 + sum_n sum_p e^(s (s_n - s_p)))`` of each anchor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unpg.errors import ConfigError
from unpg.margins import Margin
from unpg.similarity import Pairs, log_add_exp, softplus

__all__ = ["Aggregated", "Softmax"]


@dataclass(frozen=True, eq=False)
class Aggregated:
    """A loss per anchor, and what it was made of.

    Attributes:
        per_anchor: (r,).
        shares: The mean part of the denominator that each source has, detached scalars that sum to one:
            ``target`` (the positives) and the sources of the negatives.
    """

    per_anchor: Tensor
    shares: dict[str, Tensor]


@dataclass(frozen=True)
class Softmax:
    """``softplus(LSE_n + LSE_p)`` per anchor, ``LSE_n = log sum e^(s s_n)``, ``LSE_p = log sum e^(-s s_p)``.

    With one positive this is softmax cross entropy. A union of sets is a ``logaddexp`` of their numbers; a set that
    all anchors share enters as one number for the whole batch. An anchor without positives or negatives has loss 0.

    Args:
        scale: s, the inverse temperature.
    """

    scale: float = 64.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ConfigError(f"The scale s must be a finite number > 0, got {self.scale}.")

    def __call__(self, pairs: Pairs, margin: Margin, norms: Tensor, *, step: int | None = None) -> Aggregated:
        """The loss of each anchor.

        Args:
            pairs: S^p and S^n.
            margin: Reshapes the positives.
            norms: (r, 1) lengths of the anchors' features.
            step: Optimizer steps done, for weights that follow a schedule.
        """
        anchors = norms[:, 0]
        lse_p = pairs.positives.logsumexp(-self.scale, lambda cosine: margin.positive(cosine, norms))
        lse_n = torch.full_like(anchors, -torch.inf).detach()
        rivals = torch.zeros_like(anchors, dtype=torch.int64)
        parts: dict[str, Tensor] = {"target": -lse_p.detach()}
        for negatives in pairs.negatives:
            own, kept = negatives.similarities.logsumexp(self.scale), negatives.similarities.count()
            log_weight = negatives.weight.log(
                own=own.detach(), others=lse_n.detach(), kept=kept, rivals=rivals, step=step
            )
            own = own + log_weight
            parts[negatives.source] = own.detach().expand_as(anchors)
            lse_n = log_add_exp(lse_n, own)
            rivals = rivals + kept
        shares = torch.stack(list(parts.values())).softmax(dim=0).nanmean(dim=1)
        return Aggregated(softplus(lse_n + lse_p), dict(zip(parts, shares.unbind(), strict=True)))
