"""CLPG: pairs of features and class weights."""

import torch
from torch import Tensor, nn

from unpg.errors import DataError, ShapeError
from unpg.heads import FullHead
from unpg.similarity import Negatives, NotOwnClass, OwnClassSet, Pairs, SimilaritySet, normalize

__all__ = ["ClassPairs"]


class ClassPairs(nn.Module):
    """Classification-based pair generation: each feature with its own class weight, against all the others.

    Args:
        head: Holds the class weights.
    """

    def __init__(self, head: FullHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, labels: Tensor) -> Pairs:
        """Pairs of (b, d) unit features with (b,) labels in [0, C).

        Raises:
            ShapeError: The features do not have the head's dimension.
            DataError: A label out of range. On the host the message names it; on CUDA the check is asynchronous.
        """
        if features.shape[1] != self.head.dim:
            raise ShapeError(
                f"Features have {features.shape[1]} dimensions, the class weights {self.head.dim}: give the backbone "
                f"and the loss the same dim."
            )
        _check_labels(labels, self.head.num_classes)
        weights = normalize(self.head.weight).vectors.to(features.dtype)
        return Pairs(
            positives=OwnClassSet(features, weights[labels]),
            negatives=(Negatives("classes", SimilaritySet(features, weights, NotOwnClass(labels))),),
        )


def _check_labels(labels: Tensor, num_classes: int) -> None:
    wrong = (labels < 0) | (labels >= num_classes)
    if labels.device.type == "cuda":
        torch._assert_async(~wrong.any(), f"A label is out of range: allowed are 0 to {num_classes - 1}.")
    elif wrong.any():
        place = int(wrong.nonzero()[0])
        raise DataError(
            f"Label {int(labels[place])} at place {place} of the batch is out of range: the loss has {num_classes} "
            f"classes, so labels go from 0 to {num_classes - 1}. Check num_classes, or relabel the data densely."
        )
