"""The box-and-whisker filter against sorted lists, to the last pair."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_losses import fences

from unpg.pairs import BoxWhisker, KeepAll
from unpg.similarity import DifferentLabel, EachPairOnce, SimilaritySet


def similarity_set(b: int, dim: int, classes: int, shared: bool, seed: int) -> SimilaritySet:
    g = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(b, dim, generator=g))
    rule = DifferentLabel(torch.randint(0, classes, (b,), generator=g))
    return SimilaritySet(x, x, EachPairOnce(rule, b) if shared else rule, shared=shared)


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(1, 40), dim=st.integers(1, 6), classes=st.integers(1, 6), shared=st.booleans(),
    r=st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0, math.inf]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_kept_pairs_are_those_of_the_sorted_list(b, dim, classes, shared, r, seed):
    offered_set = similarity_set(b, dim, classes, shared, seed)
    kept_set = BoxWhisker(r)(offered_set)
    values, offered = offered_set.dense()
    _, kept = kept_set.dense()
    assert torch.equal(kept_set.count_offered(), offered.sum(1))
    for row, inside, survived in zip(values.double(), offered, kept, strict=True):
        low, high = fences(row[inside].tolist(), r)
        expected = inside & (row >= low) & (row <= high)
        far = ((row - low).abs() > 1e-6) & ((row - high).abs() > 1e-6)  # on a fence, float32 and float64 may differ
        assert torch.equal(expected[far], survived[far])


def test_a_planted_false_negative_is_cut():
    """Two copies of one image under two labels: similarity 1 among small ones."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 64, generator=g)
    x[1] = x[0]
    x = torch.nn.functional.normalize(x)
    kept = BoxWhisker(1.5)(SimilaritySet(x, x, EachPairOnce(DifferentLabel(torch.arange(40)), 40), shared=True))
    assert not kept.dense()[1].reshape(40, 40)[0, 1]
    assert kept.maximum() < 0.9
    assert kept.count() > 0.9 * kept.count_offered()


def test_fewer_than_four_pairs_are_all_kept():
    x = torch.nn.functional.normalize(torch.randn(3, 4))
    assert (
        BoxWhisker(0.0)(SimilaritySet(x, x, EachPairOnce(DifferentLabel(torch.arange(3)), 3), shared=True)).count() == 3
    )


def test_infinite_whiskers_keep_tied_values():
    x = torch.ones(6, 2) / math.sqrt(2)
    kept = BoxWhisker(math.inf)(SimilaritySet(x, x, EachPairOnce(DifferentLabel(torch.arange(6)), 6), shared=True))
    assert kept.count() == 15
    assert KeepAll()(kept) is kept


def test_the_choice_carries_no_gradient():
    x = torch.randn(6, 3, requires_grad=True)
    kept = BoxWhisker(1.0)(SimilaritySet(x, x, EachPairOnce(DifferentLabel(torch.arange(6)), 6), shared=True))
    assert not kept.fences.lower.requires_grad
    assert kept.logsumexp(1.0).requires_grad


@pytest.mark.parametrize("shared", [True, False])
def test_nothing_is_read_back_from_the_device(shared):
    """On the meta device any read of a value raises, so passing through proves that shapes are static."""
    x = torch.empty(16, 4, device="meta")
    labels = torch.empty(16, dtype=torch.int64, device="meta")
    rule = DifferentLabel(labels)
    kept = BoxWhisker(1.5)(SimilaritySet(x, x, EachPairOnce(rule, 16) if shared else rule, shared=shared))
    assert kept.logsumexp(2.0).shape == ((1,) if shared else (16,))
