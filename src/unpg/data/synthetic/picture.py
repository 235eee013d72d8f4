"""One picture of one head: place the surface, find what each pixel sees, light it, take the picture.

Axes: b pictures, n = h * w pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unpg.data.synthetic.camera import align, develop, project, to_pixels, turn
from unpg.data.synthetic.factors import View
from unpg.data.synthetic.identity import Identity
from unpg.data.synthetic.measures import measures
from unpg.data.synthetic.parameters import Columns, PerPixel, columns
from unpg.data.synthetic.raster import rasterize
from unpg.data.synthetic.skin import paint_hair, paint_skin
from unpg.data.synthetic.surface import EAR, HAIR, SKIN, build_head, step, swing, topology
from unpg.errors import ConfigError, ShapeError

__all__ = ["Picture", "render"]


_CPU_PIXELS = 100_000  # more at a time leave the caches of a core; with fewer, the calls cost more than the pixels


class Picture(NamedTuple):
    """Rendered faces.

    images: (b, h, w, 3) uint8 RGB.
    landmarks: (b, 5, 2) float32, column and row in pixels: the eye on the left of the picture, the other one, tip of
        the nose, corners of the mouth (left, right). Those of the hidden side are where they would be seen through
        the head.
    mask: (b, h, w) bool, where the person is.
    depth: (b, h, w) float32, centimeters from the camera, infinite where nobody is.
    """

    images: Tensor
    landmarks: Tensor
    mask: Tensor
    depth: Tensor


def render(
    identities: Sequence[Identity],
    views: Sequence[View],
    size: tuple[int, int] = (112, 112),
    device: torch.device | str = "cpu",
) -> Picture:
    """Render ``identities[i]`` as seen in ``views[i]``.

    A picture is bit by bit the same whatever is rendered with it (:mod:`unpg.data.synthetic.measures` says how).

    Args:
        identities: Who, b of them.
        views: How, b of them.
        size: (height, width) in pixels.
        device: Where to compute, and where the result lies.

    Raises:
        ShapeError: The two sequences differ in length, or are empty.
        ConfigError: The size is not two whole numbers of at least 8.
    """
    if len(identities) != len(views) or not views:
        raise ShapeError(
            f"render takes one view per identity, at least one; "
            f"got {len(identities)} identities and {len(views)} views."
        )
    check_size(size)
    device = torch.device(device)
    chunk = max(1, _CPU_PIXELS // (size[0] * size[1])) if device.type == "cpu" else len(views)
    with torch.no_grad():
        made = [
            _render(identities[i : i + chunk], views[i : i + chunk], size, device) for i in range(0, len(views), chunk)
        ]
    return made[0] if len(made) == 1 else Picture(*(torch.cat(parts) for parts in zip(*made, strict=True)))


def check_size(size: tuple[int, int]) -> None:
    """Raise :class:`ConfigError` unless ``size`` is (height, width), both at least 8 pixels."""
    if not (isinstance(size, (tuple, list)) and len(size) == 2 and all(isinstance(s, int) and s >= 8 for s in size)):
        raise ConfigError(f"size must be (height, width) in pixels, both whole numbers of at least 8, got {size!r}.")


def _render(
    identities: Sequence[Identity], views: Sequence[View], size: tuple[int, int], device: torch.device
) -> Picture:
    b, (height, width) = len(views), size
    p = columns([measures(i, v) for i, v in zip(identities, views, strict=True)], device)
    seeds = torch.tensor([v.noise_seed for v in views], dtype=torch.int64, device=device)
    mesh = topology(device)
    head = build_head(p)
    x, y, nearness = project(p, turn(p, head.points))
    mark_x, mark_y, _ = project(p, turn(p, head.landmarks))
    similarity = align(p, mark_x, mark_y, size)
    x, y = to_pixels(similarity, x, y)
    seen = rasterize(x, y, nearness, mesh.triangles, mesh.two_sided, size)
    values = torch.stack([*head.points, *turn(p, head.normals), head.scalp], 2).reshape(-1, 7)
    parts = [values.index_select(0, c) * w[:, None] for c, w in zip(seen.corners, seen.weights, strict=True)]
    pixel = 1.0 / (similarity[0].square() + similarity[1].square()).sqrt()
    each = PerPixel(p | {"pixel": pixel}, seen.picture)
    light = _light(each, parts[0] + parts[1] + parts[2], mesh.part.index_select(0, seen.triangle))
    radiance = _background(p, size).index_copy_(1, seen.pixel, light)
    images = develop(p, radiance.reshape(3, b, height, width).transpose(0, 1), seeds)
    depth = torch.full((b * height * width,), torch.inf, device=device)
    depth = depth.index_copy_(0, seen.pixel, 1.0 / seen.nearness).reshape(b, height, width)
    landmarks = torch.stack(to_pixels(similarity, mark_x, mark_y), 2)
    return Picture(images, landmarks, depth.isfinite(), depth)


def _light(p: PerPixel, mixed: Tensor, part: Tensor) -> Tensor:
    """Radiance (3, n), from place, turned normal and scalp (n, 7) and the part of the head (n,) that is seen."""
    x, y, z, nx, ny, nz, scalp = mixed.t().contiguous()
    norm = (nx.square() + ny.square() + nz.square()).sqrt().clamp(min=1e-6)
    # Hair and ears are thin: seen from behind, their other side is lit.
    norm = torch.where((nz < -0.15 * norm) & (part != SKIN), -norm, norm)
    nx, ny, nz = nx / norm, ny / norm, nz / norm
    paint = paint_skin(p, x, y, z, scalp, p["pixel"])
    values = torch.stack([*paint.color, paint.gloss, paint.eye])
    index = (part == HAIR).nonzero()[:, 0]
    hair = paint_hair(p.select(index), *(c.index_select(0, index) for c in (x, y, z)))
    r, g, b, gloss, eye = values.index_copy_(1, index, torch.stack([*hair.color, hair.gloss, hair.eye]))
    # Light comes from everywhere, more from above; and from one direction, softened where it grazes, as skin scatters.
    facing = nx * p["light_x"] + ny * p["light_y"] + nz * p["light_z"]
    open_sky = _openness(p, y, z, part)
    wrap = 0.18
    direct = ((facing + wrap) * (1.0 / (1.0 + wrap))).clamp(min=0.0) * (0.35 + 0.65 * open_sky)
    ambient = (0.72 + 0.28 * ny) * open_sky
    # Gloss (Blinn 1977): the half vector between the light and the camera, which is far in front.
    half = (nx * p["half_x"] + ny * p["half_y"] + nz * p["half_z"]).clamp(min=0.0)
    shine = half.square().square().square().square()  # exponent 16
    shine = (0.09 * gloss * shine + 0.9 * eye * shine.square().square().square()) * (facing > 0)
    light = [
        color * (p[f"key_{c}"] * direct + p[f"fill_{c}"] * ambient) + p[f"key_{c}"] * shine
        for c, color in (("r", r), ("g", g), ("b", b))
    ]
    return torch.stack(light)


def _openness(p: PerPixel, y: Tensor, z: Tensor, part: Tensor) -> Tensor:
    """How open (0..1) a place is to the light: less on the neck under the jaw, and in the ear."""
    neck = step(1.0, -1.2, y - p["chin_y"] + 1.2) * step(-20.0, -16.0, y) * step(8.2, 6.5, z)
    return 1.0 - 0.55 * neck - 0.12 * (part == EAR)


def _background(p: Columns, size: tuple[int, int]) -> Tensor:
    """Radiance (3, b * h * w) behind the person: waves and edges of the background's color, out of focus."""
    height, width = size
    device = p["phase"].device
    v = (torch.arange(height, device=device) * (1.0 / height)).repeat_interleave(width)[None]
    u = (torch.arange(width, device=device) * (1.0 / height)).repeat(height)[None]
    waves = [swing(p[f"wave{i}"] + p[f"wave{i}_u"] * u + p[f"wave{i}_v"] * v) for i in range(3)]
    edge = (4.0 * waves[2]).clamp(-1.0, 1.0)
    tone = 1.0 + p["pattern"] * (0.2 * (waves[0] + waves[1]) + 0.35 * edge)
    tone = tone * tone
    drift = (0.25 * p["pattern"]) * waves[0]
    planes = (p["red"] * tone * (1.0 + drift), p["green"] * tone, p["blue"] * tone * (1.0 - drift))
    return torch.stack([plane.reshape(-1) for plane in planes])
