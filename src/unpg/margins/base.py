"""What a margin is; and the margin that changes nothing."""

from dataclasses import dataclass

from torch import Tensor

from unpg.registry import Registry

__all__ = ["MARGINS", "Margin", "NoMargin"]

MARGINS: Registry[type["Margin"]] = Registry("margin")


class Margin:
    """A reshaping of similarities. Override what differs from doing nothing.

    Shapes: r anchors, k positives of each.
    """

    def positive(self, cosine: Tensor, norms: Tensor) -> Tensor:
        """Reshape positive similarities (r, k); ``norms`` (r, 1) are the lengths of the anchors' features."""
        return cosine

    def penalty(self, norms: Tensor) -> Tensor | None:
        """A regulariser to add to each anchor's loss, (r,), or None."""
        return None

    def statistics(self, norms: Tensor) -> dict[str, Tensor]:
        """Detached scalars worth seeing at every step."""
        return {}


@MARGINS.register("none")
@dataclass(frozen=True)
class NoMargin(Margin):
    """Similarities as they are: NormFace (Wang et al. 2017, arXiv 1704.06369)."""
