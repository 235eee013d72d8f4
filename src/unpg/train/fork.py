"""A run with UNPG that begins with the checkpoint of the run without: until UNPG starts, both are the same.

With weight 0 the union is the base loss bit for bit, so nothing is lost by training the common part once.
"""

import dataclasses
import shutil
from pathlib import Path

import torch

from unpg.config import to_dict, write_yaml
from unpg.errors import ConfigError
from unpg.json_file import read_json_object
from unpg.train.checkpoint import RunState, checkpoints, load_checkpoint, save_checkpoint
from unpg.train.config import TrainConfig
from unpg.train.resume import require_same_settings
from unpg.train.state import flatten, unflatten
from unpg.train.tensor_store import Rows

__all__ = ["fork"]

_BASE, _UNION = "pairs.", "pairs.of."  # where the generators of the base loss lie, in it and in the union


def fork(source: Path, config: TrainConfig, run: Path) -> int:
    """Leave a run in the folder ``run`` that ``train(config, run, resume=True)`` goes on with.

    Args:
        source: Run folder of the base, finished, of one process.
        config: Resolved settings of the new run: those of the base, and ``unpg``.
        run: Folder of the new run, which holds none yet.

    Returns:
        The optimizer steps that need not be done again: those of the newest checkpoint of the base from before UNPG
        starts; 0 if it has none, and nothing is written then.

    Raises:
        ConfigError: The base has UNPG itself or other settings, or UNPG has a memory, which remembers what was before.
        DataError: The checkpoint is damaged.
    """
    if config.unpg is None or config.unpg.memory is not None:
        raise ConfigError("fork is for a run with unpg and without unpg.memory.")
    require_same_settings(dataclasses.replace(config, unpg=None), source)
    steps = read_json_object(source / "summary.json")["steps"]
    start = round(config.unpg.start_epoch * (steps // config.epochs))
    before = [path for path in checkpoints(source) if int(path.name.rpartition("-")[2]) <= start]
    if not before:
        return 0
    checkpoint = load_checkpoint(before[-1])
    values, tensors = dict(checkpoint.values), checkpoint.tensors
    loss, optimizer = (unflatten(values[part], tensors) for part in ("loss", "optimizer"))
    parts = {
        "backbone": unflatten(values["backbone"], tensors),
        "loss": {_moved(name): value for name, value in loss.items()},
        "optimizer": {
            "state": {_of_loss(name): value for name, value in optimizer["state"].items()},
            "groups": [{**g, "params": [_of_loss(name) for name in g["params"]]} for g in optimizer["groups"]],
        },
    }
    kept: dict[str, torch.Tensor | Rows] = {
        name: Rows(value, 0, 1) for name, value in tensors.items() if name.partition("/")[0] not in parts
    }
    for part, tree in parts.items():
        values[part], found = flatten(tree, part)
        kept |= found
    values["config"] = to_dict(config)
    values["counters"] = {**values["counters"], "best": None}  # its checkpoint is in the base's folder
    values["heads"] = {_of_loss(name): centers for name, centers in values["heads"].items()}
    save_checkpoint(run, checkpoint.step, RunState(kept, values, checkpoint.identities))
    shutil.copyfile(source / "metrics.jsonl", run / "metrics.jsonl")  # resuming drops the lines of later steps
    write_yaml(run / "config.yaml", config)  # last: with it the folder is a run
    return checkpoint.step


def _moved(name: str) -> str:
    return name.replace(_BASE, _UNION, 1) if name.startswith(_BASE) else name


def _of_loss(name: str) -> str:
    """The same of a name in a checkpoint."""
    part, _, inside = name.partition("/")
    return f"{part}/{_moved(inside)}" if part == "loss" else name
