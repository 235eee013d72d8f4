"""Mean and spread of what is seen in training, as moving averages with one update a step."""

import torch
from torch import Tensor, nn

__all__ = ["RunningMoments"]


class RunningMoments(nn.Module):
    """Exponential moving averages of a batch's mean and standard deviation, detached and part of the checkpoint.

    A step that comes in several micro-batches is one update: the moments of the micro-batches are pooled, and blended
    with the averages as they were before the step. Without a step number each call is a step.

    Args:
        momentum: Weight of the new batch, in (0, 1].
        mean: To begin with.
        std: To begin with.
    """

    mean: Tensor
    std: Tensor
    _before: Tensor
    _pool: Tensor
    _step: Tensor

    def __init__(self, momentum: float, mean: float, std: float = 0.0) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.register_buffer("_before", torch.tensor([mean, std]))
        # Count, sum and sum of squares of the step's values less the mean before it, which keeps squares small.
        self.register_buffer("_pool", torch.zeros(3))
        self.register_buffer("_step", torch.tensor(-1))

    @torch.no_grad()
    def see(self, values: Tensor, step: int | None) -> None:
        """Take (n,) values in; none at all change nothing, and a single one has no spread to learn from.

        Values that are not finite are left out: a trainer skips their step, and the averages outlive it.
        """
        same = self._step == (-2 if step is None else step)
        self._before.copy_(torch.where(same, self._before, torch.stack([self.mean, self.std])))
        finite = values.isfinite()
        away = torch.where(finite, values.to(self.mean.dtype) - self._before[0], 0)
        seen = torch.stack([finite.sum().to(away.dtype), away.sum(), away.square().sum()])
        self._pool.copy_(torch.where(same, self._pool, 0) + seen)
        count, total, squares = self._pool.unbind()
        average = total / count.clamp(min=1)
        spread = ((squares - total * average).clamp(min=0) / (count - 1).clamp(min=1)).sqrt()
        mean, std = self._before.unbind()
        self.mean.copy_(torch.where(count > 0, mean + self.momentum * average, mean))
        self.std.copy_(torch.where(count > 1, std + self.momentum * (spread - std), std))
        self._step.fill_(-1 if step is None else step)
