"""Named losses: declarations over pairs, margins and aggregates."""

from unpg.losses.pair_loss import LossOutput, PairLoss, effective_rank
from unpg.losses.zoo import LOSSES, arcface, cosface, magface, normface, unpg

__all__ = [
    "LOSSES",
    "LossOutput",
    "PairLoss",
    "arcface",
    "cosface",
    "effective_rank",
    "magface",
    "normface",
    "unpg",
]
