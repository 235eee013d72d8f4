"""From decoded images to what a network takes; a part of the model file, not of the user's memory.

Axes: b images, h x w the aligned image, H x W the network's input.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from unpg.errors import ConfigError, ShapeError, did_you_mean, shown

__all__ = ["Preprocessing"]

# A face squeezed by this share is still the same face; more than that is a crop that somebody forgot.
_ASPECT_TOLERANCE = 0.02
_MOST = 1e30  # of a mean or deviation: finite in float32


@dataclass(frozen=True)
class Preprocessing:
    """Crop, resize, channel order and normalization, in this order.

    Args:
        size: (height, width) of the network's input, pixels.
        crop: (top, left, height, width) of the part of the aligned image that the network sees, pixels;
            None is all of it. It must have the proportions of ``size``.
        channels: The order in which the network takes the colors.
        mean: Subtracted, in units of 0..255; one number, or three in the order of ``channels``.
        std: Divided by, likewise.

    Raises:
        ConfigError: A setting is out of range.
    """

    size: tuple[int, int]
    crop: tuple[int, int, int, int] | None = None
    channels: Literal["rgb", "bgr"] = "rgb"
    mean: float | tuple[float, float, float] = 127.5
    std: float | tuple[float, float, float] = 127.5

    def __post_init__(self) -> None:
        for setting in ("size", "crop", "mean", "std"):  # JSON has lists
            if isinstance(getattr(self, setting), list):
                object.__setattr__(self, setting, tuple(getattr(self, setting)))
        if not _whole(self.size, 2) or min(self.size) < 1:
            raise ConfigError(f"Preprocessing.size must be (height, width), both whole >= 1, got {shown(self.size)}.")
        crop = self.crop
        if crop is not None and (not _whole(crop, 4) or min(crop[:2]) < 0 or min(crop[2:]) < 1):
            raise ConfigError(
                "Preprocessing.crop must be None or (top, left, height, width), whole, with top, left >= 0 and "
                f"height, width >= 1, got {shown(crop)}."
            )
        if self.channels not in ("rgb", "bgr"):
            raise ConfigError(f"Preprocessing.channels must be 'rgb' or 'bgr', got {self.channels!r}.")
        for setting, values in (("mean", self.mean), ("std", self.std)):
            if len(_three(values)) != 3 or not all(_finite(value) for value in _three(values)):
                raise ConfigError(f"Preprocessing.{setting} must be one finite number or three, got {shown(values)}.")
        if not all(value > 0 for value in _three(self.std)):
            raise ConfigError(f"Preprocessing.std must be > 0, got {self.std}.")

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare a batch, on the device where it lies.

        Args:
            images: (b, h, w, 3) uint8 RGB.

        Returns:
            (b, 3, H, W) float32, stored channels last (as the pixels came, and as convolutions like it).

        Raises:
            ShapeError: ``images`` is not such a batch, the crop leaves it, or its proportions are not
                those of ``size``.
        """
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
            raise ShapeError(f"Images must be (b, h, w, 3) uint8 RGB, got {tuple(images.shape)} {images.dtype}.")
        # Kept channels last: the permutation costs nothing, and the first real pass is the one to float.
        x = self._cropped(images).to(torch.float32).permute(0, 3, 1, 2)
        if x.shape[-2:] != self.size:
            x = functional.interpolate(x, size=self.size, mode="bilinear", align_corners=False, antialias=True)
        if self.channels == "bgr":
            x = x.flip(1)
        # x is our own copy by now: in place saves two allocations of the batch.
        x.sub_(_channelwise(self.mean, x.device)).div_(_channelwise(self.std, x.device))
        return x.contiguous(memory_format=torch.channels_last)

    def _cropped(self, images: Tensor) -> Tensor:
        height, width = images.shape[1:3]
        top, left, crop_height, crop_width = self.crop or (0, 0, height, width)
        if top + crop_height > height or left + crop_width > width:
            raise ShapeError(
                f"Preprocessing.crop {self.crop} (top, left, height, width) leaves the image, which is "
                f"{height} x {width}. Give images of the size that the model was made for."
            )
        squeeze = (crop_height / crop_width) / (self.size[0] / self.size[1])
        if abs(squeeze - 1) > _ASPECT_TOLERANCE:
            raise ShapeError(
                f"Images of {crop_height} x {crop_width} would be distorted to {self.size[0]} x "
                f"{self.size[1]} (height x width). Set Preprocessing.crop to a part with the proportions of "
                "Preprocessing.size."
            )
        return images[:, top : top + crop_height, left : left + crop_width]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of :meth:`to_dict`, also after a way through JSON.

        Raises:
            ConfigError: A key that is no setting, or ``size`` is missing.
        """
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"Preprocessing has no setting {key!r}.{did_you_mean(key, known)}")
        if "size" not in values:
            raise ConfigError("Preprocessing needs the setting 'size', (height, width) of the network's input.")
        return cls(**values)


def _whole(values: object, n: int) -> bool:
    return isinstance(values, tuple) and len(values) == n and all(type(value) is int for value in values)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MOST < value < _MOST


def _three(values: float | tuple[float, float, float]) -> tuple[float, float, float]:
    return values if isinstance(values, tuple) else (values, values, values)


def _channelwise(values: float | tuple[float, float, float], device: torch.device) -> float | Tensor:
    return torch.tensor(values, device=device).view(3, 1, 1) if isinstance(values, tuple) else values
