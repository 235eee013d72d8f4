"""Multi-similarity: positives and negatives on scales of their own, with mining."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from unpg.aggregate.base import AGGREGATES, Aggregated, batch_rows, no_margin
from unpg.errors import ConfigError
from unpg.margins import Margin
from unpg.similarity import Anchors, Fences, LogSumExp, Pairs, Reduction, SimilaritySet, softplus

__all__ = ["MultiSimilarity"]


@AGGREGATES.register("multi-similarity")
@dataclass(frozen=True)
class MultiSimilarity:
    """``log(1 + sum_p e^(-alpha (s_p - base))) / alpha + log(1 + sum_n e^(beta (s_n - base))) / beta`` per anchor.

    Args:
        alpha: Scale of the positives.
        beta: Scale of the negatives.
        base: The similarity that both are measured from.
        epsilon: Mining: of each anchor, only negatives above its hardest positive less epsilon count, and positives
            below its hardest negative plus epsilon; an anchor without one kind has none of the other. None keeps all.
    """

    reductions: ClassVar[tuple[type[Reduction], ...]] = (LogSumExp,)
    alpha: float = 2.0
    beta: float = 50.0
    base: float = 0.5
    epsilon: float | None = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf or not 0 < self.beta < math.inf:
            raise ConfigError(f"MultiSimilarity needs alpha > 0 and beta > 0, got {self.alpha} and {self.beta}.")
        if not math.isfinite(self.base) or not (self.epsilon is None or math.isfinite(self.epsilon)):
            raise ConfigError(
                f"MultiSimilarity needs a finite base and epsilon (or None), got {self.base} and {self.epsilon}."
            )

    def __call__(self, pairs: Pairs, margin: Margin, anchors: Anchors) -> Aggregated:
        """The loss of each anchor.

        Raises:
            ConfigError: The pairs are not those of a batch, each anchor with its own.
        """
        positives, negatives = batch_rows(pairs, "MultiSimilarity")
        no_margin(margin, "MultiSimilarity")
        if self.epsilon is not None:
            positives, negatives = _mined(positives, negatives, self.epsilon)
        pull = positives.logsumexp(-self.alpha) + self.alpha * self.base
        push = negatives.logsumexp(self.beta) - self.beta * self.base
        terms = softplus(pull) / self.alpha + softplus(push) / self.beta
        return Aggregated(terms, terms.new_tensor(len(anchors)), "anchor", {})


def _mined(positives: SimilaritySet, negatives: SimilaritySet, epsilon: float) -> tuple[SimilaritySet, SimilaritySet]:
    """Pairs that are informative for each anchor; bounds are strict."""
    hardest_positive, hardest_negative = positives.minimum()[:, None], negatives.maximum()[:, None]
    everything = torch.full_like(hardest_positive, torch.inf)
    # The next number up (down), since fences are inclusive. With nothing on one side, its inf leaves nothing here.
    above = torch.nextafter(hardest_positive - epsilon, everything)
    below = torch.nextafter(hardest_negative + epsilon, -everything)
    return positives.within(Fences(-everything, below)), negatives.within(Fences(above, everything))
