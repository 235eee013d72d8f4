"""A twin of K-FACE: rendered people under every combination of its accessories, lights, expressions and cameras.

The grid is K-FACE's own (Choi et al. 2021): cameras every 15 degrees from +90 to -90 at the height of the face and
from +45 to -45 thirty degrees above, 30 lights by lux and direction, three expressions, six accessories. Lamps stand
around the person, so a turned camera sees their light from another side: lamp +90 lights the back of the head that
camera -90 sees. As the authors detect landmarks once per person and camera, the error of the aligner is drawn once per
person and camera. What the grid does not say (which way is plus, how bright a lux is in gray levels) is set here.
"""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unpg.data.kface import KFaceViews, image_stem
from unpg.data.kface_lists import balanced_views
from unpg.data.synthetic.faces import RenderedSet
from unpg.data.synthetic.factors import Accessory, Background, Camera, Expression, Light, Pose, View
from unpg.data.synthetic.parameters import Draws
from unpg.data.synthetic.population import Noise, Population, require_whole
from unpg.errors import ConfigError

__all__ = [
    "ACCESSORIES",
    "CAMERAS",
    "EXPRESSIONS",
    "LIGHTS",
    "KFaceCells",
    "KFaceTwin",
    "count_test_people",
    "kface_view",
]

CAMERAS: dict[int, tuple[int, int]] = {
    **{c: (90 - 15 * (c - 1), 0) for c in range(1, 14)},
    **{c: (45 - 15 * (c - 14), 30) for c in range(14, 21)},
}
"""Camera -> degrees to the right of the picture of the middle camera, and degrees above the face."""

LIGHTS: dict[int, tuple[int, int | None, int | None]] = {
    **dict(zip(range(1, 8), [(lux, None, None) for lux in (1000, 400, 200, 150, 100, 40, 0)], strict=True)),
    **{8 + i: (lux, 30, None) for i, lux in enumerate((400, 200, 100, 40))},
    **{12 + i: (lux, -15, None) for i, lux in enumerate((400, 200, 100, 40))},
    **{16 + i: (lux, None, 90) for i, lux in enumerate((400, 200, 100, 40))},
    **{20 + i: (lux, None, 45) for i, lux in enumerate((400, 200, 100, 40))},
    **{24 + i: (lux, None, 0) for i, lux in enumerate((400, 200, 100, 40))},
    **{28 + i: (lux, None, -45) for i, lux in enumerate((400, 200, 100))},
}
"""Light -> lux, degrees above, degrees to the right; None: lamps of all heights, or of all sides."""

EXPRESSIONS: dict[int, dict[str, float]] = {
    1: {},
    2: {"smile": 0.9, "mouth_open": 0.25, "brow_raise": 0.1, "eye_closure": 0.12},
    3: {"smile": -0.6, "mouth_open": 0.08, "brow_raise": -0.9, "eye_closure": 0.55},
}
"""Neutral, smile, disgust: how far each movement goes in the one who moves most."""

_HORN = {"style": 0.9, "red": 0.01, "green": 0.008, "blue": 0.006}
_CAP = {"red": 0.012, "green": 0.015, "blue": 0.03}
ACCESSORIES: dict[int, Accessory] = {
    1: Accessory(),
    2: Accessory(glasses=1.0, style=0.15, red=0.25, green=0.25, blue=0.27),
    3: Accessory(glasses=1.0, **_HORN),
    4: Accessory(sunglasses=1.0, style=0.5, red=0.01, green=0.01, blue=0.01),
    5: Accessory(hat=1.0, style=0.05, **_CAP),
    # One number shapes both: a cap goes with round glasses. Another for glasses would change pictures of edition 3.
    6: Accessory(hat=1.0, glasses=1.0, style=0.05, **_CAP),
}
"""None, glasses, horn-rimmed glasses, sunglasses, cap, cap with glasses: the same things for everybody."""

_WHITE_LUX = 700.0  # at so many lux a white, fully lit surface has radiance 1

Cell = tuple[int, int, int, int]
"""Accessory, light, expression, camera."""


