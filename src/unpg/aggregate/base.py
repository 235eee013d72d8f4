"""What makes a loss of S^p and S^n; and the union of several sets of negatives."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from unpg.errors import ConfigError
from unpg.margins import Margin, NoMargin
from unpg.registry import Registry
from unpg.similarity import Anchors, Negatives, Pairs, Reduction, Reshape, SimilaritySet, log_add_exp

__all__ = [
    "AGGREGATES",
    "Aggregate",
    "Aggregated",
    "Unit",
    "batch_rows",
    "log_union",
    "log_weights",
    "negative_reshape",
    "no_margin",
    "positive_reshape",
    "shares_of",
]

AGGREGATES: Registry[type["Aggregate"]] = Registry("aggregate")

Unit = Literal["anchor", "positive pair", "triplet", "batch"]
"""What a loss is a mean over."""


@dataclass(frozen=True, eq=False)
class Aggregated:
    """A loss as a sum of terms.

    Attributes:
        terms: (b,), what each anchor adds, or (1,) where all anchors share their pairs.
        count: How many units the terms are of, a scalar; the loss is ``terms.sum() / count``.
        unit: Of what.
        shares: The part that the positives (``target``) and each source of negatives have: of the denominator, for
            the softmax family, else of the terms. Detached scalars that sum to one; empty where it means nothing.
    """

    terms: Tensor
    count: Tensor
    unit: Unit
    shares: dict[str, Tensor]

    @property
    def loss(self) -> Tensor:
        """The mean over units; 0 of none."""
        return self.terms.sum() / self.count.clamp(min=1)


class Aggregate(Protocol):
    """Makes a loss of the pairs of a batch.

    Attributes:
        reductions: What it asks of a set of similarities, and no more: what a set that is split over devices or
            streamed has to offer.
    """

    reductions: ClassVar[tuple[type[Reduction], ...]]

    def __call__(self, pairs: Pairs, margin: Margin, anchors: Anchors) -> Aggregated:
        """The loss of a batch.

        Args:
            pairs: S^p and S^n.
            margin: Reshapes the similarities; already :meth:`Margin.for_batch`.
            anchors: The batch.
        """
        ...


def batch_rows(pairs: Pairs, owner: str) -> tuple[SimilaritySet, SimilaritySet]:
    """The positives and negatives of each anchor in a batch.

    Raises:
        ConfigError: The pairs are others; ``owner`` is the aggregate that needs these.
    """
    positives, negatives = pairs.positives, pairs.negatives[0].similarities
    if (
        len(pairs.negatives) == 1
        and isinstance(positives, SimilaritySet)
        and isinstance(negatives, SimilaritySet)
        and not positives.shared
        and not negatives.shared
    ):
        return positives, negatives
    raise ConfigError(f'{owner} compares the pairs of each anchor in a batch: give it BatchPairs(scope="anchor").')


def no_margin(margin: Margin, owner: str) -> None:
    """Raise :class:`ConfigError` for a margin in a loss whose formula has no place for one."""
    if not isinstance(margin, NoMargin):
        raise ConfigError(f"{owner} compares similarities as they are: give it NoMargin(), not {margin}.")


def positive_reshape(margin: Margin, anchors: Anchors) -> Reshape:
    """The margin's positive side as a function of similarities alone."""
    return lambda cosine: margin.positive(cosine, anchors)


def negative_reshape(margin: Margin, negatives: Negatives) -> Reshape | None:
    """The margin's side for this set of negatives."""
    return margin.class_negative() if negatives.source == "classes" else margin.batch_negative()


def log_weights(
    negatives: tuple[Negatives, ...], anchors: Anchors, logs: list[Tensor], *, rivals: Tensor | None = None
) -> list[Tensor | float]:
    """The logarithm of the weight of each set in a union, detached.

    Args:
        negatives: The sets.
        anchors: The batch.
        logs: The logarithm of each set's own sum, (b,) or (1,).
        rivals: Negatives of each anchor that the first set's sum is of, (b,); None: as many as the set has.
    """
    weights: list[Tensor | float] = []
    before: Tensor | None = None
    rivals = negatives[0].similarities.count() if rivals is None else rivals
    for part, log in zip(negatives, logs, strict=True):
        own = log.detach()
        log_weight = part.weight.log(
            own=own,
            others=torch.full_like(own, -torch.inf) if before is None else before,
            kept=part.similarities.count(),
            rivals=rivals,
            step=anchors.step,
        )
        weights.append(log_weight)
        before = own + log_weight if before is None else log_add_exp(before, own + log_weight)
    return weights


def log_union(
    negatives: tuple[Negatives, ...], anchors: Anchors, logs: list[Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The logarithm of the weighted sum over a union of sets.

    Returns:
        The logarithm of the whole, (b,) or (1,), and that of each weighted part, detached, by source.
    """
    whole: Tensor | None = None
    parts: dict[str, Tensor] = {}
    for part, log, log_weight in zip(negatives, logs, log_weights(negatives, anchors, logs), strict=True):
        weighted = log + log_weight
        parts[part.source] = weighted.detach()
        # The first set starts the sum: alone it stays what it is, bit for bit.
        whole = weighted if whole is None else log_add_exp(whole, weighted)
    assert whole is not None, "a loss has negatives"
    return whole, parts


def shares_of(logs: dict[str, Tensor]) -> dict[str, Tensor]:
    """From logarithms (b,) or (1,) by name to mean parts that sum to one."""
    parts = torch.stack(torch.broadcast_tensors(*logs.values())).softmax(dim=0).nanmean(dim=1)
    return dict(zip(logs, parts.unbind(), strict=True))
