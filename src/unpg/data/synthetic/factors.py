"""How it is seen: the factors of a view that do not change who it is.

Axes: x to the right of the picture, y up, z toward the camera. Angles are in degrees.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unpg.data.synthetic.parameters import Bounded, Draws, bounded
from unpg.errors import ConfigError, did_you_mean

__all__ = [
    "Accessory",
    "Background",
    "Camera",
    "Expression",
    "Light",
    "Pose",
    "Range",
    "Variation",
    "View",
    "flat_name",
    "sample_view",
]

Range = tuple[float, float]


@dataclass(frozen=True)
class Pose(Bounded):
    """The turn of the head, in degrees: roll first, then pitch, then yaw (about the vertical).

    A positive yaw turns the nose to the right of the picture, a positive pitch lifts it, a positive roll tilts the
    head clockwise in the picture (alignment takes most of the roll out again).
    """

    yaw: float = bounded(0.0, -90.0, 90.0)
    pitch: float = bounded(0.0, -60.0, 60.0)
    roll: float = bounded(0.0, -90.0, 90.0)


@dataclass(frozen=True)
class Light(Bounded):
    """One far light, and the light that comes from everywhere.

    The light stands at ``azimuth`` degrees to the right of the picture (180 is behind the head) and ``elevation``
    degrees up. ``intensity`` and ``ambient`` are radiances relative to a white, fully lit surface; ``warmth`` runs
    from blue (below 0) to orange, ``tint`` from magenta (below 0) to green: white lamps are within -1 to 1, colored
    ones beyond. ``shadow`` is the strength of the shadows that the head and the hat cast: 0 is none, 1 lets none of
    the far light through.
    """

    azimuth: float = bounded(0.0, -180.0, 180.0)
    elevation: float = bounded(30.0, -90.0, 90.0)
    intensity: float = bounded(0.8, 0.0, 4.0)
    ambient: float = bounded(0.35, 0.0, 4.0)
    warmth: float = bounded(0.0, -2.0, 2.0)
    tint: float = bounded(0.0, -2.0, 2.0)
    shadow: float = bounded(0.8, 0.0, 1.0)


@dataclass(frozen=True)
class Expression(Bounded):
    """Movement of the face, each from rest (0) to full (1); ``smile`` below 0 pulls the corners down.

    ``gaze_x`` and ``gaze_y`` turn the eyes, -1 to 1, to the right of the picture and up.
    """

    smile: float = bounded(0.0, -1.0, 1.0)
    mouth_open: float = bounded(0.0, 0.0, 1.0)
    brow_raise: float = bounded(0.0, -1.0, 1.0)
    eye_closure: float = bounded(0.0, 0.0, 1.0)
    gaze_x: float = bounded(0.0, -1.0, 1.0)
    gaze_y: float = bounded(0.0, -1.0, 1.0)


@dataclass(frozen=True)
class Accessory(Bounded):
    """What the person wears on the head for this picture. Each of the first four is worn from 0.5 on.

    ``sunglasses`` replace ``glasses`` if both are worn. ``style`` runs through the shapes: glasses from round to
    square, hats from the cap over the beanie to the hat with a brim all around. ``red``, ``green`` and ``blue`` are the
    linear color of frame, hat and mask, 0..1; masks are paler.
    """

    glasses: float = bounded(0.0, 0.0, 1.0)
    sunglasses: float = bounded(0.0, 0.0, 1.0)
    hat: float = bounded(0.0, 0.0, 1.0)
    mask: float = bounded(0.0, 0.0, 1.0)
    style: float = bounded(0.3, 0.0, 1.0)
    red: float = bounded(0.05, 0.0, 1.0)
    green: float = bounded(0.08, 0.0, 1.0)
    blue: float = bounded(0.15, 0.0, 1.0)


@dataclass(frozen=True)
class Camera(Bounded):
    """What the camera and the aligner add.

    Args:
        distance: From the head's center, in centimeters; near cameras make large noses.
        exposure: Photographic stops.
        contrast: Slope of the tone curve around middle gray.
        saturation: 0 is gray, 1 is as lit.
        blur: Standard deviation in pixels of a 112 x 112 picture (scaled with other sizes).
        resolution: Rows and columns that the camera has for each of the picture's; below 1 it sees the face small, and
            the aligner enlarges it, with its noise and what JPEG left of it. At 112 pixels 0.2 is a face of 22.
        noise: Standard deviation in gray levels (0..255).
        jpeg: Quality of the file that the camera writes, on libjpeg's scale and rounded to a whole number; None writes
            none. It is lossy with half the pixels of color each way (4:2:0), whatever a set is stored as later.
        shift_x: Error of the aligner along x, in pixels of a 112 x 112 picture (scaled with other sizes).
        shift_y: The same along y.
        scale: Error of the aligner, a factor.
        turn: Error of the aligner in degrees.
    """

    distance: float = bounded(120.0, 30.0, 1000.0)
    exposure: float = bounded(0.0, -4.0, 4.0)
    contrast: float = bounded(1.0, 0.2, 2.0)
    saturation: float = bounded(1.0, 0.0, 2.0)
    blur: float = bounded(0.4, 0.0, 4.0)
    resolution: float = bounded(1.0, 0.05, 1.0)
    noise: float = bounded(0.0, 0.0, 64.0)
    jpeg: float | None = bounded(None, 1.0, 100.0)
    shift_x: float = bounded(0.0, -40.0, 40.0)
    shift_y: float = bounded(0.0, -40.0, 40.0)
    scale: float = bounded(1.0, 0.5, 2.0)
    turn: float = bounded(0.0, -45.0, 45.0)


@dataclass(frozen=True)
class Background(Bounded):
    """What is behind the person, and what the person wears (clothes belong to the day, not to the person).

    Colors are linear, 0..1. ``pattern`` is the contrast of the pattern behind, whose shape is drawn from ``phase``.
    """

    red: float = bounded(0.2, 0.0, 1.0)
    green: float = bounded(0.2, 0.0, 1.0)
    blue: float = bounded(0.2, 0.0, 1.0)
    pattern: float = bounded(0.5, 0.0, 1.0)
    phase: float = bounded(0.0, 0.0, 1.0)
    cloth_red: float = bounded(0.2, 0.0, 1.0)
    cloth_green: float = bounded(0.2, 0.0, 1.0)
    cloth_blue: float = bounded(0.25, 0.0, 1.0)


@dataclass(frozen=True)
class View:
    """One picture of somebody: all factors but the identity. ``noise_seed`` keys the noise of the pixels."""

    pose: Pose = field(default_factory=Pose)
    light: Light = field(default_factory=Light)
    expression: Expression = field(default_factory=Expression)
    accessory: Accessory = field(default_factory=Accessory)
    camera: Camera = field(default_factory=Camera)
    background: Background = field(default_factory=Background)
    noise_seed: int = 0


@dataclass(frozen=True)
class Variation:
    """From which range (low, high) each factor is drawn, evenly unless said otherwise. Equal ends hold it fixed.

    Yaw, pitch and roll, and the errors of the aligner, are drawn as the mean of two even draws, so that the
    middle is more frequent. Expressions are drawn as the square of an even draw on each side of zero: most faces
    are near rest. Names are those of the factors, but for the colors of accessories, ``accessory_red`` and so on.
    Background, clothes and accessories are near gray more often than colorful. By default nobody wears anything on the
    head; with ``hat=(0.0, 1.0)`` half of all pictures show a hat, with ``hat=(1.0, 1.0)`` all. Nor is a picture of low
    resolution or from a JPEG file; ``jpeg=(20.0, 80.0)`` makes all of them files of such qualities.

    Raises:
        ConfigError: A range is reversed, or leaves the limits of its factor.
    """

    yaw: Range = (-50.0, 50.0)
    pitch: Range = (-20.0, 20.0)
    roll: Range = (-20.0, 20.0)
    azimuth: Range = (-100.0, 100.0)
    elevation: Range = (-20.0, 70.0)
    intensity: Range = (0.4, 1.2)
    ambient: Range = (0.18, 0.55)
    warmth: Range = (-0.7, 0.7)
    tint: Range = (-0.3, 0.3)
    shadow: Range = (0.4, 1.0)
    smile: Range = (-0.4, 1.0)
    mouth_open: Range = (0.0, 0.7)
    brow_raise: Range = (-0.5, 0.8)
    eye_closure: Range = (0.0, 0.5)
    gaze_x: Range = (-0.8, 0.8)
    gaze_y: Range = (-0.4, 0.4)
    glasses: Range = (0.0, 0.0)
    sunglasses: Range = (0.0, 0.0)
    hat: Range = (0.0, 0.0)
    mask: Range = (0.0, 0.0)
    style: Range = (0.0, 1.0)
    accessory_red: Range = (0.01, 0.7)
    accessory_green: Range = (0.01, 0.7)
    accessory_blue: Range = (0.01, 0.7)
    distance: Range = (60.0, 250.0)
    exposure: Range = (-0.3, 1.1)
    contrast: Range = (0.8, 1.2)
    saturation: Range = (0.7, 1.2)
    blur: Range = (0.4, 0.9)
    resolution: Range = (1.0, 1.0)
    noise: Range = (0.5, 6.0)
    jpeg: Range | None = None
    shift_x: Range = (-2.0, 2.0)
    shift_y: Range = (-2.0, 2.0)
    scale: Range = (0.96, 1.04)
    turn: Range = (-3.0, 3.0)
    red: Range = (0.01, 0.8)
    green: Range = (0.01, 0.8)
    blue: Range = (0.01, 0.8)
    pattern: Range = (0.0, 1.0)
    phase: Range = (0.0, 1.0)
    cloth_red: Range = (0.01, 0.7)
    cloth_green: Range = (0.01, 0.7)
    cloth_blue: Range = (0.01, 0.7)

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {}
        for part, factors in _PARTS.items():
            limits |= {flat_name(part, name): ends for name, ends in factors.limits().items()}
        for f in dataclasses.fields(self):
            given = getattr(self, f.name)
            low, high = limits[f.name]
            if given is None and f.default is None:
                continue
            if not (isinstance(given, (tuple, list)) and len(given) == 2 and low <= given[0] <= given[1] <= high):
                kind = "None or a range" if f.default is None else "a range"
                raise ConfigError(
                    f"Variation.{f.name} must be {kind} (low, high) within {low} to {high}, got {given!r}."
                )
            object.__setattr__(self, f.name, (float(given[0]), float(given[1])))

    @classmethod
    def named(cls, ranges: Mapping[str, Any]) -> "Variation":
        """A variation with these ranges by the names of their factors.

        Raises:
            ConfigError: No factor has such a name, or a range is bad.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name in ranges:
            if name not in known:
                raise ConfigError(f"Variation: no factor is called {name!r}.{did_you_mean(name, known)}")
        return cls(**ranges)


