"""Putting a state dict into a backbone, or saying exactly why it does not fit."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unpg.backbones import Backbone, create_backbone
from unpg.errors import DataError

__all__ = ["fill", "planned", "require_fit"]

SHOWN = 5


def fill(backbone: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy ``tensors`` into ``backbone``; all or nothing.

    Floating types may differ (weights kept as float16 become the backbone's float32); all else must agree.

    Args:
        backbone: The network to fill.
        tensors: Its state dict.
        source: The file they come from, for messages.

    Raises:
        DataError: Tensors are missing, unexpected, of another shape or kind of number; lists them.
    """
    require_fit(backbone, tensors, source)
    backbone.load_state_dict(dict(tensors))


def planned(kind: str, *, dim: int, input_size: Sequence[int], settings: Mapping[str, Any], source: str) -> Backbone:
    """The backbone that a file describes, without memory for its weights.

    The sizes are a stranger's: :func:`require_fit` compares them with the tensors that the file has before a network of
    that size is made.

    Raises:
        ConfigError: As :func:`unpg.backbones.create_backbone`.
        DataError: Sizes that no tensor can have.
    """
    try:
        with torch.device("meta"):
            return create_backbone(kind, dim=dim, input_size=input_size, **settings)
    except (RuntimeError, OverflowError) as error:
        raise DataError(f"{source} describes a backbone that cannot be built: {str(error)[:300]}") from error


def require_fit(backbone: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise unless ``tensors`` are those of ``backbone``, as :func:`fill` does."""
    wanted = backbone.state_dict()
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    wrong = [
        f"{name} {_describe(tensors[name])} instead of {_describe(own)}"
        for name, own in wanted.items()
        if name in tensors
        and (tensors[name].shape != own.shape or tensors[name].is_floating_point() != own.is_floating_point())
    ]
    faults = [
        f"{len(names)} {what}: {_some(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape or type", wrong))
        if names
    ]
    if faults:
        raise DataError(
            f"{source}: the tensors are not those of the backbone; {'; '.join(faults)}. Check kind, dim, input_size "
            "and settings, or take the file that belongs to them."
        )


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
