"""Who it is: a continuous space of head shapes and surface colors.

Shape parameters are normalized: 0 is the average head, -1 and 1 are the ends of the usual range. What they do, in
centimeters, is in :mod:`unpg.data.synthetic.surface` and :mod:`unpg.data.synthetic.skin`.
"""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from unpg.data.synthetic.parameters import Bounded, Draws, bounded

__all__ = ["Identity", "sample_identity"]


def _shape(sex: float = 0.0, age: float = 0.0, spread: float = 0.7) -> Any:
    """A field from -1 to 1, drawn normal around ``sex * (2 sex - 1) + age * (2 age - 1)``."""
    field = bounded(0.0, -1.0, 1.0)
    return dataclasses.field(default=0.0, metadata={**field.metadata, "sex": sex, "age": age, "spread": spread})


@dataclass(frozen=True)
class Identity(Bounded):
    """One person.

    ``sex`` runs from 0 (female) to 1 (male) and ``age`` from 0 (about 18 years) to 1 (about 80); they shift the
    means of other parameters when an identity is sampled, and ``age`` also draws wrinkles and grays the hair. Skin tone
    is ``melanin`` (0 is the lightest), with ``undertone`` and ``redness``; the color of the hair is ``hair_melanin``,
    ``hair_red`` and ``hair_gray``; its cut ``hair_length``, ``hair_volume``, ``hair_curl``, ``hair_fringe``,
    ``hair_recession`` and ``baldness``.
    The default is the average, hairy, middle-aged head.

    Raises:
        ConfigError: A parameter is outside its limits.
    """

    sex: float = bounded(0.5, 0.0, 1.0)
    age: float = bounded(0.3, 0.0, 1.0)
    # skull and jaw
    head_width: float = _shape()
    forehead_width: float = _shape()
    forehead_slope: float = _shape(sex=0.3)
    cheek_width: float = _shape()
    cheek_fullness: float = _shape(sex=-0.15, age=-0.2)
    jaw_width: float = _shape(sex=0.45)
    jaw_squareness: float = _shape(sex=0.4)
    chin_length: float = _shape(sex=0.2)
    chin_depth: float = _shape(sex=0.2)
    chin_width: float = _shape(sex=0.35)
    face_length: float = _shape(sex=0.2)
    neck_width: float = _shape(sex=0.5, spread=0.35)
    asymmetry: float = _shape()
    # eyes and brows
    eye_spacing: float = _shape()
    eye_width: float = _shape()
    eye_height: float = _shape(sex=-0.35, age=-0.2)
    eye_tilt: float = _shape()
    eye_depth: float = _shape(sex=0.2)
    lid_crease: float = _shape()
    iris_hue: float = bounded(0.2, 0.0, 1.0)
    iris_light: float = bounded(0.3, 0.0, 1.0)
    brow_ridge: float = _shape(sex=0.5)
    brow_height: float = _shape(sex=-0.25)
    brow_arch: float = _shape(sex=-0.2)
    brow_tilt: float = _shape()
    brow_thickness: float = _shape(sex=0.45)
    brow_length: float = _shape()
    brow_density: float = bounded(0.7, 0.0, 1.0)
    # nose
    nose_length: float = _shape(sex=0.15)
    nose_width: float = _shape(sex=0.25)
    nose_height: float = _shape(sex=0.2)
    nose_bridge: float = _shape()
    nose_hump: float = _shape(sex=0.1)
    nose_tip: float = _shape()
    nostril_width: float = _shape()
    # mouth
    mouth_height: float = _shape()
    mouth_width: float = _shape()
    upper_lip: float = _shape(sex=-0.35, age=-0.3)
    lower_lip: float = _shape(sex=-0.3, age=-0.2)
    lip_bow: float = _shape()
    lip_depth: float = _shape()
    mouth_curve: float = _shape(age=-0.2)
    # ears
    ear_size: float = _shape(age=0.2)
    ear_angle: float = _shape()
    # hair
    hair_volume: float = bounded(0.5, 0.0, 1.0)
    hair_length: float = bounded(0.3, 0.0, 1.0)
    hairline: float = _shape(sex=0.15)
    hair_recession: float = bounded(0.2, 0.0, 1.0)
    baldness: float = bounded(0.0, 0.0, 1.0)
    hair_fringe: float = bounded(0.0, 0.0, 1.0)
    hair_part: float = _shape()
    hair_curl: float = bounded(0.2, 0.0, 1.0)
    hair_melanin: float = bounded(0.7, 0.0, 1.0)
    hair_red: float = bounded(0.3, 0.0, 1.0)
    hair_gray: float = bounded(0.0, 0.0, 1.0)
    beard: float = bounded(0.0, 0.0, 1.0)
    mustache: float = bounded(0.0, 0.0, 1.0)
    # skin
    melanin: float = bounded(0.3, 0.0, 1.0)
    undertone: float = _shape()
    redness: float = bounded(0.4, 0.0, 1.0)
    lip_color: float = bounded(0.4, 0.0, 1.0)
    freckles: float = bounded(0.0, 0.0, 1.0)
    mole_size: float = bounded(0.0, 0.0, 1.0)
    mole_x: float = _shape(spread=0.6)
    mole_y: float = _shape(spread=0.6)
    second_mole_size: float = bounded(0.0, 0.0, 1.0)
    second_mole_x: float = _shape(spread=0.6)
    second_mole_y: float = _shape(spread=0.6)
    texture: float = bounded(0.5, 0.0, 1.0)


