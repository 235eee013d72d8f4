"""What can go wrong while training: images that could not be read, listed in the run; memory that did not suffice."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from unpg.data import Fault, ImageSet
from unpg.distributed import ALONE, World, lost_peer
from unpg.errors import DataError, UnpgError, shown
from unpg.json_file import parse_json
from unpg.train.config import TrainConfig
from unpg.train.stop import Stopped

__all__ = ["Diverged", "TrainingError", "changed_on_disk", "explained", "together", "write_faults"]

_CPU_ALLOCATOR = "can't allocate memory"  # torch has no error of its own for the CPU


class TrainingError(UnpgError):
    """Training cannot go on."""


class Diverged(TrainingError):
    """Loss or gradient stayed not finite: with these settings there is nothing to train."""


def write_faults(run: Path, faults: Sequence[Fault]) -> int:
    """Bring ``faults.jsonl`` up to date and count it: a line for each replaced image, kept when a run is resumed."""
    path = run / "faults.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    before = [_parsed(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    known = {fault["sample_id"] for fault in before}
    new = [fault._asdict() for fault in faults if fault.sample_id not in known]
    if new:
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(fault) + "\n" for fault in before + new), encoding="utf-8")
        partial.replace(path)
    return len(before) + len(new)


def changed_on_disk(images: ImageSet, digest: str) -> str | None:
    """A warning if the training set is no more what it was when the run began (``digest``)."""
    try:
        same = images.digest() == digest
        why = "names or sizes of files are others"
    except (DataError, OSError) as error:
        same, why = False, str(error)
    if same:
        return None
    return (
        f"The training set changed on the disk while the run was training ({why}). What was read may be of either "
        f"state: do not compare this run with others, and run it again on data that stay."
    )


@contextmanager
def together(world: World, go_on: Callable[[], str]) -> Iterator[None]:
    """If this process fails, tell the others; if another one has, say so instead of what became of the connection.

    Args:
        world: The processes.
        go_on: Says how to go on with the run, in a sentence.

    Raises:
        TrainingError: Another process has gone, or did not answer in time.
    """
    try:
        yield
    except Stopped:  # all of them stop
        raise
    except BaseException as error:
        if world.alone or not lost_peer(error):
            world.leave()
            raise
        who = world.who_left()
        name = "Another process" if who is None else f"Process {who}"
        reason = str(error).strip().split("\n")[0].partition(". ")[0]
        raise TrainingError(
            f"{world.name}{name} has gone, or did not answer within the setting timeout: see its message. What was "
            f"done since the newest checkpoint is done again. {go_on()} ({reason})"
        ) from error


@contextmanager
def explained(config: TrainConfig, step: int, classes: int, run: Path, world: World = ALONE) -> Iterator[None]:
    """Say which settings need less memory, where there was too little for a step.

    Raises:
        TrainingError: In place of torch's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        device = isinstance(error, torch.OutOfMemoryError)
        if not device and not isinstance(error, MemoryError) and _CPU_ALLOCATOR not in str(error):
            raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise TrainingError(
            f"{world.name}Out of {'GPU ' if device else ''}memory in step {step}: batches of "
            f"{config.sampler.batch_size} images in {config.accumulate} parts, {classes} classes in chunks of "
            f"{_or(config.streaming.chunk, 'a chosen size')} (streaming.chunk), "
            f"{_or(config.streaming.keep_mib, 'the default')} MiB of similarities kept (streaming.keep_mib), precision "
            f"{config.precision}. {_advice(config)} The newest checkpoint in {run} is "
            f"from before: go on with --resume. ({reason})"
        ) from error


def _or(setting: float | None, chosen: str) -> str:
    return chosen if setting is None else f"{setting:g}"


def _advice(config: TrainConfig) -> str:
    """The settings that lower memory, first those that a run may be resumed with."""
    same = ["a smaller streaming.chunk"]
    if config.streaming.keep_mib != 0:
        same.append("streaming.keep_mib: 0")
    if config.precision == "fp32":
        same.append("precision: bf16")
    other = [f"accumulate: {2 * config.accumulate}", f"a smaller sampler.batch_size than {config.sampler.batch_size}"]
    return (
        f"Less memory is needed with {', '.join(same)}, which may change in a run; or, as a new run, with "
        f"{' or '.join(other)}."
    )


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    fault = parse_json(line, where, "Delete the line.")
    if not isinstance(fault, dict) or not isinstance(fault.get("sample_id"), int):
        raise DataError(f'{where}: expected an object with a whole number "sample_id", got {shown(fault)}. Delete it.')
    return fault
