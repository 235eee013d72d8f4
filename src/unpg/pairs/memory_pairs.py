"""Negatives from the batches before: a queue of features."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from unpg.distributed import World
from unpg.errors import ConfigError, ShapeError
from unpg.heads import Head
from unpg.pairs.batch_pairs import Scope, check_scope
from unpg.pairs.feature_pairs import finite_rows
from unpg.pairs.noise import Filter, KeepAll
from unpg.similarity import (
    Anchors,
    DifferentLabel,
    DifferentSample,
    MaskRule,
    Negatives,
    Pairs,
    SimilaritySet,
    normalize,
)

__all__ = ["MemoryPairs"]


class MemoryPairs(nn.Module):
    """Cross-batch memory: each feature with the last ``size`` features of earlier batches (XBM, Wang et al. 2020,
    arXiv 1912.06798).

    Embeddings change slowly after the first steps, so features of a few hundred steps ago are still good negatives.
    No gradient flows into the queue. A batch enters it when the next one comes, hence never meets itself; an entry of
    the same label, or of the same image where sample ids are given, is no negative. The queue is filled from the first
    step of training on (not in evaluation mode) and used from step ``start`` on.

    Args:
        size: M, entries of the queue.
        dim: d, the embedding size.
        start: Optimizer steps before the queue is used; XBM waits 1,000 where the schedule is long.
        scope: ``batch``: all b x M pairs form one set that all anchors share; ``anchor``: each its own row.
        keep: Which negatives to believe; the queue has its own fences.
        head: Class weights, to correct old features by what their class has moved since: ``x + (w_now - w_then)``
            of unit vectors, normalised again (after BroadFace, Kim et al. 2020, arXiv 2008.06674). None corrects
            nothing and saves half the memory.
    """

    vectors: Tensor
    labels: Tensor
    sample_ids: Tensor
    centers: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        start: int = 0,
        scope: Scope = "batch",
        keep: Filter = KeepAll(),
        head: Head | None = None,
    ) -> None:
        super().__init__()
        if size < 1 or start < 0:
            raise ConfigError(f"A memory needs size >= 1 and start >= 0, got {size} and {start}.")
        check_scope("MemoryPairs", scope)
        if head is not None and head.centers > 1:
            raise ConfigError("A memory can follow the weights of classes with one center each; leave head out.")
        self.size, self.dim, self.start, self.scope, self.keep = size, dim, start, scope, keep
        self._head = (head,)  # in a tuple: the weights belong to the loss, not to the queue
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("sample_ids", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("centers", torch.zeros(size if head is not None else 0, dim))
        self.filled = 0
        self._next = 0
        self._waiting: tuple[Tensor, ...] | None = None

    def forward(self, anchors: Anchors) -> Pairs:
        """The queue as one set of negatives; there are no positives.

        Raises:
            ShapeError: The features do not have the queue's dimension.
            ConfigError: ``start`` is set and the caller does not say which step it is.
        """
        if anchors.unit.shape[1] != self.dim:
            raise ShapeError(f"The memory holds {self.dim} dimensions, the features have {anchors.unit.shape[1]}.")
        if self.start and anchors.step is None:
            raise ConfigError("The memory starts late: call the loss with step=<optimizer steps done so far>.")
        if self.training:
            self._enqueue()
            self._wait(anchors)
        filled = self.filled if (anchors.step or 0) >= self.start else 0
        # Copies: the queue is written to before a late backward pass has read them.
        labels, ids = self.labels[:filled].clone(), self.sample_ids[:filled].clone()
        rule: MaskRule = DifferentLabel(anchors.labels, labels)
        if anchors.sample_ids is not None:
            rule = DifferentSample(rule, anchors.sample_ids, ids)
        columns = self._corrected(filled, anchors.world).to(anchors.unit.dtype)
        negatives = SimilaritySet(anchors.unit, columns, rule, shared=self.scope == "batch", world=anchors.world)
        nothing = SimilaritySet(anchors.unit, columns[:0], DifferentLabel(anchors.labels, labels[:0]))
        return Pairs(nothing, (Negatives("memory", self.keep(negatives)),))

    @torch.no_grad()
    def _corrected(self, filled: int, world: World) -> Tensor:
        head = self._head[0]
        vectors = self.vectors[:filled].clone()
        if head is None or filled == 0:
            return vectors
        moved = normalize(head.lookup(self.labels[:filled], world)).vectors - self.centers[:filled]
        return normalize(vectors + moved).vectors

    @torch.no_grad()
    def _wait(self, anchors: Anchors) -> None:
        ids = anchors.sample_ids
        ids = torch.full_like(anchors.labels, -1) if ids is None else ids
        head = self._head[0]
        unit = finite_rows(anchors.unit)
        centers = unit[:, :0] if head is None else normalize(head.lookup(anchors.labels, anchors.world)).vectors
        self._waiting = (unit, anchors.labels.clone(), ids.clone(), centers)

    @torch.no_grad()
    def _enqueue(self) -> None:
        if self._waiting is None:
            return
        vectors, labels, ids, centers = (column[-self.size :] for column in self._waiting)
        place = (self._next + torch.arange(len(labels), device=labels.device)) % self.size
        self.vectors[place] = vectors.to(self.vectors.dtype)
        self.labels[place] = labels.to(torch.int64)
        self.sample_ids[place] = ids.to(torch.int64)
        if len(self.centers):
            self.centers[place] = centers.to(self.centers.dtype)
        self._next = (self._next + len(labels)) % self.size
        self.filled = min(self.size, self.filled + len(labels))
        self._waiting = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The batch that waits goes where the buffers go."""
        if self._waiting is not None:
            self._waiting = tuple(fn(column) for column in self._waiting)
        return super()._apply(fn, recurse)  # type: ignore[no-any-return]

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint needs besides the queue: where it ends, and the batch that waits."""
        return {"filled": self.filled, "next": self._next, "waiting": self._waiting}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over :meth:`get_extra_state`."""
        self.filled, self._next = state["filled"], state["next"]
        waiting = state["waiting"]
        device = self.vectors.device
        self._waiting = None if waiting is None else tuple(column.to(device) for column in waiting)

    def extra_repr(self) -> str:
        """Settings, for ``repr``."""
        follows = ", head=..." if self._head[0] is not None else ""
        return f"size={self.size}, start={self.start}, scope={self.scope!r}, keep={self.keep}{follows}"
