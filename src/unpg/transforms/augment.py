"""Random changes to training images, batched on the device where they lie, on uint8 pixels.

uint8 in and out, because that is a quarter of the memory traffic of float32 and flipping needs no arithmetic;
normalization (:mod:`unpg.transforms.tensor`) comes after.

Axes: b images, h x w pixels, m the images that an operation was drawn for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Literal

import torch
from torch import Tensor

from unpg.errors import ConfigError, ShapeError
from unpg.transforms.counter import hash64, uniform

__all__ = ["Augment"]

# What a random number is for: the last part of its key. Never renumber; runs could not be repeated.
_FLIP, _CROP, _LOW_RESOLUTION, _PHOTOMETRIC, _ERASING = range(5)

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


@dataclass(frozen=True)
class Augment:
    """Flip, crop, low resolution, photometric changes, erasing; each image draws each of them on its own.

    Crop, low resolution and photometric are the set of AdaFace (Kim et al. 2022, arXiv 2204.00964), which
    applies each with probability 0.2; erasing is Zhong et al. 2017 (arXiv 1708.04896). What an image draws
    depends on (seed, epoch, sample id) only.

    Args:
        flip: Probability of mirroring left and right.
        crop: Probability of keeping only a random rectangle, of side ratio 3/4 .. 4/3 (clipped to the image).
        crop_area: Smallest share of the area that the rectangle keeps, in (0, 1].
        crop_fill: ``"black"`` leaves the rectangle in its place on black, so the alignment stays (AdaFace);
            ``"resize"`` stretches it to the whole image.
        low_resolution: Probability of shrinking (antialiased) and enlarging again, both bilinear.
        low_resolution_side: Smallest share of the side that the shrunken image has, in (0, 1].
        photometric: Probability of changing brightness, contrast and saturation, in this order.
        photometric_strength: Each factor is drawn from [1 - strength, 1 + strength]; in [0, 1].
        erasing: Probability of replacing a rectangle, of side ratio 0.3 .. 3.3, by noise.
        erasing_area: Largest share of the area that is erased, in [0.02, 1]; the smallest is 0.02.

    Raises:
        ConfigError: A setting is out of range.
    """

    flip: float = 0.5
    crop: float = 0.0
    crop_area: float = 0.2
    crop_fill: Literal["black", "resize"] = "black"
    low_resolution: float = 0.0
    low_resolution_side: float = 0.2
    photometric: float = 0.0
    photometric_strength: float = 0.5
    erasing: float = 0.0
    erasing_area: float = 0.4

    def __post_init__(self) -> None:
        for name in ("flip", "crop", "low_resolution", "photometric", "erasing", "photometric_strength"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"Augment.{name} must be in [0, 1], got {getattr(self, name)}.")
        for name in ("crop_area", "low_resolution_side"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"Augment.{name} must be in (0, 1], got {getattr(self, name)}.")
        if not _SMALLEST_ERASED <= self.erasing_area <= 1:
            raise ConfigError(f"Augment.erasing_area must be in [{_SMALLEST_ERASED}, 1], got {self.erasing_area}.")
        if self.crop_fill not in ("black", "resize"):
            raise ConfigError(f"Augment.crop_fill must be 'black' or 'resize', got {self.crop_fill!r}.")

    def __call__(self, images: Tensor, sample_ids: Tensor, seed: int, epoch: int) -> Tensor:
        """Change a batch; the input is left as it is.

        Args:
            images: (b, h, w, 3) uint8 RGB.
            sample_ids: (b,) int64 on the same device.
            seed: The run's seed.
            epoch: The epoch, from 0.

        Returns:
            (b, h, w, 3) uint8; a new tensor, or ``images`` itself if there was nothing to change.

        Raises:
            ShapeError: The arguments are not such arrays.
        """
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
            came = f"{tuple(images.shape)} {images.dtype}"
            raise ShapeError(f"Images must be (b, h, w, 3) uint8 RGB, got {came}.")
        if sample_ids.shape != images.shape[:1] or sample_ids.dtype != torch.int64:
            came = f"{tuple(sample_ids.shape)} {sample_ids.dtype}"
            raise ShapeError(f"sample_ids must be ({len(images)},) int64, one per image, got {came}.")
        steps: tuple[tuple[int, float, Callable[[Tensor, _Draw], Tensor]], ...] = (
            (_CROP, self.crop, self._cropped),
            (_LOW_RESOLUTION, self.low_resolution, self._low_resolution),
            (_PHOTOMETRIC, self.photometric, self._photometric),
            (_ERASING, self.erasing, self._erased),
        )
        if self.flip > 0:
            images = _flipped(images, uniform(sample_ids, seed, epoch, _FLIP, 0) < self.flip)
        for operation, probability, change in steps:
            if probability > 0:
                key = (seed, epoch, operation)
                chosen = uniform(sample_ids, *key, 0) < probability
                images = _change(images, chosen, sample_ids, key, change)
        return images

    def _cropped(self, x: Tensor, draw: "_Draw") -> Tensor:
        height, width = x.shape[1:3]
        top, left, rows, columns = draw.rectangle(height, width, (self.crop_area, 1.0), (3 / 4, 4 / 3))
        if self.crop_fill == "black":
            return x * _inside(height, width, top, left, rows, columns)
        return _resample(x, _enlarge(rows, top, height), _enlarge(columns, left, width))

    def _low_resolution(self, x: Tensor, draw: "_Draw") -> Tensor:
        height, width = x.shape[1:3]
        share = self.low_resolution_side + (1 - self.low_resolution_side) * draw.uniform(1)
        return _resample(x, _shrink_and_enlarge(share, height), _shrink_and_enlarge(share, width))

    def _photometric(self, x: Tensor, draw: "_Draw") -> Tensor:
        low, span = 1 - self.photometric_strength, 2 * self.photometric_strength
        brightness, contrast, saturation = ((low + span * draw.uniform(i))[:, None, None, None] for i in (1, 2, 3))
        y = (x.to(torch.float32) * brightness).clamp(0, 255)
        mean = _grey(y).mean(dim=(1, 2, 3), keepdim=True)
        y = (mean + (y - mean) * contrast).clamp(0, 255)
        grey = _grey(y)
        return _to_uint8(grey + (y - grey) * saturation)

    def _erased(self, x: Tensor, draw: "_Draw") -> Tensor:
        height, width = x.shape[1:3]
        place = draw.rectangle(height, width, (_SMALLEST_ERASED, self.erasing_area), (0.3, 3.3))
        count = height * width * 3
        eighth = torch.arange(-(-count // 8), device=x.device)  # each hash is eight bytes of noise
        noise = hash64(draw.bits(5)[:, None] + eighth).view(torch.uint8)[:, :count]
        inside = _inside(height, width, *place).to(torch.bool)
        return torch.where(inside, noise.reshape(x.shape), x)


_SMALLEST_ERASED = 0.02


@dataclass(frozen=True)
class _Draw:
    """The random numbers of one operation for (m,) samples. Number 0 decided whether it takes place."""

    sample_ids: Tensor
    key: tuple[int, ...]

    def bits(self, number: int) -> Tensor:
        return hash64(self.sample_ids, *self.key, number)

    def uniform(self, number: int) -> Tensor:
        return uniform(self.sample_ids, *self.key, number)

    def rectangle(
        self, height: int, width: int, area: tuple[float, float], ratio: tuple[float, float]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(top, left, rows, columns), each (m,) int64, inside the image; uses the numbers 1 to 4.

        ``area`` is a share of the image, uniform; ``ratio`` is width / height, uniform in its logarithm.
        """
        pixels = height * width * (area[0] + (area[1] - area[0]) * self.uniform(1))
        aspect = torch.exp(log(ratio[0]) + (log(ratio[1]) - log(ratio[0])) * self.uniform(2))
        rows = (pixels / aspect).sqrt().round().clamp(1, height).long()
        columns = (pixels * aspect).sqrt().round().clamp(1, width).long()
        top = (self.uniform(3) * (height - rows + 1)).long()
        left = (self.uniform(4) * (width - columns + 1)).long()
        return top, left, rows, columns


