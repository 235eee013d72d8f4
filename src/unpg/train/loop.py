"""The training loop, to be read from top to bottom."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from unpg.config import from_yaml, to_dict, write_yaml
from unpg.data import Batch, Loader
from unpg.embed import Model
from unpg.errors import ConfigError, UnpgError
from unpg.evaluate import Result, embedder, save_results
from unpg.export import save_model
from unpg.losses import LossOutput, PairLoss, SumLoss, effective_rank
from unpg.pairs import ClassPairs, FeaturePairs
from unpg.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from unpg.train.config import TrainConfig
from unpg.train.faults import write_faults
from unpg.train.log import MetricsLog, finite
from unpg.train.monitor import CollapseMonitor
from unpg.train.optim import learning_rate
from unpg.train.picture import similarity_picture
from unpg.train.setup import Setup, prepare, resolve
from unpg.train.summary import RunSummary, environment

__all__ = ["Trained", "TrainingError", "train"]

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_PICTURE_BATCHES = 8


class TrainingError(UnpgError):
    """Training cannot go on."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What a run gives back, besides its folder.

    Attributes:
        summary: As in ``summary.json``.
        model: The trained network with its preprocessing, as in ``model.safetensors``.
        loss: Holds the class weights, where the loss has any.
        judged: The results of the last evaluation.
    """

    summary: RunSummary
    model: Model
    loss: PairLoss | SumLoss
    judged: tuple[Result, ...]


def train(config: TrainConfig, run: Path, *, resume: bool = False, console: Console | None = None) -> Trained:
    """Train, evaluate, and leave everything in the run folder.

    Args:
        config: The whole run.
        run: Folder for ``config.yaml``, ``metrics.jsonl``, ``checkpoints/``, ``model.safetensors``, ``results.json``,
            ``scores/``, ``similarities.json``, ``faults.jsonl`` and ``summary.json``.
        resume: Go on from the newest checkpoint in ``run``, in mid-epoch if it was taken there.
        console: Where to show progress; None shows nothing.

    Raises:
        ConfigError: A setting is wrong; ``run`` already holds a run and ``resume`` is false, or holds another one.
        DataError: The data are missing or broken.
        TrainingError: Loss or gradient stayed not finite.
    """
    console = console or Console(quiet=True)
    config = resolve(config)
    state = None
    if resume:
        state = _resumed(config, run)
    else:
        _require_unused(run)
    began = time.perf_counter()
    setup = prepare(config)
    if not resume:  # only now: a run that cannot start leaves no folder behind
        run.mkdir(parents=True, exist_ok=True)
        write_yaml(run / "config.yaml", config)
    _say_setup(console, setup)
    trainer = _Trainer(setup, run, console)
    if state is not None:
        trainer.restore(state)
        console.print(f"Resuming after step {trainer.step} of {setup.steps}.")
    trainer.log = MetricsLog(run, keep_until=trainer.step, tensorboard=config.tensorboard)
    with closing(trainer.log), trainer.loader:
        trainer.train()
        results = trainer.evaluate()
        save_results(run, results, model=run.name, flip=config.evaluation.flip, versions=environment())
        save_model(run / "model.safetensors", setup.model)
        _write_picture(run, trainer, results)
    summary = RunSummary(
        run=run.name,
        identities=len(setup.images.identities),
        images=len(setup.images),
        steps=trainer.step,
        epochs=config.epochs,
        seconds=round(time.perf_counter() - began, 1),
        images_per_second=round(trainer.images_per_second, 1),
        final_loss=trainer.recent.pop("loss", float("nan")),
        skipped_steps=trainer.skipped,
        unreadable=write_faults(run, trainer.loader.faults),
        statistics=trainer.recent,
        results={result.benchmark: result.metrics() for result in results},
        versions=environment(),
        data_digest=setup.images.digest(),
    )
    summary.write(run / "summary.json")
    console.print(summary.table())
    return Trained(summary, setup.model, setup.loss, tuple(results))


class _Trainer:
    """The moving parts of a run."""

    def __init__(self, setup: Setup, run: Path, console: Console) -> None:
        config = setup.config
        self.setup, self.run, self.console, self.config = setup, run, console, config
        self.loader = Loader(setup.images, setup.sampler, workers=config.workers)
        self.scaler = torch.amp.GradScaler(setup.device.type, enabled=config.precision == "fp16")
        self.monitor = CollapseMonitor()
        self.step = 0
        self.skipped = 0
        self.bad_in_a_row = 0
        self.told = 0  # unreadable images that have been shown
        self.recent: dict[str, float] = {}
        self.images_per_second = float("nan")
        self.log: MetricsLog

    def train(self) -> None:
        """Run the steps that are left."""
        setup, config = self.setup, self.config
        checkpoint_every = max(1, round(config.checkpoint_epochs * setup.steps_per_epoch))
        evaluate_every = round((config.evaluation.every_epochs or 0) * setup.steps_per_epoch)
        window = _Window()
        with self._progress() as progress:
            task = progress.add_task("training", total=setup.steps, completed=self.step, note="")
            for epoch, batch in self._batches():
                started = time.perf_counter()
                features, out, grad_norm = self._step(batch, epoch)
                self.step += 1
                window.add(len(batch.labels), time.perf_counter() - started)
                at = self.step / setup.steps_per_epoch
                if self.step % config.log_every == 0 or self.step == setup.steps:
                    self.images_per_second = window.rate()
                    self._log_step(at, features, out, grad_norm)
                if evaluate_every and self.step % evaluate_every == 0 and self.step < setup.steps:
                    self.evaluate()
                if self.step % checkpoint_every == 0 or self.step == setup.steps:
                    self.save()
                note = f"epoch {at:.1f}  loss {float(out.loss):.3f}  {window.rate():,.0f} images/s"
                progress.update(task, completed=self.step, note=note)

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        """The batches that are left, with their epochs."""
        first, offset = divmod(self.step, self.setup.steps_per_epoch)
        for epoch in range(first, self.config.epochs):
            for batch in self.loader.epoch(epoch, start_step=offset if epoch == first else 0):
                yield epoch, batch

    def _step(self, batch: Batch, epoch: int) -> tuple[Tensor, LossOutput, Tensor]:
        """Forward, backward and update; an update that is not finite is left out."""
        setup, config = self.setup, self.config
        rate = learning_rate(config.optim, self.step, steps=setup.steps, steps_per_epoch=setup.steps_per_epoch)
        for group in setup.optimizer.param_groups:
            group["lr"] = rate
        setup.model.backbone.train()
        setup.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=setup.device)
        for micro in _split(batch, config.accumulate):
            ids = micro.sample_ids.to(setup.device)
            images = config.augment(micro.images.to(setup.device, non_blocking=True), ids, config.seed, epoch)
            with torch.autocast(setup.device.type, _PRECISIONS[config.precision], enabled=config.precision != "fp32"):
                features = setup.model.backbone(config.preprocessing(images))
            labels = micro.labels.to(setup.device)
            out = setup.loss(features.float(), labels, step=self.step, sample_ids=ids)
            self.scaler.scale(out.loss / config.accumulate).backward()
            loss += out.loss.detach() / config.accumulate
        self.scaler.unscale_(setup.optimizer)
        parameters = [p for group in setup.optimizer.param_groups for p in group["params"]]
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, config.optim.clip_norm or float("inf"))
        if torch.isfinite(loss) and torch.isfinite(grad_norm):
            self.bad_in_a_row = 0
            self.scaler.step(setup.optimizer)
        else:
            self._bad_step(loss, grad_norm)
        self.scaler.update()
        return features.detach(), replace(out, loss=loss, per_anchor=out.per_anchor.detach()), grad_norm

    def _bad_step(self, loss: Tensor, grad_norm: Tensor) -> None:
        self.skipped += 1
        self.bad_in_a_row += 1
        at = self.step / self.setup.steps_per_epoch
        self.log.write("skipped", self.step, at, loss=float(loss), grad_norm=float(grad_norm))
        if self.bad_in_a_row >= self.config.max_bad_steps:
            raise TrainingError(
                f"Loss or gradient was not finite in {self.bad_in_a_row} steps in a row, the last of them step "
                f"{self.step} (loss {float(loss)}, gradient norm {float(grad_norm)}). The newest checkpoint in "
                f"{self.run} is from before. Try a smaller optim.lr, optim.clip_norm, a longer optim.warmup_epochs, "
                f"or precision: fp32."
            )

    def _log_step(self, at: float, features: Tensor, out: LossOutput, grad_norm: Tensor) -> None:
        statistics = {name: float(value) for name, value in out.statistics.items()}
        statistics["effective_rank"] = float(effective_rank(features))
        self.log.write(
            "step",
            self.step,
            at,
            loss=float(out.loss),
            lr=self.setup.optimizer.param_groups[0]["lr"],
            grad_norm=float(grad_norm),
            images_per_second=self.images_per_second,
            statistics=statistics,
        )
        self.recent = {"loss": float(out.loss), **statistics}
        warning = self.monitor.look(at, statistics)
        if warning is not None:
            self.log.write("warning", self.step, at, text=warning)
            self.console.print(f"[bold]Warning:[/bold] {warning}")
        write_faults(self.run, self.loader.faults)
        for fault in self.loader.faults[self.told :]:
            self.console.print(f"Unreadable: {fault.name} ({fault.reason}); {fault.substitute} stands in.")
        self.told = len(self.loader.faults)

    def evaluate(self) -> list[Result]:
        """Judge the network as it is on every benchmark."""
        setup, options = self.setup, self.config.evaluation
        embed = embedder(setup.model, flip=options.flip, batch_size=options.batch_size)
        results = [benchmark.run(embed) for benchmark in setup.benchmarks]
        if results:
            shown = {result.benchmark: result.metrics() for result in results}
            self.log.write("evaluation", self.step, self.step / setup.steps_per_epoch, results=shown)
        return results

    def save(self) -> None:
        """Write a checkpoint of the run as it stands between two steps."""
        setup = self.setup
        state = {
            "config": to_dict(self.config),
            "data": setup.images.digest(),
            "backbone": setup.model.backbone.state_dict(),
            "loss": setup.loss.state_dict(),
            "optimizer": setup.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "skipped": self.skipped,
        }
        if setup.device.type == "cuda":
            state["rng_cuda"] = torch.cuda.get_rng_state(setup.device)
        save_checkpoint(self.run, self.step, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint.

        Raises:
            ConfigError: The data have changed since.
        """
        setup = self.setup
        if state["data"] != setup.images.digest():
            raise ConfigError(
                f"The training set is not the one that the checkpoint in {self.run} was trained on (another list of "
                f"images, identities or file sizes). Restore it, or start a new run in another folder."
            )
        setup.model.backbone.load_state_dict(state["backbone"])
        setup.loss.load_state_dict(state["loss"])
        setup.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if "rng_cuda" in state and setup.device.type == "cuda":
            torch.cuda.set_rng_state(state["rng_cuda"], setup.device)
        self.step, self.skipped = state["step"], state["skipped"]

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=not self.console.is_terminal,
        )


