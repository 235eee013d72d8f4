"""One picture of one head: place the surface, find what each pixel sees, light it, take the picture.

Axes: b pictures, n = h * w pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unpg.data.synthetic.accessory import build_hat, build_worn, hat_triangles, paint_worn, worn_mesh
from unpg.data.synthetic.camera import align, develop, project, to_pixels, turn
from unpg.data.synthetic.factors import View
from unpg.data.synthetic.identity import Identity
from unpg.data.synthetic.measures import measures
from unpg.data.synthetic.parameters import Columns, PerPixel, columns
from unpg.data.synthetic.raster import Fragments, rasterize
from unpg.data.synthetic.shadow import cast, lit
from unpg.data.synthetic.skin import Color, paint_hair, paint_skin
from unpg.data.synthetic.surface import EAR, HAIR, SKIN, Head, build_head, step, swing, topology
from unpg.errors import ConfigError, ShapeError

__all__ = ["Picture", "render"]


_CPU_PIXELS = 100_000  # more at a time leave the caches of a core; with fewer, the calls cost more than the pixels


class Picture(NamedTuple):
    """Rendered faces.

    images: (b, h, w, 3) uint8 RGB.
    landmarks: (b, 5, 2) float32, column and row in pixels: the eye on the left of the picture, the other one, tip of
        the nose, corners of the mouth (left, right). Those of the hidden side are where they would be seen through
        the head.
    mask: (b, h, w) bool, where the person is, hat and frame of glasses included; a clear lens is seen through.
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
    mark_x, mark_y, _ = project(p, turn(p, head.landmarks))
    similarity = align(p, mark_x, mark_y, size)
    x, y, nearness = project(p, turn(p, head.points))
    seen = rasterize(*to_pixels(similarity, x, y), nearness, mesh.triangles, mesh.two_sided, size)
    pixel = 1.0 / (similarity[0].square() + similarity[1].square()).sqrt()
    each = PerPixel(p | {"pixel": pixel}, seen.picture)
    mixed = _mix([*head.points, *turn(p, head.normals), head.open, head.scalp], seen)
    maps = _shadows(p, head)
    light = _head_light(each, mixed, mesh.part.index_select(0, seen.triangle), maps, seen.picture)
    radiance = _background(p, size).index_copy_(1, seen.pixel, light)
    near = torch.zeros(b * height * width, device=device).index_copy_(0, seen.pixel, seen.nearness)
    _wear(p, similarity, pixel, size, radiance, near)
    images = develop(p, radiance.reshape(3, b, height, width).transpose(0, 1), seeds)
    depth = (1.0 / near).reshape(b, height, width)  # infinite where nobody is
    landmarks = torch.stack(to_pixels(similarity, mark_x, mark_y), 2)
    return Picture(images, landmarks, depth.isfinite(), depth)


def _mix(values: list[Tensor], seen: Fragments) -> list[Tensor]:
    """Values of the vertices, each (b, v), at the pixels, each (n,)."""
    table = torch.stack(values, 2).reshape(-1, len(values))
    parts = [table.index_select(0, c) * w[:, None] for c, w in zip(seen.corners, seen.weights, strict=True)]
    return list((parts[0] + parts[1] + parts[2]).t().contiguous())


def _shadows(p: Columns, head: Head) -> Tensor:
    """Shadow maps (b, cells) of the heads and their hats."""
    mesh = topology(p["sex"].device)
    points, triangles, two_sided = head.points, mesh.casters, mesh.casters_two_sided
    if bool((p["wears_hat"] > 0.0).any()):
        hat = build_hat(p)
        more = hat_triangles(p["sex"].device)
        triangles = torch.cat([triangles, more + points[0].shape[1]])
        two_sided = torch.cat([two_sided, torch.ones_like(more[:, 0], dtype=torch.bool)])
        points = [torch.cat([a, h.reshape(len(a), -1)], 1) for a, h in zip(points, hat, strict=True)]
    return cast(p, points, triangles, two_sided)


def _wear(
    p: dict[str, Tensor], similarity: list[Tensor], pixel: Tensor, size: tuple[int, int], radiance: Tensor, near: Tensor
) -> None:
    """Draw hats and glasses over ``radiance`` (3, b * h * w) where they are nearer than ``near`` (b * h * w)."""
    worn = (p["wears_hat"] + p["wears_glasses"])[:, 0].nonzero()[:, 0]
    if len(worn) == 0:
        return
    q = {name: column.index_select(0, worn) for name, column in (p | {"pixel": pixel}).items()}
    triangles, parts = worn_mesh(near.device)
    points, normals = build_worn(q)
    x, y, nearness = project(q, turn(q, points))
    to_place = [c.index_select(0, worn) for c in similarity]
    two_sided = torch.ones_like(parts, dtype=torch.bool)
    seen = rasterize(*to_pixels(to_place, x, y), nearness, triangles, two_sided, size)
    x, y, z, nx, ny, nz = _mix([*points, *turn(q, normals)], seen)
    each = PerPixel(q, seen.picture)
    paint = paint_worn(each, x, y, z, parts.index_select(0, seen.triangle), each["pixel"])
    where = seen.pixel + (worn.index_select(0, seen.picture) - seen.picture) * (size[0] * size[1])
    cover = paint.cover * (seen.nearness > near.index_select(0, where))
    nx, ny, nz = _facing_camera(nx, ny, nz, -0.05)
    one = torch.ones_like(x)
    shine = 0.09 * paint.gloss * _shine(each, nx, ny, nz)
    light = _shade(each, (nx, ny, nz), paint.color, shine, one, one)
    before = radiance.index_select(1, where)
    radiance.index_copy_(1, where, before + cover * (light - before))
    solid = cover >= 0.5
    near.index_copy_(0, where, torch.where(solid, seen.nearness, near.index_select(0, where)))


