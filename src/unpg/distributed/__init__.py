"""The only place where processes meet: who takes part, and what they tell each other."""

from unpg.distributed.collectives import (
    divided_gradient,
    everyones,
    gather,
    gather_rows,
    largest,
    lost_peer,
    reduced_sum,
    smallest,
    sum_gradients,
    total,
)
from unpg.distributed.syncbn import GlobalBatchNorm, global_batch_norm
from unpg.distributed.world import ALONE, World, part

__all__ = [
    "ALONE",
    "GlobalBatchNorm",
    "World",
    "divided_gradient",
    "everyones",
    "gather",
    "gather_rows",
    "global_batch_norm",
    "largest",
    "lost_peer",
    "part",
    "reduced_sum",
    "smallest",
    "sum_gradients",
    "total",
]
