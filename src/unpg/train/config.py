"""A whole run in one dataclass. Every field is a setting in YAML and on the command line."""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from unpg.errors import ConfigError
from unpg.pairs import FILTERS, BoxWhisker, Filter, Scope
from unpg.similarity import Balanced, Scheduled, Share, Streaming, Weight, as_weight
from unpg.transforms.augment import Augment
from unpg.transforms.tensor import Preprocessing

__all__ = [
    "COMPUTED",
    "CheckpointConfig",
    "EvaluationConfig",
    "HeadConfig",
    "InitConfig",
    "MemoryConfig",
    "OptimConfig",
    "SamplerConfig",
    "TrainConfig",
    "UnpgConfig",
]


COMPUTED = frozenset(
    (
        "device",
        "threads",
        "compile",
        "workers",
        "log_every",
        "tensorboard",
        "timeout",
        "checkpoint",
        "checkpoint_epochs",
    )
)
"""Settings, and groups of them, that say where and how a run is computed, not what."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_choices(config: Any, path: str = "") -> None:
    """Raise unless each setting that is one of a few names is one: from Python nobody has looked yet."""
    for name, hint in get_type_hints(type(config)).items():
        value, allowed = getattr(config, name), get_args(hint)
        _require(
            get_origin(hint) is not Literal or value in allowed,
            f"{path}{name} must be one of {', '.join(map(str, allowed))}; got {value!r}.",
        )


def _require_epochs(value: float | None, setting: str, *, zero: bool = True) -> None:
    """Raise unless a number of epochs is finite, and > 0 or (``zero``) >= 0."""
    if value is not None and not (0 <= value < math.inf and (zero or value > 0)):
        raise ConfigError(f"{setting} must be a finite number of epochs {'>=' if zero else '>'} 0, got {value}.")


@dataclass(frozen=True)
class MemoryConfig:
    """Negatives from earlier batches, for UNPG.

    Args:
        size: Features that the queue holds.
        start_epoch: Epochs before it is used; may be a fraction.
        weight: How much its negatives count, a number or balanced; null follows unpg.weight and its schedule.
        follow: Whether old features are corrected by what the weights of their class have moved since.
    """

    size: int
    start_epoch: float = 0.0
    weight: float | Literal["balanced"] | None = None
    follow: bool = False

    def __post_init__(self) -> None:
        _require(self.size >= 1, f"unpg.memory.size must be >= 1, got {self.size}.")
        _require_epochs(self.start_epoch, "unpg.memory.start_epoch")
        if self.weight is not None:
            as_weight(self.weight)


@dataclass(frozen=True)
class HeadConfig:
    """Where class weights live, of losses that have any.

    Args:
        kind: full (every process has all), sharded (each process has a part of the classes), or sampled (sharded, and
            each step compares with a random part of them: Partial FC).
        rate: With sampled: the part of the classes that a step draws, besides those in its batch.
        lazy: With sampled, and SGD: classes that were not drawn catch up with weight decay and momentum before they
            are used again, as if SGD had moved them in every step; false leaves them as they are.
        init_std: Standard deviation of the numbers of drawn class weights. Only a weight's direction enters a loss, and
            a step turns a short one further: at .01 (arcface_torch) and 512 dimensions they begin with a length of .23;
            the codes of MagFace and AdaFace begin at 1, which is ``dim ** -0.5``.
    """

    kind: Literal["full", "sharded", "sampled"] = "full"
    rate: float = 1.0
    lazy: bool = False
    init_std: float = 0.01

    def __post_init__(self) -> None:
        _require_choices(self, "head.")
        _require(0 < self.init_std < math.inf, f"head.init_std must be a finite number > 0, got {self.init_std}.")
        _require(0 < self.rate <= 1, f"head.rate is a part of the classes in (0, 1], got {self.rate}.")
        _require(
            self.rate == 1 or self.kind == "sampled",
            f"head.rate is {self.rate}, but head.kind {self.kind} compares with all classes: set head.kind: sampled.",
        )
        _require(
            not self.lazy or self.kind == "sampled",
            f"head.lazy is for classes that a step leaves out, and head.kind {self.kind} leaves out none: set "
            f"head.kind: sampled, or head.lazy: false.",
        )


@dataclass(frozen=True)
class UnpgConfig:
    """Unified negative pair generation over the base loss.

    Args:
        r: Whisker length of the filter in interquartile ranges; .inf keeps every pair.
        scope: batch (all anchors share the batch's negatives) or anchor (each its own row).
        weight: How much the batch negatives count: a number (1 is the paper), balanced, or share.
        rho: With weight balanced: kept pairs count rho times as much as the negative classes.
        share: With weight share: the part of each row's negatives that the batch set takes.
        start_epoch: Epochs with the base loss alone; may be a fraction.
        ramp_epochs: Epochs over which the weight then rises linearly from 0.
        keep: Another filter in place of the box and whiskers of r: kind box-whisker (r, sides), quantile (lower,
            upper), top-k (k) or all.
        memory: Negatives from earlier batches too; null has none.
        join: union (one denominator for all negatives) or sum (a softmax loss for each set, times weight).
    """

    r: float = 1.5
    scope: Scope = "batch"
    weight: float | Literal["balanced", "share"] = 1.0
    rho: float = 1.0
    share: float = 0.5
    start_epoch: float = 0.0
    ramp_epochs: float = 0.0
    keep: dict[str, Any] | None = None
    memory: MemoryConfig | None = None
    join: Literal["union", "sum"] = "union"

    def __post_init__(self) -> None:
        _require_choices(self, "unpg.")
        _require_epochs(self.start_epoch, "unpg.start_epoch")
        _require_epochs(self.ramp_epochs, "unpg.ramp_epochs")
        for name, weight, default in ("rho", "balanced", UnpgConfig.rho), ("share", "share", UnpgConfig.share):
            value = getattr(self, name)
            _require(
                value == default or self.weight == weight,
                f"unpg.{name} is {value}, but unpg.weight {self.weight} has no {name}: set unpg.weight: {weight}, or "
                f"leave {name} out.",
            )
        self.rule(1)
        self.filter()

    def filter(self) -> Filter:
        """Which batch negatives to believe."""
        if self.keep is None:
            return BoxWhisker(self.r)
        _require(
            "kind" in self.keep, f"unpg.keep needs a kind, one of {', '.join(FILTERS)}, as in {{kind: top-k, k: 1000}}."
        )
        _require(
            self.r == BoxWhisker.r,
            f"unpg.r is {self.r}, but unpg.keep names the filter: write r in there (kind: box-whisker), or leave "
            f"keep out.",
        )
        chosen: Filter = FILTERS.build(self.keep["kind"], {k: v for k, v in self.keep.items() if k != "kind"})
        return chosen

    def rule(self, steps_per_epoch: int) -> Weight:
        """The weight rule, with epochs turned into optimizer steps."""
        rule: Weight
        if self.weight == "balanced":
            rule = Balanced(self.rho)
        elif self.weight == "share":
            rule = Share(self.share)
        else:
            rule = as_weight(self.weight)
        start, ramp = round(self.start_epoch * steps_per_epoch), round(self.ramp_epochs * steps_per_epoch)
        return Scheduled(start, ramp, rule) if start or ramp else rule


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning rate.

    Args:
        kind: sgd or adamw.
        lr: Peak learning rate.
        momentum: Of SGD.
        weight_decay: On all weights, as the authors do.
        schedule: cosine (to zero at the last step), steps (times gamma at each milestone) or constant.
        warmup_epochs: Epochs of linear warm-up from 0; may be a fraction.
        milestones: Epochs, for schedule steps.
        gamma: Factor at each milestone.
        clip_norm: Largest norm of the whole gradient; null does not clip.
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    warmup_epochs: float = 0.0
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        _require_choices(self, "optim.")
        _require(0 < self.lr < math.inf, f"optim.lr must be a finite number > 0, got {self.lr}.")
        _require(0 <= self.momentum < 1, f"optim.momentum must be in [0, 1), got {self.momentum}.")
        _require(
            0 <= self.weight_decay < math.inf,
            f"optim.weight_decay must be a finite number >= 0, got {self.weight_decay}.",
        )
        _require_epochs(self.warmup_epochs, "optim.warmup_epochs")
        for milestone in self.milestones:
            _require_epochs(milestone, "Each of optim.milestones")
        _require(0 < self.gamma <= 1, f"optim.gamma must be in (0, 1], got {self.gamma}.")
        _require(
            self.clip_norm is None or self.clip_norm > 0,
            f"optim.clip_norm must be > 0, or null for no clipping; got {self.clip_norm}.",
        )
        _require(
            self.schedule == "steps" or not self.milestones,
            f"optim.milestones are for schedule: steps; the schedule is {self.schedule}.",
        )
        _require(
            self.schedule != "steps" or len(self.milestones) > 0,
            "optim.schedule is steps: give optim.milestones, the epochs at which the rate falls.",
        )


@dataclass(frozen=True)
class SamplerConfig:
    """Which images make a batch.

    Args:
        kind: uniform (every image once an epoch) or pk (identities, and several images of each).
        batch_size: Images in a batch.
        images_per_identity: With pk; batch_size must be a multiple.
        drop_last: With uniform: leave out the images of an epoch that do not fill a batch, others each time; false
            makes a last, smaller batch of them, so that every image is seen exactly once an epoch.
    """

    kind: Literal["uniform", "pk"] = "uniform"
    batch_size: int = 256
    images_per_identity: int = 4
    drop_last: bool = True

    def __post_init__(self) -> None:
        _require_choices(self, "sampler.")
        _require(self.batch_size >= 1, f"sampler.batch_size must be >= 1, got {self.batch_size}.")
        k = self.images_per_identity
        _require(
            self.kind == "uniform" or (k >= 1 and self.batch_size % k == 0),
            f"sampler.batch_size ({self.batch_size}) must be a multiple of sampler.images_per_identity "
            f"({self.images_per_identity}).",
        )


@dataclass(frozen=True)
class EvaluationConfig:
    """Judging during and after training.

    Args:
        benchmarks: lfw, cfp-ff, cfp-fp, lfw-allpairs, a CSV of pairs, a folder of identities; and held-out, all pairs
            of the identities that hold_out keeps from training.
        every_epochs: Epochs between evaluations; null only evaluates at the end.
        flip: Whether the mirror image is embedded too: none, sum or concat.
        batch_size: Images at once.
    """

    benchmarks: tuple[str, ...] = ()
    every_epochs: float | None = None
    flip: Literal["none", "sum", "concat"] = "none"
    batch_size: int = 256

    def __post_init__(self) -> None:
        _require_choices(self, "evaluation.")
        _require_epochs(self.every_epochs, "evaluation.every_epochs", zero=False)


_FIGURE = re.compile(r"accuracy(_\w+)?|auc|(rank=[1-9]\d*|(tar@far|tpir@fpir)=[1-9](\.\d+)?e[+-]\d+)( \(mean - std\))?")
"""Names in a benchmark's ``metrics()``, so that a slip of the pen costs no epoch; whether this benchmark has it is seen
when it is judged."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Saving the state of a run.

    Args:
        every_steps: Optimizer steps between checkpoints; null goes by checkpoint_epochs.
        keep: How many of the newest stay. With two or more there is one to go back to if the newest is damaged.
        keep_every: Checkpoints after a multiple of so many steps stay for good; null has no such rule.
        best: A benchmark and a figure of it, as in held-out/auc or lfw/accuracy. When an evaluation during training
            finds it larger than ever, a checkpoint is written, and stays until a better one.
        asynchronous: Copy the state to the CPU's memory and write it while training goes on; the next save waits for
            the one before.
    """

    every_steps: int | None = None
    keep: int = 2
    keep_every: int | None = None
    best: str | None = None
    asynchronous: bool = False

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep_every"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"checkpoint.{name} must be >= 1 steps, or null; got {value}.")
        _require(self.keep >= 1, f"checkpoint.keep must be >= 1, got {self.keep}: a run needs its newest checkpoint.")
        if self.best is not None:
            benchmark, _, figure = self.best.rpartition("/")
            _require(
                bool(benchmark and figure),
                f"checkpoint.best must be <benchmark>/<figure>, as lfw/accuracy; got {self.best!r}.",
            )
            _require(
                not figure.startswith("eer") and not figure.endswith("_std"),
                f"checkpoint.best keeps the largest value, but {figure} is good when small. Take accuracy or auc.",
            )
            _require(
                _FIGURE.fullmatch(figure) is not None,
                f"checkpoint.best: {figure!r} is no figure of a benchmark. Pairs have accuracy, auc and tar@far=1e-3 "
                f"(and so on), all pairs auc and tar@far=1e-3, galleries rank=1, tpir@fpir=1e-1 and tar@far=1e-3.",
            )


@dataclass(frozen=True)
class InitConfig:
    """What a new run begins with, in place of weights drawn from the seed. Its optimizer and schedule begin afresh.

    Args:
        checkpoint: A checkpoint, or a run folder (its newest one): the network, and the class weights of identities
            known by name.
        model: A model file, which `unpg import` makes of weights of others: the network alone.
        class_weights: Of identities that bring none: drawn from the seed, or imprinted: the mean direction of up to
            20 of their embeddings by the network (Qi et al., arXiv 1712.07136), so that it is not pulled apart before
            drawn ones have found their places.
    """

    checkpoint: str | None = None
    model: str | None = None
    class_weights: Literal["drawn", "imprinted"] = "drawn"

    def __post_init__(self) -> None:
        _require(
            self.class_weights == "drawn" or self.checkpoint is not None or self.model is not None,
            "init.class_weights: imprinted takes embeddings of a network that has learned: give init.model or "
            "init.checkpoint.",
        )
        _require(
            self.checkpoint is None or self.model is None,
            "init.checkpoint and init.model both give the network's weights: give one of them.",
        )


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Args:
        data: The training set: kind folder (roots, exclude, min_images, allow_missing), recordio, list, csv, parquet,
            lmdb, webdataset, kface, joined, synthetic (identities, views, seed, size) or kface-twin, with its own
            settings (docs/how-to/data.md). ``$UNPG_DATA`` in a path is the data root (docs/data.md).
        loss: The loss: kind arcface, cosface, magface, adaface, triplet, ... (CONTENTS.md lists them), with its own
            settings (s, m, ...).
        backbone: The network: kind (small_iresnet, iresnet18, mobilefacenet, ...), dim, and its own settings.
        preprocessing: From aligned images to the network's input; becomes part of the model.
        unpg: Settings of UNPG over a loss with class weights; null trains the loss alone.
        streaming: How the similarities with class weights are computed: chunk (classes at once), keep_mib (what may be
            kept for the backward pass), products (float32 or bfloat16) and kernel (plain or triton). But for products,
            changes speed and memory, and results by rounding alone.
        head: Where the class weights live: kind full, sharded or sampled (rate, lazy).
        epochs: Passes over the data.
        seed: Of what training draws: weights, order, augmentation, dropout, the classes of a sampled head. Not of
            held-out identities (hold_out_seed), rendered data (data.seed) or elasticface's margins (loss.seed).
        hold_out: Share of the identities kept from training, for choosing settings; the benchmark held-out.
        hold_out_seed: Which identities those are. Apart from seed, so that seeds compare on the same split.
        sampler: Which images make a batch.
        augment: Random changes to the images.
        optim: Optimizer and learning rate.
        precision: fp32 (convolutions on a GPU in TF32, as is torch's default), bf16 or fp16 (with a gradient scaler) in
            the network's trunk; losses are float32 always.
        channels_last: Memory format of the network.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1, ...
        threads: CPU threads of torch; null leaves torch's choice.
        workers: Processes that decode images; 0 decodes in the training process.
        accumulate: Micro-batches per optimizer step, to fit a batch into memory.
        pairs: With accumulate > 1 and a loss that compares the images of a batch, or whose margin goes by the batch
            (adaface, curricularface, elasticface with sort): whole computes the network twice, and the loss once on
            all features, so that the gradient is the whole batch's (batch normalization sees micro-batches all the
            same); micro computes the loss of each micro-batch by itself, which is another loss.
        recompute: Keep only the input of each of the network's blocks for the backward pass and compute the rest
            again: the same numbers from a fraction of the memory, in a third more time.
        compile: Compile the network with torch.compile.
        timeout: With several processes (torchrun): seconds after which one that hears nothing from another gives up.
        global_batch_norm: With several processes: batch normalization over the batches of all of them, so that their
            number changes nothing; false uses each process's own, which makes the run depend on it.
        evaluation: Judging during and after training.
        log_every: Steps between lines of metrics.jsonl.
        checkpoint_epochs: Epochs between checkpoints; may be a fraction. There is always one at the end.
        checkpoint: Which checkpoints stay, and how they are written.
        init: What the run begins with; by default weights that are drawn from the seed.
        max_bad_steps: Stop after so many steps in a row whose loss or gradient is not finite; such steps are skipped.
        tensorboard: Also write TensorBoard events (extra "track").
    """

    data: dict[str, Any]
    loss: dict[str, Any] = field(default_factory=lambda: {"kind": "arcface"})
    backbone: dict[str, Any] = field(default_factory=lambda: {"kind": "iresnet18"})
    preprocessing: Preprocessing = Preprocessing(size=(112, 112))
    unpg: UnpgConfig | None = None
    streaming: Streaming = Streaming()
    head: HeadConfig = HeadConfig()
    epochs: int = 20
    seed: int = 0
    hold_out: float = 0.0
    hold_out_seed: int = 0
    sampler: SamplerConfig = SamplerConfig()
    augment: Augment = Augment()
    optim: OptimConfig = OptimConfig()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    device: str = "auto"
    threads: int | None = None
    workers: int = 0
    accumulate: int = 1
    pairs: Literal["whole", "micro"] = "whole"
    recompute: bool = False
    compile: bool = False
    global_batch_norm: bool = True
    timeout: float = 600.0
    evaluation: EvaluationConfig = EvaluationConfig()
    log_every: int = 10
    checkpoint_epochs: float = 1.0
    checkpoint: CheckpointConfig = CheckpointConfig()
    init: InitConfig = InitConfig()
    max_bad_steps: int = 10
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _require_choices(self)
        for name in ("data", "loss", "backbone"):
            _require("kind" in getattr(self, name), f"{name}.kind is missing: say which {name}, as in {{kind: ...}}.")
        for name in ("epochs", "accumulate", "log_every", "max_bad_steps"):
            _require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}.")
        _require(0 < self.timeout < math.inf, f"timeout must be a finite number of seconds > 0, got {self.timeout}.")
        _require(self.workers >= 0, f"workers must be >= 0, got {self.workers}.")
        _require(self.threads is None or self.threads >= 1, f"threads must be >= 1 or null, got {self.threads}.")
        _require(0 <= self.hold_out < 1, f"hold_out is a share of the identities in [0, 1), got {self.hold_out}.")
        _require_epochs(self.checkpoint_epochs, "checkpoint_epochs", zero=False)
        _require(
            not self.head.lazy or self.optim.kind == "sgd",
            f"head.lazy catches up with what SGD would have done; optim.kind is {self.optim.kind}. Set optim.kind: "
            f"sgd, or head.lazy: false.",
        )
        best = (self.checkpoint.best or "").rpartition("/")[0]
        _require(
            not best or (best in self.evaluation.benchmarks and self.evaluation.every_epochs is not None),
            f"checkpoint.best goes by {best!r}, which is not judged while training: name it in evaluation.benchmarks "
            f"and set evaluation.every_epochs.",
        )
        _require(
            "held-out" not in self.evaluation.benchmarks or self.hold_out > 0,
            "evaluation.benchmarks names held-out, but hold_out is 0: set hold_out to a share of the identities.",
        )
        _require(
            self.sampler.batch_size % self.accumulate == 0,
            f"sampler.batch_size ({self.sampler.batch_size}) must be a multiple of accumulate ({self.accumulate}).",
        )
