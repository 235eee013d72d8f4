"""From a configuration to the objects of a run: data, network, loss, optimizer, benchmarks."""

import dataclasses
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unpg.backbones import BACKBONES
from unpg.config import for_json, to_dict
from unpg.data import ImageSet, PKSampler, Sampler, UniformSampler, split_identities
from unpg.data.source import SOURCES
from unpg.distributed import ALONE, World, global_batch_norm
from unpg.embed.memory import keep_freed_memory
from unpg.embed.model import Model
from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate import AllPairsBenchmark, Benchmark, data_root, open_benchmark
from unpg.heads import FullHead, Head, SampledHead, ShardedHead, making_heads
from unpg.losses import LOSSES, PairLoss, SumLoss, unpg
from unpg.pairs import ClassPairs, FeaturePairs, MemoryPairs
from unpg.registry import Registry
from unpg.train.activation import recompute_blocks
from unpg.train.config import HeadConfig, TrainConfig
from unpg.train.optim import build_optimizer
from unpg.train.parallel import RankSampler, compares_the_batch
from unpg.transforms.tensor import Preprocessing

__all__ = ["Setup", "device_of", "located", "prepare", "resolve", "seed_of"]

_DATA_VARIABLE = "$UNPG_DATA"


@dataclass(frozen=True, eq=False)
class Setup:
    """What a run works with."""

    config: TrainConfig
    device: torch.device
    images: ImageSet
    sampler: Sampler
    model: Model
    loss: PairLoss | SumLoss
    optimizer: torch.optim.Optimizer
    benchmarks: tuple[Benchmark, ...]
    world: World = ALONE

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.sampler.steps_per_epoch

    def batch_size(self, step: int) -> int:
        """Images in the whole batch of a step; fewer in the last one of an epoch, if that is not dropped."""
        size, at = self.config.sampler.batch_size, step % self.steps_per_epoch
        return size if self.config.sampler.kind == "pk" else min(size, len(self.images) - at * size)

    @property
    def steps(self) -> int:
        """Optimizer steps in the run."""
        return self.config.epochs * self.steps_per_epoch


def resolve(config: TrainConfig) -> TrainConfig:
    """The same configuration with the defaults of data, loss and backbone written out.

    Raises:
        ConfigError: One of the three has a setting that its kind does not take.
    """
    given: dict[str, tuple[Registry[Any], dict[str, Any]]] = {
        "data": (SOURCES, {}),
        "loss": (LOSSES, {"num_classes": None, "dim": None}),
        "backbone": (BACKBONES, {"input_size": None}),
    }
    filled: dict[str, Any] = {}
    for name, (registry, by_caller) in given.items():
        part = dict(getattr(config, name))
        kind = part.pop("kind")
        registry.check(kind, part, given=by_caller)
        known = {
            k: list(p.default) if isinstance(p.default, tuple) else p.default
            for k, p in registry.settings(kind).items()
            if k not in by_caller and p.default is not inspect.Parameter.empty
        }
        filled[name] = {"kind": kind, **known, **part}
    return dataclasses.replace(config, **filled)


