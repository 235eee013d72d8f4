"""Label noise planted on purpose, so that it is known which pairs a filter should leave out, and which not."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unpg.errors import ConfigError, DataError

__all__ = ["Truth", "flip_labels"]

_STREAM = 0xF119  # keeps these draws apart from others of the same seed


class Truth(NamedTuple):
    """What the labels of a set should be, where they are wrong on purpose."""

    labels: NDArray[np.int64]
    """(n,) whom each image shows: equal entries are one person, and the entry of a right label is that label."""
    twin_of: NDArray[np.int64]
    """(n,) the true label of the person whose near-twin is shown, or -1: pairs of those two are hard, and no noise."""


def flip_labels(labels: ArrayLike, share: float, seed: int) -> NDArray[np.int64]:
    """Give some images the label of another identity.

    Args:
        labels: (n,) integers.
        share: Part of the images in [0, 1]; rounded to whole images. Which ones, and to which of the other identities
            (each as likely), depends on the seed, the labels' number and order alone.
        seed: Of the draw.

    Returns:
        (n,) int64; exactly the share of the entries differs.

    Raises:
        ConfigError: ``share`` is not in [0, 1].
        DataError: There is one identity, so that no other label can be given.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"The share of labels to flip lies in [0, 1]; got {share}.")
    clean = np.asarray(labels, dtype=np.int64)
    names, place = np.unique(clean, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"Labels can be flipped between two identities or more; the set has {len(names)}.")
    draw = np.random.Generator(np.random.Philox(key=[seed % 2**64, _STREAM]))
    chosen = draw.permutation(len(clean))[: round(share * len(clean))]
    steps = draw.integers(1, len(names), len(chosen))
    flipped = clean.copy()
    flipped[chosen] = names[(place[chosen] + steps) % len(names)]
    return flipped
