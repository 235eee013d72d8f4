"""The paper's picture: which similarities training sees, beside those that exist.

Histograms of the positives, the class negatives (CLPG), the batch negatives before and after the filter (MLPG), and
all genuine and impostor pairs of an evaluation set.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unpg.data.image_set import Batch
from unpg.distributed import ALONE, World, gather, total
from unpg.embed.model import Model
from unpg.evaluate import Result
from unpg.losses import PairLoss, SumLoss
from unpg.pairs import BatchPairs, BoxWhisker, ClassPairs, UnifiedPairs
from unpg.similarity import Anchors, SimilaritySet

__all__ = ["similarity_picture"]

_BINS = 400


@torch.no_grad()
def similarity_picture(
    model: Model,
    loss: PairLoss | SumLoss,
    batches: Iterable[Batch],
    device: torch.device,
    results: Iterable[Result],
    world: World = ALONE,
) -> dict[str, Any]:
    """Count similarities of training batches in evaluation mode, without augmentation.

    Args:
        model: The trained network.
        loss: Holds the class weights, if it has any; without UNPG the batch pairs are shown with the filter of the
            paper's r.
        batches: Training batches.
        device: Where to embed.
        results: Of the evaluation; the first with all pairs of a set gives the evaluation histograms, else the
            first pair list.
        world: Processes that share batches and class weights; all call this, and get the whole.

    Returns:
        What ``similarities.json`` holds: ``bins`` (edges from -1 to 1), ``counts`` by set, ``batches``,
        ``benchmark``, ``fences`` (mean lower, mean upper).
    """
    unions = [module for module in loss.modules() if isinstance(module, UnifiedPairs)]
    of = next((module for module in loss.modules() if isinstance(module, ClassPairs)), None)
    extra = unions[0].extra if unions else BatchPairs("batch", BoxWhisker())
    counts = {name: torch.zeros(_BINS, dtype=torch.int64) for name in _SETS}
    fences: list[Tensor] = []
    seen = 0
    was_training = model.backbone.training
    model.backbone.eval()
    try:
        for batch in batches:
            features = gather(model.backbone(model.preprocessing(batch.images.to(device))).float(), world)
            anchors = Anchors.of(features, gather(batch.labels.to(device), world), step=0)
            batch_pairs = extra(anchors)
            negatives = batch_pairs.negatives[0].similarities
            assert isinstance(negatives, SimilaritySet)
            if of is None:  # a loss over pairs of the batch alone
                counts["positives"] += _count(*BatchPairs(positives="batch")(anchors).positives.dense())
            else:
                classes = of(replace(anchors, world=world))
                counts["positives"] += _count(*classes.positives.dense())
                here = _count(*classes.negatives[0].similarities.dense())  # with the classes of this process
                counts["class_negatives"] += total(here.to(device), world).cpu()
            counts["batch_negatives"] += _count(*negatives.dense_offered())
            counts["batch_negatives_kept"] += _count(*negatives.dense())
            if negatives.fences is not None:
                fences.append(torch.stack([negatives.fences.lower.mean(), negatives.fences.upper.mean()]).cpu())
            seen += 1
    finally:
        model.backbone.train(was_training)
    bins = np.linspace(-1, 1, _BINS + 1)
    shown = {name: c.tolist() for name, c in counts.items()}
    benchmark, evaluation = _evaluation(list(results), bins)
    return {
        "bins": bins.tolist(),
        "counts": shown | evaluation,
        "batches": seen,
        "benchmark": benchmark,
        "fences": torch.stack(fences).mean(dim=0).tolist() if fences else None,
        "unified": bool(unions),
    }


_SETS = ("positives", "class_negatives", "batch_negatives", "batch_negatives_kept")


def _count(values: Tensor, mask: Tensor) -> Tensor:
    values = values[mask]
    # histc leaves out what lies outside its range, and rounding puts a cosine past 1.
    return torch.histc(values.clamp(-1, 1).float().cpu(), bins=_BINS, min=-1, max=1).long()


def _evaluation(results: list[Result], bins: np.ndarray) -> tuple[str, dict[str, list[int]]]:
    for result in sorted(results, key=lambda r: r.protocol != "all-pairs"):
        arrays = result.arrays()
        if "scores" in arrays:
            scores, same = np.clip(arrays["scores"], -1, 1), arrays["same"]
            genuine, impostor = (np.histogram(scores[same == truth], bins)[0] for truth in (True, False))
        elif "edges" not in arrays:
            continue  # searches and groups keep no histogram of pairs
        else:
            centers = (arrays["edges"][:-1] + arrays["edges"][1:]) / 2
            weighted = [np.histogram(centers, bins, weights=arrays[name])[0] for name in ("genuine", "impostor")]
            genuine, impostor = (counts.astype(np.int64) for counts in weighted)
        return result.benchmark, {"evaluation_genuine": genuine.tolist(), "evaluation_impostor": impostor.tolist()}
    return "", {}
