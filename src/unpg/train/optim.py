"""The optimizer and its learning rate at every step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from unpg.heads import SampledHead
from unpg.train.config import OptimConfig

__all__ = ["build_optimizer", "learning_rate"]


def build_optimizer(config: OptimConfig, modules: Iterable[nn.Module]) -> torch.optim.Optimizer:
    """SGD or AdamW over all trainable parameters of the modules: backbone and class weights alike."""
    modules = list(modules)
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if config.kind == "sgd":
        optimizer = torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    for head in (m for module in modules for m in module.modules() if isinstance(m, SampledHead)):
        head.attach(optimizer)
    return optimizer


def learning_rate(config: OptimConfig, step: int, *, steps: int, steps_per_epoch: int) -> float:
    """The rate of optimizer step ``step`` (from 0) of ``steps``: a pure function, so that resuming needs no state.

    Warm-up rises linearly and reaches the peak with its last step; the cosine then falls to zero after the last
    step of the run.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "steps":
        passed = sum(step >= round(epoch * steps_per_epoch) for epoch in config.milestones)
        return config.lr * config.gamma**passed
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
