"""What every backbone is: a network from aligned faces to embeddings.

Axes: b images, h x w pixels, c channels of a feature map, d embedding size.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from unpg.errors import ConfigError, ShapeError, shown
from unpg.registry import Registry

__all__ = ["BACKBONES", "Backbone", "create_backbone", "positive_int"]

BACKBONES: Registry[Any] = Registry("backbone")


class Backbone(nn.Module):
    """A network from (b, 3, h, w) float images to (b, d) float embeddings that are not normalized.

    A subclass gives two parts. ``trunk`` holds nearly all of the work and runs in the caller's precision
    (autocast to bfloat16 or float16, any memory format). ``project`` makes the embedding and runs in the
    precision of the weights: losses and filters compare similarities that lie closer than bfloat16 can tell.

    Args:
        dim: Embedding size d.
        input_size: (height, width) of the images in pixels; a network is built for one size.

    Raises:
        ConfigError: A size that is not a positive whole number.

    Attributes:
        block_types: Layers that make up most of the network, each of one input and one output.
    """

    block_types: ClassVar[tuple[type[nn.Module], ...]] = ()

    def __init__(self, dim: int, input_size: Sequence[int]) -> None:
        super().__init__()
        self.dim = positive_int("dim", dim)
        if not isinstance(input_size, Sequence) or len(input_size) != 2:
            raise ConfigError(f"backbone.input_size must be two numbers (height, width), got {input_size!r}.")
        height, width = (positive_int("input_size", side) for side in input_size)
        self.input_size = (height, width)

    def trunk(self, images: Tensor) -> Tensor:
        """Feature maps of ``images`` (b, 3, h, w)."""
        raise NotImplementedError

    def project(self, maps: Tensor) -> Tensor:
        """Embeddings (b, d) of the feature maps that ``trunk`` gave."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Embed ``images`` (b, 3, h, w).

        Raises:
            ShapeError: The images are not three channels of the size that this network is built for.
        """
        expected = (3, *self.input_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ShapeError(
                f"The backbone is built for images of (height, width) {self.input_size}, as an array of "
                f"(b, 3, height, width); got an array of {tuple(images.shape)}. Resize or crop them, or "
                "build the backbone with another input_size."
            )
        maps = self.trunk(images)
        device = maps.device.type
        # The context is only entered where it changes something: tracers then see plain layers.
        plain = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
        with plain:
            return self.project(maps.to(next(self.parameters()).dtype))


_MOST, _MOST_BLOCKS = 1 << 20, 1000
"""Bounds of sizes: a file or recipe that says more is mistaken, and would take hours or all memory to be found so."""


def create_backbone(kind: str, *, dim: int = 512, input_size: Sequence[int] = (112, 112), **settings: Any) -> Backbone:
    """Build the backbone that is registered as ``kind``, freshly initialized from torch's global generator.

    Args:
        kind: A name in :data:`BACKBONES`.
        dim: Embedding size.
        input_size: (height, width) of the input in pixels.
        settings: What this kind takes besides; the class says which.

    Raises:
        ConfigError: An unknown kind or setting (the message names the nearest), or a value out of range.
    """
    return cast(Backbone, BACKBONES.build(kind, settings, dim=dim, input_size=input_size))


def positive_int(name: str, value: object) -> int:
    """``value`` if it is a whole number above zero, else a :class:`ConfigError` that names the setting."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"backbone.{name} must be made of whole numbers above 0, got {shown(value)}.")
    most = _MOST_BLOCKS if name == "blocks" else _MOST
    if value > most:
        raise ConfigError(f"backbone.{name} must be made of whole numbers of at most {most:,}, got {shown(value)}.")
    return value