def _flipped(images: Tensor, chosen: Tensor) -> Tensor:
    """``images`` (b, h, w, 3) with the ``chosen`` (b,) ones mirrored; every run does this to every batch."""
    if images.device.type != "cpu":
        return torch.where(chosen[:, None, None, None], images.flip(2), images)
    out = images.clone()
    for row in chosen.nonzero()[:, 0].tolist():  # image by image stays in the cache: no temporary batches
        out[row] = images[row].flip(1)
    return out


def _change(
    images: Tensor,
    chosen: Tensor,
    sample_ids: Tensor,
    key: tuple[int, ...],
    change: Callable[[Tensor, _Draw], Tensor],
) -> Tensor:
    """``images`` (b, h, w, 3) with the ``chosen`` (b,) ones changed.

    A GPU changes all and picks, since asking it which are chosen would stall it; a CPU changes the chosen.
    """
    if images.device.type != "cpu":
        changed = change(images, _Draw(sample_ids, key))
        return torch.where(chosen[:, None, None, None], changed, images)
    rows = chosen.nonzero()[:, 0]
    if len(rows) == 0:
        return images
    changed = change(images.index_select(0, rows), _Draw(sample_ids[rows], key))
    out = images.clone()
    for row, image in zip(rows.tolist(), changed, strict=True):  # several times faster than out[rows] = changed
        out[row] = image
    return out