class KFaceCells(RenderedSet):
    """Images of a population in cells of the grid.

    Args:
        population: Who there is.
        labels: (n,) int64.
        cells: (n, 4) integers: accessory, light, expression, camera.
        size: (height, width) in pixels.
    """

    def __init__(
        self, population: Population, labels: NDArray[np.int64], cells: NDArray[np.integer], size: tuple[int, int]
    ) -> None:
        super().__init__(population, labels, size)
        self.cells: NDArray[np.int8] = np.asarray(cells, dtype=np.int8)  # 3.86 million rows take 15 MB

    def cell(self, i: int) -> Cell:
        """Accessory, light, expression and camera of image ``i``."""
        s, light, e, c = self.cells[i].tolist()
        return s, light, e, c

    def view(self, i: int, number: int, take: int) -> View:
        """The cell of image ``i``."""
        return kface_view(self.population.seed, number, self.cell(i), take)

    def stem(self, i: int) -> str:
        """``<id>/S001/L1/E01/C1``."""
        return image_stem(self.identities[self.labels[i]], self.cell(i))

    def settings(self) -> dict[str, Any]:
        """Nothing but the grid."""
        return {"grid": "kface"}


class KFaceTwin(KFaceCells):
    """Rendered people in K-FACE's grid, in the order and with the labels that :class:`~unpg.data.kface.KFaceSet` has.

    The first people of the population are for testing, 30 of 400; the rest train. So sets of other noise or views have
    the same test people.

    Args:
        identities: Number of identities of both parts together.
        views: ``"T1"`` to ``"T4"``, or words; see :meth:`~unpg.data.kface.KFaceViews.parse`.
        part: ``"train"`` or ``"test"``.
        subset: Number of images, shared out evenly over people and, for each person, over the values of each
            attribute; None takes every combination (T4 of 370 people: 3,862,800 images).
        seed: Of the people, of the subset and of what differs in a view.
        size: (height, width) in pixels.
        noise: Faults of the training part.
        test_identities: Number of test people; of 400 there are 30, and as large a share of others, at least two.

    Attributes:
        views: The grid.
        whole: Images of every combination, of which a subset has some.

    Raises:
        ConfigError: A setting is out of range, or noise is asked of the test part.
    """

    def __init__(
        self,
        identities: int = 400,
        views: str | KFaceViews = "T1",
        part: Literal["train", "test"] = "train",
        subset: int | None = None,
        seed: int = 0,
        size: tuple[int, int] = (112, 112),
        noise: Noise | None = None,
        test_identities: int | None = None,
    ) -> None:
        if part not in ("train", "test"):
            raise ConfigError(f"The part of the K-FACE twin must be 'train' or 'test', got {part!r}.")
        if part == "test" and noise not in (None, Noise()):
            raise ConfigError("The test part of the K-FACE twin has no noise; ask for it in the training part.")
        tested = count_test_people(identities, test_identities)
        self.views = views if isinstance(views, KFaceViews) else KFaceViews.parse(views)
        count, first = (tested, 0) if part == "test" else (identities - tested, tested)
        population = Population(count, seed, first, noise)
        self.whole = count * len(self.views)
        grid = np.array([self.views.at(v) for v in range(len(self.views))], dtype=np.int8)
        if subset is not None:
            require_whole("subset", subset, count)
            if subset > self.whole:
                raise ConfigError(f"The {part} part has {self.whole:,} images; a subset of {subset:,} is more.")
        if subset is None or subset == self.whole:
            labels, cells = np.repeat(np.arange(count, dtype=np.int64), len(grid)), np.tile(grid, (count, 1))
        else:
            counts = [subset // count + (k < subset % count) for k in range(count)]
            labels = np.repeat(np.arange(count, dtype=np.int64), counts)
            cells = grid[np.concatenate(balanced_views(self.views, counts, seed))]
        super().__init__(population, labels, cells, size)

    @staticmethod
    def count(identities: int, views: str | KFaceViews) -> int:
        """Images of the whole training part.

        Raises:
            ConfigError: A setting is out of range.
        """
        grid = views if isinstance(views, KFaceViews) else KFaceViews.parse(views)
        return (identities - count_test_people(identities)) * len(grid)


def count_test_people(identities: int, wanted: int | None = None) -> int:
    """How many of ``identities`` are for testing: 30 of 400, and as large a share of others, at least two.

    Raises:
        ConfigError: Fewer than two would be left to train or to test.
    """
    require_whole("identities", identities, 4)
    tested = max(2, round(identities * 30 / 400)) if wanted is None else wanted
    require_whole("test_identities", tested, 2)
    if identities - tested < 2:
        raise ConfigError(f"Of {identities} identities {tested} for testing leave {identities - tested} to train.")
    return tested


def kface_view(seed: int, number: int, cell: Cell, take: int = 0) -> View:
    """How person ``number`` of the population ``seed`` looks in a cell of the grid.

    Args:
        seed: Of the population.
        number: Of the person.
        cell: Accessory 1 to 6, light 1 to 30, expression 1 to 3, camera 1 to 20.
        take: Another number repeats the session: other errors of the aligner, other noise of the pixels.
    """
    accessory, light, expression, camera = cell
    who, session = Draws(seed, number, "kface"), Draws(seed, number, "kface", take)
    right, above = CAMERAS[camera]
    pose = Pose(yaw=-float(right), pitch=-float(above))
    moved = 0.7 + 0.3 * who.uniform("expressive", expression)
    cloth = 0.01 + 0.15 * who.uniform("cloth") ** 2
    return View(
        pose=pose,
        light=_light(light, pose),
        expression=Expression(**{name: moved * value for name, value in EXPRESSIONS[expression].items()}),
        camera=Camera(
            noise=2.0,
            shift_x=0.8 * _clipped(session, "shift_x", camera),
            shift_y=0.8 * _clipped(session, "shift_y", camera),
            scale=1.0 + 0.015 * _clipped(session, "scale", camera),
            turn=_clipped(session, "turn", camera),
        ),
        # The gray wall of a studio; each camera sees another piece of it.
        background=Background(
            **_wall(light),
            pattern=0.15,
            phase=Draws("kface", camera).uniform("phase"),
            cloth_red=cloth * (0.6 + 0.8 * who.uniform("cloth_red")),
            cloth_green=cloth * (0.6 + 0.8 * who.uniform("cloth_green")),
            cloth_blue=cloth * (0.6 + 0.8 * who.uniform("cloth_blue")),
        ),
        accessory=ACCESSORIES[accessory],
        noise_seed=session.word("noise", *cell) >> 33,
    )


def _clipped(draws: Draws, *keys: int | str) -> float:
    """A standard normal number, cut at two."""
    return min(max(draws.normal(*keys), -2.0), 2.0)


def _wall(light: int) -> dict[str, float]:
    """The wall behind is lit by the same lamps."""
    tone = 0.16 * LIGHTS[light][0] / _WHITE_LUX + 0.004
    return {"red": 0.96 * tone, "green": tone, "blue": 1.02 * tone}


def _light(light: int, pose: Pose) -> Light:
    """The lamps as the camera sees them."""
    lux, above, right = LIGHTS[light]
    level = lux / _WHITE_LUX
    if right is not None:  # one column of lamps
        intensity, ambient, elevation, azimuth = 0.95, 0.08, 10.0, float(right)
    elif above is not None:  # one ring of lamps
        intensity, ambient, elevation, azimuth = 0.7, 0.28, float(above), 0.0
    else:
        intensity, ambient, elevation, azimuth = 0.45, 0.6, 15.0, 0.0
    azimuth, elevation = _turned(azimuth, elevation, pose)
    return Light(
        azimuth=azimuth,
        elevation=elevation,
        intensity=intensity * level,
        ambient=ambient * level + 0.002,  # no room is quite dark
        warmth=-0.08,
    )


def _turned(azimuth: float, elevation: float, pose: Pose) -> tuple[float, float]:
    """Where a lamp that is fixed to the head stands in the picture, in degrees: pitch first, then yaw."""
    a, e = math.radians(azimuth), math.radians(elevation)
    x, y, z = math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)
    for angle, vertical in ((pose.pitch, True), (pose.yaw, False)):
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        if vertical:
            y, z = y * cos + z * sin, z * cos - y * sin
        else:
            x, z = x * cos + z * sin, z * cos - x * sin
    return math.degrees(math.atan2(x, z)), math.degrees(math.asin(min(max(y, -1.0), 1.0)))
