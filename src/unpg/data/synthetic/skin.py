"""The colors of a head: skin, lips, eyes, brows, beard, hair, clothes, as formulas of the place on the head.

They are evaluated per pixel, not stored in textures: sharp at every size. Units are centimeters at rest, as in
:mod:`unpg.data.synthetic.surface`; colors are linear RGB. Axes: n pixels, of all pictures together; a color is a triple
of (n,).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from unpg.data.synthetic.parameters import PerPixel
from unpg.data.synthetic.surface import bell, mask_cover, step, swing

__all__ = ["Color", "Paint", "over", "paint_hair", "paint_skin", "scale"]

Color = tuple[Tensor, Tensor, Tensor]


class Paint(NamedTuple):
    """What shading needs to know of n pixels: ``color``, and ``gloss`` and ``eye`` (n,), 0..1."""

    color: Color
    gloss: Tensor
    eye: Tensor


class _Spot(NamedTuple):
    """The pixels (n of them) that one feature is painted on, and what is there so far."""

    p: PerPixel
    x: Tensor
    y: Tensor
    z: Tensor
    front: Tensor
    scalp: Tensor
    soft: Tensor
    color: Color
    gloss: Tensor
    eye: Tensor


class _Canvas:
    """Color, gloss and eye (5, n) of the pixels so far, and where (6, n) they are on the head."""

    def __init__(self, values: Tensor, places: Tensor, p: PerPixel) -> None:
        self.values, self._places, self._p = values, places, p

    def paint(self, feature: Callable[[_Spot], Paint], where: Tensor) -> None:
        """Let ``feature`` repaint the pixels at ``where`` (n,) bool."""
        index = where.nonzero()[:, 0]
        if len(index) == 0:
            return
        x, y, z, front, scalp, soft = self._places.index_select(1, index)
        r, g, b, gloss, eye = self.values.index_select(1, index)
        made = feature(_Spot(self._p.select(index), x, y, z, front, scalp, soft, (r, g, b), gloss, eye))
        self.values.index_copy_(1, index, torch.stack([*made.color, made.gloss, made.eye]))


def _named(p: PerPixel, name: str) -> Color:
    return p[f"{name}_r"], p[f"{name}_g"], p[f"{name}_b"]


def over(base: Color, top: tuple[Tensor | float, Tensor | float, Tensor | float], alpha: Tensor) -> Color:
    """``top`` painted over ``base`` with the opacity ``alpha``."""
    r, g, b = (a + alpha * (c - a) for a, c in zip(base, top, strict=True))
    return r, g, b


def scale(color: Color, factor: Tensor) -> Color:
    """``color`` made ``factor`` times as bright."""
    return color[0] * factor, color[1] * factor, color[2] * factor


def _flush(color: Color, blood: Tensor) -> Color:
    return color[0] * (1.0 + 0.12 * blood), color[1] * (1.0 - 0.55 * blood), color[2] * (1.0 - 0.5 * blood)


def _edge(inside: Tensor, soft: Tensor) -> Tensor:
    """Coverage of an area whose border is ``inside`` centimeters away, smeared over ``soft`` centimeters."""
    return step(-0.5, 0.5, inside / soft)


def _spots(x: Tensor, y: Tensor, z: Tensor, phase: Tensor) -> Tensor:
    """Irregular spots, about -1..1, near 0.5 cm wide: bent waves that do not repeat within a head."""
    bend = 0.28 * swing(0.31 * x + 0.52 * y - 0.2 * z + 5.3 * phase)
    a = swing(1.16 * x + 0.49 * y + 2.7 * phase + bend) * swing(0.97 * y - 0.43 * z + 4.6 * phase - 1.4 * bend)
    b = swing(1.89 * x - 0.91 * y + 6.5 * phase - bend) * swing(1.54 * y + 0.68 * x + 1.8 * phase + 2.0 * bend)
    return 0.55 * a + 0.45 * b


def paint_skin(p: PerPixel, x: Tensor, y: Tensor, z: Tensor, scalp: Tensor, pixel: Tensor) -> Paint:
    """Skin, face and clothes.

    Each feature is painted only at the pixels that it can reach; everywhere else it would change nothing.

    Args:
        p: Measures of the pixels.
        x: Where on the head the pixels are, with ``y`` and ``z``, each (n,).
        y: See ``x``.
        z: See ``x``.
        scalp: (n,), how far above the hairline that is.
        pixel: (n,) or (1,), size of a pixel in centimeters.
    """
    front = step(2.0, 5.0, z)
    y = y - p["sway"] * x / (3.0 + x.abs()) * 1.5
    ax = x.abs()
    color = scale(_named(p, "skin"), 1.0 + 0.05 * _spots(x, y, z, p["texture"]))
    color = _flush(color, (0.06 + 0.22 * p["redness"]) * bell(ax - 4.2, 1.5) * bell(y + 3.3, 1.4) * front)
    gloss = 0.35 + 0.45 * bell(x, 1.0) * step(-6.0, -3.0, y) + 0.2 * bell(ax - 4.4, 1.3) * bell(y + 2.0, 1.2) * front
    soft = (pixel + 0.03).expand_as(x)
    canvas = _Canvas(torch.stack([*color, gloss, torch.zeros_like(x)]), torch.stack([x, y, z, front, scalp, soft]), p)
    mouth = p["mouth_y"]
    faced = front > 0.0
    lower = faced & (ax < 5.2) & (y < -2.0)
    canvas.paint(_forehead, faced & (y > 2.2) & (y < 7.0) & (p["age"] > 0.3))
    canvas.paint(_freckles, faced & (p["freckles"] > 0.0))
    canvas.paint(_moles, faced & (p["mole_size"] + p["second_mole_size"] > 0.0))
    canvas.paint(_beard, (y < -1.0) & (y > -12.0) & (z > -0.6) & (p["beard"] > 0.0))
    canvas.paint(_nose, lower & (ax < 4.4) & (y > mouth - 1.3))
    canvas.paint(_mustache, lower & (ax < 3.4) & (y > mouth) & (p["mustache"] > 0.0))
    canvas.paint(_mouth, lower & (ax < 4.0) & (y > mouth - 3.6) & (y < mouth + 2.2))
    canvas.paint(_brow, faced & (ax < 6.4) & (y > 0.0) & (y < 4.2))
    canvas.paint(_eye, faced & ((ax - p["eye_x"] - 0.6).abs() < 3.0) & (y.abs() < 2.2))
    canvas.paint(_clothes, y < -13.5)
    canvas.paint(_hairline, scalp > -1.2)
    canvas.paint(_mask, (p["wears_mask"] > 0.0) & (z > -1.0) & (y < 1.5) & (y > -13.0))
    r, g, b, gloss, eye = canvas.values
    return Paint((r, g, b), gloss, eye)


def _forehead(s: _Spot) -> Paint:
    """Lines across the forehead: age, and raised brows."""
    p, y = s.p, s.y
    bent = 0.72 * y + 0.05 * swing(0.14 * s.x + 0.3 * p["texture"]) + 0.02 * swing(0.37 * s.x)
    lines = bell(swing(bent) - 1.0, 0.22) * step(2.6, 3.6, y) * step(6.6, 5.2, y)
    lines = lines * step(4.6, 2.5, s.x.abs() + 0.6 * swing(0.5 * y)) * s.front
    amount = 0.4 * (p["age"] - 0.35).clamp(min=0.0) + 0.25 * p["brow_raise"].clamp(min=0.0) * p["age"]
    return Paint(scale(s.color, 1.0 - amount * lines), s.gloss, s.eye)


def _freckles(s: _Spot) -> Paint:
    dots = _spots(2.1 * s.x, 2.1 * s.y, 2.1 * s.z, s.p["texture"] + 0.37)
    amount = 0.75 * s.p["freckles"] * step(0.25, 0.6, dots) * bell(s.y + 2.0, 2.0) * bell(s.x, 4.0) * s.front
    return Paint(scale(s.color, 1.0 - 0.55 * amount), s.gloss, s.eye)


def _moles(s: _Spot) -> Paint:
    color = s.color
    for name in ("mole", "second_mole"):
        size = s.p[f"{name}_size"]
        dx, dy = s.x - 5.0 * s.p[f"{name}_x"], s.y + 4.0 - 5.0 * s.p[f"{name}_y"]
        far = (dx.square() + dy.square()).sqrt()
        mole = _edge(0.08 + 0.15 * size - far, s.soft) * step(0.0, 0.1, size) * s.front
        color = scale(color, 1.0 - 0.7 * mole)
    return Paint(color, s.gloss, s.eye)


def _nose(s: _Spot) -> Paint:
    """Wings, nostrils and tip of the nose, and the folds from there to the mouth."""
    p, front, ax, high = s.p, s.front, s.x.abs(), s.y - s.p["nose_y"]
    color = _flush(s.color, (0.06 + 0.22 * p["redness"]) * bell(s.x, 0.8) * bell(high, 0.7))
    along = (high / (p["mouth_y"] - 0.9 - p["nose_y"])).clamp(0.0, 1.0)
    fold = ax - p["wing_x"] - 0.55 - (p["mouth_half"] - p["wing_x"] + 0.35) * along
    fold = bell(fold, 0.14 + 0.5 * s.soft) * step(0.6, -0.2, high) * step(-1.0, 0.2, s.y - p["mouth_y"])
    crease = bell(ax - p["wing_x"] - 0.28, 0.14 + 0.5 * s.soft) * bell(high + 0.05, 0.42)
    lines = (0.04 + 0.34 * p["old"] + 0.2 * p["grin"]) * fold + 0.22 * crease
    color = scale(color, 1.0 - lines * front)
    aside = ax - 0.52 * p["wing_x"]
    hole = bell(aside, (0.2 + 0.04 * p["nostril_width"]) + 0.3 * s.soft)
    hole = hole * bell(high + 0.58 - 0.25 * aside, 0.1 + 0.35 * s.soft)
    # Blood shines through where it is dark.
    dark = 0.85 * hole * front
    return Paint((color[0] * (1.0 - 0.9 * dark), color[1] * (1.0 - dark), color[2] * (1.0 - dark)), s.gloss, s.eye)


def _clothes(s: _Spot) -> Paint:
    """Clothes begin at the base of the neck, with a collar that dips in front."""
    p = s.p
    cloth = step(0.1, -0.2, s.y + 14.8 + 1.3 * step(0.0, 5.0, s.z))
    color = over(s.color, (p["cloth_red"], p["cloth_green"], p["cloth_blue"]), cloth)
    return Paint(color, s.gloss * (1.0 - cloth), s.eye)


def _mask(s: _Spot) -> Paint:
    """A surgical mask: pleats, a stiff upper edge, seams, and the bands that run to the ears."""
    p, ax = s.p, s.x.abs()
    cover = mask_cover(p, s.x, s.y, s.z)
    own = (p["accessory_red"], p["accessory_green"], p["accessory_blue"])
    cloth = tuple(0.30 * c + light for c, light in zip(own, (0.50, 0.56, 0.60), strict=True))
    top = p["nose_y"] + 2.3 - 0.26 * ax - 0.02 * ax.square() - s.y
    high = (p["nose_y"] + 2.3 - s.y) / (p["nose_y"] + 2.3 - p["chin_y"])
    pleats = bell(swing(4.0 * high + 0.4) - 1.0, 0.25) * step(0.22, 0.3, high) * step(0.85, 0.75, high)
    seam = bell(top - 0.55, 0.05 + 0.4 * s.soft) + bell(s.z - 2.6, 0.08 + 0.4 * s.soft)
    tone = 1.0 - 0.16 * pleats - 0.18 * seam.clamp(max=1.0)
    color = over(s.color, scale((cloth[0], cloth[1], cloth[2]), tone), cover)
    # Bands from the corners of the mask to the upper and the lower end of the ear.
    along = ((2.2 - s.z) * (1.0 / 2.4)).clamp(0.0, 1.0)
    upper = s.y - (p["nose_y"] + 0.1) - (0.9 - p["nose_y"]) * along
    lower = s.y - (p["chin_y"] + 2.6) - (-4.4 - p["chin_y"]) * along
    reach = step(-0.6, -0.2, s.z) * step(2.4, 2.0, s.z) * step(4.0, 5.0, ax) * p["wears_mask"]
    band = (step(-0.5, 0.5, (0.1 - upper.abs()) / s.soft) + step(-0.5, 0.5, (0.1 - lower.abs()) / s.soft)) * reach
    color = over(color, (0.75, 0.76, 0.77), band.clamp(max=1.0) * (1.0 - cover))
    gloss = s.gloss * (1.0 - cover)
    return Paint(color, gloss, s.eye * (1.0 - cover))


def _hairline(s: _Spot) -> Paint:
    """Hair that lies on the skin, thin toward its edge."""
    p = s.p
    tuft = swing(0.83 * s.x + 0.4 * s.y + 3.0 * p["texture"])
    lean = s.x + 0.3 * tuft * s.scalp
    strand = swing(3.1 * lean - 0.9 * s.z + 1.7 * p["texture"]) + swing(7.9 * lean + 0.8 * s.z + 0.5 * tuft)
    ragged = s.scalp + 0.18 * tuft + 0.14 * strand * (1.3 + tuft)
    alpha = step(-0.6, 0.8, ragged)
    hair = paint_hair(p, s.x, s.y, s.z)
    gloss = s.gloss + alpha * (hair.gloss - s.gloss)
    return Paint(over(s.color, hair.color, alpha), gloss, s.eye)


def _stubble(x: Tensor, y: Tensor) -> Tensor:
    """Hairs of a beard, about -1..1."""
    bend = swing(0.61 * x + 0.43 * y) + 0.6 * swing(1.37 * x - 0.71 * y)
    return 0.5 * swing(5.3 * x + 0.9 * bend) + 0.5 * swing(3.7 * x - 1.1 * y - 1.3 * bend) * swing(1.9 * y + 0.7 * bend)


def _beard(s: _Spot) -> Paint:
    """Beard on the jaw: from stubble (a tint) to full."""
    p, y, ax = s.p, s.y, s.x.abs()
    hairs = _stubble(s.x, y)
    low = step(-12.2, -10.4, y) * step(-0.5, 1.5, s.z)
    below = y - p["mouth_y"] + 0.2 - 0.75 * (ax - 2.0).clamp(min=0.0) - 0.25 * hairs
    area = step(0.7, -0.7, below) * low + step(5.0, 5.9, ax + 0.2 * hairs) * step(-1.0, -3.4, y) * low
    # The lower lip stays bare, and a little skin beside it.
    bare = bell(s.x, 0.75 * p["mouth_half"]) * bell(y - p["mouth_y"] + p["drop"] + 0.7, 0.55)
    amount = 1.35 * p["beard"] * area.clamp(max=1.0) * (1.0 - bare) * (0.86 + 0.24 * hairs)
    amount = amount.clamp(0.0, 0.94)
    return Paint(over(s.color, scale(_named(p, "hair"), 1.0 + 0.3 * hairs), amount), s.gloss * (1.0 - amount), s.eye)


def _mustache(s: _Spot) -> Paint:
    p, y, ax = s.p, s.y, s.x.abs()
    hairs = _stubble(0.8 * s.x, 0.5 * y)
    top = p["nose_y"] - 0.85 - 0.14 * ax - 0.1 * ax.square() - y
    low = y - p["mouth_y"] - 0.42 + 0.14 * ax + 0.1 * ax.square()
    inside = torch.minimum(torch.minimum(top, low), 2.9 - ax) + 0.14 * hairs - 0.1 * bell(s.x, 0.2)
    amount = (1.5 * p["mustache"] * step(-0.2, 0.4, inside) * (0.9 + 0.2 * hairs) * s.front).clamp(0.0, 0.94)
    return Paint(over(s.color, scale(_named(p, "hair"), 1.0 + 0.3 * hairs), amount), s.gloss * (1.0 - amount), s.eye)


def _mouth(s: _Spot) -> Paint:
    """Lips, and between them the line of the mouth or, if open, teeth and darkness."""
    p, y, front, soft = s.p, s.y, s.front, s.soft
    u = s.x / p["mouth_half"]
    au, uu = u.abs(), u.square()
    arch = (1.0 - uu).clamp(min=-1.0)
    rest = arch.clamp(min=0.0)
    curve = p["mouth_y"] + p["corner_lift"] * uu.clamp(max=1.3)
    gap = (p["drop"] + 0.32 * p["grin"]) * rest.sqrt()
    high, low = curve + 0.25 * gap, curve - 0.75 * gap
    bow = 0.14 * (1.0 + p["lip_bow"]) * (bell(au - 0.28, 0.16) - 0.8 * bell(u, 0.10))
    above = (0.58 + 0.30 * p["upper_lip"]) * (1.0 - 0.25 * p["grin"]) * arch + bow * rest
    below = (0.76 + 0.36 * p["lower_lip"]) * (1.0 - 0.15 * p["grin"]) * arch
    inside = torch.minimum(high + above - y, y - low + below)
    lips = step(-0.7, 0.7, inside / (soft + 0.12)) * front * step(1.06, 0.94, au)
    shade = 1.0 - 0.16 * step(0.0, 0.2, y - high)  # the upper lip looks down
    wrinkles = 0.06 * swing(2.6 * s.x + 0.3 * swing(1.3 * y))
    color = over(s.color, scale(_named(p, "lip"), shade + wrinkles), 0.85 * lips)
    hole = _edge(torch.minimum(high - y, y - low), soft) * front * step(0.02, 0.10, gap) * step(1.02, 0.95, au)
    tongue = 0.8 * step(0.55, 0.15, y - low) * step(0.8, 0.5, au)
    # Lips that do not smile hang over the teeth.
    teeth = step(0.75, 0.55, high - y) * step(0.95, 0.7, au) * (1.0 - 0.35 * uu) * (0.25 + 0.75 * p["grin"])
    cave = over((0.02 + 0.28 * tongue, 0.012 + 0.09 * tongue, 0.012 + 0.08 * tongue), (0.50, 0.46, 0.39), teeth)
    color = over(color, cave, hole)
    line = bell(y - curve, 0.07 + 0.5 * soft) * step(1.12, 0.95, au) * (1.0 - hole) * step(0.5, 0.1, gap)
    corner = bell(au - 1.04, 0.06) * bell(y - curve, 0.2)
    under = bell(y - low + below + 0.28, 0.2) * bell(u, 0.45)
    dark = ((0.6 * line + 0.25 * corner + 0.14 * under) * front).clamp(max=0.8)
    return Paint(scale(color, 1.0 - dark), (s.gloss + (0.5 + 0.5 * p["makeup"]) * lips) * (1.0 - 0.7 * hole), s.eye)


def _brow(s: _Spot) -> Paint:
    """Eyebrows."""
    p, y, ax = s.p, s.y, s.x.abs()
    half = 2.05 + 0.3 * p["brow_length"]
    u = (ax - 1.15 - half) / half  # -1 near the nose, 1 near the temple
    height = 1.65 + 0.42 * p["brow_height"] + 0.55 * p["brow_raise"]
    bend = (0.32 + 0.34 * p["brow_arch"]) * (1.0 - (u - 0.25).square())
    center = height + bend + (0.3 * p["brow_tilt"] + 0.06) * u - 0.25 * p["frown"] * (1.0 - u)
    thick = (0.34 + 0.22 * p["brow_thickness"]) * (1.0 - 0.5 * step(-0.2, 1.1, u)) * step(1.08, 0.7, u.abs())
    # Hairs point up near the nose, and outward farther on.
    lean = (0.6 - u) * (y - center)
    hairs = swing(3.7 * (ax - lean) + 0.4 * swing(1.1 * ax)) + 0.5 * swing(7.9 * (ax - 1.3 * lean))
    brow = step(-0.9, 0.9, (thick - (y - center).abs() + 0.06 * hairs) / (s.soft + 0.2)) * step(1.08, 0.7, u.abs())
    amount = (brow * s.front * (0.25 + 0.65 * p["brow_density"]) * (0.85 + 0.16 * hairs)).clamp(0.0, 0.95)
    dark = scale(_named(p, "hair"), 0.75 - 0.3 * p["hair_gray"])
    return Paint(over(s.color, dark, amount), s.gloss * (1.0 - amount), s.eye)


def _eye(s: _Spot) -> Paint:
    """Eyes: socket, lids, lashes, crease, bags and crow's feet; white, iris, pupil, and the light mirrored in them."""
    p, y, front, soft = s.p, s.y, s.front, s.soft
    dx = s.x.abs() - p["eye_x"]
    u = dx / p["eye_half"]
    au, uu = u.abs(), u.square()
    v = y - (0.13 * p["eye_tilt"] + 0.03) * dx
    arch = 1.0 - uu
    feet = bell(swing(0.88 * y + 0.18 * dx) - 1.0, 0.4) * bell(dx - 2.1, 0.5) * bell(y, 0.7)
    bag = bell(y + 1.0 - 0.25 * uu, 0.2) * bell(dx, 1.0)
    inner = bell(dx + 1.5, 0.6) * bell(y - 0.3, 0.7)
    shade = (0.4 * p["old"] + 0.25 * p["grin"] * p["age"]) * feet + (0.06 + 0.3 * p["old"]) * bag + 0.2 * inner
    color = scale(s.color, 1.0 - shade * front)
    close = p["eye_closure"]
    low = 0.40 + 0.08 * p["eye_height"] - 0.12 * p["grin"]
    high = (0.60 + 0.2 * p["eye_height"] - 0.18 * p["old"]) * (1.0 - 0.12 * u) - 0.08 * p["grin"]
    high = high - close * (high + low)  # the upper lid comes down to the lower one
    upper, lower = high * arch, -low * arch
    near = step(1.25, 1.0, au) * front
    # Lids are redder and darker than the skin around; so is shadow put on them.
    lid = scale(_named(p, "skin"), 0.80 + 0.06 * p["redness"] - 0.3 * p["makeup"])
    color = over(color, lid, 0.5 * bell(u, 0.8) * bell(v - upper - 0.2, 0.3) * front)
    crease = v - upper - 0.26 - 0.12 * p["lid_crease"] - 0.25 * close + 0.1 * uu
    depth = (0.34 + 0.14 * p["lid_crease"]) * bell(crease, 0.08 + 0.5 * soft)
    color = scale(color, 1.0 - depth * near * step(1.2, 0.8, au))
    ball = _edge(torch.minimum(upper - v, v - lower) - 0.04 * close, soft) * step(1.05, 0.97, au) * front
    ix = dx - 0.45 * p["gaze_x"] * s.x.sign()
    iy = v - 0.06 - 0.22 * p["gaze_y"]
    far = ix.square() + iy.square()
    radius = far.sqrt()
    # The ball is round and lies in the shade of lid and lashes.
    bright = 0.60 * (1.0 - 0.22 * uu) * (1.0 - 0.5 * step(-0.42, 0.05, v - upper))
    spokes = 1.0 + 0.2 * swing(1.9 * ix + 0.6 * swing(1.3 * iy)) * swing(1.7 * iy - 0.9 * ix)
    # Light that enters on one side leaves the iris on the other.
    spokes = spokes * (1.0 - 0.55 * step(0.42, 0.62, radius)) * (1.0 - 0.5 * iy / 0.6)
    iris = scale(_named(p, "iris"), spokes * (1.0 - 0.45 * step(-0.42, 0.05, v - upper)))
    white = over((bright, 0.92 * bright, 0.87 * bright), iris, _edge(0.61 - radius, soft + 0.05))
    white = over(white, (0.28, 0.12, 0.11), 0.5 * bell(u + 1.0, 0.13))  # the inner corner
    color = over(color, over(white, (0.008, 0.008, 0.008), _edge(0.25 - radius, soft)), ball)
    lash = bell(v - upper - 0.02, 0.075 + 0.05 * u.clamp(min=0.0) + 0.4 * soft) * step(1.16, 0.9, au) * near
    lash = lash * (0.75 - 0.3 * p["sex"] + 0.3 * p["makeup"] + 0.1 * u)
    color = over(color, (0.012, 0.009, 0.008), lash.clamp(0.0, 1.0))
    wet = bell(v - lower + 0.03, 0.05 + 0.3 * soft) * step(1.0, 0.8, au) * near * (1.0 - close)
    color = over(color, scale(_named(p, "lip"), 0.9 + 0.0 * v), 0.5 * wet)
    under = bell(v - lower + 0.14, 0.05 + 0.4 * soft) * step(1.05, 0.9, au) * near
    # The lamp is mirrored in the ball where it looks halfway toward it.
    lamp_x, lamp_y = ix - 0.42 * p["toward_x"] * s.x.sign(), iy - 0.08 - 0.36 * p["toward_y"]
    glint = bell(lamp_x, 0.1 + 0.35 * soft) * bell(lamp_y, 0.1 + 0.35 * soft) * ball * step(-0.1, 0.3, p["toward_z"])
    return Paint(scale(color, 1.0 - (0.16 + 0.2 * p["makeup"]) * under), s.gloss * (1.0 - ball), glint)


