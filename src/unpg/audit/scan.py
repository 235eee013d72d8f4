"""All pairs of rows above a similarity, block by block: memory grows with what is found, not with what is compared.

Axes: n and m rows, d embedding size, p pairs found.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unpg.errors import DataError
from unpg.evaluate.allpairs import RESOLUTION, full_precision

__all__ = ["MAX_PAIRS", "FoundPairs", "exact", "rounded", "scan"]

MAX_PAIRS = 5_000_000
"""Pairs held at most (120 MB). A model that finds more has collapsed, or its limit is none."""

# A float32 product is off by about 1e-6; what lies so near the threshold is decided in float64.
_SLACK = 1e-5
_ROWS = 4096  # pairs computed in float64 at a time


class FoundPairs(NamedTuple):
    """Pairs of rows and their similarity, in rising order of (left, right)."""

    left: NDArray[np.int64]
    """(p,) rows of the first set."""
    right: NDArray[np.int64]
    """(p,) rows of the second set, or of the first if there is no other: then left < right."""
    similarity: NDArray[np.float64]
    """(p,) cosines, computed in float64 and rounded to multiples of
    :data:`~unpg.evaluate.allpairs.RESOLUTION`."""


def scan(
    a: NDArray[np.float32],
    b: NDArray[np.float32] | None = None,
    *,
    least: float,
    device: torch.device | str = "cpu",
    block_rows: int = 1024,
    block_columns: int = 4096,
    progress: Callable[[int, int], None] | None = None,
    max_pairs: int = MAX_PAIRS,
) -> FoundPairs:
    """Each pair of rows of ``a``, or of a row of ``a`` and one of ``b``, that is similar enough.

    The result does not depend on the blocks: each pair that a float32 product finds near the threshold is computed
    again in float64, rounded, and judged there.

    Args:
        a: (n, d) rows of length 1, or 0.
        b: (m, d) likewise; None compares ``a`` with itself, each pair once.
        least: Similarity (cosine) from which on a pair counts.
        device: Where to multiply.
        block_rows: Rows of the first set at a time.
        block_columns: Rows of the second set at a time.
        progress: Called with (rows of ``a`` done, n).
        max_pairs: Refuse to hold more.

    Raises:
        DataError: More than ``max_pairs`` pairs are similar enough.
    """
    x = torch.from_numpy(a).to(device)
    y = x if b is None else torch.from_numpy(b).to(device)
    found = [FoundPairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    held = 0
    with torch.inference_mode(), full_precision():
        for start in range(0, len(x), block_rows):
            end = min(start + block_rows, len(x))
            for left, right in _near(x, y, start, end, b is None, least, block_columns):
                similarity = exact(a, a if b is None else b, left, right)
                good = similarity >= least
                found.append(FoundPairs(left[good], right[good], similarity[good]))
                held += int(good.sum())
                if held > max_pairs:
                    raise DataError(
                        f"More than {max_pairs:,} pairs have a similarity of {least:.4f} or more, {end:,} of "
                        f"{len(x):,} rows into the set: the model does not tell people apart, or the limit is too low. "
                        "Judge the model with `unpg evaluate`, or raise the limit."
                    )
            if progress is not None:
                progress(end, len(x))
    left, right, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((right, left))
    return FoundPairs(left[order], right[order], similarity[order])


def exact(
    a: NDArray[np.float32], b: NDArray[np.float32], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Cosines (p,) of rows ``left`` of ``a`` and ``right`` of ``b``, in float64 and rounded."""
    values = np.empty(len(left))
    for i in range(0, len(left), _ROWS):
        one, other = (rows[at[i : i + _ROWS]].astype(np.float64) for rows, at in ((a, left), (b, right)))
        values[i : i + _ROWS] = np.einsum("pd,pd->p", one, other)
    return rounded(values)


def rounded(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines as multiples of :data:`~unpg.evaluate.allpairs.RESOLUTION`, as those that set the threshold are."""
    steps: NDArray[np.float64] = np.round(np.clip(cosines, -1.0, 1.0) / RESOLUTION)
    return steps * RESOLUTION


def _near(
    x: Tensor, y: Tensor, start: int, end: int, once: bool, least: float, block_columns: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows ``start`` to ``end`` of ``x`` and rows of ``y`` whose float32 cosine says that they may count."""
    for first in range(start if once else 0, len(y), block_columns):
        last = min(first + block_columns, len(y))
        hit = x[start:end] @ y[first:last].T >= least - _SLACK
        if once and first < end:
            hit &= torch.arange(first, last, device=x.device) > torch.arange(start, end, device=x.device)[:, None]
        at = hit.nonzero()
        if len(at):
            left, right = at.T.cpu().numpy()
            yield left + start, right + first