class _Window:
    """Images per second over the last steps."""

    def __init__(self, steps: int = 50) -> None:
        self._steps: list[tuple[int, float]] = []
        self._most = steps

    def add(self, images: int, seconds: float) -> None:
        self._steps = [*self._steps[1 - self._most :], (images, seconds)]

    def rate(self) -> float:
        seconds = sum(s for _, s in self._steps)
        return sum(n for n, _ in self._steps) / seconds if seconds > 0 else float("nan")


def _split(batch: Batch, parts: int) -> Iterator[Batch]:
    columns = [column.chunk(parts) for column in batch]
    return (Batch(*micro) for micro in zip(*columns, strict=True))


def _require_unused(run: Path) -> None:
    """Raise unless a new run may be written to the folder."""
    if (run / "config.yaml").exists():
        raise ConfigError(
            f"{run} already holds a run. Add --resume to go on with it, or choose another folder with --out."
        )


def _resumed(config: TrainConfig, run: Path) -> dict[str, Any] | None:
    """The state of the newest checkpoint of the run in the folder; None if it had none yet."""
    saved = run / "config.yaml"
    if not saved.exists():
        raise ConfigError(f"{run} holds no run to resume: it has no config.yaml. Leave --resume out to start one.")
    before = to_dict(from_yaml(TrainConfig, saved))
    changed = _differences(before, to_dict(config))
    if changed:
        raise ConfigError(
            f"{run} was started with other settings: {'; '.join(changed)}. Resume with the same ones (--config "
            f"{saved}), or start a new run in another folder."
        )
    newest = latest_checkpoint(run)
    return load_checkpoint(newest) if newest is not None else None


