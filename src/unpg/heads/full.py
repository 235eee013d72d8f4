"""All class weights, whole, on one device."""

import torch
from torch import nn

from unpg.errors import ConfigError

__all__ = ["FullHead"]


class FullHead(nn.Module):
    """One weight vector per class: the proxies of classification losses.

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
        if num_classes < 1 or dim < 1:
            raise ConfigError(f"A head needs num_classes >= 1 and dim >= 1, got {num_classes} and {dim}.")
        if not init_std > 0:
            raise ConfigError(f"head.init_std must be > 0, got {init_std}.")
        if centers < 1:
            raise ConfigError(f"A head needs centers >= 1, got {centers}.")
        self.num_classes = num_classes
        self.dim = dim
        self.centers = centers
        self.weight = nn.Parameter(torch.randn(num_classes * centers, dim) * init_std)

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        several = f", centers={self.centers}" if self.centers > 1 else ""
        return f"num_classes={self.num_classes}, dim={self.dim}{several}"
