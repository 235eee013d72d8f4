"""From surfaces to the picture plane, and from light to gray levels.

Axes: b pictures, v points, h x w pixels. Pixel centers are at whole numbers.
"""

import torch
from torch import Tensor

from unpg.data.synthetic import jpeg
from unpg.data.synthetic.parameters import Columns
from unpg.data.synthetic.resample import enlarge, reduce

__all__ = ["TEMPLATE", "align", "develop", "project", "template", "to_pixels", "turn"]

TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Where the five landmarks (column, row) lie in a 112 x 112 crop: the field's template (insightface's)."""


def template(size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """The template (5, 2) for pictures of ``size`` (height, width): scaled with the height, centered in the width.

    So 112 x 96 is the middle of 112 x 112, as in the crops of MobileFaceNet's 128-d form.
    """
    height, width = size
    points = torch.tensor(TEMPLATE, dtype=torch.float32, device=device) * (height / 112)
    return points + torch.tensor([(width - height) / 2, 0.0], device=device)


def turn(p: Columns, points: list[Tensor]) -> list[Tensor]:
    """Turn points or normals, x, y, z each (b, v), by roll, then pitch, then yaw."""
    axes = list(points)
    for name, first, second in (("roll", 0, 1), ("pitch", 1, 2), ("yaw", 0, 2)):
        u, v = axes[first], axes[second]
        axes[first] = u * p[f"{name}_cos"] + v * p[f"{name}_sin"]
        axes[second] = v * p[f"{name}_cos"] - u * p[f"{name}_sin"]
    return axes


def project(p: Columns, points: list[Tensor]) -> list[Tensor]:
    """Perspective projection of turned points, x, y, z each (b, v).

    Returns:
        Column and row (centimeters in the plane of the head's center, rows running down) and 1 / depth, each (b, v).
    """
    x, y, z = points
    nearness = 1.0 / (p["distance"] - z).clamp(min=1.0)
    grow = p["distance"] * nearness
    return [x * grow, -y * grow, nearness]


def align(p: Columns, columns: Tensor, rows: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """The similarity that carries projected landmarks (b, 5) to the template, then the aligner's error.

    Returns:
        a, c, tx, ty, each (b, 1), of ``column = a x - c y + tx``, ``row = c x + a y + ty``, of least squared error.
        In the plane Umeyama's solution (1991, without reflections) is linear: least squares over complex numbers.
    """
    goal = template(size, columns.device)
    middle = _sum(goal.t()) * 0.2  # (2, 1)
    u, v = (goal.t() - middle)[:, None]
    center_x, center_y = _sum(columns) * 0.2, _sum(rows) * 0.2
    x, y = columns - center_x, rows - center_y
    norm = _sum(x.square() + y.square())
    a, c = _sum(x * u + y * v) / norm, _sum(x * v - y * u) / norm
    cos, sin = p["turn_cos"] * p["scale"], p["turn_sin"] * p["scale"]
    a, c = a * cos - c * sin, a * sin + c * cos
    unit = size[0] / 112
    tx = middle[0] + p["shift_x"] * unit - (a * center_x - c * center_y)
    ty = middle[1] + p["shift_y"] * unit - (c * center_x + a * center_y)
    return [a, c, tx, ty]


def _sum(values: Tensor) -> Tensor:
    """Sum over the last axis (five long), kept, in a fixed order."""
    total = values[:, :1]
    for i in range(1, values.shape[1]):
        total = total + values[:, i : i + 1]
    return total


def to_pixels(similarity: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the similarity to points (b, v)."""
    a, c, tx, ty = similarity
    return a * x - c * y + tx, c * x + a * y + ty


def develop(p: Columns, light: Tensor, seeds: Tensor) -> Tensor:
    """Radiance (b, 3, h, w) to gray levels (b, h, w, 3) uint8.

    Exposure, blur, the pixels of the sensor, tone, saturation, contrast, noise, the file, and the aligner's enlarging.

    Args:
        p: The measures of the camera.
        light: Linear RGB, 1 is white.
        seeds: (b,) int64 keys of the noise. Noise is integer arithmetic on (seed, pixel, channel), so it is the same on
            every device and for every batch.
    """
    q = {name: p[name][:, :, None, None] for name in ("gain", "saturation", "contrast", "noise")}
    blurred = _blur(light * q["gain"], p["blur"] * (light.shape[2] / 112))
    rows, columns = ((p["resolution"] * size).round().clamp(min=1.0).to(torch.int64) for size in light.shape[2:])
    small = (p["resolution"] < 1.0)[:, 0].nonzero()[:, 0]
    if len(small):
        blurred.index_copy_(0, small, reduce(blurred[small], rows[small], columns[small]))
    # The shoulder of the tone curve keeps highlights from clipping at once; its square root stands in for gamma.
    shoulder = blurred.square().mul_(0.25).add_(1.0).sqrt_()
    tone = blurred.div_(shoulder).clamp_(min=0.0).sqrt_()
    gray = (0.3 * tone[:, 0:1] + 0.59 * tone[:, 1:2]) + 0.11 * tone[:, 2:3]
    tone = tone.sub_(gray).mul_(q["saturation"]).add_(gray)
    tone = tone.sub_(0.45).mul_(q["contrast"]).add_(0.45)
    level = tone.mul_(255.0).add_(_noise(light.shape, seeds).mul_(q["noise"])).round_().clamp_(0, 255)
    filed = (p["jpeg"] > 0.0)[:, 0].nonzero()[:, 0]
    if len(filed):
        level.index_copy_(0, filed, jpeg.lose(level[filed], p["jpeg"][filed, 0], rows[filed], columns[filed]))
    if len(small):
        level.index_copy_(0, small, enlarge(level[small], rows[small], columns[small]).round_())
    return level.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _blur(image: Tensor, deviation: Tensor) -> Tensor:
    """Gaussian blur of (b, 3, h, w), standard deviation (b, 1) in pixels for each picture, cut at three of them."""
    # The weights are made on the host, in float64, so that they do not depend on a device's exponential.
    sigma = deviation.double().cpu().clamp(min=1e-3)
    reach = min(int((3.0 * sigma.max()).ceil()), min(image.shape[2:]) - 1)
    offset = torch.arange(-reach, reach + 1)
    weight = torch.stack([torch.exp(-0.5 * (offset / s).square()) * (offset.abs() <= (3.0 * s).ceil()) for s in sigma])
    taps = (weight / weight.sum(1, keepdim=True)).float().to(image.device).t()[:, :, None, None, None]
    for axis in (2, 3):
        size = image.shape[axis]
        pad = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
        padded = torch.nn.functional.pad(image, pad, mode="replicate")
        image = padded.narrow(axis, reach, size) * taps[reach]
        for i in range(1, reach + 1):
            both = padded.narrow(axis, reach - i, size) + padded.narrow(axis, reach + i, size)
            image = image.add_(both.mul_(taps[reach + i]))
    return image


def _noise(shape: torch.Size, seeds: Tensor) -> Tensor:
    """Nearly normal noise (b, 3, h, w) of variance one: the sum of the four bytes of a 32-bit hash.

    The hash is the finalizer of MurmurHash3 (Appleby) on the number of the pixel, keyed by the seed.
    """
    # In 32-bit integers that wrap around; the masks undo the sign extension of the shifts.
    number = torch.arange(shape[1] * shape[2] * shape[3], dtype=torch.int32, device=seeds.device)
    word = (number * -1640531535)[None] + ((seeds * 0x85EBCA77).bitwise_and_(0x7FFFFFFF).to(torch.int32))[:, None]
    for shift, factor in ((16, -2048144789), (13, -1028477387)):
        word = word.bitwise_xor_((word >> shift).bitwise_and_((1 << (32 - shift)) - 1)).mul_(factor)
    word = word.bitwise_xor_((word >> 16).bitwise_and_(0xFFFF))
    pairs = (word & 0x00FF00FF).add_((word >> 8).bitwise_and_(0x00FF00FF))
    total = (pairs & 0xFFFF).add_(pairs >> 16)
    # Four even bytes: mean 4 * 127.5, variance 4 * (256^2 - 1) / 12.
    return total.float().sub_(510.0).mul_((3.0 / 65535.0) ** 0.5).reshape(shape)
