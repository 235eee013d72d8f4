"""Trivial embeddings: what a table must beat before it says anything about faces.

Each takes an image set and returns ``(vectors (n, d) float32, norms (n,) float32)``, as a model's embedding does. Those
of :data:`MODEL_BASELINES` are made from a model: its architecture untrained, its embeddings given to the wrong images.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unpg.data.image_set import ImageSet
from unpg.embed import Model
from unpg.registry import Registry

__all__ = [
    "BASELINES",
    "MODEL_BASELINES",
    "block_lbp",
    "constant",
    "grey_pixels",
    "mean_color",
    "shuffled",
    "untrained",
]

Embedded = tuple[NDArray[np.float32], NDArray[np.float32]]

BASELINES: Registry[Callable[[ImageSet], Embedded]] = Registry("baseline")

EmbedFunction = Callable[[ImageSet], Embedded]

MODEL_BASELINES: Registry[Callable[[Model, Callable[[Model], EmbedFunction]], EmbedFunction]] = Registry("baseline")
"""Baselines made from a model, and from what makes an embed function of a model."""

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


GRID, LBP_SIDE = 7, 56
"""Blocks on a side, and pixels on a side to which images are averaged for :func:`block_lbp`: at 112 the noise of JPEG
makes the patterns (LFW: 65.0 % instead of 67.5 %)."""


def _uniform_bins() -> NDArray[np.intp]:
    """(256,) the bin of each pattern: 58 of at most two changes around the circle, and one for all others."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    uniform = np.count_nonzero(bits != np.roll(bits, 1, axis=1), axis=1) <= 2
    return np.where(uniform, np.cumsum(uniform) - 1, uniform.sum())


@BASELINES.register("block-lbp")
def block_lbp(images: ImageSet) -> Embedded:
    """Histograms of uniform local binary patterns (8 neighbors) on a grid of 7 x 7 blocks, as shares, square-rooted.

    The cosine of square-rooted histograms is their Bhattacharyya coefficient, which weighs rare patterns as the
    chi-squared distance does.

    Source: Ahonen, Hadid and Pietikäinen, "Face description with local binary patterns", TPAMI 28 (2006), 2037-2041.
    """
    bins = _uniform_bins()
    count = int(bins.max()) + 1
    side = LBP_SIDE
    block = np.arange(side - 2) * GRID // (side - 2)
    blocks = (block[:, None] * GRID + block) * count
    around = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    rows = np.empty((len(images), GRID * GRID * count), dtype=np.float32)
    for i in range(len(images)):
        grey = Image.fromarray(images.read(i)).convert("L")
        x = np.asarray(grey.resize((side, side), Image.Resampling.BOX))
        center = x[1:-1, 1:-1]
        pattern = np.zeros(center.shape, dtype=np.uint8)
        for bit, (dy, dx) in enumerate(around):
            pattern |= (x[1 + dy : side - 1 + dy, 1 + dx : side - 1 + dx] >= center).astype(np.uint8) << bit
        rows[i] = np.bincount((blocks + bins[pattern]).ravel(), minlength=rows.shape[1])
    return _unit(np.sqrt(rows / center.size))


@BASELINES.register("constant")
def constant(images: ImageSet) -> Embedded:
    """The same vector for every image: any protocol must give it chance."""
    return _unit(np.ones((len(images), 4)))


@MODEL_BASELINES.register("untrained-backbone")
def untrained(model: Model, embedder: Callable[[Model], EmbedFunction]) -> EmbedFunction:
    """The model's own architecture and preprocessing with fresh weights (seed 0)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = Model.create(
            model.kind,
            dim=model.backbone.dim,
            input_size=model.backbone.input_size,
            preprocessing=model.preprocessing,
            **model.settings,
        )
    return embedder(fresh)


@MODEL_BASELINES.register("shuffled-labels")
def shuffled(model: Model, embedder: Callable[[Model], EmbedFunction]) -> EmbedFunction:
    """The model's own embeddings, each given to another image by lot (seed 0): people are permuted, all else stays."""
    embed = embedder(model)

    def embedded(images: ImageSet) -> Embedded:
        vectors, norms = embed(images)
        order = np.random.default_rng(0).permutation(len(vectors))
        return vectors[order], norms[order]

    return embedded


def _unit(rows: NDArray[np.floating]) -> Embedded:
    norms = np.linalg.norm(rows, axis=1)
    unit = rows / np.where(norms > 0, norms, 1.0)[:, None]
    return unit.astype(np.float32), norms.astype(np.float32)