_MAY_CHANGE = ("workers", "streaming", "threads", "log_every", "tensorboard", "device", "checkpoint_epochs")


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = [n for n in {**before, **now} if path or n not in _MAY_CHANGE]
        inside = [_differences(before.get(n), now.get(n), f"{path}.{n}" if path else n) for n in names]
        return [difference for part in inside for difference in part]
    return [] if before == now else [f"{path} was {before!r}, is now {now!r}"]


def _write_picture(run: Path, trainer: _Trainer, results: list[Result]) -> None:
    setup = trainer.setup
    batches = islice(trainer.loader.epoch(0), _PICTURE_BATCHES)
    picture = similarity_picture(setup.model, setup.loss, batches, setup.device, results)
    (run / "similarities.json").write_text(json.dumps(finite(picture)) + "\n", encoding="utf-8")


def _few_positives(setup: Setup) -> str | None:
    """A warning, if a loss over the pairs of a batch will find next to no positive pairs there."""
    weightless = not any(isinstance(module, ClassPairs | FeaturePairs) for module in setup.loss.modules())
    if setup.config.sampler.kind != "uniform" or not weightless:
        return None
    _, images = np.unique(setup.images.labels, return_counts=True)
    batch, n = setup.config.sampler.batch_size, images.sum()
    positives = (batch - 1) * float((images * (images - 1)).sum()) / max(n * (n - 1), 1)
    if positives >= 1:
        return None
    return (
        f"{setup.config.loss['kind']} compares the images of a batch, and of {batch} images drawn evenly one has "
        f"{positives:.2f} others of its person on average. Set sampler.kind: pk."
    )


def _say_setup(console: Console, setup: Setup) -> None:
    config = setup.config
    parameters = sum(p.numel() for p in setup.model.backbone.parameters())
    size = f"{parameters / 1e6:.2f} M parameters, input {config.preprocessing.size}"
    console.print(f"data      {len(setup.images.identities):,} identities, {len(setup.images):,} images")
    console.print(f"backbone  {setup.model.kind}, {size}")
    console.print(f"loss      {config.loss}" + (f" with {config.unpg}" if config.unpg else ""))
    console.print(
        f"training  {config.epochs} epochs x {setup.steps_per_epoch} steps of {config.sampler.batch_size} images on "
        f"{setup.device}, {config.precision}"
    )
    warning = _few_positives(setup)
    if warning is not None:
        console.print(f"[bold]Warning:[/bold] {warning}")
