"""All class weights, whole, in every process."""

import torch
from torch import Tensor, nn

from unpg.distributed import World
from unpg.heads.base import Part, check_head, drawn_rows, places

__all__ = ["FullHead"]


class FullHead(nn.Module):
    """One weight vector per class: the proxies of classification losses.

    Of several processes all hold all weights, and each compares with its own part of the classes; gradients are added
    up afterwards.

    Args:
        num_classes: C, the number of identities.
        dim: d, the embedding size.
        init_std: Standard deviation of the initial weights. Only the direction of a weight enters a loss; its length
            scales its learning rate (a step turns a short vector further).
        centers: K weights for each class, one after the other; the nearest one counts (Deng et al. 2020, Sub-center
            ArcFace, ECCV). A class may have a center for its clean images, and others for its noise.
    """

    def __init__(self, num_classes: int, dim: int, *, init_std: float = 0.01, centers: int = 1) -> None:
        super().__init__()
        check_head(num_classes, dim, centers, init_std)
        self.num_classes = num_classes
        self.dim = dim
        self.centers = centers
        rows = num_classes * centers
        self.weight = nn.Parameter(drawn_rows(rows, dim, init_std, 0, rows))

    def part(self, labels: Tensor, world: World, step: int | None) -> Part:
        """This process's range of the classes."""
        if world.alone:
            return Part(self.weight, labels, self.num_classes)
        first, last = world.part(self.num_classes)
        weights = self.weight[first * self.centers : last * self.centers]
        return Part(weights, places(labels, first, last), self.num_classes)

    @torch.no_grad()
    def lookup(self, labels: Tensor, world: World) -> Tensor:
        """(b, d) weights of the labels' classes, detached."""
        return self.weight[labels]

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        several = f", centers={self.centers}" if self.centers > 1 else ""
        return f"num_classes={self.num_classes}, dim={self.dim}{several}"