def prepare(config: TrainConfig, world: World = ALONE) -> Setup:
    """Build everything that a resolved configuration names; weights are drawn from its seed.

    Args:
        config: The run.
        world: The processes that share it; weights to begin with do not depend on their number.

    Raises:
        ConfigError: A setting does not fit the data or the machine.
        DataError: The data are missing or broken.
        ShapeError: The network's input cannot be made of the images to train or to judge with.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = device_of(config.device, world)
    if device.type == "cpu":
        keep_freed_memory()
    images: ImageSet = _build(SOURCES, located(config.data))
    held_out: ImageSet | None = None
    if config.hold_out > 0:
        images, held_out = split_identities(images, config.hold_out, config.hold_out_seed)
    benchmarks = tuple(_benchmark(name, held_out) for name in config.evaluation.benchmarks)

    torch.manual_seed(config.seed)
    settings = dict(config.backbone)
    kind = settings.pop("kind")
    model = Model.create(
        kind,
        input_size=config.preprocessing.size,
        preprocessing=config.preprocessing,
        info={"trained_with": for_json(to_dict(config))},
        **settings,
    )
    sampler = _sampler(config, images)
    loss = _loss(config, len(images.identities), model.backbone.dim, sampler.steps_per_epoch, world)
    drawn = any(isinstance(module, SampledHead) for module in loss.modules())
    if drawn and config.accumulate > 1 and (config.pairs != "whole" or not compares_the_batch(loss)):
        raise ConfigError(
            f"head.kind sampled has the gradient of one draw of classes, and accumulate {config.accumulate} takes the "
            f"loss of one micro-batch after the other, each with its own labels: set accumulate: 1, or head.kind: "
            f"sharded. (A loss that compares the images of a batch can have both, with pairs: whole.)"
        )
    _require_images(config, len(images), model.backbone, world)
    for what, of in (("the training set", images), *((benchmark.name, benchmark.images) for benchmark in benchmarks)):
        _require_fitting(config.preprocessing, of, what)
    model.backbone.to(device)
    if config.global_batch_norm:
        global_batch_norm(model.backbone, world)  # which goes by the device
    if config.recompute:
        recompute_blocks(model.backbone)
    if config.channels_last:
        model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs
    loss.to(device)
    optimizer = build_optimizer(config.optim, [model.backbone, loss])
    if not world.alone:
        torch.manual_seed(seed_of(config.seed, 0, world.rank))  # from here on each draws its own: dropout
        sampler = RankSampler(sampler, world, config.accumulate)
    return Setup(config, device, images, sampler, model, loss, optimizer, benchmarks, world)


def _require_fitting(preprocessing: Preprocessing, images: ImageSet, what: str) -> None:
    """Raise unless the network's input can be made of such images: now, and not after an epoch."""
    size = getattr(images, "image_size", None)
    if size is None:
        try:
            size = images.read(0).shape[:2]
        except DataError:  # one unreadable image; whoever reads them all sees to it
            return
    try:
        preprocessing(torch.zeros((1, *size, 3), dtype=torch.uint8))
    except ShapeError as error:
        raise ShapeError(f"{what}: {error}") from error


def _require_images(config: TrainConfig, images: int, backbone: nn.Module, world: World) -> None:
    """Raise unless the smallest micro-batch of an epoch has an image for every process, and enough to normalize."""
    sampler = config.sampler
    partial = sampler.kind == "uniform" and not sampler.drop_last
    smallest = images % sampler.batch_size or sampler.batch_size if partial else sampler.batch_size
    micro = smallest // config.accumulate
    what = (
        f"A batch of {smallest} images (sampler.batch_size {sampler.batch_size}) in {config.accumulate} micro-batches"
    )
    remedy = "change sampler.batch_size, lower accumulate" + (", set sampler.drop_last: true" if partial else "")
    if micro < world.size:
        raise ConfigError(
            f"{what} leaves {micro} images for {world.size} processes: {remedy}, or start fewer processes."
        )
    normalized = micro if config.global_batch_norm else micro // world.size
    if normalized < 2 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules()):
        raise ConfigError(f"{what} leaves batch normalization 1 image, and it needs 2 at a time: {remedy}.")


def seed_of(seed: int, step: int, rank: int) -> int:
    """The seed of torch's generator in one of several processes, which begins or goes on at ``step``."""
    return (seed * 1_000_003 + step) * 65_537 + rank


