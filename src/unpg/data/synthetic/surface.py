"""The head as a surface: a skull swept around the vertical, with the features of the face pushed out of it.

Units are centimeters. At rest the eyes are at y = 0, x points to the right of the picture, y up, z out of the face; the
ears are near z = 0. Axes: b heads, r rows (top of the head to the shoulders), c columns (around), v vertices.

A head is four grids in one list of vertices: skin (skull, face, neck, shoulders), hair (a shell that dives below the
skin where there is no hair), and two ears.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unpg.data.synthetic.parameters import Columns

__all__ = [
    "EAR",
    "HAIR",
    "HAIR_COLUMNS",
    "SKIN",
    "Head",
    "Ring",
    "Topology",
    "bell",
    "build_head",
    "mask_cover",
    "normals_of",
    "profile_rows",
    "ring_of",
    "sheet",
    "skull",
    "step",
    "swing",
    "topology",
]

SKIN, HAIR, EAR = 0, 1, 2

# y, half width, depth in front, depth behind, roundness of the cross-section (1: ellipse, less: box); rows to the next.
_PROFILE = np.array(
    [
        (12.0, 0.02, 0.02, 0.02, 1.00, 2),
        (11.6, 2.9, 3.2, 3.8, 1.00, 3),
        (10.4, 5.0, 5.6, 6.6, 1.00, 3),
        (8.5, 6.5, 7.5, 8.4, 0.97, 3),
        (6.0, 7.2, 8.7, 9.3, 0.95, 4),
        (3.5, 7.35, 9.2, 9.5, 0.93, 5),
        (1.5, 7.15, 9.3, 9.4, 0.92, 6),
        (0.0, 6.95, 9.05, 9.2, 0.92, 7),
        (-2.0, 6.75, 9.0, 8.6, 0.94, 9),
        (-4.4, 6.25, 9.1, 7.6, 0.96, 10),
        (-7.0, 5.5, 9.15, 6.4, 0.98, 7),
        (-9.0, 4.75, 9.0, 5.7, 1.02, 5),
        (-10.4, 3.75, 8.5, 5.4, 1.04, 3),
        (-11.1, 3.2, 7.3, 5.4, 1.03, 2),
        (-11.6, 4.3, 5.4, 5.4, 1.00, 1),
        (-13.0, 5.0, 4.4, 5.4, 1.00, 2),
        (-15.5, 5.4, 4.0, 5.6, 1.00, 2),
        (-17.5, 8.5, 4.8, 6.0, 0.95, 2),
        (-19.5, 15.0, 6.5, 7.0, 0.90, 1),
        (-24.0, 20.0, 8.5, 8.0, 0.80, 0),
    ]
)
_COLUMNS = 56
HAIR_COLUMNS = 44
_EAR_RINGS, _EAR_SPOKES = 5, 14


class Head(NamedTuple):
    """Surfaces of b heads.

    points: three (b, v) float32, x, y, z in centimeters, expression included, pose not. Triangles with a corner at
        x = nan are not there.
    normals: three (b, v) float32, outward, of length one.
    open: (b, v) float32, how much of the sky the neighborhood leaves open, up to 1.
    scalp: (b, v) float32, how far above the hairline a place of the skin is, in centimeters (negative below it).
    landmarks: three (b, 5) float32: eye on the left of the picture, the other one, tip of the nose, mouth corners.
    """

    points: list[Tensor]
    normals: list[Tensor]
    open: Tensor
    scalp: Tensor
    landmarks: list[Tensor]


class Topology(NamedTuple):
    """What all heads share.

    triangles: (t, 3) int64.
    two_sided: (t,) bool: seen from behind, too.
    part: (t,) int64: SKIN, HAIR, EAR.
    casters: (s, 3) int64, coarser triangles between the same vertices: those that cast shadows.
    casters_two_sided: (s,) bool.
    """

    triangles: Tensor
    two_sided: Tensor
    part: Tensor
    casters: Tensor
    casters_two_sided: Tensor


class Ring(NamedTuple):
    """Angles around the vertical, 0 in front: (1, 1, c) sine, cosine, angle, logarithms of |sine| and |cosine|."""

    sin: Tensor
    cos: Tensor
    angle: Tensor
    log_sin: Tensor
    log_cos: Tensor


def step(low: Tensor | float, high: Tensor | float, x: Tensor) -> Tensor:
    """Smooth step: 0 up to ``low``, 1 from ``high`` on (the other way round if ``high`` < ``low``)."""
    slope = 1.0 / (high - low)
    u = (x * slope - low * slope).clamp_(0.0, 1.0)
    return u.square() * u.mul_(-2.0).add_(3.0)


def bell(x: Tensor, width: Tensor | float) -> Tensor:
    """A bell of standard deviation ``width``: (1 - u^2 / 8)^4, near exp(-u^2 / 2), and 0 from 2.83 widths on."""
    u = x * (0.125**0.5 / width)
    made: Tensor = u.square_().neg_().add_(1.0).clamp_(min=0.0).square_().square_()
    return made


def swing(turns: Tensor) -> Tensor:
    """A wave of period 1 and height 1, near sin(2 pi turns), made of parabolas; overwrites ``turns``."""
    r = turns.sub_(turns.round())
    return r * r.abs().mul_(-16.0).add_(8.0)


def _spline(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Catmull-Rom through the rows of the profile, with as many rows between as its last column says."""
    knots = table[:, :-1]
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    rows = []
    for i, n in enumerate(table[:-1, -1].astype(int)):
        p0, p1, p2, p3 = padded[i : i + 4]
        for u in np.arange(n) / n:
            cubic = 2 * p1 + (p2 - p0) * u + (2 * p0 - 5 * p1 + 4 * p2 - p3) * u**2
            rows.append(0.5 * (cubic + (3 * p1 - p0 - 3 * p2 + p3) * u**3))
    made = np.array([*rows, knots[-1]])
    made[:, 1:4] = np.maximum(made[:, 1:4], 0.02)
    return made


