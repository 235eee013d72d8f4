"""What a run is made of, as named tensors and plain values, and back.

Tensors are called ``backbone/<name>``, ``loss/<name>`` and ``optimizer/<name of the parameter>/<quantity>``; what has a
place in none of these (a queue's end, betas) is a plain value. Names do not depend on the number of processes.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from unpg.errors import DataError
from unpg.train.tensor_store import Rows

__all__ = ["WHOLE", "Split", "flatten", "load_optimizer", "named_optimizer", "rows_of", "split", "unflatten"]

Split = Mapping[str, tuple[range, int]]
"""Tensors whose rows processes share, by name: the rows of this process, and how many all have."""

WHOLE: Split = MappingProxyType({})
"""No tensor is shared."""

_TENSOR, _TUPLE = "$tensor", "$tuple"


def flatten(tree: Any, name: str) -> tuple[Any, dict[str, Tensor]]:
    """A tree of dictionaries, lists, tuples, tensors and plain values as JSON, and its tensors by their place.

    Raises:
        TypeError: Something else is in it.
    """
    tensors: dict[str, Tensor] = {}

    def plain(node: Any, place: str) -> Any:
        if isinstance(node, Tensor):
            tensors[place] = node.detach()
            return {_TENSOR: place}
        if isinstance(node, Mapping):
            return {_key(key): plain(value, f"{place}/{key}") for key, value in node.items()}
        if isinstance(node, list | tuple):
            content = [plain(value, f"{place}/{i}") for i, value in enumerate(node)]
            return content if isinstance(node, list) else {_TUPLE: content}
        if node is None or isinstance(node, bool | int | float | str):
            return node
        raise TypeError(f"{place} is a {type(node).__name__}, which a checkpoint cannot hold")

    return plain(tree, name), tensors


def unflatten(plain: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`flatten`.

    Raises:
        DataError: A tensor is missing.
    """
    if isinstance(plain, list):
        return [unflatten(value, tensors) for value in plain]
    if not isinstance(plain, Mapping):
        return plain
    if plain.keys() == {_TENSOR}:
        if plain[_TENSOR] not in tensors:
            raise DataError(f"The checkpoint has no tensor {plain[_TENSOR]!r}.")
        return tensors[plain[_TENSOR]]
    if plain.keys() == {_TUPLE}:
        return tuple(unflatten(value, tensors) for value in plain[_TUPLE])
    return {key: unflatten(value, tensors) for key, value in plain.items()}


def named_optimizer(optimizer: torch.optim.Optimizer, modules: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The optimizer's state with parameters called by their names instead of numbers.

    A parameter that its module does not save is a copy of this step (the classes that a sampled head has drawn); of its
    state only what does not go by rows is kept.
    """
    names, state = _names(optimizer, modules), optimizer.state_dict()
    saved = {f"{of}/{name}" for of, module in modules.items() for name in module.state_dict()}
    return {
        "state": {
            names[i]: {
                quantity: value
                for quantity, value in content.items()
                if names[i] in saved or not isinstance(value, Tensor) or not value.ndim
            }
            for i, content in state["state"].items()
        },
        "groups": [{**group, "params": [names[i] for i in group["params"]]} for group in state["param_groups"]],
    }


def load_optimizer(optimizer: torch.optim.Optimizer, modules: Mapping[str, nn.Module], state: Any) -> None:
    """Take over what :func:`named_optimizer` gave.

    Raises:
        DataError: It belongs to other parameters.
    """
    names = _names(optimizer, modules)
    places = {name: i for i, name in enumerate(names)}
    saved = {name for group in state["groups"] for name in group["params"]}
    if saved != places.keys():
        odd = sorted(saved ^ places.keys())
        raise DataError(f"The checkpoint's optimizer has other parameters than this run's: {', '.join(odd[:5])}.")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    content = {
        places[name]: {quantity: _like(value, parameters[places[name]]) for quantity, value in of_one.items()}
        for name, of_one in state["state"].items()
    }
    groups = [{**group, "params": [places[name] for name in group["params"]]} for group in state["groups"]]
    optimizer.load_state_dict({"state": content, "param_groups": groups})


def split(tensors: Mapping[str, Tensor], shared: Split) -> dict[str, Tensor | Rows]:
    """The tensors, with those that processes share as :class:`Rows`; an optimizer's go with their parameter's."""
    found: dict[str, Tensor | Rows] = {}
    for name, tensor in tensors.items():
        owner = _owner(name, shared)
        if owner is None or not tensor.ndim or len(tensor) != len(tensors[owner]):
            found[name] = tensor
        else:
            own, total = shared[owner]
            found[name] = Rows(tensor, own.start, total)
    return found


def rows_of(shared: Split) -> Callable[[str, torch.Size], range | None]:
    """What :func:`load_checkpoint` needs to give each process its rows, however many processes wrote them."""

    def rows(name: str, size: torch.Size) -> range | None:
        owner = _owner(name, shared)
        return shared[owner][0] if owner is not None and size[0] == shared[owner][1] else None

    return rows


def _owner(name: str, shared: Mapping[str, Any]) -> str | None:
    """The shared tensor that ``name`` is, or belongs to in the optimizer's state."""
    return next((owner for owner in shared if name == owner or name.startswith(f"optimizer/state/{owner}/")), None)


def _names(optimizer: torch.optim.Optimizer, modules: Mapping[str, nn.Module]) -> list[str]:
    """Names of the optimizer's parameters, in its order."""
    names = {p: f"{of}/{name}" for of, module in modules.items() for name, p in module.named_parameters()}
    return [names[p] for group in optimizer.param_groups for p in group["params"]]


def _like(value: Any, parameter: Tensor) -> Any:
    """A tensor of the parameter's shape in the parameter's memory format: momentum steps fast only then."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


def _key(key: Any) -> str:
    if not isinstance(key, str) or key.startswith("$"):
        raise TypeError(f"{key!r} is no name that a checkpoint can hold")
    return key
