"""Activations that are computed again in the backward pass instead of being kept."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from unpg.backbones import Backbone
from unpg.errors import ConfigError

__all__ = ["recompute_blocks", "unmoved_statistics"]


def recompute_blocks(backbone: Backbone) -> None:
    """Let every block of a network keep its input alone while it trains; the same numbers, a third more time.

    Running statistics of batch norms move once a step, in the first forward pass.

    Raises:
        ConfigError: The network names no blocks.
    """
    blocks = [module for module in backbone.modules() if isinstance(module, backbone.block_types)]
    if not blocks:
        raise ConfigError(f"{type(backbone).__name__} has no blocks to compute again: set recompute: false.")
    for block in blocks:
        block.forward = _recomputed(block, block.forward)


def _recomputed(block: nn.Module, forward: Any) -> Any:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), unmoved_statistics(block)

    def again(x: Tensor) -> Any:
        if not block.training or (not x.requires_grad and not any(p.requires_grad for p in block.parameters())):
            return forward(x)
        return checkpoint(forward, x, use_reentrant=False, context_fn=contexts)

    return again


@contextmanager
def unmoved_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics within, and their running ones stay what they are."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
