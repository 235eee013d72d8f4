"""What a margin is; and the margin that changes nothing."""

from dataclasses import dataclass

from torch import Tensor

from unpg.registry import Registry
from unpg.similarity import Anchors, Reshape

__all__ = ["MARGINS", "Margin", "NoMargin"]

MARGINS: Registry[type["Margin"]] = Registry("margin")


class Margin:
    """A reshaping of similarities. Override what differs from doing nothing.

    Shapes: b anchors, k pairs of each.
    """

    @property
    def sees_batch(self) -> bool:
        """Whether what one sample gets depends on the others: such a margin has to see a batch whole."""
        return False

    def for_batch(self, anchors: Anchors, target: Tensor | None) -> "Margin":
        """The margin of this batch, asked for once before anything is reshaped.

        A margin that learns from what it sees, or draws numbers, does so here and returns what it then holds on to.

        Args:
            anchors: The batch.
            target: (b, 1) detached similarities to the own class; None where positives are in the batch.
        """
        return self

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        """Reshape positive similarities (b, k)."""
        return cosine

    def class_negative(self) -> Reshape | None:
        """An elementwise function of the similarities to other classes, (b, n) to (b, n); None leaves them.

        It is called on blocks of columns, and only the gradient of the similarities flows through it.
        """
        return None

    def batch_negative(self) -> Reshape | None:
        """Likewise for negatives among features; it may depend on nothing but the similarity, since a set may be
        shared by all anchors.
        """
        return None

    def penalty(self, anchors: Anchors) -> Tensor | None:
        """A regulariser to add to each anchor's loss, (b,), or None."""
        return None

    def statistics(self, anchors: Anchors) -> dict[str, Tensor]:
        """Detached scalars worth seeing at every step."""
        return {}


@MARGINS.register("none")
@dataclass(frozen=True)
class NoMargin(Margin):
    """Similarities as they are: NormFace (Wang et al. 2017, arXiv 1704.06369)."""
