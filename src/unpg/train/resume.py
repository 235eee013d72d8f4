"""Going on with a run: which checkpoint, whether it fits, and what can be promised."""

import dataclasses
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed

from unpg.config import from_yaml, to_dict, write_yaml
from unpg.data import ImageSet
from unpg.errors import ConfigError, DataError
from unpg.train.checkpoint import (
    Checkpoint,
    Identities,
    checkpoint_fault,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    set_aside,
)
from unpg.train.config import TrainConfig
from unpg.train.setup import Setup
from unpg.train.state import WHOLE, Split, rows_of

__all__ = [
    "choose_checkpoint",
    "conditions",
    "identities_of",
    "leave_behind",
    "note_data",
    "open_checkpoint",
    "promise",
    "require_same_data",
    "require_same_settings",
]

_SHOWN = 5
# What may differ on resuming; the first group changes no number, the second is said by `promise`.
_MAY_CHANGE = ("workers", "log_every", "tensorboard", "checkpoint_epochs", "checkpoint", "timeout")
_CONDITIONS = ("threads", "device", "precision", "compile", "streaming")
_NEW_CONDITIONS = ("head", "compile")  # which older checkpoints do not name
_WHOLE_HEADS = ("full", "sharded")  # whose weights and momentum have the same names and rows in a checkpoint


def require_same_settings(config: TrainConfig, run: Path) -> None:
    """Raise unless the run in the folder was started with these settings, but for those that may change.

    ``data`` is left to :func:`require_same_data` where there is a checkpoint: they may lie elsewhere now.

    Raises:
        ConfigError: It was not, or there is no run; names the settings.
    """
    saved = run / "config.yaml"
    if not saved.exists():
        raise ConfigError(f"{run} holds no run to resume: it has no config.yaml. Leave --resume out to start one.")
    before, now = to_dict(from_yaml(TrainConfig, saved)), to_dict(config)
    heads = [settings["head"]["kind"] for settings in (before, now)]
    if all(kind in _WHOLE_HEADS for kind in heads):
        now["head"]["kind"] = before["head"]["kind"]
    if checkpoints(run):
        now["data"] = before["data"]
    changed = _differences(before, now)
    if changed and heads[0] != heads[1] and "sampled" in heads:
        changed.append(
            "head.kind may change between full and sharded, which hold the same weights; sampled compares with other "
            "classes in each step, and is another loss"
        )
    if changed:
        lost = "" if checkpoints(run) else ". Nothing is saved there yet, so it can as well be deleted"
        raise ConfigError(
            f"{run} was started with other settings: {'; '.join(changed)}. Resume with the same ones (--config "
            f"{saved}), or start a new run in another folder{lost}."
        )


def note_data(run: Path, config: TrainConfig) -> None:
    """Write into the folder's ``config.yaml`` where the training set lies now; for one process to do."""
    saved = from_yaml(TrainConfig, run / "config.yaml")
    if saved.data != config.data:
        write_yaml(run / "config.yaml", dataclasses.replace(saved, data=config.data))


def choose_checkpoint(run: Path, resume_from: Path | None = None) -> Path | None:
    """The checkpoint to go on from: the newest one, or the one that was asked for.

    Args:
        run: The run folder.
        resume_from: One of its checkpoints.

    Returns:
        Its folder; None if the run has none yet.

    Raises:
        ConfigError: ``resume_from`` is no checkpoint of this run.
    """
    found = checkpoints(run)
    chosen = latest_checkpoint(run)
    if resume_from is not None:
        chosen = next((path for path in found if path.resolve() == resume_from.resolve()), None)
        if chosen is None:
            names = ", ".join(path.name for path in found) or "(none)"
            raise ConfigError(
                f"--resume-from {resume_from} is no checkpoint of {run}. It has: {names}. To start a new run from "
                f"the weights of another one, use --fine-tune-from."
            )
    return chosen


def open_checkpoint(
    run: Path, chosen: Path, *, shared: Split = WHOLE, group: distributed.ProcessGroup | None = None
) -> Checkpoint:
    """Read the checkpoint to go on from.

    Args:
        run: The run folder.
        chosen: From :func:`choose_checkpoint`.
        shared: Tensors whose rows processes share.
        group: Processes that do this together.

    Raises:
        DataError: It is damaged; an older one that is whole is offered, and not taken unasked.
        ConfigError: It is of another version.
    """
    try:
        return load_checkpoint(chosen, rows=rows_of(shared), group=group)
    except DataError as error:
        older = [path for path in checkpoints(run) if path.name < chosen.name]
        whole = next((path for path in reversed(older) if checkpoint_fault(path) is None), None)
        advice = (
            f"{whole} is whole: to go on from there, add --resume-from {whole}."
            if whole is not None
            else "There is no older one that is whole: restore it from a copy, or start again in another folder."
        )
        raise DataError(f"{error} {advice}") from error


