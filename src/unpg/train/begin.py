"""What a new run begins with besides weights from the seed: another run's, or a model file's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unpg.config import to_dict
from unpg.errors import ConfigError
from unpg.export import load_model
from unpg.export.state import fill
from unpg.heads import FullHead, Head, SampledHead, ShardedHead, caught_up
from unpg.losses import PairLoss, SumLoss
from unpg.train.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint
from unpg.train.imprint import imprint
from unpg.train.setup import Setup
from unpg.train.state import WHOLE, Split, unflatten

__all__ = ["begin", "heads_of"]

_HEADS = (FullHead, ShardedHead, SampledHead)


def heads_of(loss: PairLoss | SumLoss) -> dict[str, Head]:
    """The class weights of a loss, by the name of their tensor in a checkpoint."""
    return {f"loss/{name}.weight": module for name, module in loss.named_modules() if isinstance(module, _HEADS)}


def begin(setup: Setup, shared: Split = WHOLE) -> str | None:
    """Put the weights that ``init`` names in place of those drawn from the seed.

    Args:
        setup: A run that has not begun.
        shared: Tensors whose rows processes share (:data:`unpg.train.state.Split`).

    Returns:
        What was taken over, in a sentence; None if ``init`` names nothing.

    Raises:
        DataError: The file or checkpoint is missing or damaged, or its network is not this run's.
        ConfigError: It expects images prepared in another way, or has other class weights.
    """
    options, heads = setup.config.init, heads_of(setup.loss)
    known: set[str] = set()
    if options.class_weights == "imprinted" and not heads:
        raise ConfigError(
            f"init.class_weights is imprinted, but loss.kind {setup.config.loss['kind']} has no class weights: leave "
            f"it out."
        )
    if options.model is not None:
        model = load_model(options.model)
        _require_same_preprocessing(to_dict(model.preprocessing), setup, f"init.model {options.model}")
        fill(setup.model.backbone, model.backbone.state_dict(), options.model)
        said = f"The network begins with the weights of {options.model}; class weights are new."
    elif options.checkpoint is not None:
        known, said = _fine_tune(Path(options.checkpoint), setup, heads, shared)
    else:
        return None
    if options.class_weights == "imprinted":
        new = [c for c, name in enumerate(setup.images.identities) if name not in known]
        said += f" {imprint(setup, heads, new, shared)} of the new ones begin at the mean of their embeddings."
    return said


def _fine_tune(given: Path, setup: Setup, heads: Mapping[str, Head], shared: Split) -> tuple[set[str], str]:
    """Identities that keep their class weights, and what was taken over, in words."""
    path = given
    if (given / "checkpoints").is_dir():
        newest = latest_checkpoint(given)
        if newest is None:
            raise ConfigError(f"init.checkpoint {given} is a run without a checkpoint yet.")
        path = newest
    checkpoint = load_checkpoint(path, wanted=lambda name: name.startswith("backbone/") or "head." in name)
    values = checkpoint.values
    _require_same_preprocessing(values["config"]["preprocessing"], setup, f"init.checkpoint {path}")
    fill(setup.model.backbone, unflatten(values["backbone"], checkpoint.tensors), str(path))
    before: Mapping[str, int] = values["heads"]
    if not heads or not before:
        which = "The checkpoint" if heads else "This run's loss"
        return set(), f"The network begins with the weights of {path}. {which} has no class weights."
    if list(before.values()) != [head.centers for head in heads.values()]:
        raise ConfigError(
            f"init.checkpoint {path} was trained by a loss with class weights of {list(before.values())} centers a "
            f"class, this run's loss has {[head.centers for head in heads.values()]}. Take the same loss, or the "
            f"network alone: init.model."
        )
    for (name, head), source in zip(heads.items(), before, strict=True):
        _copy_known(name, head, _class_weights(checkpoint, source), checkpoint, setup, shared)
    known = set(checkpoint.identities.names) & set(setup.images.identities)
    return known, (
        f"The network begins with the weights of {path}. {len(known)} identities known by name keep their class "
        f"weights, {len(setup.images.identities) - len(known)} are new; "
        f"{len(checkpoint.identities.names) - len(known)} of the checkpoint are not in this set."
    )


def _class_weights(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """After the checkpoint's last step, also of a head that is lazy."""
    head = name.removesuffix("weight")
    weight, history = (checkpoint.tensors.get(f"{head}{part}") for part in ("weight", "history"))
    assert weight is not None
    if history is None:
        return weight
    momentum, seen = (checkpoint.tensors[f"{head}{part}"] for part in ("of_momentum_buffer", "seen"))
    return caught_up(weight, momentum, seen, history.tolist())[0]


@torch.no_grad()
def _copy_known(name: str, head: Head, old: torch.Tensor, checkpoint: Checkpoint, setup: Setup, shared: Split) -> None:
    places = {identity: c for c, identity in enumerate(checkpoint.identities.names)}
    classes = [(c, places[identity]) for c, identity in enumerate(setup.images.identities) if identity in places]
    if not classes:
        return
    pairs = torch.tensor(classes).repeat_interleave(head.centers, dim=0) * head.centers
    pairs += torch.arange(head.centers).repeat(len(classes))[:, None]
    own = shared[name][0] if name in shared else range(len(head.weight))
    pairs = pairs[(pairs[:, 0] >= own.start) & (pairs[:, 0] < own.stop)]
    head.weight[pairs[:, 0] - own.start] = old[pairs[:, 1]].to(head.weight)


def _require_same_preprocessing(theirs: Mapping[str, Any], setup: Setup, source: str) -> None:
    ours = to_dict(setup.config.preprocessing)
    odd = [f"{name} {theirs.get(name)!r} (here {value!r})" for name, value in ours.items() if theirs.get(name) != value]
    if odd:
        raise ConfigError(
            f"{source} has learned from images prepared in another way: {', '.join(odd)}. Set preprocessing to that."
        )
