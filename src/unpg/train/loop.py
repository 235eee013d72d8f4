"""The training loop, to be read from top to bottom."""

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unpg.config import write_yaml
from unpg.data import Batch, Fault, Loader
from unpg.data.loader import WorkerError
from unpg.distributed import ALONE, World, everyones, gather, largest, lost_peer
from unpg.embed import Model, weights_digest
from unpg.errors import ConfigError, DataError
from unpg.evaluate import Result, save_results
from unpg.export import save_model
from unpg.losses import PairLoss, SumLoss, effective_rank
from unpg.pairs import ClassPairs, FeaturePairs
from unpg.train.begin import begin
from unpg.train.config import TrainConfig
from unpg.train.faults import Diverged, TrainingError, changed_on_disk, explained, together, write_faults
from unpg.train.imprint import IMAGES
from unpg.train.log import MetricsLog, NoLog, finite
from unpg.train.monitor import CollapseMonitor, early_start
from unpg.train.parallel import catch_up, shared_embedder, split_rows
from unpg.train.picture import similarity_picture
from unpg.train.resume import (
    choose_checkpoint,
    conditions,
    leave_behind,
    note_data,
    open_checkpoint,
    promise,
    require_same_data,
    require_same_settings,
)
from unpg.train.saver import Saver
from unpg.train.setup import Setup, prepare, resolve
from unpg.train.snapshot import Counters, put_back, take
from unpg.train.step import Stepped, Stepper
from unpg.train.stop import Stopped, StopRequest
from unpg.train.summary import RunSummary, environment

__all__ = ["Trained", "TrainingError", "train"]

_PICTURE_BATCHES = 8
_RESTARTED = "The workers were started again; batches are what they would have been."


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


def train(
    config: TrainConfig,
    run: Path,
    *,
    resume: bool = False,
    resume_from: Path | None = None,
    console: Console | None = None,
    world: World = ALONE,
) -> Trained:
    """Train, evaluate, and leave everything in the run folder.

    Of several processes, all call it at once; what is written once, and shown, comes from the first.

    Args:
        config: The whole run.
        run: Folder for ``config.yaml``, ``metrics.jsonl``, ``checkpoints/``, ``model.safetensors``, ``results.json``,
            ``scores/``, ``similarities.json``, ``faults.jsonl`` and ``summary.json``.
        resume: Go on from the newest checkpoint in ``run``, in mid-epoch if it was taken there.
        resume_from: With ``resume``, another checkpoint of ``run`` to go on from; newer ones are set aside.
        console: Where to show progress; None shows nothing.
        world: The processes that share the run.

    Raises:
        ConfigError: A setting is wrong; ``run`` already holds a run and ``resume`` is false, or holds another one.
        DataError: The data are missing or broken, or a checkpoint is damaged or could not be written.
        Diverged: Loss or gradient stayed not finite.
        TrainingError: Memory did not suffice, or another process has gone.
        Stopped: SIGTERM or SIGINT came; the state is saved.
    """
    console = console if console is not None and world.first else Console(quiet=True)
    with together(world, lambda: _go_on(run, world)):
        return _train(resolve(config), run, resume, resume_from, console, world)


