"""One optimizer step: forward, backward and update, on one process or many."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.nn.parallel import DistributedDataParallel

from unpg.aggregate import BinarySum
from unpg.data import Batch
from unpg.distributed import largest, sum_gradients
from unpg.heads import SampledHead
from unpg.losses import LossOutput, global_loss
from unpg.train.activation import unmoved_statistics
from unpg.train.optim import learning_rate
from unpg.train.parallel import (
    clip_gradient,
    common_parameters,
    compares_the_batch,
    micro_places,
    over_processes,
    own_parameters,
)
from unpg.train.setup import Setup

__all__ = ["Stepped", "Stepper"]

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Stepped(NamedTuple):
    """What a step was.

    Attributes:
        features: (n, d) of the last micro-batch of this process, detached.
        out: Of the loss, the same in all processes; ``loss`` is the whole batch's, the rest the last micro-batch's.
        grad_norm: Of the whole gradient, before clipping.
        updated: Whether weights, running statistics and memories moved; not where loss or gradient are not finite, in
            whatever process.
    """

    features: Tensor
    out: LossOutput
    grad_norm: Tensor
    updated: bool


class Stepper:
    """Takes the steps of a run.

    Micro-batches (``accumulate``) of a loss over class weights are done one after the other. Where a loss compares the
    batch with itself, or its margin goes by the batch, that would be another loss; then all features are computed
    without gradient first, the loss once on all of them, and the network again for each micro-batch, to take its part
    of the gradient back. That is the gradient of the whole batch exactly, but for batch normalization, whose batch is
    the micro-batch.

    Attributes:
        own_network: The backbone, compiled where the run says so, which adds up no gradients over the processes.
        network: The same, with gradients added up.
        scaler: Of float16 gradients; does nothing in other precisions.
    """

    def __init__(self, setup: Setup) -> None:
        config = setup.config
        self.setup, self.config, self.world = setup, config, setup.world
        network: nn.Module = setup.model.backbone
        if config.compile:
            network = torch.compile(network)  # type: ignore[assignment]  # a module, whatever its stub says
        self.own_network = network
        self.network = over_processes(network, self.world, same_buffers=config.global_batch_norm)
        self.dtype = next(setup.model.backbone.parameters()).dtype
        half = config.precision == "fp16"
        self.scaler: torch.amp.GradScaler = (
            torch.amp.GradScaler(setup.device.type, enabled=half)
            if self.world.alone
            else ShardedGradScaler(setup.device.type, enabled=half, process_group=self.world.group)
        )
        self.in_two_passes = config.accumulate > 1 and config.pairs == "whole" and compares_the_batch(setup.loss)

    def __call__(self, batch: Batch, epoch: int, step: int) -> Stepped:
        """Step number ``step`` (from 0) of the run, on this process's part of the batch."""
        setup, config = self.setup, self.config
        rate = learning_rate(config.optim, step, steps=setup.steps, steps_per_epoch=setup.steps_per_epoch)
        for group in setup.optimizer.param_groups:
            group["lr"] = rate
        setup.model.backbone.train()
        setup.optimizer.zero_grad(set_to_none=True)
        undo = _undo(setup.model.backbone, setup.loss)
        micros = list(self._micro_batches(batch, self.setup.batch_size(step)))
        passes = self._two_passes if self.in_two_passes else self._one_pass
        features, out = passes(micros, epoch, step)
        self.scaler.unscale_(setup.optimizer)
        common, own = common_parameters(setup.loss), own_parameters(setup.loss)
        sum_gradients([p for p in common if p.requires_grad], self.world)
        trained = [p for p in [*setup.model.backbone.parameters(), *common] if p.requires_grad]
        grad_norm = clip_gradient(trained, own, self.world, config.optim.clip_norm)
        bad = largest((~torch.isfinite(out.loss) | ~torch.isfinite(grad_norm)).int(), self.world)
        updated = not bool(bad)
        if updated:
            self.scaler.step(setup.optimizer)
        else:  # running statistics have seen what is not finite, and would stay so for good
            undo()
        self.scaler.update()
        return Stepped(features.detach(), replace(out, per_anchor=out.per_anchor.detach()), grad_norm, updated)

    def _micro_batches(self, batch: Batch, whole: int) -> Iterator[tuple[Batch, list[int]]]:
        """Parts of this process's batch, each with the sizes that it has in all processes."""
        start = 0
        for of_ranks in micro_places(whole, self.world.size, self.config.accumulate):
            stop = start + len(of_ranks[self.world.rank])
            yield Batch(*(column[start:stop] for column in batch)), [len(places) for places in of_ranks]
            start = stop

    def _embed(self, micro: Batch, epoch: int, network: nn.Module) -> Tensor:
        config, device = self.config, self.setup.device
        ids = micro.sample_ids.to(device)
        images = config.augment(micro.images.to(device, non_blocking=True), ids, config.seed, epoch)
        with torch.autocast(device.type, _PRECISIONS[config.precision], enabled=config.precision != "fp32"):
            features: Tensor = network(config.preprocessing(images).to(self.dtype))
        return features.to(self.dtype)

    def _loss(self, features: Tensor, micros: Sequence[tuple[Batch, list[int]]], step: int) -> LossOutput:
        device = self.setup.device
        labels, ids = (
            torch.cat([getattr(micro, name) for micro, _ in micros]).to(device) for name in ("labels", "sample_ids")
        )
        counts = [sum(n) for n in zip(*(counts for _, counts in micros), strict=True)]
        return global_loss(
            self.setup.loss,
            features,
            labels,
            world=self.world,
            counts=counts,
            order=self._order(sum(counts)) if len(micros) > 1 else None,
            step=step,
            sample_ids=ids,
        )

    def _order(self, whole: int) -> Tensor:
        """Where each row of the batch is, in what is gathered process by process."""
        places = micro_places(whole, self.world.size, self.config.accumulate)
        by_rank = np.concatenate([of_ranks[rank] for rank in range(self.world.size) for of_ranks in places])
        return torch.from_numpy(np.argsort(by_rank)).to(self.setup.device)

    def _one_pass(self, micros: Sequence[tuple[Batch, list[int]]], epoch: int, step: int) -> tuple[Tensor, LossOutput]:
        total = torch.zeros((), device=self.setup.device)
        for i, (micro, counts) in enumerate(micros):
            share = sum(counts) / self.setup.batch_size(step)
            with self._silent(i + 1 < len(micros)):
                features = self._embed(micro, epoch, self.network)
                out = self._loss(features, [(micro, counts)], step)
                self.scaler.scale(out.loss * share).backward()
            total += out.loss.detach() * share
        return features, replace(out, loss=total)

    def _two_passes(
        self, micros: Sequence[tuple[Batch, list[int]]], epoch: int, step: int
    ) -> tuple[Tensor, LossOutput]:
        device = self.setup.device
        devices = [device] if device.type == "cuda" else []
        # Forked, so that dropout draws the same in the second pass; and what is compiled draws otherwise than what is
        # not.
        with torch.random.fork_rng(devices), torch.no_grad(), unmoved_statistics(self.setup.model.backbone):
            found = [self._embed(micro, epoch, self.own_network) for micro, _ in micros]
        features = torch.cat(found).requires_grad_()
        out = self._loss(features, micros, step)
        self.scaler.scale(out.loss).backward()
        assert features.grad is not None
        pulls = features.grad.split([len(f) for f in found])
        for i, ((micro, _), pull) in enumerate(zip(micros, pulls, strict=True)):
            with self._silent(i + 1 < len(micros)):
                self._embed(micro, epoch, self.network).backward(pull)
        return features, replace(out, loss=out.loss.detach())

    def _silent(self, more: bool) -> "nullcontext[None]":
        """Gradients are added up over the processes with the last micro-batch."""
        return self.network.no_sync() if more and isinstance(self.network, DistributedDataParallel) else nullcontext()  # type: ignore[return-value]


def _undo(backbone: nn.Module, loss: nn.Module) -> Callable[[], None]:
    """Remember what a forward pass moves (statistics, memories, thresholds that begin); returns what puts it back."""
    # A sampled head's buffers are class weights and their momentum, which the optimizer alone moves.
    weights = {id(b) for head in loss.modules() if isinstance(head, SampledHead) for b in head.buffers()}
    buffers = [b for module in (backbone, loss) for b in module.buffers() if id(b) not in weights]
    values = [buffer.clone() for buffer in buffers]
    others = [m for m in loss.modules() if type(m).get_extra_state is not nn.Module.get_extra_state]
    states = [module.get_extra_state() for module in others]
    thresholds = [module.remember() for module in loss.modules() if isinstance(module, BinarySum)]

    def undo() -> None:
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)
        for module, state in zip(others, states, strict=True):
            module.set_extra_state(state)
        for put_back in thresholds:
            put_back()

    return undo
