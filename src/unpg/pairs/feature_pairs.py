"""The latest feature of each class, in place of class weights."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from unpg.errors import ConfigError
from unpg.heads import places
from unpg.pairs.class_pairs import check_labels
from unpg.similarity import Anchors, ClassSet, Negatives, OwnClassSet, Pairs, Shard, Streaming

__all__ = ["FeaturePairs", "finite_rows"]


class FeaturePairs(nn.Module):
    """Each feature with the last feature seen of every class: of its own as the positive, of all others as negatives
    (UniTSFace, Li et al. 2023, arXiv 2311.02523).

    No gradient flows into the stored features. A batch is stored when the next one comes (of several images of one
    class, the last), hence never meets itself. A class that has not been seen yet has cosine 0 and no gradient, and the
    pairs say that they are not complete.

    Args:
        num_classes: C.
        dim: d.
        streaming: How the similarities are computed.
    """

    vectors: Tensor

    def __init__(self, num_classes: int, dim: int, streaming: Streaming = Streaming()) -> None:
        super().__init__()
        if num_classes < 1 or dim < 1:
            raise ConfigError(f"FeaturePairs needs num_classes >= 1 and dim >= 1, got {num_classes} and {dim}.")
        self.streaming = streaming
        self.register_buffer("vectors", torch.zeros(num_classes, dim))
        self._waiting: tuple[Tensor, Tensor] | None = None
        self._complete = False

    def forward(self, anchors: Anchors) -> Pairs:
        """The pairs of a batch with labels in [0, C)."""
        check_labels(anchors, *self.vectors.shape)
        if self.training:
            self._store()
            self._waiting = (finite_rows(anchors.unit), anchors.labels.clone())
        # A copy: the next batch writes to the features before a late backward pass may have read them.
        first, last = anchors.world.part(len(self.vectors))
        classes = ClassSet(
            anchors.unit,
            self.vectors[first:last].clone(),
            anchors.labels,
            streaming=self.streaming,
            shard=Shard(places(anchors.labels, first, last), len(self.vectors), anchors.world),
        )
        return Pairs(OwnClassSet(classes), (Negatives("classes", classes),), self.complete)

    @property
    def complete(self) -> bool:
        """Whether a feature of every class is stored."""
        # Asked until the answer is yes, since it makes the device wait.
        self._complete = self._complete or bool(self.vectors.any(dim=1).all())
        return self._complete

    @torch.no_grad()
    def _store(self) -> None:
        if self._waiting is None:
            return
        unit, labels = self._waiting
        # Of the images of one class the last: a scatter with repeated places would leave that to chance.
        place = torch.arange(len(labels), device=labels.device)
        last = torch.full((len(self.vectors),), -1, dtype=torch.int64, device=labels.device)
        last.scatter_reduce_(0, labels, place, "amax")
        self.vectors[labels] = unit[last[labels]].to(self.vectors.dtype)
        self._waiting = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The batch that waits goes where the buffers go."""
        if self._waiting is not None:
            self._waiting = (fn(self._waiting[0]), fn(self._waiting[1]))
        return super()._apply(fn, recurse)  # type: ignore[no-any-return]

    def get_extra_state(self) -> dict[str, Any]:
        """The batch that waits, for the checkpoint."""
        return {"waiting": self._waiting}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over :meth:`get_extra_state`."""
        waiting, device = state["waiting"], self.vectors.device
        self._waiting = None if waiting is None else (waiting[0].to(device), waiting[1].to(device))
        self._complete = False  # asked anew

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        return "num_classes={}, dim={}".format(*self.vectors.shape)


@torch.no_grad()
def finite_rows(unit: Tensor) -> Tensor:
    """A copy of (b, d) vectors to store, without their graph; zero where one is not finite (its step is skipped)."""
    return torch.where(unit.isfinite().all(dim=1, keepdim=True), unit, 0)