_PARTS: dict[str, type[Bounded]] = {
    "pose": Pose,
    "light": Light,
    "expression": Expression,
    "accessory": Accessory,
    "camera": Camera,
    "background": Background,
}
_CENTRAL = frozenset({"yaw", "pitch", "roll", "shift_x", "shift_y", "scale", "turn"})
_COLORS = ("red", "green", "blue")
_AT_REST = frozenset(Expression.limits()) - {"gaze_x", "gaze_y"}


def flat_name(part: str, name: str) -> str:
    """The name of a factor where the factors of all parts lie side by side: only ``red`` and its kin are in two."""
    return f"accessory_{name}" if part == "accessory" and name in _COLORS else name


def sample_view(variation: Variation, seed: int, identity: int, view: int) -> View:
    """View number ``view`` of person number ``identity``: a pure function of the arguments."""
    draws = Draws(seed, identity, view)

    def draw(part: str, name: str) -> float | None:
        ends = getattr(variation, flat_name(part, name))
        if ends is None:
            return None
        low, high = ends
        if low == high:
            return float(low)
        u = draws.uniform(part, name)
        if name in _CENTRAL:
            u = 0.5 * (u + draws.uniform(part, name, "again"))
        elif name in _AT_REST and low <= 0.0 <= high:
            signed = low + (high - low) * u
            end = high if signed > 0 else low
            return signed * (signed / end) if end else 0.0
        elif part in ("background", "accessory") and name.endswith(_COLORS):
            # Most surfaces are near gray: the colors share most of their draw. The square makes linear light even
            # to the eye.
            shared = draws.uniform(part, name.rpartition("_")[0])
            u = (0.3 * u + 0.7 * shared) ** 2
        return float(low + (high - low) * u)

    drawn = {part: kind(**{name: draw(part, name) for name in kind.limits()}) for part, kind in _PARTS.items()}
    return View(**drawn, noise_seed=draws.word("noise") >> 33)  # type: ignore[arg-type]