def _loss(config: TrainConfig, num_classes: int, dim: int, steps_per_epoch: int, world: World) -> PairLoss | SumLoss:
    def head(num_classes: int, dim: int, centers: int) -> Head:
        options, std = config.head, config.head.init_std
        if options.kind == "full":
            return FullHead(num_classes, dim, init_std=std, centers=centers)
        if options.kind == "sharded":
            return ShardedHead(num_classes, dim, world, init_std=std, centers=centers)
        rate, seed = options.rate, config.seed
        return SampledHead(
            num_classes, dim, world, rate=rate, seed=seed, init_std=std, centers=centers, lazy=options.lazy
        )

    with making_heads(head):
        loss: PairLoss | SumLoss = _build(LOSSES, config.loss, num_classes=num_classes, dim=dim)
    if config.head != HeadConfig() and not any(isinstance(m, ClassPairs) for m in loss.modules()):
        given = [n for n, value in to_dict(config.head).items() if value != getattr(HeadConfig(), n)]
        raise ConfigError(
            f"head.{', head.'.join(given)} is about class weights, and loss.kind {config.loss['kind']} has none: leave "
            f"it out, or choose a loss over classes."
        )
    for module in loss.modules():
        if isinstance(module, ClassPairs | FeaturePairs):
            module.streaming = config.streaming
    options = config.unpg
    if options is not None:
        if not isinstance(loss, PairLoss) or not isinstance(loss.pairs, ClassPairs):
            raise ConfigError(
                f"unpg adds batch negatives to one loss over class weights; loss.kind {config.loss['kind']} is none. "
                f"Set unpg: null, or loss.kind to a margin loss (arcface, cosface, ...)."
            )
        memory = None
        if options.memory is not None:
            memory = MemoryPairs(
                options.memory.size,
                dim,
                start=round(options.memory.start_epoch * steps_per_epoch),
                scope=options.scope,
                keep=options.filter(),
                head=loss.pairs.head if options.memory.follow else None,
            )
        rule = options.rule(steps_per_epoch)
        later = rule if options.memory is None or options.memory.weight is None else options.memory.weight
        loss = unpg(
            loss,
            scope=options.scope,
            weight=rule,
            keep=options.filter(),
            memory=memory,
            memory_weight=later,
            join=options.join,
        )
    return loss


def _build(registry: Registry[Any], settings: Mapping[str, Any], **given: Any) -> Any:
    rest = dict(settings)
    return registry.build(rest.pop("kind"), rest, **given)


def device_of(name: str, world: World = ALONE) -> torch.device:
    """The device that a run's setting means for this process: of several processes each has a GPU of its own.

    Raises:
        ConfigError: The setting is no device, there is no such one, or it is one GPU for several processes.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:<n>, got {name!r}.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {name}, but torch sees no GPU here. Set device: auto or cpu.")
    if world.alone or device.type != "cuda":
        return device
    if ":" in name:
        raise ConfigError(f"device is {name} in each of {world.size} processes. Set device: cuda; each takes its own.")
    if world.local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"Process {world.local_rank} of this machine finds {torch.cuda.device_count()} GPUs: start one process for "
            f"each (torchrun --nproc-per-node), or set device: cpu."
        )
    return torch.device("cuda", world.local_rank)


def located(settings: Any) -> Any:
    """Settings with ``$UNPG_DATA`` in texts replaced by the data root; it is only looked for where it is named."""
    if isinstance(settings, str):
        if _DATA_VARIABLE not in settings:
            return settings
        return settings.replace(_DATA_VARIABLE, os.fspath(data_root()))
    if isinstance(settings, Mapping):
        return {k: located(v) for k, v in settings.items()}
    if isinstance(settings, list | tuple):
        return [located(v) for v in settings]
    return settings


def _benchmark(name: str, held_out: ImageSet | None) -> Benchmark:
    if name == "held-out":
        assert held_out is not None, "the configuration checks this"
        return AllPairsBenchmark("held-out", held_out)
    return open_benchmark(located(name))


def _sampler(config: TrainConfig, images: ImageSet) -> Sampler:
    size = config.sampler.batch_size
    if config.sampler.kind == "uniform":
        return UniformSampler(len(images), size, config.seed, config.sampler.drop_last)
    k = config.sampler.images_per_identity
    return PKSampler(images.labels, size // k, k, config.seed)