def _facing_camera(nx: Tensor, ny: Tensor, nz: Tensor, limit: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normals of length one; those whose z is below ``limit`` are turned round: a thin thing seen from behind."""
    norm = (nx.square() + ny.square() + nz.square()).sqrt().clamp(min=1e-6)
    norm = torch.where(nz < limit * norm, -norm, norm)
    return nx / norm, ny / norm, nz / norm


def _head_light(p: PerPixel, mixed: list[Tensor], part: Tensor, maps: Tensor, picture: Tensor) -> Tensor:
    """Radiance (3, n) of the head, from place, turned normal, openness and scalp and the part (n,) that is seen."""
    x, y, z, nx, ny, nz, hollow, scalp = mixed
    # Hair and ears are thin: seen from behind, their other side is lit.
    nx, ny, nz = _facing_camera(nx, ny, nz, torch.where(part == SKIN, -2.0, -0.15))
    paint = paint_skin(p, x, y, z, scalp, p["pixel"])
    values = torch.stack([*paint.color, paint.gloss, paint.eye])
    index = (part == HAIR).nonzero()[:, 0]
    hair = paint_hair(p.select(index), *(c.index_select(0, index) for c in (x, y, z)))
    r, g, b, gloss, eye = values.index_copy_(1, index, torch.stack([*hair.color, hair.gloss, hair.eye]))
    facing = nx * p["light_x"] + ny * p["light_y"] + nz * p["light_z"]
    reach = 1.0 - p["shadow"] * (1.0 - lit(p, maps, picture, [x, y, z], facing))
    # Along strands that run down, light is mirrored in a band around the head (Kajiya and Kay 1989).
    hair_band = _band(p.select(index), *(c.index_select(0, index) for c in (nx, ny, nz)))
    shine = _shine(p, nx, ny, nz)
    shine = (0.09 * gloss * shine).index_copy_(0, index, hair_band * gloss.index_select(0, index))
    shine = (shine * (facing > 0) + 0.65 * eye) * reach
    return _shade(p, (nx, ny, nz), (r, g, b), shine, _openness(p, y, z, part) * hollow, reach)


def _shine(p: PerPixel, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
    """Gloss (Blinn 1977): the half vector between the light and the camera, which is far in front; exponent 16."""
    half = (nx * p["half_x"] + ny * p["half_y"] + nz * p["half_z"]).clamp(min=0.0)
    return half.square().square().square().square()


def _band(p: PerPixel, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
    """The gloss of strands that run down the surface: strong where they are square to the half vector."""
    half = nx * p["half_x"] + ny * p["half_y"] + nz * p["half_z"]
    along = (p["half_y"] - half * ny) / (1.0 - ny.square()).clamp(min=0.05).sqrt()
    return 0.06 * (1.0 - along.square()).clamp(min=0.0).square().square().square().square() * half.clamp(min=0.0)


def _shade(p: PerPixel, normal: Color, color: Color, shine: Tensor, sky: Tensor, reach: Tensor) -> Tensor:
    """Radiance (3, n) of surfaces.

    Args:
        p: Measures of the pixels.
        normal: Of length one, turned.
        color: Share of the light that is scattered back.
        shine: (n,), share of the far light that is mirrored.
        sky: (n,), how open the place is to the light from everywhere.
        reach: (n,), the share of the far light that no shadow keeps away.
    """
    nx, ny, nz = normal
    # Light comes from everywhere, more from above; and from one direction. Skin scatters it inside, red farthest, so
    # that the light wraps around and its edge is warm.
    facing = nx * p["light_x"] + ny * p["light_y"] + nz * p["light_z"]
    ambient = (0.72 + 0.28 * ny) * sky
    open_ = (0.35 + 0.65 * sky) * reach
    planes = []
    for name, c, wrap in zip("rgb", color, (0.26, 0.16, 0.12), strict=True):
        direct = ((facing + wrap) * (1.0 / (1.0 + wrap))).clamp(min=0.0) * open_
        planes.append(c * (p[f"key_{name}"] * direct + p[f"fill_{name}"] * ambient) + p[f"key_{name}"] * shine)
    return torch.stack(planes)


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