def _train(
    config: TrainConfig, run: Path, resume: bool, resume_from: Path | None, console: Console, world: World
) -> Trained:
    chosen = None
    if resume:
        require_same_settings(config, run)
        chosen = choose_checkpoint(run, resume_from)
    else:
        _require_unused(run)
    began = time.perf_counter()
    setup = prepare(config, world)
    if chosen is None and config.init.class_weights == "imprinted":
        console.print(f"Embedding up to {IMAGES} images of each identity, for the class weights ...")
    begun = begin(setup, split_rows(setup.loss)) if chosen is None else None
    world.barrier()
    if not resume and world.first:  # only now: a run that cannot start leaves no folder behind
        run.mkdir(parents=True, exist_ok=True)
        write_yaml(run / "config.yaml", config)
    world.barrier()
    _say_setup(console, setup)
    if begun is not None:
        console.print(begun, markup=False)
    trainer = _Trainer(setup, run, console)
    if chosen is not None:
        trainer.restore(chosen)
        if world.first:
            note_data(run, setup.config)
    trainer.log = MetricsLog(run, keep_until=trainer.step, tensorboard=config.tensorboard) if world.first else NoLog()
    with closing(trainer.log), trainer.loader, trainer.saver:
        with trainer.stop:
            trainer.train()
        trainer.saver.wait()
        catch_up(setup.loss)
        results = trainer.evaluate()
        picture = _picture(trainer, results)
        unreadable = trainer.all_faults()
        if world.first:
            save_results(
                run,
                results,
                model=run.name,
                flip=config.evaluation.flip,
                versions=environment(),
                weights_digest=weights_digest(setup.model.backbone),
            )
            save_model(run / "model.safetensors", setup.model)
            (run / "similarities.json").write_text(json.dumps(finite(picture)) + "\n", encoding="utf-8")
        changed = changed_on_disk(setup.images, trainer.data)
        if changed is not None:
            trainer.warn(changed)
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
        unreadable=unreadable,
        statistics=trainer.recent,
        results={result.benchmark: result.metrics() for result in results},
        versions=environment(),
        data_digest=trainer.data,
    )
    if world.first:
        summary.write(run / "summary.json")
    world.barrier()
    console.print(summary.table())
    return Trained(summary, setup.model, setup.loss, tuple(results))


