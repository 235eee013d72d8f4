"""loss = pairs x margin x aggregate."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unpg.aggregate import Aggregate
from unpg.distributed import ALONE, World
from unpg.errors import ConfigError, ShapeError
from unpg.margins import Margin
from unpg.pairs import PairGenerator
from unpg.similarity import (
    Anchors,
    EachPairOnce,
    OwnClassSet,
    Pairs,
    SameLabel,
    SimilaritySet,
    normalize,
)

__all__ = ["LossOutput", "PairLoss", "effective_rank"]


@dataclass(frozen=True, eq=False)
class LossOutput:
    """What a loss says of a batch.

    Attributes:
        loss: Scalar, the mean over the loss's units; 0 for an empty batch.
        per_anchor: (b,), what each anchor adds to ``loss``, times b: their mean is the loss. Where all anchors share
            their pairs (one term for the batch) each has the same part.
        statistics: Detached scalars, still on the device. Per anchor means where a set is per anchor:

            ``units``
                how many the loss is a mean over: anchors, positive pairs, triplets, or 1;
            ``<set>/offered``, ``<set>/kept``, ``<set>/cut``
                pairs of a set of negatives before the filter, after it, and the difference; the set of the batch is
                called ``negatives``, that of a memory ``memory``;
            ``fence/lower``, ``fence/upper``
                the filter's bounds for the batch (-inf, inf where it keeps all);
            ``negatives/hardest_kept``
                the largest batch negative that is left;
            ``share/target``, ``share/classes``, ``share/batch``, ``share/memory``
                mean parts of the denominator (of the loss, where it is a sum of binary terms);
            ``cosine/target``, ``cosine/pairwise``
                mean similarity of the positives (before the margin), and of any two features of the batch;
            ``wdfs/inf_target``, ``wdfs/inf_positive``
                the smallest similarity of a feature to its class (before the margin), and of two features of one class
                in the batch (inf where there are no two);
            ``wdfs/gap``
                the smallest of a batch's positives less its hardest kept batch negative: inf S^p - sup S^n as a step
                sees it; the whole set's is what ``unpg diagnose`` computes;

            and those of the margin.
    """

    loss: Tensor
    per_anchor: Tensor
    statistics: dict[str, Tensor]


class PairLoss(nn.Module):
    """A loss that compares positive and negative similarities.

    Args:
        pairs: Which similarities.
        margin: How they are reshaped.
        aggregate: What is made of them.

    All arithmetic is float32 (float64 for float64 features), outside autocast: at s = 64 a bfloat16 cosine is off by
    up to a quarter in the exponent. The gradient is exact, and can be had once (no second derivative).
    """

    def __init__(self, pairs: PairGenerator, margin: Margin, aggregate: Aggregate) -> None:
        super().__init__()
        self.pairs = pairs
        self.margin = margin
        self.aggregate = aggregate

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        step: int | None = None,
        sample_ids: Tensor | None = None,
        world: World = ALONE,
    ) -> LossOutput:
        """The loss of (b, d) features, not normalised, with (b,) integer labels.

        Args:
            features: Of any floating type.
            labels: Class of each feature.
            step: Optimizer steps done so far; needed if a part follows a schedule.
            sample_ids: (b,) int64, which image each feature is of; a memory then knows a picture again, and drawn
                margins do not depend on the order of the batch.
            world: Processes that all have this batch and share the work: :func:`unpg.losses.global_loss` calls it so.

        Raises:
            ShapeError: Features are not (b, d), or labels or sample ids are not (b,) integers.
            DataError: A label has no class weight.
        """
        _check_batch(features, labels, sample_ids)
        with torch.autocast(features.device.type, enabled=False):
            if not self.aggregate.reductions:
                world = ALONE  # it asks for single pairs: each process computes all of them
            anchors = Anchors.of(features, labels, sample_ids=sample_ids, step=step, world=world)
            pairs = self.pairs(anchors)
            margin = self.margin.for_batch(anchors, pairs.target())
            aggregated = self.aggregate(pairs, margin, anchors)
            penalty = margin.penalty(anchors)
            b = len(labels)
            terms = aggregated.terms
            per_anchor = (terms * (len(terms) / aggregated.count.clamp(min=1))).expand(b)
            per_anchor = per_anchor if penalty is None else per_anchor + penalty
            loss = aggregated.loss if penalty is None else aggregated.loss + penalty.sum() / max(b, 1)
            with torch.no_grad():
                statistics = {"units": aggregated.count.detach()}
                statistics |= {f"share/{source}": share for source, share in aggregated.shares.items()}
                statistics |= _pair_statistics(pairs, anchors) | margin.statistics(anchors)
        return LossOutput(loss, per_anchor, statistics)

    def extra_repr(self) -> str:
        """The parts that are no modules, for ``repr``."""
        parts = {"pairs": self.pairs, "margin": self.margin, "aggregate": self.aggregate}
        return ", ".join(f"{name}={part}" for name, part in parts.items() if not isinstance(part, nn.Module))


def effective_rank(features: Tensor) -> Tensor:
    """How many directions (b, d) features really use: e to the entropy of their covariance's spectrum, in [1, d].

    A scalar; NaN for fewer than two features or one that is not finite, 1 if they are all the same. A collapsing
    embedding shows here early.

    Source: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality", with the eigenvalues
    of the covariance of the unit features in place of singular values.
    """
    unit = normalize(features.detach()).vectors
    centered = unit - unit.mean(dim=0)
    gram = centered @ centered.T if len(unit) < unit.shape[1] else centered.T @ centered
    if len(unit) < 2:
        return torch.full((), torch.nan, device=unit.device)
    finite = gram.isfinite().all()  # eigvalsh raises else
    spectrum = torch.linalg.eigvalsh(torch.where(finite, gram, 0)).clamp(min=0)
    total = spectrum.sum()
    p = torch.where(total > 0, spectrum / total, 0)
    entropy: Tensor = torch.special.entr(p).sum()
    return torch.where(finite, entropy.exp(), torch.nan)


def _pair_statistics(pairs: Pairs, anchors: Anchors) -> dict[str, Tensor]:
    unit, b = anchors.unit, len(anchors)
    total = unit.sum(dim=0).square().sum() - unit.square().sum()
    statistics = {
        "cosine/target": pairs.positives.mean(),
        "cosine/pairwise": total / (b * (b - 1)) if b > 1 else total * torch.nan,
    }
    for negatives in pairs.negatives:
        batch = negatives.similarities
        if isinstance(batch, SimilaritySet):
            name = "negatives" if negatives.source == "batch" else negatives.source
            offered, kept = batch.count_offered(), batch.count()
            statistics |= {
                f"{name}/offered": offered.float().mean(),
                f"{name}/kept": kept.float().mean(),
                f"{name}/cut": (offered - kept).float().mean(),
            }
        if negatives.source == "batch" and isinstance(batch, SimilaritySet):
            edge = torch.full((1, 1), torch.inf, device=unit.device)
            lower, upper = (batch.fences.lower, batch.fences.upper) if batch.fences else (-edge, edge)
            statistics |= {
                "negatives/hardest_kept": batch.maximum().max() if b else edge.squeeze() * -1,
                "fence/lower": lower.mean(),
                "fence/upper": upper.mean(),
            }
            statistics |= _wdfs_statistics(batch, anchors, statistics["negatives/hardest_kept"])
    if isinstance(pairs.positives, OwnClassSet) and b:
        statistics["wdfs/inf_target"] = pairs.positives.values.detach().min()
    return statistics


def _wdfs_statistics(batch: SimilaritySet, anchors: Anchors, hardest: Tensor) -> dict[str, Tensor]:
    """Of products that are there: a mask and a minimum of (b, b) entries."""
    if not len(anchors):
        return {}
    positive = batch.among(EachPairOnce(SameLabel(anchors.labels), len(anchors))).minimum().min()
    return {"wdfs/inf_positive": positive, "wdfs/gap": positive - hardest}


def _check_batch(features: Tensor, labels: Tensor, sample_ids: Tensor | None) -> None:
    if features.ndim != 2 or not features.is_floating_point():
        raise ShapeError(
            f"A loss takes features of shape (batch, dim) and a floating type, got {tuple(features.shape)} "
            f"{features.dtype}."
        )
    if labels.shape != features.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ShapeError(
            f"A loss takes one integer label for each of the {len(features)} features, got shape "
            f"{tuple(labels.shape)} {labels.dtype}."
        )
    if labels.device != features.device:
        raise ConfigError(
            f"Features are on {features.device}, labels on {labels.device}: move both to the same device."
        )
    if sample_ids is not None and (sample_ids.shape != labels.shape or sample_ids.dtype != torch.int64):
        raise ShapeError(
            f"sample_ids are one int64 for each of the {len(labels)} features, got shape {tuple(sample_ids.shape)} "
            f"{sample_ids.dtype}."
        )