@lru_cache(maxsize=8)
def _rows(device: torch.device) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(c, dtype=torch.float32, device=device)[None, :, None] for c in _spline(_PROFILE).T)


@lru_cache(maxsize=8)
def ring_of(columns: int, dense: float, device: torch.device) -> Ring:
    """``columns`` angles, denser in front; the seam is behind."""
    u = np.arange(-columns // 2, columns - columns // 2) / (columns / 2)
    angle = np.pi * (u * (1 - dense) + dense * u**3)
    sin, cos = np.sin(angle), np.cos(angle)
    logs = [np.log(np.maximum(np.abs(a), 1e-3)) for a in (sin, cos)]
    return Ring(*(torch.tensor(a, dtype=torch.float32, device=device)[None, None] for a in (sin, cos, angle, *logs)))


def sheet(index: NDArray[np.int64], closed: bool = True) -> NDArray[np.int64]:
    """Triangles (t, 3) between vertices ``index`` (rows, columns), clockwise as seen from outside, rows running down.

    ``closed``: the last column meets the first.
    """
    right = np.roll(index, -1, 1)
    a, b, d, e = index[:-1], right[:-1], index[1:], right[1:]
    if not closed:
        a, b, d, e = (corner[:, :-1] for corner in (a, b, d, e))
    return np.stack([np.stack([a, b, e], -1), np.stack([a, e, d], -1)], 2).reshape(-1, 3)


@lru_cache(maxsize=8)
def profile_rows(every: int = 1) -> NDArray[np.float64]:
    """Heights of the rows of a head at rest, from the top."""
    return _spline(_PROFILE)[::every, 0]


@lru_cache(maxsize=8)
def topology(device: torch.device) -> Topology:
    """The triangles of every head, on ``device``."""
    rows = len(profile_rows())
    hair_rows = len(profile_rows(2))
    skin_index = np.arange(rows * _COLUMNS).reshape(rows, -1)
    hair_index = rows * _COLUMNS + np.arange(hair_rows * HAIR_COLUMNS).reshape(hair_rows, -1)
    first = rows * _COLUMNS + hair_rows * HAIR_COLUMNS
    ear = np.arange(_EAR_RINGS * _EAR_SPOKES).reshape(_EAR_RINGS, -1)
    skin, hair = sheet(skin_index), sheet(hair_index)
    ears = [sheet(first + i * ear.size + ear) for i in range(2)]
    # Below the eyes one may look into the shell of long hair; above there is always a head in it.
    hanging = np.repeat(profile_rows(2)[:-1] < 1.0, 2 * HAIR_COLUMNS)
    part = np.repeat([SKIN, HAIR, EAR], [len(skin), len(hair), 2 * len(ears[0])])
    two_sided = np.concatenate([np.zeros(len(skin), bool), hanging, np.ones(2 * len(ears[0]), bool)])
    # A quarter of the triangles is enough to cast a shadow. The shoulders cast none on the face.
    caster = sheet(skin_index[1:-4:2, ::2])
    hair_caster = sheet(hair_index[::2, ::2])
    casters = np.concatenate([caster, hair_caster])
    cast_two_sided = np.repeat([False, True], [len(caster), len(hair_caster)])
    made = (np.concatenate([skin, hair, *ears]), two_sided, part, casters, cast_two_sided)
    return Topology(*(torch.from_numpy(a).to(device) for a in made))


def skull(q: Columns, ring: Ring, every: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates x, y, z, each (b, r, c), of skull, jaw, neck and shoulders without a face, in every n-th row."""
    y, width, front, back, power = (column[:, ::every] for column in _rows(ring.sin.device))
    jaw = bell(y + 8.0, 2.2)
    width = width * (
        1.0
        + 0.05 * q["head_width"] * step(-14.0, -10.0, y)
        + 0.08 * q["forehead_width"] * bell(y - 5.0, 2.5)
        + 0.08 * q["cheek_width"] * bell(y + 2.5, 2.0)
        + 0.18 * q["jaw_width"] * jaw
        + 0.12 * q["neck_width"] * bell(y + 14.0, 1.7)
    )
    front = (
        front
        - 0.7 * q["forehead_slope"] * step(2.0, 8.0, y) * step(12.0, 9.0, y)
        + 0.5 * q["chin_depth"] * bell(y + 10.0, 1.4)
    )
    power = power - 0.14 * q["jaw_squareness"] * jaw - 0.15 * q["chin_width"] * bell(y + 10.3, 1.2) - 1.0
    # Lengths: the lower face moves as a whole, the chin on top of it; neck and shoulders follow.
    y = y - 0.6 * q["face_length"] * step(-4.0, -9.0, y) - 0.8 * q["chin_length"] * step(-7.5, -11.0, y)
    # |sin|^(1 + e) = |sin| exp(e log |sin|), to second order in e, which is small.
    bend_x, bend_z = power * ring.log_sin, power * ring.log_cos
    x = width * (ring.sin * (1.0 + bend_x + 0.5 * bend_x.square()))
    z = torch.where(ring.cos > 0, front, back) * (ring.cos * (1.0 + bend_z + 0.5 * bend_z.square()))
    return x, y.expand_as(x), z


def _scalp(q: Columns, ring: Ring, y: Tensor) -> Tensor:
    """How far (b, r, c) a place is above the end of the hair: hairline, sideburn, nape or the ends of long hair."""
    angle, around = ring.angle, ring.angle.abs()
    recession = q["hair_recession"]
    line = (
        6.4 + 0.9 * q["hairline"] + 8.0 * q["baldness"] - 3.4 * q["hair_fringe"] + 2.0 * recession * bell(around, 0.5)
    )
    line = line + (0.2 + 4.0 * recession) * bell(around - 0.6, 0.26) * (1.0 - q["hair_fringe"])
    # A fringe is combed to one side: longer there.
    line = line - (0.6 * q["hair_fringe"] - 0.15) * q["hair_part"] * angle.clamp(-1.0, 1.0)
    side = -0.4 - 12.0 * q["hair_below"]
    nape = -7.0 - 9.0 * q["hair_below"]
    edge = line + (side - line) * step(0.85, 1.3, around)
    edge = edge + (nape - edge) * step(1.65, 2.1, around)
    # A bald crown leaves a wreath below it.
    return torch.minimum(y - edge, 14.0 - 10.0 * q["baldness"] - y)


def _hair(q: Columns, device: torch.device) -> tuple[list[Tensor], Tensor]:
    """The shell of hair: x, y, z, each (b, r, c), and where (b, r, c) bool it is wholly inside the head."""
    ring = ring_of(HAIR_COLUMNS, 0.25, device)
    x, y, z = skull(q, ring, every=2)
    volume, long = q["hair_volume"], q["long_hair"]
    # Long hair hangs from the widest part of the head instead of following jaw and neck.
    hang = step(0.0, -4.0, y) * long
    wide = 7.1 + 0.35 * q["head_width"] + 1.0 * volume
    x = x + hang * (wide * ring.sin - x)
    z = z + hang * (torch.where(ring.cos > 0, z.clamp(max=3.0), 8.0 * ring.cos) - z)
    above = _scalp(q, ring, y)
    # The skin below is painted with hair up to the hairline, so the shell may leave the skin gently, behind the line.
    cover = step(-0.3, 0.9, above)
    thick = 0.15 + 0.9 * volume + 0.5 * q["hair_length"]
    # A hat presses the hair below it flat.
    thick = thick * (1.0 - 0.85 * q["wears_hat"] * step(q["hat_back"] - 1.5, q["hat_back"] + 1.5, y))
    # Short hair is thin beside the ears.
    thick = thick * (0.35 + 0.65 * step(-1.0, 5.0, y) + 0.65 * long * step(5.0, -1.0, y))
    turns = ring.angle * (1.0 / (2.0 * np.pi))
    curl = 0.28 * q["hair_curl"] * swing(13.0 * turns + 0.35 * y) * swing(0.46 * y + 5.0 * turns)
    part = 0.4 * bell(ring.angle - 0.9 * q["hair_part"], 0.16) * step(4.0, 9.0, y) * (ring.cos > -0.3)
    out = cover * (thick * (1.0 - part) * step(-0.3, 3.2, above).mul_(0.9).add_(0.1) + curl * volume) - 2.2 * (
        1.0 - cover
    )
    grow = 1.0 + out / (x.square() + z.square()).sqrt().clamp(min=0.5) * step(12.5, 9.5, y)
    shown = torch.nn.functional.max_pool2d(torch.cat([cover[..., -1:], cover, cover[..., :1]], 2), 3, 1, (1, 0))
    return [x * grow, y + out * step(6.0, 11.5, y), z * grow], shown <= 0.0


def _face(p: Columns, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """How far (b, n) the features of the face are pushed out of the skull at (x, y, z), each (b, n)."""
    ax = x.abs()
    front = step(1.0, 5.0, z) * step(-13.0, -11.5, y)
    ex, mouth, grin, wing = p["eye_x"], p["mouth_y"], p["grin"], p["wing_x"]
    high = y - p["nose_y"]  # above the tip of the nose
    # Nose: a ridge that rises from its root to the tip, then wings on both sides.
    down = (y * (1.0 / p["nose_y"])).clamp(-0.5, 1.0)  # 0 at the eyes, 1 at the tip
    fall = down.clamp(min=0.0)
    rise = (0.55 + 0.3 * p["nose_bridge"]) * step(-0.35, 0.15, down)
    rise = rise + (1.36 + 0.45 * p["nose_height"]) * fall * (0.8 + 0.2 * fall)
    rise = rise + 0.3 * p["nose_hump"] * bell(down - 0.45, 0.22)
    ridge = bell(x, (0.44 + 0.12 * p["nose_width"]) + 0.16 * fall)
    # Its base is an arch: lowest in the middle, where the tip is.
    arch = high - 0.3 * (x * (1.0 / wing)).square().clamp(max=2.0)
    push = rise * step(-1.0, 0.2, arch) * ridge
    # A ball for the tip, wings beside it, nostrils below, a bridge of skin between them.
    push = push + (0.38 + 0.15 * p["nose_tip"]) * bell(x, 0.72) * bell(high - 0.1, 0.62)
    push = push + (0.95 + 0.1 * p["nostril_width"]) * bell(ax - wing + 0.22, 0.40) * bell(high + 0.12, 0.5)
    push = push - 0.35 * bell(ax - 0.5 * wing, 0.26) * bell(high + 0.62, 0.24)
    push = push + 0.25 * bell(x, 0.26) * bell(high + 0.7, 0.3)
    # Eyes: a socket, with the ball behind the lids in it; the ridge of the brow above.
    push = push - (1.2 + 0.35 * p["eye_depth"]) * bell(ax - ex + 0.35, 1.45) * bell(y - 0.15, 0.95)
    push = push + 0.7 * bell(ax - ex, 1.05) * bell(y, 0.75)
    push = push + (0.04 + 0.22 * p["old"]) * bell(ax - ex, 1.0) * bell(y + 1.05, 0.4)
    brow = bell(ax - 2.6, 2.4) * bell(y - 1.7 - 0.2 * p["brow_height"], 0.7)
    push = push + (0.22 + 0.35 * p["brow_ridge"]).clamp(min=0.05) * brow
    # Cheeks, and what a smile does to them.
    push = push + (0.4 + 0.3 * p["cheek_width"]) * bell(ax - 4.8, 1.3) * bell(y + 2.2, 1.2)
    full = 0.5 * p["cheek_fullness"] + 0.5 * grin - 0.1
    push = push + full * bell(ax - 3.9, 1.6) * bell(y + 4.6 - 0.7 * grin, 1.6)
    push = push + (0.12 * p["cheek_fullness"] - 0.22) * bell(ax - 4.5, 1.0) * bell(y + 6.2, 1.3)
    push = push + 0.55 * p["old"] * bell(ax - 3.7, 0.9) * bell(y + 9.0, 0.9)  # the jaw sags
    # Folds from the nose to the corners of the mouth: age and smile deepen them.
    along = (high * (1.0 / (mouth - 1.0 - p["nose_y"]))).clamp(0.0, 1.0)
    fold = bell(ax - wing - 0.5 - (p["mouth_half"] - wing + 0.45) * along, 0.36)
    fold = fold * step(0.9, -0.2, high) * step(-1.2, 0.4, y - mouth)
    push = push - (0.03 + 0.16 * p["age"] + 0.15 * grin) * fold
    # Lips, the groove below them, the chin.
    lips = bell(x, 0.85 * p["mouth_half"])
    upper = y - mouth - p["corner_lift"] * (x * (1.0 / p["mouth_half"])).square().clamp(max=1.5)
    lower = upper + p["drop"]
    deep = 1.0 + 0.3 * p["lip_depth"]
    push = push + deep * (0.46 + 0.15 * p["upper_lip"]) * bell(upper - 0.36, 0.34) * lips
    push = push + deep * (0.52 + 0.15 * p["lower_lip"]) * bell(lower + 0.52, 0.40) * lips
    push = push - 0.25 * bell(upper, 0.2) * lips
    push = push - 0.16 * bell(x, 0.24) * bell(upper - 1.1, 0.5)
    push = push - 0.38 * bell(lower + 1.5, 0.5) * bell(x, 1.7)
    chin = (0.5 + 0.35 * p["chin_depth"]) * bell(y - p["chin_y"], 0.85) * bell(x, 1.3 + 0.4 * p["chin_width"])
    return (push + chin) * front


def mask_cover(p: Columns, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """How much (0..1) a mask covers the places (x, y, z): from the bridge of the nose to below the chin."""
    ax = x.abs()
    top = p["nose_y"] + 2.3 - 0.26 * ax - 0.02 * ax.square()
    low = p["chin_y"] - 0.9 + 0.55 * (ax - 2.2).clamp(min=0.0)
    side = step(1.6, 2.2, z) * step(6.9, 6.5, ax)
    return p["wears_mask"] * side * step(-0.15, 0.15, top - y) * step(-0.15, 0.15, y - low)


def _tent(p: Columns, x: Tensor, y: Tensor) -> Tensor:
    """How far (b, n) a mask stands off the skull: over the nose, tapering to the chin and the cheeks."""
    nose = (1.0 + 0.5 * p["nose_height"]) * bell(x, 1.7) * step(0.3, -2.0, y - p["nose_y"] - 2.0)
    chin = (0.6 + 0.35 * p["chin_depth"]).clamp(min=0.3) * bell(x, 2.2)
    down = step(0.0, 1.0, (y - p["nose_y"]) / (p["chin_y"] - p["nose_y"]))
    bulge = 0.9 * bell(x, 2.4) * bell(y - 0.5 * (p["nose_y"] + p["chin_y"]), 2.4)
    return 0.35 + nose * (1.0 - down) + chin * down + bulge


def _openness(points: list[Tensor], normals: list[Tensor]) -> Tensor:
    """How open (b, r, c) the skin is: less where the mean of places around lies above it, along the normal."""
    total = torch.zeros_like(points[0])
    for near in (2, 4):
        above = torch.zeros_like(total)
        for a, n in zip(points, normals, strict=True):
            padded = torch.cat([a[:, :1].expand(-1, near, -1), a, a[:, -1:].expand(-1, near, -1)], 1)
            mean = padded[:, : -2 * near] + padded[:, 2 * near :] + torch.roll(a, near, 2) + torch.roll(a, -near, 2)
            above = above + n * (0.25 * mean - a)
        total = total + above.clamp(min=-0.1) * (1.0 / near)
    return (1.0 - 1.6 * total).clamp(0.25, 1.0)


def normals_of(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    """Outward normals, three (b, r, c), of a grid that closes around."""
    around = [torch.roll(a, -1, 2) - torch.roll(a, 1, 2) for a in (x, y, z)]
    down = [torch.cat([a[:, 1:], a[:, -1:]], 1) - torch.cat([a[:, :1], a[:, :-1]], 1) for a in (x, y, z)]
    (ax, ay, az), (dx, dy, dz) = around, down
    n = [dy * az - dz * ay, dz * ax - dx * az, dx * ay - dy * ax]
    norm = (n[0].square() + n[1].square() + n[2].square()).sqrt().clamp(min=1e-9)
    return [a / norm for a in n]


@lru_cache(maxsize=8)
def _ear_template(device: torch.device) -> tuple[Tensor, ...]:
    """Flat ear: along the head, up, and out of it, each (1, rings, spokes), in units of the ear's half size."""
    radius = np.linspace(0.08, 1.0, _EAR_RINGS)[:, None]
    spoke = np.linspace(0, 2 * np.pi, _EAR_SPOKES, endpoint=False)[None]
    lobe = 1.0 - 0.25 * np.clip(-np.sin(spoke), 0, 1)
    along, up = radius * np.cos(spoke) * lobe, radius * np.sin(spoke)
    rim = np.array([-0.35, -0.3, 0.0, 0.22, -0.05])[:, None] * (0.4 + 0.6 * (np.cos(spoke) < 0.6))
    return tuple(torch.tensor(a, dtype=torch.float32, device=device)[None] for a in (along, up, rim))


def _ear(q: Columns, device: torch.device) -> list[Tensor]:
    """The ear on the right of the picture: x, y, z, each (b, rings, spokes)."""
    along, up, out = _ear_template(device)
    size = 1.0 + 0.15 * q["ear_size"]
    # Tangent half angle: the ear stands off the head by about 9 to 43 degrees.
    t = (0.23 + 0.15 * q["ear_angle"]) * (1.0 - 0.9 * q["long_hair"])  # long hair lies over it
    off_cos, off_sin = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)
    # ``along`` points backward and, with the angle, away from the head; the front edge is sunk into the cheek.
    back = 1.5 * size * (1.0 - along)
    y = -1.0 + 3.0 * size * up - 0.25 * along
    base = 6.7 * (1.0 + 0.05 * q["head_width"]) * (1.0 + 0.05 * q["cheek_width"])
    x = base - 0.4 * q["long_hair"] + back * off_sin + 0.9 * size * out * off_cos
    return [x, y, 0.9 - back * off_cos + 0.9 * size * out * off_sin]


def build_head(p: Columns) -> Head:
    """Surfaces of the heads whose measures are ``p``, each (b, 1)."""
    device = p["sex"].device
    b = len(p["sex"])
    q = {name: column[:, :, None] for name, column in p.items()}
    ring = ring_of(_COLUMNS, 0.7, device)
    x, y, z = skull(q, ring)
    scalp = _scalp(q, ring, y)
    x, y, z = x.flatten(1), y.flatten(1), z.flatten(1)
    # The open jaw swings down before the features are pushed out, and takes the lower lip and the chin along.
    y = y - p["drop"] * step(0.3, -0.5, y - p["mouth_y"]) * step(-13.5, -11.0, y) * step(1.0, 6.0, z)
    face = _face(p, x, y, z)
    sway = p["sway"] * x / (3.0 + x.abs()) * 1.5 * step(3.0, 7.0, z)
    marks = _landmarks(p, *(a.reshape(b, -1, _COLUMNS) for a in (x, y + sway, z + face)))
    masked = mask_cover(p, x, y, z) * (_tent(p, x, y) - face) if bool((p["wears_mask"] > 0.0).any()) else 0.0
    z = z + face + masked
    skin = [a.reshape(b, -1, _COLUMNS) for a in (x, y + sway, z)]
    (hair, buried), right = _hair(q, device), _ear(q, device)
    # Mirrored, and its spokes reversed so that the outside stays outside.
    left = [a.flip(2) for a in (-right[0], right[1], right[2])]
    grids = (skin, hair, left, right)
    made = [normals_of(*g) for g in grids]
    hollow = _openness(skin, made[0])
    hair[0].masked_fill_(buried, torch.nan)  # nobody can see it, so the rasterizer need not look
    points = [torch.cat([g[k].reshape(b, -1) for g in grids], 1) for k in range(3)]
    normals = [torch.cat([n[k].reshape(b, -1) for n in made], 1) for k in range(3)]
    scalp = scalp.expand(b, -1, -1).reshape(b, -1)
    others = points[0].shape[1] - scalp.shape[1]
    scalp = torch.cat([scalp, scalp.new_full((b, others), -99.0)], 1)
    hollow = torch.cat([hollow.reshape(b, -1), hollow.new_ones(b, others)], 1)
    return Head(points, normals, hollow, scalp, marks)


def _landmarks(p: Columns, x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    """The five points on the skin (b, r, c): x, y, z, each (b, 5)."""
    half, sway = p["mouth_half"], 0.7 * p["sway"]
    corner = p["mouth_y"] + p["corner_lift"]
    zero = torch.zeros_like(half)
    at_x = torch.cat([-p["eye_x"], p["eye_x"], zero, -half, half], 1)
    at_y = torch.cat([-sway, sway, p["nose_y"], corner - sway, corner + sway], 1)
    front = slice(3 * _COLUMNS // 10, _COLUMNS - 3 * _COLUMNS // 10)
    heights = profile_rows()
    depths = []
    for marks, high, low in ((slice(0, 2), 1.2, -1.2), (slice(2, 3), -2.4, -6.2), (slice(3, 5), -4.4, -9.7)):
        rows = slice(int((heights > high).sum()), int((heights > low).sum()))
        near_x, near_y, near_z = (a[:, rows, front].flatten(1)[:, None] for a in (x, y, z))
        far = (near_x - at_x[:, marks, None]).square() + (near_y - at_y[:, marks, None]).square()
        weight = (1.0 - far * (1.0 / 0.36)).clamp_(min=0.0).square_() + 1e-12
        depths.append((weight * near_z).sum(2) / weight.sum(2))
    return [at_x, at_y, torch.cat(depths, 1)]