class _Trainer:
    """The moving parts of a run."""

    def __init__(self, setup: Setup, run: Path, console: Console) -> None:
        config = setup.config
        self.setup, self.run, self.console, self.config = setup, run, console, config
        self.world = setup.world
        self.stepper = Stepper(setup)
        self.loader = Loader(setup.images, setup.sampler, workers=config.workers)
        self.monitor = CollapseMonitor()
        self.step = 0
        self.skipped = 0
        self.bad_in_a_row = 0
        self.told = 0  # unreadable images that have been shown
        self.restarts = 0  # of data workers, likewise
        self.best: tuple[int, float] | None = None  # step and value of the best evaluation
        self.data = setup.images.digest()
        self.shared = split_rows(setup.loss)
        self.saver = Saver(run, config.checkpoint, self.world.side_group())
        # When one process dies torchrun sends SIGTERM to the others at once, and SIGKILL half a minute later: time to
        # say what has happened and how to go on.
        self.stop = StopRequest(lambda error: not setup.world.alone and lost_peer(error))
        self.recent: dict[str, float] = {}
        self.images_per_second = float("nan")
        self.log: MetricsLog | NoLog

    def train(self) -> None:
        """Run the steps that are left."""
        setup, config = self.setup, self.config
        checkpoint_every = config.checkpoint.every_steps or max(
            1, round(config.checkpoint_epochs * setup.steps_per_epoch)
        )
        between = config.evaluation.every_epochs
        evaluate_every = None if between is None else max(1, round(between * setup.steps_per_epoch))
        window = _Window()
        with self._progress() as progress:
            task = progress.add_task("training", total=setup.steps, completed=self.step, note="")
            for epoch, batch in self._batches():
                started = time.perf_counter()
                with explained(config, self.step, len(setup.images.identities), self.run, self.world):
                    done = self.stepper(batch, epoch, self.step)
                    self._count(done)
                self.step += 1
                window.add(setup.batch_size(self.step - 1), time.perf_counter() - started)
                at = self.step / setup.steps_per_epoch
                if self.step % config.log_every == 0 or self.step == setup.steps:
                    self.images_per_second = window.rate()
                    self._log_step(at, done)
                if evaluate_every is not None and self.step % evaluate_every == 0 and self.step < setup.steps:
                    self.evaluate()
                best_now = self.best is not None and self.best[0] == self.step
                if self.step % checkpoint_every == 0 or self.step == setup.steps or best_now:
                    self.save()
                note = f"epoch {at:.1f}  loss {float(done.out.loss):.3f}  {window.rate():,.0f} images/s"
                progress.update(task, completed=self.step, note=note)
                if self._stopping():
                    break
        if self.stop.signal is not None:
            self._stop(self.stop.signal)

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        """The batches that are left, with their epochs."""
        first, offset = divmod(self.step, self.setup.steps_per_epoch)
        try:
            for epoch in range(first, self.config.epochs):
                for batch in self.loader.epoch(epoch, start_step=offset if epoch == first else 0):
                    if self.loader.restarts > self.restarts:
                        self.restarts = self.loader.restarts
                        self.warn(f"A data worker process ended (killed, or out of memory?). {_RESTARTED}")
                    yield epoch, batch
        except DataError as error:
            if self.stop.signal is not None and isinstance(error, WorkerError):
                return  # whoever ended this process ended the workers too
            if not self.world.alone:  # the others wait for us in a step, and cannot save
                raise type(error)(f"{self.world.name}{error} {_go_on(self.run, self.world)}") from error
            self.save()  # we are between two steps
            self.saver.wait()
            raise type(error)(
                f"{error} The state after step {self.step} is saved. {_go_on(self.run, self.world)}"
            ) from error

    def _stopping(self) -> bool:
        """Whether a signal came, to whichever process: all of them stop after the same step."""
        if not self.world.alone:
            found = largest(torch.tensor(int(self.stop.signal or 0), device=self.setup.device), self.world)
            self.stop.signal = signal.Signals(int(found)) if int(found) else None
        return self.stop.signal is not None

    def _count(self, done: Stepped) -> None:
        """Count steps whose loss or gradient was not finite; too many in a row end the run."""
        if done.updated:
            self.bad_in_a_row = 0
        else:
            self._bad_step(done.out.loss, done.grad_norm)

    def _bad_step(self, loss: torch.Tensor, grad_norm: torch.Tensor) -> None:
        self.skipped += 1
        self.bad_in_a_row += 1
        step = self.step + 1  # as in the other events: a resumed run writes it again if it comes after the checkpoint
        at = step / self.setup.steps_per_epoch
        self.log.write("skipped", step, at, loss=float(loss), grad_norm=float(grad_norm))
        if self.bad_in_a_row >= self.config.max_bad_steps:
            raise Diverged(
                f"Loss or gradient was not finite in {self.bad_in_a_row} steps in a row, the last of them step "
                f"{step} (loss {float(loss)}, gradient norm {float(grad_norm)}). The newest checkpoint in "
                f"{self.run} is from before. Try a smaller optim.lr, optim.clip_norm, a longer optim.warmup_epochs, "
                f"or precision: fp32."
            )

    def _log_step(self, at: float, done: Stepped) -> None:
        out = done.out
        statistics = {name: float(value) for name, value in out.statistics.items()}
        statistics["effective_rank"] = float(effective_rank(gather(done.features, self.world)))
        self.log.write(
            "step",
            self.step,
            at,
            loss=float(out.loss),
            lr=self.setup.optimizer.param_groups[0]["lr"],
            grad_norm=float(done.grad_norm),
            images_per_second=self.images_per_second,
            statistics=statistics,
        )
        shared = self.config.unpg is not None and self.config.unpg.weight == "share"
        warnings = [self.monitor.look(at, statistics), None if shared else early_start(self.recent, statistics)]
        self.recent = {"loss": float(out.loss), **statistics}
        for warning in filter(None, warnings):
            self.warn(warning)
        if self.world.first:
            write_faults(self.run, self.loader.faults)
        for fault in self.loader.faults[self.told :]:
            self.console.print(
                f"Unreadable: {fault.name} ({fault.reason}); {fault.substitute} stands in.", markup=False
            )
        self.told = len(self.loader.faults)

    def all_faults(self) -> int:
        """How many images could not be read, in all processes; listed in the run."""
        found = [Fault(*fault) for of_one in everyones(self.loader.faults, self.world) for fault in of_one]
        return write_faults(self.run, found) if self.world.first else 0

    def warn(self, text: str) -> None:
        """On the screen and in the log."""
        self.log.write("warning", self.step, self.step / self.setup.steps_per_epoch, text=text)
        self.console.print(f"[bold]Warning:[/bold] {escape(text)}")

    def evaluate(self) -> list[Result]:
        """Judge the network as it is on every benchmark."""
        setup, options = self.setup, self.config.evaluation
        embed = shared_embedder(setup.model, self.world, flip=options.flip, batch_size=options.batch_size)
        results = [benchmark.run(embed) for benchmark in setup.benchmarks]
        if results:
            shown = {result.benchmark: result.metrics() for result in results}
            self.log.write("evaluation", self.step, self.step / setup.steps_per_epoch, results=shown)
        self._note_best(results)
        return results

    def save(self) -> None:
        """Write a checkpoint of the run as it stands between two steps."""
        counters = Counters(self.step, self.skipped, self.bad_in_a_row, self.monitor.seen, self.best, dict(self.recent))
        state = take(
            self.setup, self.stepper.scaler, counters, data=self.data, shared=self.shared, group=self.saver.group
        )
        self.saver.save(self.step, state, best=None if self.best is None else self.best[0])

    def restore(self, path: Path) -> None:
        """Take over a checkpoint of this run, and say what that is worth.

        Raises:
            DataError: It is damaged.
            ConfigError: The data have changed since.
        """
        setup, group = self.setup, self.saver.group
        checkpoint = open_checkpoint(self.run, path, shared=self.shared, group=group)
        require_same_data(checkpoint.identities, checkpoint.values["data"], setup.images, path)
        counters = put_back(checkpoint, setup, self.stepper.scaler, group)
        self.step, self.skipped, self.bad_in_a_row = counters.step, counters.skipped, counters.bad_in_a_row
        self.monitor.seen, self.best, self.recent = counters.alarms, counters.best, counters.recent
        self.saver.last = self.step
        if counters.best is None and checkpoint.values["counters"].get("best") is not None:
            self.console.print("checkpoint.best was another figure: the best value so far is not compared with.")
        worth = promise(checkpoint.values["conditions"], conditions(setup, self.world.size))
        self.console.print(f"Resuming after step {self.step} of {setup.steps}. {worth}")
        for place in leave_behind(self.run, path) if self.world.first else ():
            self.console.print(f"Set aside, since the run goes on from before it: {place}", markup=False)

    def _stop(self, number: signal.Signals) -> None:
        self.save()
        self.saver.wait()
        raise Stopped(
            f"stopped by {number.name} after step {self.step} of {self.setup.steps}; the state is saved. "
            f"{_go_on(self.run, self.world)}",
            number,
        )

    def _note_best(self, results: Sequence[Result]) -> None:
        """Remember the evaluation if its ``checkpoint.best`` is the largest so far."""
        if self.config.checkpoint.best is None or self.step == self.setup.steps:
            return
        benchmark, _, figure = self.config.checkpoint.best.rpartition("/")
        metrics = results[self.config.evaluation.benchmarks.index(benchmark)].metrics()
        if figure not in metrics:
            raise ConfigError(
                f"checkpoint.best asks for {figure} of {benchmark}, which gives {', '.join(metrics)}: name one of them."
            )
        if self.best is None or metrics[figure] > self.best[1]:
            self.best = (self.step, metrics[figure])

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


