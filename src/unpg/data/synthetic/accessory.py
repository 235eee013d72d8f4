"""What is worn on the head: hats as surfaces, glasses as a pane whose frame, lenses and arms are painted.

Both lie in one mesh over the head. It is drawn only for the pictures that show it, and blended over the head where it
is nearer to the camera. (Masks are cloth over the face: :mod:`unpg.data.synthetic.surface` bends the skin,
:mod:`unpg.data.synthetic.skin` paints it.)

Axes: k heads that wear something, v vertices, n pixels. Units are centimeters at rest.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unpg.data.synthetic.parameters import Columns, PerPixel
from unpg.data.synthetic.skin import Color, over, scale
from unpg.data.synthetic.surface import HAIR_COLUMNS, bell, normals_of, ring_of, sheet, skull, step, swing

__all__ = ["ARM", "HAT", "PANE", "WornPaint", "build_hat", "build_worn", "hat_triangles", "paint_worn", "worn_mesh"]

HAT, PANE, ARM = 0, 1, 2

_CROWN = 11  # rows of the crown, then two of the brim
_HAT_ROWS = _CROWN + 2
_PANE = (7, 33)
_ARM = (2, 8)


class WornPaint(NamedTuple):
    """What shading needs to know of n pixels: ``color``, ``gloss`` 0..1, and ``cover`` (n,): 0 lets all through."""

    color: Color
    gloss: Tensor
    cover: Tensor


@lru_cache(maxsize=8)
def hat_triangles(device: torch.device) -> Tensor:
    """Triangles (t, 3) of a hat."""
    return torch.from_numpy(sheet(np.arange(_HAT_ROWS * HAIR_COLUMNS).reshape(_HAT_ROWS, -1))).to(device)


@lru_cache(maxsize=8)
def worn_mesh(device: torch.device) -> tuple[Tensor, Tensor]:
    """Triangles (t, 3) of all that may be worn, and the part (t,) int64 that each belongs to: HAT, PANE, ARM."""
    made, parts, first = [hat_triangles(torch.device("cpu")).numpy()], [], _HAT_ROWS * HAIR_COLUMNS
    parts.append(np.full(len(made[0]), HAT))
    for part, (rows, columns) in ((PANE, _PANE), (ARM, _ARM), (ARM, _ARM)):
        made.append(sheet(first + np.arange(rows * columns).reshape(rows, columns), closed=False))
        parts.append(np.full(len(made[-1]), part))
        first += rows * columns
    return torch.from_numpy(np.concatenate(made)).to(device), torch.from_numpy(np.concatenate(parts)).to(device)


def build_hat(p: Columns) -> list[Tensor]:
    """Hats: x, y, z, each (b, rows, columns); x = nan where none is worn."""
    ring = ring_of(HAIR_COLUMNS, 0.25, p["sex"].device)
    q = {name: column[:, :, None] for name, column in p.items()}
    x, y, z = (a[:, :_CROWN] for a in skull(q, ring, every=2))
    # The edge runs from the forehead to the nape; rows of the skull below it fold up to it.
    edge = q["hat_front"] + (q["hat_back"] - q["hat_front"]) * step(0.5, 2.6, ring.angle.abs())
    above = y - edge
    y = torch.maximum(y, edge)
    swell = 1.0 + (0.55 + q["hat_swell"]) / (x.square() + z.square()).sqrt().clamp(min=1.0) * step(12.2, 10.0, y)
    cuff = 1.0 + 0.05 * q["hat_cuff"] * step(2.6, 2.2, above)
    x, z = x * swell * cuff, z * swell * cuff
    y = y + (0.5 + q["hat_tall"]) * step(edge, 11.0, y)
    # The brim goes on from the edge: outward, and down a little, most where it is widest.
    front = step(1.25, 0.7, ring.angle.abs())
    long = q["hat_brim"] * (front + q["hat_around"] * (1.0 - front)).sqrt()
    droop = 0.28 + 0.1 * ring.sin.square()
    rows = []
    for share in (0.5, 1.0):
        out, last_x, last_z = long * share, x[:, -1:], z[:, -1:]
        rows.append(
            (last_x + out * ring.sin * 0.8, y[:, -1:] - out * droop * (0.6 + 0.4 * share), last_z + out * ring.cos)
        )
    x, y, z = (torch.cat([a, rows[0][i], rows[1][i]], 1) for i, a in enumerate((x, y, z)))
    return [x.masked_fill(q["wears_hat"] == 0.0, torch.nan), y, z]


def _glasses(p: Columns) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Pane and two arms: points and normals, each x, y, z of (k, rows, columns); x = nan where none are worn."""
    device = p["sex"].device
    q = {name: column[:, :, None] for name, column in p.items()}
    rows, columns = _PANE
    u = torch.linspace(-1.0, 1.0, columns, device=device)[None, None]
    v = torch.linspace(1.0, -1.0, rows, device=device)[None, :, None]
    half, z0 = q["glasses_half"], q["glasses_z"]
    x, y = (half * u).expand(-1, rows, -1), (q["glasses_y"] + q["lens_high"] * 1.25 * v).expand(-1, -1, columns)
    pane = [x, y, z0 - q["glasses_bend"] * x.square() + 0.04 * (y - q["glasses_y"])]
    one = torch.ones_like(x)
    slope = 2.0 * q["glasses_bend"] * x
    norm = 1.0 / (1.0 + slope.square()).sqrt()
    grids, normals = [pane], [[slope * norm, 0.0 * one, norm]]
    # An arm runs back from the hinge to the ear and bends down behind it.
    rows, columns = _ARM
    t = torch.linspace(0.0, 1.0, columns, device=device)[None, None]
    v = torch.linspace(0.5, -0.5, rows, device=device)[None, :, None]
    start = z0 - q["glasses_bend"] * half.square()
    z = start + (-1.6 - start) * t
    y = (
        q["glasses_y"]
        + 0.45 * q["lens_high"]
        - 0.3 * t
        - 2.2 * (t - 0.8).clamp(min=0.0) * 5.0 * (t - 0.8).clamp(min=0.0)
    )
    for side in (-1.0, 1.0):
        bow = half + (q["head_side"] + 0.12 - half) * step(0.0, 0.7, t)
        arm = [side * bow.expand(-1, rows, -1), y + q["arm_high"] * v, z.expand(-1, rows, -1)]
        one = torch.ones_like(arm[0])
        grids.append(arm)
        normals.append([side * one, 0.0 * one, 0.0 * one])
    bare = q["wears_glasses"] == 0.0
    return [[g[0].masked_fill(bare, torch.nan), g[1], g[2]] for g in grids], normals


