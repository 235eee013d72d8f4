"""The same picture twice: alike for the network, and alike in its pixels.

The embedding only proposes: two photographs of one person may have embeddings as near as two copies of one. The
pixels decide, as grey images of 32 x 32 less their mean, so that another compression, size, brightness or color of
the same crop does not matter. Another cut of the same photograph is not found.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unpg.audit.findings import NearDuplicate
from unpg.audit.scan import scan
from unpg.audit.side import Side
from unpg.errors import DataError

__all__ = ["find_duplicates"]

_SIDE = 32
_KEPT = 8192  # small pictures kept in memory, 4 KB each


def find_duplicates(
    a: Side,
    b: Side | None,
    near: float,
    picture: float,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[NearDuplicate]:
    """Pairs of images of ``a``, or of an image of ``a`` and one of ``b``, that are one picture.

    Args:
        a: A set.
        b: Another, or None for pairs within ``a``.
        near: Cosine of the embeddings from which on the pixels are compared.
        picture: Correlation of the pixels from which on two images are one picture.
        device: Where to multiply.
        progress: Called with (images of ``a`` compared, all).

    Returns:
        The highest correlation first. Images that can no longer be read are no duplicates.

    Raises:
        DataError: As :func:`unpg.audit.scan.scan`.
    """
    pairs = scan(a.units, None if b is None else b.units, least=near, device=device, progress=progress)
    there = b or a

    @lru_cache(maxsize=_KEPT)
    def small(first: bool, place: int) -> NDArray[np.float32] | None:
        side = a if first else there
        try:
            return _small(side.images.read(int(side.rows[place])))
        except DataError:
            return None

    found = []
    for i, j, similarity in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.similarity.tolist(), strict=True):
        one, other = small(True, i), small(b is None, j)
        if one is None or other is None:
            continue
        straight, turned = _correlation(one, other), _correlation(one, other[:, ::-1])
        correlation = max(straight, turned)
        if correlation >= picture:
            where: Literal["identity", "set", "against"] = "against"
            if b is None:
                where = "identity" if a.labels[i] == a.labels[j] else "set"
            found.append(
                NearDuplicate(
                    image_a=a.names[i],
                    identity_a=a.identities[int(a.labels[i])],
                    image_b=there.names[j],
                    identity_b=there.identities[int(there.labels[j])],
                    where=where,
                    similarity=similarity,
                    correlation=correlation,
                    mirrored=turned > straight,
                )
            )
    return sorted(found, key=lambda d: (-d.correlation, d.image_a, d.image_b))


def _small(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(32, 32) grey, mean 0 and length 1; all 0 for a picture of one shade."""
    grey = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, np.float64)
    values = values - values.mean()
    length = np.sqrt(np.square(values).sum())
    small: NDArray[np.float32] = (values / length if length > 0 else values).astype(np.float32)
    return small


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """In [-1, 1], to six places. Two pictures of one shade each are one picture."""
    if not one.any() and not other.any():
        return 1.0
    return round(float(np.clip((one.astype(np.float64) * other).sum(), -1.0, 1.0)), 6)
