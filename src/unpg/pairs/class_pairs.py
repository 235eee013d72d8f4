"""CLPG: pairs of features and class weights."""

import torch
from torch import nn

from unpg.errors import DataError, ShapeError
from unpg.heads import Head
from unpg.similarity import Anchors, ClassSet, Negatives, OwnClassSet, Pairs, Shard, Streaming

__all__ = ["ClassPairs", "check_labels"]


class ClassPairs(nn.Module):
    """Classification-based pair generation: each feature with its own class weight, against all the others.

    Args:
        head: Holds the class weights, all or part of them.
        streaming: How the similarities are computed.
    """

    def __init__(self, head: Head, streaming: Streaming = Streaming()) -> None:
        super().__init__()
        self.head = head
        self.streaming = streaming

    def forward(self, anchors: Anchors) -> Pairs:
        """The pairs of a batch with labels in [0, C).

        Raises:
            ShapeError: The features do not have the head's dimension.
            DataError: A label out of range. On the host the message names it; on CUDA the check is asynchronous.
        """
        check_labels(anchors, self.head.num_classes, self.head.dim)
        part = self.head.part(anchors.labels, anchors.world, anchors.step)
        classes = ClassSet(
            anchors.unit,
            part.weights,
            anchors.labels,
            centers=self.head.centers,
            streaming=self.streaming,
            shard=Shard(
                part.places, part.num_classes, anchors.world, part.inclusion, part.drawn, self.head.num_classes
            ),
        )
        return Pairs(positives=OwnClassSet(classes), negatives=(Negatives("classes", classes),))


def check_labels(anchors: Anchors, num_classes: int, dim: int) -> None:
    """Raise unless the features have ``dim`` dimensions and the labels lie in [0, num_classes)."""
    if anchors.unit.shape[1] != dim:
        raise ShapeError(
            f"Features have {anchors.unit.shape[1]} dimensions, the class weights {dim}: give the backbone and the "
            f"loss the same dim."
        )
    labels = anchors.labels
    wrong = (labels < 0) | (labels >= num_classes)
    if labels.device.type == "cuda":
        torch._assert_async(~wrong.any(), f"A label is out of range: allowed are 0 to {num_classes - 1}.")
    elif wrong.any():
        place = int(wrong.nonzero()[0])
        raise DataError(
            f"Label {int(labels[place])} at place {place} of the batch is out of range: the loss has {num_classes} "
            f"classes, so labels go from 0 to {num_classes - 1}. Check num_classes, or relabel the data densely."
        )
