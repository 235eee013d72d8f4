"""A margin of your own: one frozen dataclass. It composes with every set of pairs, UNPG included."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unpg.aggregate import Softmax
from unpg.heads import FullHead
from unpg.losses import PairLoss, unpg
from unpg.margins import MARGINS, Margin
from unpg.pairs import ClassPairs
from unpg.similarity import Anchors


@MARGINS.register("shrinking")
@dataclass(frozen=True)
class Shrinking(Margin):
    """A cosine margin that fades as the positive gets easy."""

    m: float = 0.4

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        """(b, k) cosines, less m for the hardest and nothing for a perfect one."""
        return cosine - self.m * (1 - cosine) / 2


def main() -> None:
    torch.manual_seed(0)
    loss = unpg(PairLoss(ClassPairs(FullHead(10, 16)), Shrinking(), Softmax(32)))
    out = loss(torch.randn(8, 16), torch.arange(8))
    print(loss)
    print(f"loss {float(out.loss.detach()):.2f}, negatives kept {float(out.statistics['negatives/kept']):.0f}")


if __name__ == "__main__":
    main()