def build_worn(p: Columns) -> tuple[list[Tensor], list[Tensor]]:
    """Points and outward normals of all that may be worn, each x, y, z of (k, v); x = nan where it is not."""
    k = len(p["sex"])
    hat = build_hat(p)
    grids, normals = _glasses(p)
    grids, normals = [hat, *grids], [normals_of(*hat), *normals]
    return tuple([torch.cat([g[i].reshape(k, -1) for g in made], 1) for i in range(3)] for made in (grids, normals))  # type: ignore[return-value]


def paint_worn(p: PerPixel, x: Tensor, y: Tensor, z: Tensor, part: Tensor, pixel: Tensor) -> WornPaint:
    """Hat, frame, lenses and arms.

    Args:
        p: Measures of the pixels.
        x: Where on the head the pixels are, with ``y`` and ``z``, each (n,).
        y: See ``x``.
        z: See ``x``.
        part: (n,) HAT, PANE or ARM.
        pixel: (n,) or (1,), size of a pixel in centimeters.
    """
    soft = pixel + 0.02
    own = (p["accessory_red"], p["accessory_green"], p["accessory_blue"])
    one = torch.ones_like(x)
    # Cloth: a weave, and the seams of a cap or the ribs of a beanie.
    turns = 0.25 * (1.0 - z / (x.abs() + z.abs()).clamp(min=0.1)) * x.sign()
    ribs = 0.2 * p["hat_cuff"] * swing(26.0 * turns) + 0.05 * swing(2.3 * x + 0.7 * z) * swing(2.1 * y - 0.9 * x)
    band = p["hat_around"] * step(0.1, 0.4, y - p["hat_front"] - 0.1) * step(2.2, 1.8, y - p["hat_front"])
    hat = scale(own, 1.0 + ribs - 0.6 * band)
    # Glasses: distance to the edge of the lens, in centimeters, positive inside.
    aside, up = x.abs() - p["lens_x"], y - p["glasses_y"]
    u, v = (aside / p["lens_half"]).square(), (up / p["lens_high"]).square()
    square = p["lens_square"]
    round_ = (u + v).clamp(min=1e-6).sqrt()
    boxed = (u.square() + v.square()).clamp(min=1e-6).sqrt().sqrt()
    inside = (1.0 - (round_ + square * (boxed - round_))) * p["lens_high"]
    thick = p["frame_thick"]
    rim = step(-0.5, 0.5, (thick - inside.abs()) / soft)
    gap = p["lens_x"] - p["lens_half"] * 0.95
    bridge = step(
        -0.5, 0.5, (0.8 * thick - (up - 0.3 * p["lens_high"] - 0.15 * (1.0 - (x / gap).square())).abs()) / soft
    )
    bridge = bridge * (x.abs() < gap)
    hinge = step(-0.5, 0.5, (0.9 * thick + 0.06 - (up - 0.45 * p["lens_high"]).abs()) / soft)
    hinge = hinge * (aside > 0.9 * p["lens_half"])
    frame = torch.maximum(torch.maximum(rim, bridge), hinge)
    lens = step(-0.5, 0.5, inside / soft)
    # A window or a lamp mirrored in the lens.
    glint = bell(0.8 * aside + up - 0.55 * p["lens_high"], 0.22) * bell(up - 0.45 * p["lens_high"], 0.45)
    dark = p["dark_lens"]
    shade = 0.94 - 0.22 * step(-0.2, -1.0, up / p["lens_high"])
    through = dark * shade + (1.0 - dark) * 0.04
    glass = tuple(0.012 + 0.02 * c + (0.10 + 0.25 * (1.0 - dark)) * glint for c in own)
    pane_cover = torch.maximum(frame, lens * torch.maximum(through * one, 0.55 * glint))
    pane = over((glass[0], glass[1], glass[2]), scale(own, 0.9 * one), frame)
    is_hat, is_pane = part == HAT, part == PANE
    color = [torch.where(is_hat, a, torch.where(is_pane, b, c)) for a, b, c in zip(hat, pane, own, strict=True)]
    gloss = torch.where(is_hat, 0.1 * one, torch.where(is_pane, 0.8 * frame + 1.0 * dark * (1.0 - frame), 0.7 * one))
    cover = torch.where(is_pane, pane_cover, one)
    return WornPaint((color[0], color[1], color[2]), gloss, cover)
