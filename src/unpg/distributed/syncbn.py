"""Batch normalization by the statistics of the global batch."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from unpg.distributed.collectives import total
from unpg.distributed.world import World
from unpg.errors import DataError

__all__ = ["GlobalBatchNorm", "global_batch_norm"]


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization whose mean and variance are of the batches of all processes together.

    Axes: (n, C, ...); n may differ between processes, and be 0. Parameters, buffers and evaluation mode are those of
    :class:`torch.nn.BatchNorm2d`. In training all processes must call it at once, forward and back. torch's own
    ``SyncBatchNorm`` does the same on CUDA only.

    Args:
        like: The layer whose settings, parameters and buffers are taken over.
        world: The processes.
    """

    def __init__(self, like: nn.modules.batchnorm._BatchNorm, world: World) -> None:
        super().__init__(
            like.num_features, like.eps, like.momentum, like.affine, like.track_running_stats, device="meta"
        )
        self._parameters, self._buffers = like._parameters, like._buffers
        self.training = like.training
        self.world = world

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, ...) of the same type.

        Raises:
            DataError: In training, all processes together have fewer than two values for each channel.
        """
        if not self.training:
            return super().forward(x)
        found: tuple[Tensor, Tensor, Tensor, Tensor] = _Normalized.apply(
            x, self.weight, self.bias, self.eps, self.world
        )
        y, mean, variance, count = found
        if self.track_running_stats:
            self._follow(mean, variance, count)
        return y

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        # Without a momentum: the mean of all batches so far, as in torch.
        rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), rate)

    def _check_input_dim(self, x: Tensor) -> None:
        """Of any number of axes from two on."""


def global_batch_norm(model: nn.Module, world: World) -> nn.Module:
    """The model with every batch normalization replaced by one over all processes, in place; parameters stay.

    On CUDA torch's own layer is taken, which has kernels for it.
    """
    if world.alone:
        return model
    if any(p.is_cuda for p in model.parameters()):
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model, process_group=world.group)
        return converted
    for name, child in model.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(model, name, GlobalBatchNorm(child, world))
        else:
            global_batch_norm(child, world)
    return model


def _sums(x: Tensor) -> Tensor:
    """Over all axes but the channels'."""
    return x.sum(dim=[axis for axis in range(x.ndim) if axis != 1])


def _shaped(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.ndim - 2))


class _Normalized(torch.autograd.Function):
    """Returns the normalized values, and what they were normalized with: mean, variance and count."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x if x.dtype == torch.float64 else x.float()
        channels = x.shape[1]
        n = x.numel() // channels
        own_sum = _sums(wide)
        sums = total(torch.cat([own_sum, own_sum.new_tensor([n])]), world)
        count = sums[-1]
        if count < 2:
            raise DataError(
                f"Batch normalization needs more than one value for each channel to train on, and all {world.size} "
                f"processes together have {int(count)}: raise sampler.batch_size."
            )
        mean = sums[:-1] / count
        # Squares about the mean of all, in one pass that forgives a large mean.
        variance = total(_sums((wide - _shaped(mean, x)).square()), world) / count
        ctx.save_for_backward(wide, weight, mean, variance, count)
        ctx.eps, ctx.world = eps, world
        ctx.mark_non_differentiable(mean, variance, count)
        like = mean.dtype
        y = F.batch_norm(
            wide,
            mean,
            variance,
            None if weight is None else weight.to(like),
            None if bias is None else bias.to(like),
            training=False,
            eps=eps,
        )
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        wide, weight, mean, variance, count = ctx.saved_tensors
        dtype, grad = grad.dtype, grad.to(wide.dtype)
        inverse = (variance + ctx.eps).rsqrt()
        normal = (wide - _shaped(mean, wide)) * _shaped(inverse, wide)
        to_bias, to_weight = _sums(grad), _sums(grad * normal)
        # Every process's values moved mean and variance, so what all of them felt comes back to each.
        everywhere = total(torch.stack([to_bias, to_weight]), ctx.world) / count
        slope = inverse if weight is None else inverse * weight.to(inverse.dtype)
        down = _shaped(slope, wide) * (grad - _shaped(everywhere[0], wide) - normal * _shaped(everywhere[1], wide))
        parameters = (None, None) if weight is None else (to_weight.to(weight.dtype), to_bias.to(weight.dtype))
        return down.to(dtype), *parameters, None, None