def leave_behind(run: Path, chosen: Path | None) -> list[Path]:
    """Set aside the checkpoints that are newer than the one the run goes on from; their new places."""
    if chosen is None:
        return []
    return set_aside([path for path in checkpoints(run) if path.name > chosen.name])


def identities_of(images: ImageSet) -> Identities:
    """The classes of a training set, for the checkpoint."""
    counts = np.bincount(images.labels, minlength=len(images.identities))
    return Identities(list(images.identities), counts.tolist())


def require_same_data(before: Identities, digest: str, images: ImageSet, source: Path) -> None:
    """Raise unless the training set is the one of the checkpoint ``source``.

    Args:
        before: The classes of the checkpoint.
        digest: Its digest of the data.
        images: The training set as it is now.
        source: The checkpoint, for the message.

    Raises:
        ConfigError: It is another one; says what has changed.
    """
    if digest == images.digest():
        return
    changes = _data_changes(before, identities_of(images))
    raise ConfigError(
        f"The training set is not the one that the checkpoint {source} was trained on: {changes}. Restore the data; or "
        f"begin a new run in another folder from these weights, where identities known by name keep their class "
        f"weights: --fine-tune-from {source}."
    )


def conditions(setup: Setup, world_size: int = 1) -> dict[str, str]:
    """What the last bits of a step's result depend on, besides data and settings."""
    device = setup.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "torch": f"{torch.__version__} ({(torch.version.git_version or 'unknown')[:8]})",
        "processes": str(world_size),
        "precision": setup.config.precision,
        "compile": str(setup.config.compile),
        "streaming": str(to_dict(setup.config.streaming)),
        # One process computes the same with a full head and a sharded one.
        **({"head": setup.config.head.kind} if world_size > 1 else {}),
    }


def promise(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What a resumed run is worth: bit for bit where nothing differs, and else what differs and what still holds."""
    changed = [
        f"{name} was {before.get(name)}, is now {value}"
        for name, value in now.items()
        if before.get(name) != value and not (name in _NEW_CONDITIONS and name not in before)
    ]
    kept = "Images, their order and augmentation, rates, class weights, momentum and statistics go on as they were"
    if not changed and now.get("compile") == "True":
        return f"{kept}; what torch.compile makes of a network may round otherwise each time, so up to rounding."
    if not changed and now["device"] == "cpu":
        return "Same machine, threads and build: the final weights will be those of an uninterrupted run, bit for bit."
    if not changed:
        return f"{kept}; a GPU adds in no fixed order, so the final weights agree up to rounding, not bit for bit."
    text = f"Not bit for bit what an uninterrupted run would give: {'; '.join(changed)}. {kept}, up to rounding."
    if before.get("processes") != now["processes"]:
        text += " What torch draws at random in the network (dropout) is drawn anew."
    if before.get("precision") != now["precision"]:
        text += " Steps from here on have the rounding of the new precision; a gradient scaler starts afresh."
    return text


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = [n for n in {**before, **now} if path or n not in _MAY_CHANGE + _CONDITIONS]
        inside = [_differences(before.get(n), now.get(n), f"{path}.{n}" if path else n) for n in names]
        return [difference for part in inside for difference in part]
    return [] if before == now else [f"{path} was {before!r}, is now {now!r}"]


def _data_changes(before: Identities, now: Identities) -> str:
    old, new = dict(zip(before.names, before.images, strict=True)), dict(zip(now.names, now.images, strict=True))
    recounted = [
        f"{name} ({old[name]} images, now {new[name]})" for name in old if new.get(name, old[name]) != old[name]
    ]
    changes = [
        f"{len(names)} identities {what}: {', '.join(names[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''}"
        for what, names in (
            ("are gone", [name for name in old if name not in new]),
            ("are new", [name for name in new if name not in old]),
            ("have another number of images", recounted),
        )
        if names
    ]
    if not changes and list(old) != list(new):
        changes = ["the identities are the same, in another order"]
    if not changes:
        changes = ["identities and numbers of images are the same, but names or sizes of files are not"]
    return "; ".join(changes)
