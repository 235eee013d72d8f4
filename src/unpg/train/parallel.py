"""What a run needs besides its loss to be the same on any number of processes."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from unpg.data import ImageSet, Sampler
from unpg.distributed import World, gather, part, total
from unpg.embed import Model, embed
from unpg.evaluate import EmbedFunction, embedder
from unpg.heads import SampledHead, ShardedHead
from unpg.losses import PairLoss
from unpg.pairs import ClassPairs
from unpg.train.state import Split

__all__ = [
    "RankSampler",
    "catch_up",
    "clip_gradient",
    "common_parameters",
    "compares_the_batch",
    "micro_places",
    "over_processes",
    "own_parameters",
    "shared_embedder",
    "split_rows",
]


# torch 2.13 renamed it.
_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


class RankSampler:
    """The part of each batch that is this process's. Epochs, orders, P x K batches, and the micro-batches that a batch
    is cut into, do not depend on the number of processes: each takes its range of every micro-batch.

    Args:
        sampler: Of the whole batches.
        world: The processes.
        micro_batches: How many a batch is cut into.
    """

    def __init__(self, sampler: Sampler, world: World, micro_batches: int = 1) -> None:
        self.sampler, self.world, self.micro_batches = sampler, world, micro_batches

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in every epoch."""
        return self.sampler.steps_per_epoch

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Indices of this process's images, (n,) int64, one micro-batch after the other."""
        whole: NDArray[np.int64] = self.sampler.batch(epoch, step)
        places = micro_places(len(whole), self.world.size, self.micro_batches)
        mine: NDArray[np.int64] = whole[np.concatenate([of_ranks[self.world.rank] for of_ranks in places])]
        return mine


def micro_places(batch_size: int, size: int, micro_batches: int) -> list[list[NDArray[np.int64]]]:
    """Which places of a batch each of ``size`` processes has in each micro-batch: [micro-batch][rank], (n,) int64."""
    found = []
    for i in range(micro_batches):
        first, last = part(batch_size, i, micro_batches)
        parts = (part(last - first, rank, size) for rank in range(size))
        found.append([np.arange(first + a, first + b) for a, b in parts])
    return found


def over_processes(backbone: nn.Module, world: World, *, same_buffers: bool) -> nn.Module:
    """The backbone with gradients *added up* over the processes during the backward pass; itself for one.

    Added, not averaged as is DDP's way: each process backpropagates its share of one loss
    (:mod:`unpg.distributed.collectives`).

    Args:
        backbone: The same weights in all processes.
        world: The processes.
        same_buffers: Whether the buffers move alike everywhere; else those of the first process are sent to all before
            each step.
    """
    if world.alone or not any(p.requires_grad for p in backbone.parameters()):
        return backbone
    device = next(backbone.parameters()).device
    buffers: dict[str, Any] = {_SYNC_BUFFERS: not same_buffers}
    parallel = DistributedDataParallel(
        backbone,
        device_ids=[device] if device.type == "cuda" else None,
        process_group=world.group,
        **buffers,
    )
    parallel.register_comm_hook(world, _added_up)
    return parallel


def _added_up(world: World, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    work = distributed.all_reduce(bucket.buffer(), group=world.group, async_op=True)
    future: torch.futures.Future[Any] = work.get_future()
    return future.then(lambda done: done.value()[0])


def split_rows(loss: nn.Module) -> Split:
    """The tensors of a loss whose rows processes share, by their names in a checkpoint."""
    found: dict[str, tuple[range, int]] = {}
    for name, head in loss.named_modules():
        if isinstance(head, ShardedHead | SampledHead) and not head.world.alone:
            rows = range(head.first * head.centers, head.last * head.centers)
            whole = head.num_classes * head.centers
            common = head.COMMON_STATE if isinstance(head, SampledHead) else ()
            by_rows = [n for n, t in head.state_dict().items() if n not in common and len(t) == len(rows)]
            found |= {f"loss/{name}.{n}": (rows, whole) for n in by_rows}
    return found


def shared_embedder(model: Model, world: World, **options: Any) -> EmbedFunction:
    """Like :func:`unpg.evaluate.embedder`, with each process embedding its part of the images; all get the whole."""
    if world.alone:
        return embedder(model, **options)

    def embedded(images: ImageSet) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        first, last = world.part(len(images)) if len(images) >= world.size else (0, len(images))
        own = embed(model, images, indices=np.arange(first, last), **options)
        if len(images) < world.size:
            return own.vectors, own.norms
        device = next(model.backbone.parameters()).device
        vectors, norms = (gather(torch.from_numpy(a).to(device), world).cpu().numpy() for a in (own.vectors, own.norms))
        return vectors, norms

    return embedded


def own_parameters(loss: nn.Module) -> list[nn.Parameter]:
    """Class weights that this process alone holds: their gradients are whole."""
    heads = [m for m in loss.modules() if isinstance(m, ShardedHead | SampledHead)]
    return [p for head in heads for p in head.parameters()]


def catch_up(loss: nn.Module) -> None:
    """Bring class weights that a lazy head has left behind up to the last step."""
    for head in loss.modules():
        if isinstance(head, SampledHead):
            head.catch_up_all()


def common_parameters(loss: nn.Module) -> list[nn.Parameter]:
    """What all processes hold alike: gradients are to be added up."""
    own = {id(p) for p in own_parameters(loss)}
    return [p for p in loss.parameters() if id(p) not in own]


def compares_the_batch(loss: nn.Module) -> bool:
    """Whether a part of the loss sees more of the batch than one feature at a time."""
    return any(
        isinstance(m, PairLoss) and (not isinstance(m.pairs, ClassPairs) or m.margin.sees_batch) for m in loss.modules()
    )


@torch.no_grad()
def clip_gradient(common: Iterable[Tensor], own: Sequence[Tensor], world: World, most: float | None) -> Tensor:
    """Norm of the whole gradient, the same in all processes; the gradient is scaled down to ``most``.

    Args:
        common: Parameters that all processes hold, with the same gradients everywhere.
        own: Parameters that this process alone holds.
        world: The processes.
        most: Largest norm; None does not clip.
    """
    common = list(common)
    norm = torch.nn.utils.get_total_norm([p.grad for p in common if p.grad is not None])
    if own and not world.alone:
        part_of = torch.nn.utils.get_total_norm([p.grad for p in own if p.grad is not None])
        norm = (norm.square() + total(part_of.to(norm.device).square(), world)).sqrt()
    elif own:
        norm = torch.nn.utils.get_total_norm([p.grad for p in [*common, *own] if p.grad is not None])
    if most is not None:
        torch.nn.utils.clip_grads_with_norm_([*common, *own], most, norm)
    return norm
