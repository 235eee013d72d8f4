"""Class weights in parts, one for each process."""

import torch
from torch import Tensor, nn

from unpg.distributed import ALONE, World, total
from unpg.errors import ConfigError
from unpg.heads.base import Part, check_head, drawn_rows, places

__all__ = ["ShardedHead"]


class ShardedHead(nn.Module):
    """Like :class:`~unpg.heads.FullHead`, with each process holding the weights of its own range of classes only.

    Their gradients are whole where they are: nothing is sent. All centers of a class are in one place. Initial weights
    are those of a full head, whatever the number of processes.

    Args:
        num_classes: C, over all processes.
        dim: d, the embedding size.
        world: The processes.
        init_std: Standard deviation of the initial weights.
        centers: K weights for each class.
    """

    def __init__(
        self, num_classes: int, dim: int, world: World = ALONE, *, init_std: float = 0.01, centers: int = 1
    ) -> None:
        super().__init__()
        check_head(num_classes, dim, centers, init_std)
        self.num_classes, self.dim, self.centers, self.world = num_classes, dim, centers, world
        self.first, self.last = world.part(num_classes)
        self.weight = nn.Parameter(
            drawn_rows(num_classes * centers, dim, init_std, self.first * centers, self.last * centers)
        )

    def part(self, labels: Tensor, world: World, step: int | None) -> Part:
        """The weights that are here.

        Raises:
            ConfigError: The loss is computed by other processes than those that share the weights.
        """
        require_same(self.world, world)
        return Part(self.weight, places(labels, self.first, self.last), self.num_classes)

    @torch.no_grad()
    def lookup(self, labels: Tensor, world: World) -> Tensor:
        """(b, d) weights of the labels' classes, detached; each is sent by its owner."""
        require_same(self.world, world)
        return total(held(self.weight, places(labels, self.first, self.last)), world)

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        several = f", centers={self.centers}" if self.centers > 1 else ""
        return f"num_classes={self.num_classes}, dim={self.dim}{several}, classes {self.first} to {self.last - 1} here"


def held(weights: Tensor, place: Tensor) -> Tensor:
    """(b, d) rows of the weights, 0 where the place is -1."""
    if len(weights) == 0:
        return weights.new_zeros(len(place), weights.shape[1])
    return torch.where((place >= 0)[:, None], weights[place.clamp(min=0)], 0)


def require_same(own: World, asked: World) -> None:
    """Raise unless the weights are shared by the processes that compute the loss."""
    if (own.rank, own.size) != (asked.rank, asked.size):
        raise ConfigError(
            f"These class weights are split over {own.size} processes, the loss is computed by {asked.size}: call it "
            "with world=..., through unpg.losses.global_loss."
        )
