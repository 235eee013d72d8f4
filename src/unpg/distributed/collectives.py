"""What processes tell each other, and what that means for gradients.

Every process computes the whole loss L of the global batch from the same numbers, but for the parts that are split:
which features it embeds, which class weights it holds, which columns of a set it walks. Three rules make the
gradients those of one process:

1. Each process backpropagates L / W, W being their number (:func:`divided_gradient`). The gradient of the loss is the
   *sum* over the processes of what each of them finds.
2. A number that all processes know (a reduction, an offset, a learned scalar) has the same adjoint everywhere, 1 / W
   of the true one. The way back through a sum over processes therefore multiplies by W, and says nothing to anybody
   (:func:`reduced_sum`); an adjoint of which each process has a part is summed first.
3. Features are the exception: their adjoint may be in parts, since all that is between them and the gathering is
   linear on the way back. The parts are summed where they return to their owner (:func:`gather_rows`).

With one process, everything here is the identity.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from unpg.distributed.world import World
from unpg.errors import ShapeError

__all__ = [
    "divided_gradient",
    "everyones",
    "gather",
    "gather_rows",
    "largest",
    "lost_peer",
    "reduced_sum",
    "smallest",
    "sum_gradients",
    "total",
]


# What gloo and NCCL say when another process is not there any more. What they say of calls that do not fit together is
# not among it: that is a fault of the program.
_LOST = re.compile(
    r"connection (closed|reset) by (remote )?peer|connection refused|broken pipe|socket closed|remote process exited"
    r"|timed out waiting|wait timeout|watchdog caught collective operation timeout|nccl(remoteerror|systemerror)",
    re.IGNORECASE,
)
_BACKENDS = re.compile(r"gloo|nccl|tcpstore", re.IGNORECASE)

T = TypeVar("T")


def lost_peer(error: BaseException) -> bool:
    """Whether an error, or what caused it, is that another process has gone or has not answered in time."""
    found: BaseException | None = error
    while found is not None:
        text = str(found)
        of_backend = isinstance(found, distributed.DistError) or _BACKENDS.search(text)
        if isinstance(found, RuntimeError) and of_backend and _LOST.search(text):
            return True
        found = found.__cause__
    return False


def total(tensor: Tensor, world: World) -> Tensor:
    """The sum over the processes, the same everywhere; without gradient."""
    return _all_reduced(tensor, world, distributed.ReduceOp.SUM)


def largest(tensor: Tensor, world: World) -> Tensor:
    """The elementwise maximum over the processes; without gradient."""
    return _all_reduced(tensor, world, distributed.ReduceOp.MAX)


def smallest(tensor: Tensor, world: World) -> Tensor:
    """The elementwise minimum over the processes; without gradient."""
    return _all_reduced(tensor, world, distributed.ReduceOp.MIN)


def _all_reduced(tensor: Tensor, world: World, operation: Any) -> Tensor:
    if world.alone or tensor.numel() == 0:
        return tensor
    whole = tensor.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(whole, operation, group=world.group)
    return whole


def gather(tensor: Tensor, world: World, counts: Sequence[int] | None = None) -> Tensor:
    """The rows of all processes, in the order of their ranks; without gradient.

    Args:
        tensor: (n, ...), of one type and width everywhere; n may differ, and be 0.
        world: The processes.
        counts: n of each process, where all know it; else they ask each other, which waits for the device.
    """
    if world.alone:
        return tensor
    counts = _counts(tensor, world, counts)
    most = max(counts)
    padded = tensor.new_zeros((most, *tensor.shape[1:]))
    padded[: len(tensor)] = tensor.detach()
    parts = [torch.empty_like(padded) for _ in counts]
    if most:
        distributed.all_gather(parts, padded, group=world.group)
    return torch.cat([rows[:n] for rows, n in zip(parts, counts, strict=True)])


def everyones(value: T, world: World) -> list[T]:
    """What each process has, by rank; anything that can be pickled, and waits for all."""
    if world.alone:
        return [value]
    found: list[Any] = [None] * world.size
    distributed.all_gather_object(found, value, group=world.group)
    return found


def gather_rows(rows: Tensor, world: World, counts: Sequence[int] | None = None) -> Tensor:
    """Like :func:`gather`, with a gradient: each process gets the sum of what all have found for its own rows."""
    if world.alone:
        return rows
    found: Tensor = _gather_rows(rows, world, _counts(rows, world, counts))
    return found


def reduced_sum(tensor: Tensor, world: World) -> Tensor:
    """The sum over the processes, for a loss that all of them compute alike: see rule 2."""
    if world.alone:
        return tensor
    found: Tensor = _reduced_sum(tensor, world)
    return found


def divided_gradient(loss: Tensor, world: World) -> Tensor:
    """The loss as it is, with 1 / W of its gradient: see rule 1."""
    if world.alone:
        return loss
    found: Tensor = _divided_gradient(loss, world.size)
    return found


@torch.no_grad()
def sum_gradients(parameters: Iterable[Tensor], world: World) -> None:
    """Add up the gradients of parameters that all processes hold alike; none counts as zero where another process has
    one. Where no process has one there is none afterwards: an optimizer leaves such a parameter alone, but not one
    whose gradient is zero, which weight decay and momentum move.
    """
    parameters = list(parameters)
    if world.alone or not parameters:
        return
    own = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
    somewhere = largest(own, world).bool().tolist()
    for parameter in (p for p, found in zip(parameters, somewhere, strict=True) if found):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad, group=world.group)


def _counts(tensor: Tensor, world: World, counts: Sequence[int] | None) -> list[int]:
    if counts is None:
        own = torch.tensor([len(tensor)], device=tensor.device)
        all_counts = [torch.empty_like(own) for _ in range(world.size)]
        distributed.all_gather(all_counts, own, group=world.group)
        return [int(n) for n in torch.cat(all_counts).tolist()]
    if len(counts) != world.size or counts[world.rank] != len(tensor):
        raise ShapeError(
            f"Process {world.rank} of {world.size} has {len(tensor)} rows; the counts given are {list(counts)}."
        )
    return list(counts)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World, counts: list[int]) -> Tensor:
        ctx.world, ctx.counts = world, counts
        return gather(rows, world, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        world, counts = ctx.world, ctx.counts
        most = max(counts)
        # Rows are padded to one height, as when they came: a reduce-scatter sends each process its own alone.
        padded = grad.new_zeros((world.size, most, *grad.shape[1:]))
        for place, part in enumerate(grad.split(counts)):
            padded[place, : len(part)] = part
        own = torch.empty_like(padded[0])
        if most:
            _reduce_scatter(own, padded.flatten(0, 1), group=world.group)
        return own[: counts[world.rank]], None, None


class _ReducedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: World) -> Tensor:
        ctx.size = world.size
        return total(tensor, world)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.size, None


class _DividedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, size: int) -> Tensor:
        ctx.size = size
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad / ctx.size, None


# torch 2.13 renamed it.
_reduce_scatter: Callable[..., Any] = (
    getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor
)

_gather_rows: Callable[..., Tensor] = torch.compiler.disable(_GatherRows.apply)
_reduced_sum: Callable[..., Tensor] = torch.compiler.disable(_ReducedSum.apply)
_divided_gradient: Callable[..., Tensor] = torch.compiler.disable(_DividedGradient.apply)
