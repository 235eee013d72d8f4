"""What JPEG loses: baseline JPEG as cameras write it and libjpeg reads it, without the bytes.

The steps are those of ITU-T T.81 with JFIF's YCbCr and chroma of half the size (4:2:0); rounding, edges and the
triangle filter that enlarges chroma follow libjpeg, so the pixels are those of a file but for a level here and there
(libjpeg's cosine transform is in whole numbers). Huffman codes lose nothing and are left out. Sums of eight are written
out in a fixed order: a matrix product may sum differently in a batch of another size.

Axes: b pictures, c planes, h x w pixels.
"""

import math

import torch
from torch import Tensor

from unpg.data.synthetic.resample import pick

__all__ = ["lose", "steps"]

# Tables K.1 and K.2 of ITU-T T.81, row by row: vertical frequency rises downward.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)

# Cosines (frequency, place) without their norms, so that the sum of a flat block is exact and its ties are libjpeg's.
_COSINES = [[math.cos((2 * n + 1) * k * math.pi / 16) if k else 1.0 for n in range(8)] for k in range(8)]
_NORMS = [8**-0.5] + [0.5] * 7


def steps(quality: Tensor) -> tuple[Tensor, Tensor]:
    """The quantization tables of luminance and chrominance, each (b, 8, 8) int64, of qualities (b,) 1..100.

    The tables of Annex K, scaled as libjpeg's ``jpeg_set_quality`` does and kept within eight bits.
    """
    quality = quality.round().to(torch.int64)
    percent = torch.where(quality < 50, 5000 // quality.clamp(min=1), 200 - 2 * quality)[:, None, None]
    tables = [torch.tensor(t, device=quality.device).reshape(1, 8, 8) for t in (_LUMINANCE, _CHROMINANCE)]
    luminance, chrominance = (((table * percent + 50) // 100).clamp(1, 255) for table in tables)
    return luminance, chrominance


def lose(levels: Tensor, quality: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pictures as they come back from JPEG files.

    Args:
        levels: (b, 3, h, w) float32 RGB, whole numbers 0..255. A picture may fill the upper left corner only.
        quality: (b,), 1..100, rounded to whole numbers.
        rows: (b, 1) int64, the height of each picture.
        columns: (b, 1) int64, the width of each picture.

    Returns:
        Levels of the same kind; only those within a picture's height and width have a meaning.
    """
    height, width = levels.shape[2:]
    # The edges are repeated up to whole blocks of chroma.
    full = [torch.arange(-(-size // 16) * 16, device=levels.device)[None] for size in (height, width)]
    padded = pick(pick(levels, 2, full[0].minimum(rows - 1)), 3, full[1].minimum(columns - 1))
    red, green, blue = padded.split(1, 1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).round()
    chroma = torch.cat(
        [
            (-0.168735892 * red - 0.331264108 * green + 0.5 * blue + 128.0).round(),
            (0.5 * red - 0.418687589 * green - 0.081312411 * blue + 128.0).round(),
        ],
        1,
    )
    luminance, chrominance = steps(quality)
    luma = _quantized(luma, luminance)
    # libjpeg repeats the last row of chroma after halving it, but the last column before.
    halved = _halved(chroma)
    at = torch.arange(halved.shape[2], device=levels.device)[None]
    halved = pick(halved, 2, at.minimum((rows + 1) // 2 - 1))
    chroma = _enlarged(_quantized(halved, chrominance), rows, columns)
    blueness, redness = (chroma - 128.0).split(1, 1)
    made = torch.cat(
        [luma + 1.402 * redness, luma - 0.344136286 * blueness - 0.714136286 * redness, luma + 1.772 * blueness], 1
    )
    return made[:, :, :height, :width].round().clamp(0.0, 255.0)


def _quantized(planes: Tensor, table: Tensor) -> Tensor:
    """Planes (b, c, h, w) of whole 8 x 8 blocks with their coefficients rounded to multiples of ``table`` (b, 8, 8)."""
    b, c, height, width = planes.shape
    cosines = torch.tensor(_COSINES, dtype=torch.float32, device=planes.device)
    norms = torch.tensor(_NORMS, dtype=torch.float64, device=planes.device)
    norm = norms[:, None] * norms
    divisor, factor = ((table / norm).float(), (table * norm).float())
    blocks = planes.reshape(b, c, height // 8, 8, width // 8, 8) - 128.0
    for axis in (3, 5):
        blocks = _combined(blocks, cosines, axis)
    share = blocks / divisor[:, None, None, :, None, :]
    # Halves are rounded away from zero, as in libjpeg.
    blocks = share.sign() * (share.abs() + 0.5).floor() * factor[:, None, None, :, None, :]
    for axis in (5, 3):
        blocks = _combined(blocks, cosines.t(), axis)
    return (blocks + 128.0).round().clamp(0.0, 255.0).reshape(planes.shape)


def _combined(blocks: Tensor, table: Tensor, axis: int) -> Tensor:
    """``table`` (8, 8) times the values along ``axis``, which is eight long."""
    shape = [8 if a == axis else 1 for a in range(blocks.dim())]
    total = blocks.narrow(axis, 0, 1) * table[:, 0].reshape(shape)
    for n in range(1, 8):
        total = total.add_(blocks.narrow(axis, n, 1) * table[:, n].reshape(shape))
    return total


def _halved(planes: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; libjpeg rounds them down and up in turn, so that no tone drifts."""
    total = planes[:, :, ::2, ::2] + planes[:, :, ::2, 1::2] + planes[:, :, 1::2, ::2] + planes[:, :, 1::2, 1::2]
    bias = torch.tensor([1.0, 2.0], device=planes.device).repeat(total.shape[3] // 2)
    return ((total + bias) * 0.25).floor()


def _enlarged(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Twice the size by libjpeg's triangle filter: three parts of the nearer sample and one of the next, both ways."""
    for axis, size in ((2, rows), (3, columns)):
        last = (size + 1) // 2 - 1
        at = torch.arange(planes.shape[axis], device=planes.device)[None].minimum(last)
        before, after = (pick(planes, axis, i) for i in ((at - 1).clamp(min=0), (at + 1).minimum(last)))
        nearer = pick(planes, axis, at) * 3.0
        planes = torch.stack([nearer + before, nearer + after], axis + 1).flatten(axis, axis + 1)
    bias = torch.tensor([8.0, 7.0], device=planes.device).repeat(planes.shape[3] // 2)
    return ((planes + bias) * 0.0625).floor()
