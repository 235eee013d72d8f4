"""From parameters to centimeters, colors and direction vectors: the arithmetic that is the same for all pixels.

It is done once per picture, in float64 on the host. What follows, on vertices and pixels, uses only operations that
IEEE 754 defines to the last bit (sums, products, quotients, square roots, comparisons), so a picture does not depend on
the batch it is rendered in, nor on how a device computes sines.
"""

import dataclasses
import math

from unpg.data.synthetic.factors import View, flat_name
from unpg.data.synthetic.identity import Identity

__all__ = ["measures"]

_Axis = tuple[float, float, float]


def measures(identity: Identity, view: View) -> dict[str, float]:
    """All parameters of a picture by name, and what follows from them: centimeters, linear RGB."""
    p = {f.name: float(getattr(identity, f.name)) for f in dataclasses.fields(identity)}
    for name in ("pose", "light", "expression", "accessory", "camera", "background"):
        part = getattr(view, name)
        # What is left out (None) is 0, which none of these factors can be.
        p |= {flat_name(name, f.name): float(getattr(part, f.name) or 0.0) for f in dataclasses.fields(part)}
    return p | _face(p) | _worn(p) | _colors(p) | _directions(p) | _pattern(p)


def _face(p: dict[str, float]) -> dict[str, float]:
    grin = max(p["smile"], 0.0)
    mouth = -6.85 - 0.5 * p["face_length"] - 0.45 * p["mouth_height"]
    return {
        "grin": grin,
        "frown": max(-p["brow_raise"], 0.0),
        "old": max(p["age"] - 0.3, 0.0),
        "mouth_y": mouth,
        "mouth_half": (2.45 + 0.45 * p["mouth_width"]) * (1.0 + 0.18 * grin) * (1.0 - 0.12 * p["mouth_open"]),
        "corner_lift": 0.12 * p["mouth_curve"] + 0.55 * p["smile"] - 0.35 * p["mouth_open"],
        "drop": 1.7 * p["mouth_open"],
        "nose_y": -3.6 - 0.5 * p["nose_length"] - 0.3 * p["face_length"],
        "wing_x": 1.12 + 0.34 * p["nose_width"] + 0.08 * p["nostril_width"],
        "eye_x": 3.15 + 0.36 * p["eye_spacing"],
        "eye_half": 1.38 + 0.22 * p["eye_width"],
        "chin_y": -10.0 - 0.7 * p["chin_length"] - 0.55 * p["face_length"] - 1.5 * p["mouth_open"],
        "long_hair": min(max((p["hair_length"] - 0.25) / 0.25, 0.0), 1.0),
        "hair_below": max(p["hair_length"] - 0.3, 0.0),
        "sway": 0.12 * p["asymmetry"],
        "makeup": p["lip_color"] * (1.0 - p["sex"]),
    }


def _worn(p: dict[str, float]) -> dict[str, float]:
    """Hats: cap, beanie, brim all around. Glasses: thin and round to thick and square."""
    style = p["style"]
    cap, beanie = style < 1 / 3, 1 / 3 <= style < 2 / 3
    front, back, brim, swell, tall = (
        (6.0, 2.6, 6.0, 0.45, 0.2) if cap else (5.0, 0.6, 0.0, 0.55, 0.6) if beanie else (6.0, 3.4, 5.2, 0.4, 1.4)
    )
    high = 1.75 + 0.25 * (1.0 - style) + 0.15 * p["sunglasses"]
    return {
        "wears_hat": float(p["hat"] >= 0.5),
        "wears_glasses": float(max(p["glasses"], p["sunglasses"]) >= 0.5),
        "wears_mask": float(p["mask"] >= 0.5),
        "hat_front": front,
        "hat_back": back,
        "hat_brim": brim,
        "hat_swell": swell,
        "hat_tall": tall,
        "hat_around": float(not cap and not beanie),
        "hat_cuff": float(beanie),
        "dark_lens": float(p["sunglasses"] >= 0.5),
        "lens_x": 3.3 + 0.2 * p["eye_spacing"],
        "lens_half": 2.5 + 0.12 * style + 0.1 * p["sunglasses"],
        "lens_high": high,
        "lens_square": 0.25 + 0.75 * style,
        "frame_thick": 0.08 + 0.12 * style,
        "arm_high": 0.35 + 0.45 * style,
        "glasses_y": -0.25,
        "glasses_z": 10.25 + 0.3 * p["nose_bridge"] + 0.25 * p["brow_ridge"],
        "glasses_bend": 0.062,
        "head_side": 7.05 * (1.0 + 0.05 * p["head_width"]),
        "glasses_half": 6.75 + 0.3 * p["head_width"],
    }