@lru_cache(maxsize=1024)
def sample_identity(seed: int, identity: int) -> Identity:
    """Person number ``identity`` of the population ``seed``: a pure function of the two.

    Normalized shapes are drawn normal and clipped to their limits; the rest follow the rules below.
    """
    draws = Draws(seed, identity, "identity")
    u = draws.uniform
    # Two lumps with an overlap between: most faces look like one of the sexes, some do not.
    male = u("side") < 0.5
    sex = min(max((0.82 if male else 0.18) + 0.14 * draws.normal("sex"), 0.0), 1.0)
    age = u("age") ** 1.4
    values = {"sex": sex, "age": age}
    for field in dataclasses.fields(Identity):
        if "spread" in field.metadata:
            shape = field.metadata
            mean = shape["sex"] * (2 * sex - 1) + shape["age"] * (2 * age - 1)
            drawn = mean + shape["spread"] * draws.normal(field.name)
            values[field.name] = min(max(drawn, -1.0), 1.0)
    melanin = u("melanin")
    light = 1.0 - melanin
    # Light hair, light or blue eyes and freckles are found on light skin only; the space between is filled evenly.
    hair = 1.0 - u("hair_melanin") * min(1.0, 1.5 * light**1.5)
    bald = u("baldness") ** 0.7 if sex > 0.55 and u("is_bald") < 0.12 + 0.5 * age else 0.0
    bearded = sex > 0.6 and u("has_beard") < 0.4
    values |= {
        "melanin": melanin,
        "redness": u("redness"),
        "lip_color": u("lip_color") * (1.0 - 0.5 * sex),
        "freckles": max(0.0, 2.0 * u("freckles") - 1.0) * light**2,
        "texture": u("texture"),
        "iris_hue": u("iris_hue") * min(1.0, 1.6 * light),
        "iris_light": u("iris_light") * min(1.0, 1.4 * light**1.5),
        "brow_density": 0.35 + 0.65 * u("brow_density"),
        "hair_volume": u("hair_volume") * (1.0 - 0.6 * bald),
        "hair_length": u("hair_length") ** (0.25 + 3.3 * sex) * (1.0 - 0.8 * bald),
        "hair_recession": u("hair_recession") * (0.3 + 0.7 * sex * age) if u("recedes") < 0.5 + 0.4 * age else 0.0,
        "baldness": bald,
        "hair_fringe": u("hair_fringe") if u("has_fringe") < 0.4 - 0.25 * sex else 0.0,
        "hair_curl": min(1.0, 0.7 * u("hair_curl") + 0.4 * melanin * u("curly")),
        "hair_melanin": hair,
        "hair_red": u("hair_red"),
        "hair_gray": min(1.0, max(0.0, 2.2 * age - 0.8 - 1.0 * u("hair_gray"))),
        "beard": u("beard") if bearded else 0.15 * sex * u("stubble"),
        "mustache": u("mustache") if sex > 0.6 and u("has_mustache") < (0.7 if bearded else 0.1) else 0.0,
        "mole_size": max(0.0, 2.2 * u("mole_size") - 1.2),
        "second_mole_size": max(0.0, 3.0 * u("second_mole_size") - 2.0),
    }
    return Identity(**values)
