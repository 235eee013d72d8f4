"""A loss over the batch of all processes."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from unpg.distributed import ALONE, World, divided_gradient, gather, gather_rows
from unpg.losses.pair_loss import LossOutput, PairLoss
from unpg.losses.sum_loss import SumLoss

__all__ = ["global_loss"]


def global_loss(
    loss: PairLoss | SumLoss,
    features: Tensor,
    labels: Tensor,
    *,
    world: World = ALONE,
    counts: Sequence[int] | None = None,
    order: Tensor | None = None,
    step: int | None = None,
    sample_ids: Tensor | None = None,
) -> LossOutput:
    """The loss of the features of all processes, as if one process had them all.

    Call it in every process at once. Each then backpropagates the ``loss`` it got; the gradient of what it has alone
    (its features, its shard of the class weights) is that of the single process, and of what all have alike (learned
    scalars, full class weights, a backbone) the *sum* over the processes is: :func:`unpg.distributed.sum_gradients`.

    Args:
        loss: The same in all processes but for sharded class weights; with memories that have seen the same.
        features: (n, d) of this process; n may differ between them, and be 0.
        labels: (n,) int64.
        world: The processes.
        counts: n of each process, if all know it: saves asking.
        order: (B,) int64, where in the rows that are gathered rank by rank each row of the batch is; None leaves them
            in the order of the ranks. Order matters to what keeps features for later steps.
        step: Optimizer steps done so far.
        sample_ids: (n,) int64.

    Returns:
        The same numbers in every process; ``per_anchor`` is of the whole batch.
    """
    whole = gather_rows(features, world, counts)
    everyone = gather(labels, world, counts)
    ids = None if sample_ids is None else gather(sample_ids, world, counts)
    if order is not None and not world.alone:
        whole, everyone, ids = whole[order], everyone[order], None if ids is None else ids[order]
    out: LossOutput = loss(whole, everyone, step=step, sample_ids=ids, world=world)
    return replace(out, loss=divided_gradient(out.loss, world))
