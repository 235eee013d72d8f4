"""One run of a study, in a process of its own: ``python -m unpg.study.job <run folder>``.

The folder holds ``job.json``, and afterwards what ``unpg train`` leaves, ``result.json`` (the run's part of its line)
and, of a final run, ``replicates.npz``. A folder that a killed process left is gone on with from its newest checkpoint.
"""

import dataclasses
import fcntl
import json
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from unpg.config import from_dict, to_dict
from unpg.data import ImageSet
from unpg.embed import SharedEmbeddings
from unpg.errors import ConfigError, UnpgError
from unpg.evaluate import (
    AllPairsBenchmark,
    AllPairsResult,
    Bootstrap,
    Distribution,
    PairResult,
    Replicates,
    Roc,
    Wdfs,
    open_benchmark,
)
from unpg.export import load_model
from unpg.json_file import read_json_object
from unpg.train import Diverged, TrainConfig, train
from unpg.train.fork import fork
from unpg.train.log import finite
from unpg.train.setup import device_of, located, resolve
from unpg.train.summary import environment

__all__ = ["JOB", "REPLICATES", "RESULT", "Job", "main"]

JOB, SHARED, RESULT, REPLICATES = "job.json", "shared.json", "result.json", "replicates.npz"

CURVE_FARS = tuple(float(f"{far:.3g}") for far in np.geomspace(1e-6, 1e-1, 31))
"""FARs of the curves that a line keeps, six a decade."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What the process is to do.

    Attributes:
        config: The training run.
        digest: Of the run; a result of another one is made anew.
        benchmarks: Test sets to judge with intervals afterwards; none for a trial, which judges held-out people.
        flip: Of the mirror image, as in :class:`~unpg.train.EvaluationConfig`, when judging them.
        intervals: Draws of the bootstrap.
        prefix: Folder of a finished run that is the same until UNPG starts; see :func:`unpg.train.fork.fork`.
    """

    config: TrainConfig
    digest: str
    benchmarks: tuple[str, ...]
    flip: Literal["none", "sum", "concat"]
    intervals: Bootstrap
    prefix: str | None = None

    def write(self, folder: Path) -> None:
        """Write ``job.json``, whole or not at all."""
        _write(folder / JOB, json.dumps(to_dict(self)))  # an infinite r stays one


