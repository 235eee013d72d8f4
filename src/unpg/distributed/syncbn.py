"""Batch normalization by the statistics of the global batch."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from unpg.distributed.collectives import gather, total
from unpg.distributed.world import World
from unpg.errors import DataError

__all__ = ["GlobalBatchNorm", "global_batch_norm"]

_PIECE = 2**19  # values reduced at once: they stay in the cache between the passes over them


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization whose mean and variance are of the batches of all processes together.

    Axes: (n, C, ...); n may differ between processes, and be 0. Parameters, buffers and evaluation mode are those of
    :class:`torch.nn.BatchNorm2d`. In training all processes must call it at once, forward and back; each way one
    collective is all that they say. torch's own ``SyncBatchNorm`` does the same on CUDA only.

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


class _Normalized(torch.autograd.Function):
    """Returns the normalized values, and what they were normalized with: mean, variance and count.

    Once the statistics are known, what is left of both ways is affine in each channel: torch's kernels for evaluation
    do it in one pass.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        counts, mean, squares = _merged(gather(_moments(x)[None], world, [1] * world.size))
        count = counts[0]
        if count < 2:
            raise DataError(
                f"Batch normalization needs more than one value for each channel to train on, and all {world.size} "
                f"processes together have {int(count)}: raise sampler.batch_size."
            )
        variance = squares / count
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps, ctx.world = eps, world
        ctx.mark_non_differentiable(mean, variance, count)
        like = mean.dtype
        scale, shift = (None, None) if weight is None or bias is None else (weight.to(like), bias.to(like))
        return F.batch_norm(x, mean, variance, scale, shift, eps=eps), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = ctx.saved_tensors
        # Of each channel: the sums of the gradient, and of its product with the normalized values.
        found = [mean.new_zeros(2, len(mean))]
        for piece, of_piece in zip(_pieces(x), _pieces(grad), strict=True):
            _, of_product, of_grad = torch.ops.aten.native_batch_norm_backward(
                of_piece, piece, None, mean, variance, None, None, False, ctx.eps, [False, True, True]
            )
            found.append(torch.stack([of_grad, of_product]))
        own = torch.stack(found).sum(0)
        # Every process's values moved mean and variance, so what all of them felt comes back to each.
        felt = total(own, ctx.world) / count
        slope = (variance + ctx.eps).rsqrt() * (1.0 if weight is None else weight.to(mean.dtype))
        down = F.batch_norm(x, mean, variance, -slope * felt[1], -slope * felt[0], eps=ctx.eps)
        down.addcmul_(grad, _shaped(slope.to(x.dtype), x))
        parameters = (None, None) if weight is None else (own[1].to(weight.dtype), own[0].to(weight.dtype))
        return down, *parameters, None, None


def _moments(x: Tensor) -> Tensor:
    """Count, mean and sum of squares about the mean of each channel: (3, C), of float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    found = [x.new_zeros(3, x.shape[1], dtype=wide)]
    for piece in _pieces(x):
        values = piece.to(wide)
        n = values.numel() // x.shape[1]
        mean = _sums(values) / n
        squares = _sums((values - _shaped(mean, x)).square_())
        found.append(torch.stack([torch.full_like(mean, n), mean, squares]))
    return _merged(torch.stack(found))


def _merged(parts: Tensor) -> Tensor:
    """Of the (k, 3, C) moments of parts those of the whole, (3, C); parts may be empty. Chan, Golub, LeVeque 1979."""
    counts, means, squares = parts.unbind(1)
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count.clamp(min=1)
    return torch.stack([count, mean, (squares + counts * (means - mean).square()).sum(0)])


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    """Along the batch; none of an empty one."""
    return x.split(max(1, _PIECE // x[0].numel())) if x.numel() else ()


def _sums(x: Tensor) -> Tensor:
    """Over all axes but the channels'."""
    return x.sum(dim=[axis for axis in range(x.ndim) if axis != 1])


def _shaped(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.ndim - 2))