def _inside(height: int, width: int, top: Tensor, left: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(m, h, w, 1) uint8: 1 inside the rectangle, 0 outside."""
    y = torch.arange(height, device=top.device)
    x = torch.arange(width, device=top.device)
    tall = (y >= top[:, None]) & (y < (top + rows)[:, None])
    wide = (x >= left[:, None]) & (x < (left + columns)[:, None])
    return (tall[:, :, None, None] & wide[:, None, :, None]).to(torch.uint8)


def _enlarge(length: Tensor, start: Tensor, side: int) -> Tensor:
    """(m, side, side) float32: rows interpolate the pixels [start, start + length) to ``side`` pixels."""
    pixel = torch.arange(side, device=length.device, dtype=torch.float32)
    first, scale = start[:, None].to(torch.float32), length[:, None].to(torch.float32) / side
    source = first + ((pixel + 0.5) * scale - 0.5)
    source = torch.minimum(source.clamp_min(first), first + (length[:, None] - 1))
    return (1 - (source[:, :, None] - pixel).abs()).clamp_min(0)


def _shrink_and_enlarge(share: Tensor, side: int) -> Tensor:
    """(m, side, side) float32: antialiased shrinking to ``share`` (m,) of the side, then enlarging."""
    pixel = torch.arange(side, device=share.device, dtype=torch.float32)
    length = (share * side).round().clamp_min(1)
    scale = (side / length)[:, None]
    # Row k is the k-th pixel of the small image: a tent as wide as the shrinking asks for.
    center = (pixel + 0.5) * scale - 0.5
    tent = (1 - (pixel - center[:, :, None]).abs() / scale[:, :, None]).clamp_min(0)
    shrink = tent / tent.sum(-1, keepdim=True).clamp_min(1e-12)
    return _enlarge(length.long(), torch.zeros_like(length), side) @ shrink


def _resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(m, h, w, 3) uint8 with (m, h, h) applied to its columns and (m, w, w) to its rows."""
    m, height, width, channels = x.shape
    y = rows @ x.to(torch.float32).view(m, height, width * channels)
    # Width to the front, so that this, too, is one large product per image.
    y = y.view(m, height, width, channels).transpose(1, 2).reshape(m, width, height * channels)
    y = (columns @ y).view(m, width, height, channels).transpose(1, 2)
    return _to_uint8(y).contiguous()


def _grey(x: Tensor) -> Tensor:
    """(m, h, w, 3) to (m, h, w, 1) float32."""
    return (x * torch.tensor(_GREY, device=x.device)).sum(-1, keepdim=True)


def _to_uint8(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)