def run(folder: Path) -> None:
    """Do the job of ``folder``, and write ``result.json``.

    Raises:
        ConfigError: Another process is at this folder.
        UnpgError: As :func:`unpg.train.train`, but for a run that diverged: that is a result.
    """
    job = from_dict(Job, read_json_object(folder / JOB))
    handle = os.open(folder, os.O_RDONLY)  # the lock ends with the process
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"Another process is at {folder}; wait until it has ended.") from None
    console = Console(highlight=False)
    try:
        result = {"digest": job.digest, "diverged": "", **_trained(job, folder, console)}
    except Diverged as error:
        result = {"digest": job.digest, "diverged": str(error), "scores": {}}
    else:
        if job.benchmarks:
            result |= _judged(job, folder, console)
    _write(folder / RESULT, json.dumps(finite(result), allow_nan=False))


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, or that of the error that is printed."""
    threading.Thread(target=_stop_with, args=(os.getppid(),), daemon=True).start()
    try:
        run(Path(arguments[0]))
    except UnpgError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _trained(job: Job, folder: Path, console: Console) -> dict[str, Any]:
    """What training says of itself; trains unless that is done."""
    begun = (folder / "config.yaml").exists()
    if not (folder / "summary.json").exists():
        if job.prefix is not None and not begun:
            steps = fork(Path(job.prefix), resolve(job.config), folder)
            _write(folder / SHARED, json.dumps({"steps": steps}))
            console.print(f"The first {steps} steps are those of {job.prefix}.")
        train(job.config, folder, resume=(folder / "config.yaml").exists(), console=console)
    shared = read_json_object(folder / SHARED)["steps"] if (folder / SHARED).exists() else 0
    summary = read_json_object(folder / "summary.json")
    taken = ("seconds", "images_per_second", "images", "identities", "steps", "epochs", "final_loss")
    return {
        **{name: summary[name] for name in (*taken, "skipped_steps", "unreadable", "data_digest")},
        "shared_steps": shared,
        "resumed": begun,  # its seconds are those of the last process
        "by_epoch": _by_epoch(folder),
        "scores": summary["results"],
        "machine": _machine(job.config),
        "versions": environment(),
    }


def _judged(job: Job, folder: Path, console: Console) -> dict[str, Any]:
    """Figures, curves, similarities and replicates of the last checkpoint on every benchmark."""
    began = time.perf_counter()
    device = str(device_of(job.config.device))
    model = load_model(folder / "model.safetensors")
    shared = SharedEmbeddings(model, flip=job.flip, batch_size=job.config.evaluation.batch_size, device=device)

    def embed(images: ImageSet) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        embeddings = shared(images)
        return embeddings.vectors, embeddings.norms

    found: dict[str, dict[str, Any]] = {"scores": {}, "curves": {}, "similarities": {}, "intervals": {}}
    replicates: dict[str, NDArray[np.float32]] = {}
    for name in job.benchmarks:
        benchmark = open_benchmark(located(name))
        if isinstance(benchmark, AllPairsBenchmark):
            benchmark = dataclasses.replace(benchmark, evidence=True, device=device)
        result = benchmark.run(embed)
        if not isinstance(result, PairResult | AllPairsResult):
            raise ConfigError(f"The benchmark {name!r} of a study must be a list of pairs or all pairs of a set.")
        result = result.with_intervals(job.intervals)
        roc = result.operating_points()
        found["scores"][name] = result.metrics()
        found["curves"][name] = _curve(roc)
        found["similarities"][name] = _similarities(roc)
        if result.replicates is not None and result.intervals is not None:
            found["intervals"][name] = _described(result.replicates, result.intervals.effective_units)
            replicates[name] = result.replicates.values.astype(np.float32)
        console.print(f"{name}: judged")
    partial = folder / f"{REPLICATES}.partial"
    with partial.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **replicates)
    partial.replace(folder / REPLICATES)
    return {**found, "evaluation_seconds": round(time.perf_counter() - began, 1)}


def _described(replicates: Replicates, effective: float) -> dict[str, Any]:
    return {
        "figures": list(replicates.figures),
        "replicates": len(replicates.values),
        "seed": replicates.seed,
        "unit": replicates.unit,
        "digest": replicates.digest,
        "effective_units": effective,
    }


def _curve(roc: Roc) -> dict[str, list[float]]:
    """TAR over FAR; FARs that the pairs cannot resolve are left out."""
    points = [(far, roc.tar_at_far(far).value) for far in CURVE_FARS]
    return {
        "far": [far for far, tar in points if tar is not None],
        "tar": [round(tar, 6) for _, tar in points if tar is not None],
    }


def _similarities(roc: Roc) -> dict[str, float]:
    """What WDFS asks of the pairs; see :class:`unpg.evaluate.wdfs.Wdfs`."""
    wdfs = Wdfs(*Distribution.of_roc(roc))
    return {
        "inf_positive": wdfs.positives.minimum,
        "sup_negative": wdfs.negatives.maximum,
        "robust_inf_positive": wdfs.robust_inf,
        "robust_sup_negative": wdfs.robust_sup,
        "mean_positive": wdfs.positives.mean,
        "mean_negative": wdfs.negatives.mean,
        "overlap": wdfs.overlap,
        "violation": wdfs.violation,
    }


def _machine(config: TrainConfig) -> dict[str, Any]:
    device = device_of(config.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"device": name, "processor": processor, "cores": os.cpu_count()}


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _by_epoch(folder: Path) -> dict[str, list[float | None]]:
    """Means over the logged steps of each epoch: loss, gradient norm, and what the loss says of itself."""
    epochs: dict[int, list[dict[str, float]]] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "step":
            values = {"loss": event["loss"], "grad_norm": event["grad_norm"], **event["statistics"]}
            # The last step of an epoch stands at a whole number.
            epochs.setdefault(math.ceil(event["epoch"]) - 1, []).append(values)
    names = dict.fromkeys(name for steps in epochs.values() for values in steps for name in values)
    # Of an epoch shorter than `log_every` there may be no step; it keeps its place.
    every = range(max(epochs, default=-1) + 1)
    return {name: [_mean([v.get(name) for v in epochs.get(e, [])]) for e in every] for name in names}


def _mean(values: Sequence[float | None]) -> float | None:
    real = [value for value in values if value is not None]
    return float(f"{sum(real) / len(real):.4g}") if real else None


def _stop_with(parent: int) -> None:
    """Save and end when the process that started this one has gone: nobody would write the result down."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