def paint_hair(p: PerPixel, x: Tensor, y: Tensor, z: Tensor) -> Paint:
    """Hair at the places (x, y, z), each (n,): strands that run down, curls that run everywhere."""
    # A stand-in for the angle around the head, in turns: 0 in front, half a turn behind.
    turn = 0.25 * (1.0 - z / (x.abs() + z.abs()).clamp(min=0.1)) * x.sign()
    curl = p["hair_curl"]
    # Locks wander as they run down; strands of many widths lie in them.
    bent = turn + (0.003 + 0.03 * curl) * swing(0.11 * y + 2.0 * turn) + 0.002 * swing(0.17 * y - 7.0 * turn)
    lock = swing(17.0 * bent + 0.03 * y) * swing(9.3 * bent - 0.05 * y)
    strand = 0.6 * swing(53.0 * bent + 0.02 * y) + swing(137.0 * bent - 0.06 * y + 0.3 * lock)
    knot = swing(0.65 * x + 0.48 * y + 0.3 * lock) * swing(0.75 * y - 0.52 * z + 0.32 * x)
    knot = knot + 0.5 * swing(1.9 * x - 1.3 * y + 0.5 * knot) * swing(1.7 * y + 1.4 * z)
    tone = 1.0 + 0.24 * (1.0 - curl) * strand + 0.12 * lock + 0.4 * curl * knot
    return Paint(scale(_named(p, "hair"), tone), (1.0 - 0.8 * curl) * (0.8 + 0.3 * strand), torch.zeros_like(x))
