"""All pairs of a labelled set: what the data at hand can resolve, in bounded memory.

n images give n (n - 1) / 2 pairs (87.5 million for LFW). No list of them is ever made: the cosines come in
blocks of a matrix product and go into a histogram fine enough to hold every distinct score, so that all
curves and thresholds are exact for those scores.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unpg.errors import DataError, ShapeError
from unpg.evaluate.curves import Roc
from unpg.evaluate.threads import in_threads

__all__ = [
    "RESOLUTION",
    "AllPairs",
    "PairCounts",
    "all_pairs",
    "coarse_counts",
    "count_cosines",
    "count_pairs",
    "fine_cosines",
    "full_precision",
    "histogram_edges",
    "integer_labels",
    "rounded",
    "unit_rows",
]

RESOLUTION = 2**-20
"""Cosines are rounded to multiples of this (9.5e-7), the order of a float32 dot product's own rounding error.

Two pairs closer than that are not told apart: whichever came first would be the matrix product's accident.
They are tied, and ties count against the model.
"""

_STEPS = round(1 / RESOLUTION)
_BINS = 2 * _STEPS + 1
_ROWS_AT_ONCE = 8192  # in float64
_COARSE = 512  # fine bins in one bin of the histogram for pictures, 2^-11 wide


@dataclass(frozen=True, eq=False)
class AllPairs:
    """The scores of all pairs of a set.

    Attributes:
        roc: Every operating point; see :class:`~unpg.evaluate.curves.Roc`.
        edges: (4097,) edges of the coarse bins, -1 .. 1; a bin holds its lower edge, the last one 1 too.
        genuine: (4096,) int64, genuine pairs per coarse bin.
        impostor: (4096,) int64, impostor pairs per coarse bin.
    """

    roc: Roc
    edges: NDArray[np.float64]
    genuine: NDArray[np.int64]
    impostor: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PairCounts:
    """How many pairs of a set have each score; unlike :class:`AllPairs` it does not mind one kind missing.

    Attributes:
        values: (t,) the scores, all multiples of :data:`RESOLUTION` in -1 .. 1, rising.
        genuine: (t,) int64, pairs of one identity with that score.
        impostor: (t,) int64, pairs of two identities with that score.
    """

    values: NDArray[np.float64]
    genuine: NDArray[np.int64]
    impostor: NDArray[np.int64]


def all_pairs(
    embeddings: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    device: torch.device | str = "cpu",
    block_rows: int = 1024,
    block_columns: int = 4096,
) -> AllPairs:
    """Compare every image of a set with every other one, each pair once, by cosine.

    Memory, beyond the embeddings, for each of torch's threads on a CPU: 64 MB for the histograms and about
    ``20 * block_rows * block_columns`` bytes.

    Args:
        embeddings: (n, d) real; rows are normalised here. A zero row has cosine 0 with every other.
        labels: (n,) integer, the identity of each image.
        device: Where to multiply.
        block_rows: Images compared with others at a time.
        block_columns: Others compared at a time.

    Raises:
        ShapeError: The two do not fit each other.
        DataError: An embedding is not finite, or there is no genuine or no impostor pair.
    """
    found = count_pairs(embeddings, labels, device=device, block_rows=block_rows, block_columns=block_columns)
    g, i = found.genuine, found.impostor
    if not g.any() or not i.any():
        who = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        raise DataError(
            f"All pairs of a set need two identities, and one with two images; got {len(who)} images of "
            f"{len(np.unique(who))} identities: {g.sum()} genuine and {i.sum()} impostor pairs."
        )
    return AllPairs(Roc.from_counts(found.values, g, i), histogram_edges(), coarse_counts(g), coarse_counts(i))


def count_pairs(
    embeddings: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    device: torch.device | str = "cpu",
    block_rows: int = 1024,
    block_columns: int = 4096,
) -> PairCounts:
    """The histogram behind :func:`all_pairs`; arguments, memory and errors as there, but one kind of pair may be
    missing.
    """
    rows = unit_rows(embeddings)
    identity = integer_labels(labels, len(rows))
    # Sorted by identity, the genuine partners of a block of rows lie in one short run of columns.
    order = torch.argsort(identity, stable=True)
    identity = identity[order].to(device)
    x = rows[order].to(device)
    starts = range(0, len(x), block_rows)
    blocks = iter([(a, c) for a in starts for c in range(a, len(x), block_columns)])
    ends = [min(a + block_rows, len(x)) for a in starts]
    near = torch.searchsorted(identity, identity[torch.tensor(ends, device=device) - 1], right=True).tolist()

    @torch.inference_mode()
    def count() -> Tensor:
        """Histograms of everyone and of genuine pairs over the blocks that are left."""
        found = torch.zeros(2, _BINS, dtype=torch.int64, device=device)
        for a, c in blocks:
            b, d = ends[a // block_rows], min(c + block_columns, len(x))
            bins = _bins(x[a:b] @ x[c:d].T)
            if c >= near[a // block_rows]:
                found[0] += torch.bincount(bins.flatten(), minlength=_BINS)
                continue
            once = torch.arange(c, d, device=device) > torch.arange(a, b, device=device)[:, None]
            same = identity[a:b, None] == identity[c:d]
            found[0] += torch.bincount(bins[once], minlength=_BINS)
            found[1] += torch.bincount(bins[once & same], minlength=_BINS)
        return found

    with full_precision():
        # Counts are whole numbers, so it does not matter which thread counts what.
        everyone, genuine = torch.stack(in_threads(count, x.device)).sum(dim=0).cpu().numpy()
    return PairCounts(fine_cosines(), genuine, everyone - genuine)


def fine_cosines() -> NDArray[np.float64]:
    """(2^21 + 1,) float64: all multiples of :data:`RESOLUTION` from -1 to 1."""
    return np.arange(-_STEPS, _STEPS + 1, dtype=np.float64) * RESOLUTION


def count_cosines(cosines: Tensor) -> Tensor:
    """(2^21 + 1,) int64: how many of the cosines (n,) float32 are rounded to each of :func:`fine_cosines`."""
    return torch.bincount(_bins(cosines.clone()), minlength=_BINS)


def unit_rows(embeddings: ArrayLike | Tensor) -> Tensor:
    """(n, d) float32 on the CPU with rows of length 1, normalised in float64; zero rows stay zero.

    Raises:
        ShapeError: It is not a matrix with one row and one column or more.
        DataError: A row is not finite; the message names the first.
    """
    x = embeddings.detach().cpu() if isinstance(embeddings, Tensor) else torch.as_tensor(np.asarray(embeddings))
    if x.ndim != 2 or not x.shape[0] or not x.shape[1]:
        raise ShapeError(f"embeddings must be (n, d) with n, d >= 1; got shape {tuple(x.shape)}.")
    unit = torch.empty(x.shape, dtype=torch.float32)
    bad = torch.zeros(len(x), dtype=torch.bool)
    for start in range(0, len(x), _ROWS_AT_ONCE):
        part = x[start : start + _ROWS_AT_ONCE].to(torch.float64)
        # Scaled first, so that very large and very small rows neither overflow nor vanish when squared.
        largest = part.abs().amax(dim=1, keepdim=True)
        bad[start : start + _ROWS_AT_ONCE] = ~torch.isfinite(largest.squeeze(1))  # of NaN the largest is NaN
        part = part / largest.clamp(min=torch.finfo(torch.float64).tiny)
        unit[start : start + _ROWS_AT_ONCE] = part / part.norm(dim=1, keepdim=True).clamp(min=0.5)
    if bad.any():
        raise DataError(
            f"{int(bad.sum()):,} of {len(x):,} embeddings hold NaN or infinity; the first is row "
            f"{int(bad.nonzero()[0])}. The model diverged, or its preprocessing does not fit."
        )
    return unit


def integer_labels(labels: ArrayLike | Tensor, n: int) -> Tensor:
    """(n,) int64 on the CPU, from integers of any width.

    Raises:
        ShapeError: They are no integers, or not one for each of the ``n`` embeddings.
    """
    found = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if found.shape != (n,):
        raise ShapeError(f"labels must have one entry per embedding ({n}); got shape {found.shape}.")
    if found.dtype.kind not in "iu":
        raise ShapeError(f"labels must be integers; got {found.dtype}.")
    return torch.from_numpy(found.astype(np.int64))


def rounded(cosines: Tensor) -> Tensor:
    """Cosines as multiples of :data:`RESOLUTION`, in place: what is closer than rounding error is tied."""
    return cosines.mul_(_STEPS).round_().div_(_STEPS)


def _bins(cosines: Tensor) -> Tensor:
    steps: Tensor = cosines.mul_(_STEPS).round_().clamp_(-_STEPS, _STEPS).to(torch.int32)
    return steps.add_(_STEPS)


def histogram_edges() -> NDArray[np.float64]:
    """(4097,) edges of the coarse bins; see :class:`AllPairs`."""
    return np.linspace(-1.0, 1.0, 2 * _STEPS // _COARSE + 1)


def coarse_counts(fine: NDArray[np.int64]) -> NDArray[np.int64]:
    """(4096,) counts of the coarse bins from those (2^21 + 1,) of :func:`fine_cosines`."""
    counts: NDArray[np.int64] = fine[:-1].reshape(-1, _COARSE).sum(axis=1)
    counts[-1] += fine[-1]
    return counts


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 or bfloat16 products: a training run may have allowed them, and they carry three decimals."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