def _go_on(run: Path, world: World) -> str:
    """How to go on with a run, a sentence."""
    if not (run / "config.yaml").exists():
        return "Nothing was trained yet: start the run again."
    start = "unpg" if world.alone else f"torchrun --nproc-per-node {world.size} -m unpg"
    return f"Go on with: {start} train --config {run / 'config.yaml'} --out {run} --resume"


def _require_unused(run: Path) -> None:
    """Raise unless a new run may be written to the folder."""
    if (run / "config.yaml").exists():
        raise ConfigError(
            f"{run} already holds a run. Add --resume to go on with it, or choose another folder with --out."
        )


def _picture(trainer: _Trainer, results: list[Result]) -> dict[str, Any]:
    setup = trainer.setup
    batches = islice(trainer.loader.epoch(0), _PICTURE_BATCHES)
    return similarity_picture(setup.model, setup.loss, batches, setup.device, results, setup.world)


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


def _idle_unpg(setup: Setup) -> str | None:
    """What to say of UNPG that would begin after the last step."""
    options, epochs = setup.config.unpg, setup.config.epochs
    if options is None or round(options.start_epoch * setup.steps_per_epoch) < setup.steps:
        return None
    return (
        f"unpg.start_epoch is {options.start_epoch:g}, and after {epochs} epochs the run is over: UNPG never begins. "
        "Start it earlier, or set unpg: null."
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
    for warning in (_few_positives(setup), _idle_unpg(setup)):
        if warning is not None:
            console.print(f"[bold]Warning:[/bold] {warning}")
