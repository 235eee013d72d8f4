import numpy as np
import pytest
import torch

from unpg.audit import scan
from unpg.errors import DataError
from unpg.evaluate.allpairs import RESOLUTION, unit_rows


def slow(a, b, least):
    """Every pair in a double loop, in float64."""
    found = []
    for i in range(len(a)):
        for j in range(i + 1, len(a)) if b is None else range(len(b)):
            cosine = float(a[i].astype(np.float64) @ (a if b is None else b)[j].astype(np.float64))
            cosine = round(cosine / RESOLUTION) * RESOLUTION
            if cosine >= least:
                found.append((i, j, cosine))
    return found


def rows(n, dim=6, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(n, dim))).numpy()


def told(pairs):
    return list(zip(pairs.left.tolist(), pairs.right.tolist(), pairs.similarity.tolist(), strict=True))


@pytest.mark.parametrize(("block_rows", "block_columns"), [(1024, 4096), (7, 5), (16, 200), (30, 11), (1, 1)])
@pytest.mark.parametrize("m", [None, 45, 0])
def test_pairs_match_the_double_loop(block_rows, block_columns, m):
    a, b = rows(60), None if m is None else rows(m, seed=1) if m else np.zeros((0, 6), np.float32)
    found = scan(a, b, least=0.5, block_rows=block_rows, block_columns=block_columns)
    truth = slow(a, b, 0.5)
    assert told(found) == truth
    assert (len(truth) > 50) == (m != 0)


def test_ties_at_the_threshold_are_in():
    # Corners of a cube of four axes: cosines are multiples of 1/2.
    corners = unit_rows(np.random.default_rng(0).choice([-1.0, 1.0], (40, 4))).numpy()
    assert told(scan(corners, least=0.5, block_rows=9, block_columns=4)) == slow(corners, None, 0.5)
    higher = scan(corners, least=0.5 + RESOLUTION)
    assert set(higher.similarity.tolist()) == {1.0}


def test_a_threshold_below_all_takes_every_pair_once():
    found = scan(rows(20), least=-1.0, block_rows=6, block_columns=7)
    assert list(zip(found.left, found.right, strict=True)) == [(i, j) for i in range(20) for j in range(i + 1, 20)]


def test_nothing_in_nothing():
    assert told(scan(np.zeros((0, 4), np.float32), least=0.0)) == []
    assert told(scan(rows(1), least=-1.0)) == []


def test_more_pairs_than_can_be_held_is_an_error():
    assert len(scan(rows(20), least=-1.0, max_pairs=190).left) == 190
    with pytest.raises(DataError, match="More than 189 pairs have a similarity of -1.0000 or more, 20 of 20 rows"):
        scan(rows(20), least=-1.0, max_pairs=189)


def test_matmul_precision_of_the_caller_is_left_alone():
    torch.set_float32_matmul_precision("high")
    try:
        scan(rows(5), least=0.0)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
