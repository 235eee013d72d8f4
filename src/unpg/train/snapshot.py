"""The state of a run between two steps, taken and put back."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, distributed

from unpg.config import from_dict, to_dict
from unpg.errors import DataError
from unpg.train.begin import heads_of
from unpg.train.checkpoint import Checkpoint, RunState
from unpg.train.resume import conditions, identities_of
from unpg.train.setup import Setup, seed_of
from unpg.train.state import WHOLE, Split, flatten, load_optimizer, named_optimizer, split, unflatten
from unpg.train.summary import environment
from unpg.train.tensor_store import Rows

__all__ = ["Counters", "put_back", "put_back_weights", "take"]

_CPU_RANDOM, _GPU_RANDOM = "random/cpu", "random/cuda"
# What torch and we say to state that is not what it should be.
_MISFIT = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Counters:
    """What the loop counts.

    Args:
        step: Optimizer steps done.
        skipped: Those left out because something was not finite.
        bad_in_a_row: How many of them just now, one after the other.
        alarms: Signs of collapse in a row.
        best: Step and value of the best evaluation.
        recent: Loss and statistics of the last step that was logged.
    """

    step: int
    skipped: int = 0
    bad_in_a_row: int = 0
    alarms: int = 0
    best: tuple[int, float] | None = None
    recent: dict[str, float] = field(default_factory=dict)


def take(
    setup: Setup,
    scaler: torch.amp.GradScaler,
    counters: Counters,
    *,
    data: str,
    shared: Split = WHOLE,
    group: distributed.ProcessGroup | None = None,
) -> RunState:
    """Everything that the next step depends on, and what is needed to tell whether it still fits.

    The schedule and the order of the data need no state: they are functions of the step.

    Args:
        setup: The run.
        scaler: Its gradient scaler.
        counters: What the loop counts.
        data: Digest of the training set, as it was when the run began.
        shared: Tensors whose rows processes share, by their names in a checkpoint.
        group: The processes; None is this one alone.
    """
    rank, size = (0, 1) if group is None else (distributed.get_rank(group), distributed.get_world_size(group))
    tree = {
        "backbone": setup.model.backbone.state_dict(),
        "loss": setup.loss.state_dict(),
        "optimizer": named_optimizer(setup.optimizer, _modules(setup)),
    }
    values: dict[str, Any] = {
        "counters": to_dict(counters),
        "scaler": scaler.state_dict(),
        "config": to_dict(setup.config),
        "data": data,
        "heads": {name: head.centers for name, head in heads_of(setup.loss).items()},
        "conditions": conditions(setup, size),
        "versions": environment(),
    }
    whole: dict[str, Tensor] = {}
    for part, content in tree.items():
        values[part], found = flatten(content, part)
        whole |= found
    tensors = split(whole, shared)
    tensors[_CPU_RANDOM] = Rows(torch.get_rng_state()[None], rank, size)
    if setup.device.type == "cuda":
        tensors[_GPU_RANDOM] = Rows(torch.cuda.get_rng_state(setup.device)[None], rank, size)
    return RunState(tensors, values, identities_of(setup.images))


def put_back(
    checkpoint: Checkpoint,
    setup: Setup,
    scaler: torch.amp.GradScaler,
    group: distributed.ProcessGroup | None = None,
) -> Counters:
    """Give a run that has just been set up the state of a checkpoint.

    Torch's generators go on where they were if as many processes as before go on; with another number each is seeded
    anew from the run's seed, the step and its rank.

    Returns:
        The counters; without the best evaluation if ``checkpoint.best`` names another figure than it did.

    Raises:
        DataError: The checkpoint belongs to another network, loss or optimizer.
    """
    rank, size = (0, 1) if group is None else (distributed.get_rank(group), distributed.get_world_size(group))
    values, tensors = checkpoint.values, checkpoint.tensors
    put_back_weights(checkpoint, setup)
    try:
        load_optimizer(setup.optimizer, _modules(setup), unflatten(values["optimizer"], tensors))
        if scaler.is_enabled() and values["scaler"]:  # empty if the run had no scaler before
            scaler.load_state_dict(values["scaler"])
        if len(tensors[_CPU_RANDOM]) == size:
            # A copy: torch 2.13 reads the state of a view past its end, and crashes.
            torch.set_rng_state(tensors[_CPU_RANDOM][rank].clone())
        else:
            torch.manual_seed(seed_of(setup.config.seed, checkpoint.step, rank))
        cuda = tensors.get(_GPU_RANDOM)
        if cuda is not None and len(cuda) == size and setup.device.type == "cuda":
            torch.cuda.set_rng_state(cuda[rank].clone(), setup.device)
        counters = from_dict(Counters, values["counters"])
        same_figure = values["config"]["checkpoint"].get("best") == setup.config.checkpoint.best
        return counters if same_figure else replace(counters, best=None)
    except _MISFIT as error:
        raise DataError(f"The checkpoint {checkpoint.path} does not hold what this run needs: {error}.") from error


def put_back_weights(checkpoint: Checkpoint, setup: Setup) -> None:
    """The network's and the loss's part alone.

    Raises:
        DataError: The checkpoint belongs to another network or loss.
    """
    for part, module in _modules(setup).items():
        try:
            module.load_state_dict(unflatten(checkpoint.values[part], checkpoint.tensors))
        except _MISFIT as error:
            raise DataError(f"The checkpoint {checkpoint.path} is of another {part}: {error}.") from error


def _modules(setup: Setup) -> dict[str, torch.nn.Module]:
    return {"backbone": setup.model.backbone, "loss": setup.loss}
