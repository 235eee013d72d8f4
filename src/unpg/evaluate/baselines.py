"""Trivial embeddings: what a table must beat before it says anything about faces.

Each takes an image set and returns ``(vectors (n, d) float32, norms (n,) float32)``, as a model's embedding
does.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unpg.data.image_set import ImageSet
from unpg.registry import Registry

__all__ = ["BASELINES", "constant", "grey_pixels", "mean_color"]

Embedded = tuple[NDArray[np.float32], NDArray[np.float32]]

BASELINES: Registry[Callable[[ImageSet], Embedded]] = Registry("baseline")

SIDE = 32
"""Pixels on a side to which images are averaged, so that sets of large images stay small in memory."""


@BASELINES.register("grey-pixels")
def grey_pixels(images: ImageSet) -> Embedded:
    """Grey values averaged to 32 x 32, less their mean: the cosine is the correlation of two pictures.

    A picture of one grey value has a zero vector, which is alike to nothing.
    """
    rows = np.empty((len(images), SIDE * SIDE), dtype=np.float32)
    for i in range(len(images)):
        small = Image.fromarray(images.read(i)).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        rows[i] = np.asarray(small, dtype=np.float32).ravel()
    return _unit(rows - rows.mean(axis=1, keepdims=True, dtype=np.float64))


@BASELINES.register("mean-color")
def mean_color(images: ImageSet) -> Embedded:
    """The mean red, green and blue of each image, less middle grey (127.5): three numbers."""
    rows = np.stack([images.read(i).reshape(-1, 3).mean(axis=0, dtype=np.float64) for i in range(len(images))])
    return _unit(rows - 127.5)


@BASELINES.register("constant")
def constant(images: ImageSet) -> Embedded:
    """The same vector for every image: any protocol must give it chance."""
    return _unit(np.ones((len(images), 4)))


def _unit(rows: NDArray[np.floating]) -> Embedded:
    norms = np.linalg.norm(rows, axis=1)
    unit = rows / np.where(norms > 0, norms, 1.0)[:, None]
    return unit.astype(np.float32), norms.astype(np.float32)
