"""Pairs of K-FACE by the rule of its authors' lists Q1 to Q4, and balanced parts of its grid.

The rule: both images of a pair, genuine or impostor, differ in every attribute that varies (arXiv 2111.01717); half
the pairs are genuine. So accessory, light, expression or camera cannot answer for the face.

Axes: p people, v views.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpg.data.kface import KFaceViews
from unpg.errors import ConfigError, DataError

__all__ = ["KFACE_LISTS", "KFacePair", "balanced_views", "draw_kface_pairs"]

KFACE_LISTS = {"Q1": ("T1", 1_000), "Q2": ("T2", 100_000), "Q3": ("T3", 100_000), "Q4": ("T4", 100_000)}
"""For each list the views that its images are of, and its number of pairs."""

_PAIRS, _PART = 0x9A15, 0xBA1A  # keep these draws apart from others of the same seed
_TRIES = 64  # draws per wanted pair, before what is left is listed in full


class KFacePair(NamedTuple):
    """Two images, each a person and a view."""

    person_a: int
    view_a: int
    person_b: int
    view_b: int
    same: bool


def draw_kface_pairs(views: str | KFaceViews, people: int, count: int, seed: int = 0) -> list[KFacePair]:
    """``count`` distinct pairs of ``people`` by the authors' rule, the genuine half first.

    Args:
        views: What :meth:`~unpg.data.kface.KFaceViews.parse` takes.
        people: Number of people, numbered from 0.
        count: Even; half are genuine. People with too few views for that give what there is, and there are no more
            impostor pairs than genuine ones.
        seed: Of the draw.

    Raises:
        ConfigError: ``count`` is odd or below 2, or there are fewer than two people.
        DataError: No two views differ in every varied attribute.
    """
    grid = views if isinstance(views, KFaceViews) else KFaceViews.parse(views)
    if count < 2 or count % 2:
        raise ConfigError(f"A list of pairs is half genuine: its count must be even and at least 2, got {count}.")
    if people < 2:
        raise ConfigError(f"Impostor pairs need two people or more, got {people}.")
    cells = np.array([grid.at(v) for v in range(len(grid))])
    varied = np.array(grid.varied())
    if not varied.any():
        raise DataError("A grid of one view has no genuine pairs. Let an attribute vary.")
    draw = np.random.Generator(np.random.Philox(key=[seed % 2**64, _PAIRS]))

    def differ(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        differs: NDArray[np.bool_] = (cells[a] != cells[b])[..., varied].all(axis=-1)
        return differs

    def drawn(same: bool, wanted: int) -> list[KFacePair]:
        found: dict[tuple[int, int, int, int], KFacePair] = {}
        for turn in range(wanted * _TRIES):
            if len(found) == wanted:
                return list(found.values())
            one = turn % people if same else int(draw.integers(people))
            other = one if same else int((one + draw.integers(1, people)) % people)
            a, b = draw.integers(len(grid), size=2)
            if differ(a, b):
                ends = sorted([(one, int(a)), (other, int(b))])
                found.setdefault((*ends[0], *ends[1]), KFacePair(one, int(a), other, int(b), same))
        # Few pairs are left: list those that are there, in an order of chance.
        first, second = (place.astype(np.int64) for place in np.triu_indices(len(grid), 1))
        allowed = differ(first, second)
        for a, b in draw.permutation(np.stack([first[allowed], second[allowed]], 1)).tolist():
            for one in range(people):
                for other in [one] if same else [k for k in range(people) if k != one]:
                    ends = sorted([(one, a), (other, b)])
                    if len(found) < wanted:
                        found.setdefault((*ends[0], *ends[1]), KFacePair(one, a, other, b, same))
        return list(found.values())

    genuine = drawn(True, count // 2)
    if not genuine:
        raise DataError("No two of these views differ in every attribute that varies.")
    return genuine + drawn(False, len(genuine))


def balanced_views(views: KFaceViews, counts: Sequence[int], seed: int = 0) -> list[NDArray[np.int64]]:
    """For each person so many views, in which every value of each attribute is about as frequent.

    Args:
        views: The grid.
        counts: (p,) views of each person, from 1 to all of the grid.
        seed: Of the draw.

    Returns:
        (counts[k],) int64 for each person: distinct combinations of the grid, rising.

    Raises:
        ConfigError: A count is out of range.
    """
    axes = (views.accessories, views.lights, views.expressions, views.cameras)
    sizes = [len(axis) for axis in axes]
    begun = [0] * len(sizes)  # where each attribute's left-over values went on, so that people share them out
    chosen = []
    for k, count in enumerate(counts):
        if not 1 <= count <= len(views):
            raise ConfigError(f"A person has from 1 to {len(views)} of these views, got {count}.")
        draw = np.random.Generator(np.random.Philox(key=[seed % 2**64, _PART + k]))
        # Of more than half of the grid, it is the rest that is drawn.
        rest = len(views) - count if 2 * count > len(views) else count
        columns = []
        for axis, size in enumerate(sizes):
            columns.append(draw.permutation((begun[axis] + np.arange(rest)) % size))
            begun[axis] = (begun[axis] + rest) % size
        part = _distinct(np.stack(columns, 1) if rest else np.empty((0, 4), np.int64), sizes, draw)
        if rest != count:
            part = np.setdiff1d(np.arange(len(views)), part)
        chosen.append(np.sort(part))
    return chosen


def _distinct(rows: NDArray[np.int64], sizes: list[int], draw: np.random.Generator) -> NDArray[np.int64]:
    """Combinations (n,) from rows (n, 4), made distinct by swapping single values, which keeps how frequent each is."""
    for _ in range(200):
        codes = np.ravel_multi_index(tuple(rows.T), sizes)
        _, kept = np.unique(codes, return_index=True)
        twice = np.setdiff1d(np.arange(len(rows)), kept)
        if not len(twice):
            return np.asarray(codes, dtype=np.int64)
        for row in twice.tolist():
            other, axis = int(draw.integers(len(rows))), int(draw.integers(4))
            rows[[row, other], axis] = rows[[other, row], axis]
    # So dense a part that swaps did not end: what is left comes from the unused views.
    codes = np.unique(np.ravel_multi_index(tuple(rows.T), sizes))
    unused = np.setdiff1d(np.arange(int(np.prod(sizes))), codes)
    return np.concatenate([codes, draw.permutation(unused)[: len(rows) - len(codes)]]).astype(np.int64)