def _colors(p: dict[str, float]) -> dict[str, float]:
    """Skin: pigment absorbs blue most, blood green. Hair: from blond through red and brown to black, then gray."""
    dark, under, blood = p["melanin"], p["undertone"], p["redness"] - 0.4
    skin = (
        math.exp(-0.20 - 1.45 * dark + 0.04 * under),
        math.exp(-0.58 - 1.75 * dark - 0.10 * blood + 0.02 * under),
        math.exp(-0.85 - 1.95 * dark - 0.06 * blood - 0.16 * under),
    )
    depth, red, gray = 3.6 * p["hair_melanin"] ** 1.4, p["hair_red"], 0.9 * p["hair_gray"]
    hair = (
        math.exp(-0.55 - 0.85 * depth),
        math.exp(-0.85 - 0.95 * depth - 0.5 * red),
        math.exp(-1.45 - 1.05 * depth - 0.9 * red),
    )
    hair = (hair[0] + gray * (0.53 - hair[0]), hair[1] + gray * (0.52 - hair[1]), hair[2] + gray * (0.50 - hair[2]))
    tint = 0.45 + 0.55 * p["lip_color"]
    lip = (
        skin[0] * (0.88 + 0.02 * dark) * (1.0 - 0.12 * p["lip_color"]),
        skin[1] * (0.70 - 0.38 * tint * (1.0 - 0.55 * dark)),
        skin[2] * (0.76 - 0.34 * tint * (1.0 - 0.55 * dark)),
    )
    light, hue = p["iris_light"], p["iris_hue"]
    iris = (
        0.05 + light * (0.28 - 0.18 * hue),
        0.025 + light * (0.20 + 0.06 * hue),
        0.012 + light * (0.06 + 0.40 * hue),
    )
    colors = {"skin": skin, "hair": hair, "lip": lip, "iris": iris}
    return {f"{name}_{c}": v for name, color in colors.items() for c, v in zip("rgb", color, strict=True)}


def _directions(p: dict[str, float]) -> dict[str, float]:
    made = {}
    for name in ("yaw", "pitch", "roll", "turn"):
        made[f"{name}_cos"], made[f"{name}_sin"] = math.cos(math.radians(p[name])), math.sin(math.radians(p[name]))
    azimuth, elevation = math.radians(p["azimuth"]), math.radians(p["elevation"])
    x, y, z = (
        math.sin(azimuth) * math.cos(elevation),
        math.sin(elevation),
        math.cos(azimuth) * math.cos(elevation),
    )
    norm = math.sqrt(x * x + y * y + (z + 1.0) ** 2 + 1e-6)
    made |= {"light_x": x, "light_y": y, "light_z": z}
    # The light and two directions square to it, in the axes of the head at rest.
    toward = _unturned(made, (x, y, z))
    up = (0.0, 1.0, 0.0) if abs(toward[1]) < 0.9 else (0.0, 0.0, -1.0)
    across = _cross(up, toward)
    length = math.sqrt(sum(c * c for c in across))
    across = (across[0] / length, across[1] / length, across[2] / length)
    for name, axis in (("across", across), ("along", _cross(toward, across)), ("toward", toward)):
        made |= {f"{name}_{c}": v for c, v in zip("xyz", axis, strict=True)}
    made |= {"half_x": x / norm, "half_y": y / norm, "half_z": (z + 1.0) / norm}
    warm, tint = p["warmth"], p["tint"]
    for name, tone in (("r", 0.25 * warm - 0.1 * tint), ("g", 0.25 * tint), ("b", -0.35 * warm - 0.1 * tint)):
        made[f"key_{name}"] = p["intensity"] * (1.0 + tone)
        made[f"fill_{name}"] = p["ambient"] * (1.0 + 0.4 * tone)
    return made | {"gain": 2.0 ** p["exposure"]}


def _unturned(p: dict[str, float], axis: _Axis) -> _Axis:
    """The direction that the pose turns into ``axis``: yaw, pitch and roll taken back, in this order."""
    v = list(axis)
    for name, first, second in (("yaw", 0, 2), ("pitch", 1, 2), ("roll", 0, 1)):
        cos, sin = p[f"{name}_cos"], p[f"{name}_sin"]
        v[first], v[second] = v[first] * cos - v[second] * sin, v[second] * cos + v[first] * sin
    return v[0], v[1], v[2]


def _cross(a: _Axis, b: _Axis) -> _Axis:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _pattern(p: dict[str, float]) -> dict[str, float]:
    """Three waves behind the person: frequency along u and v, and phase, all in turns per height of the picture."""
    s = 60.0 * p["phase"]
    made = {}
    for i, (fast, slow) in enumerate(((0.6, 0.5), (1.1, 1.4), (1.9, 1.5))):
        made[f"wave{i}_u"] = fast * math.sin((1.3 + 0.7 * i) * s)
        made[f"wave{i}_v"] = slow * math.cos((2.1 + 0.9 * i) * s)
        made[f"wave{i}"] = (s * (0.31 + 0.17 * i)) % 1.0
    return made
