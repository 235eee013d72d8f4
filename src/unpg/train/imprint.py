"""Class weights that begin where their people's faces lie, as a network that has learned sees them.

Drawn class weights know nobody: their first gradients pull a good network apart before they have found their places.

Axes: c classes, d embedding size.
"""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from unpg.distributed import total
from unpg.embed import embed
from unpg.heads import Head
from unpg.train.setup import Setup
from unpg.train.state import WHOLE, Split

__all__ = ["IMAGES", "imprint"]

IMAGES = 20
"""Images of a person that are looked at; of more, so many from first to last."""

_AT_ONCE = 256  # classes whose embeddings are held in memory


@torch.no_grad()
def imprint(setup: Setup, heads: Mapping[str, Head], classes: Collection[int], shared: Split = WHOLE) -> int:
    """Turn class weights to the mean direction of their people's unit embeddings (Qi et al., arXiv 1712.07136).

    At length 1: a step turns the short vectors that are drawn (some 0.1) tens of times as far, which would soon undo
    this. Those of people without a readable image, or whose embeddings cancel out, stay as drawn. All centers of a
    class begin at one place; the first image of the class that comes moves one of them away.

    Args:
        setup: A run that has not begun; its network has learned. Of several processes each embeds the people whose
            class weights a sharded head gives it, and all call this at once.
        heads: Class weights, by the names of their tensors in a checkpoint.
        classes: Which ones.
        shared: Tensors whose rows processes share.

    Returns:
        How many classes were turned, in all processes.

    Raises:
        DataError: An embedding is not finite.
        ShapeError: Images that the network cannot take.
    """
    world, c = setup.world, len(setup.images.identities)
    first, last = world.part(c)
    own = [k for k in sorted(classes) if first <= k < last]
    centers = torch.zeros(last - first, setup.model.backbone.dim)
    images = _images_of(setup.images.labels, c)
    for start in range(0, len(own), _AT_ONCE):
        wanted = np.concatenate([images[k] for k in own[start : start + _AT_ONCE]])
        size = setup.config.evaluation.batch_size
        found = embed(setup.model, setup.images, indices=wanted, batch_size=size, on_error="skip")
        centers.index_add_(0, torch.from_numpy(found.labels - first), torch.from_numpy(found.vectors))
    centers = torch.nn.functional.normalize(centers).to(setup.device)
    for name, head in heads.items():
        whole = centers
        if name not in shared:
            whole = centers.new_zeros(c, centers.shape[1])
            whole[first:last] = centers
            whole = total(whole, world)
        turned = whole.repeat_interleave(head.centers, dim=0)
        head.weight.copy_(torch.where(turned.any(dim=1, keepdim=True), turned, head.weight))
    return int(total(centers.any(dim=1).sum(), world))


def _images_of(labels: NDArray[np.int64], classes: int) -> list[NDArray[np.int64]]:
    """Of each class the images to look at, in order."""
    ordered = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=classes))[:-1])
    return [found[_spread(len(found))] for found in ordered]


def _spread(n: int) -> NDArray[np.int64]:
    """At most ``IMAGES`` of n places, from first to last."""
    return np.arange(n) if n <= IMAGES else np.linspace(0, n - 1, IMAGES).round().astype(np.int64)
