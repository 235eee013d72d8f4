import tracemalloc

import numpy as np
import pytest

from unpg.audit import Side
from unpg.audit.label_noise import _nearest_center
from unpg.audit.scan import rounded
from unpg.data import ArraySet
from unpg.embed import Embeddings


def made(people, images, dim, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(images, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.arange(images) % people
    names = [f"{i:06d}" for i in range(images)]
    pixels = ArraySet(np.zeros((images, 1, 1, 3), np.uint8), labels, [f"{i:06d}" for i in range(people)], names)
    return Side("set", pixels, Embeddings(vectors, np.ones(images, np.float32), labels, names, np.ones(images, bool)))


@pytest.mark.parametrize("rows", [1, 7, 1024])
@pytest.mark.parametrize("centers", [1, 2, 5, 23, 24, 1024])
def test_blocks_find_what_one_matrix_finds(monkeypatch, rows, centers):
    monkeypatch.setattr("unpg.audit.label_noise._ROWS", rows)
    monkeypatch.setattr("unpg.audit.label_noise._CENTERS", centers)
    side = made(24, 60, 8)
    side.centers[11] = side.centers[17]  # of equals the first counts
    suspects = np.flatnonzero(np.arange(60) % 3 > 0)
    whole = rounded(side.units[suspects].astype(np.float64) @ side.centers.astype(np.float64).T)
    whole[np.arange(len(suspects)), side.labels[suspects]] = -np.inf
    nearest, similarity = _nearest_center(side, suspects)
    assert nearest.tolist() == whole.argmax(1).tolist()
    assert similarity.tolist() == whole.max(1).tolist()


def test_memory_does_not_grow_with_the_people():
    side = made(10_000, 10_000, 32)
    suspects = np.arange(1024)
    tracemalloc.start()
    _nearest_center(side, suspects)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6  # one matrix of these cosines has 82 MB, and three were held
