"""The box-and-whisker filter against sorted lists, to the last pair."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_losses import fences

from unpg.errors import ConfigError
from unpg.losses import arcface, unpg
from unpg.pairs import FILTERS, BoxWhisker, KeepAll, Quantile, TopK
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


@pytest.mark.parametrize("keep", [BoxWhisker(1.5), BoxWhisker(1.5, "upper"), Quantile(), TopK(7)])
@pytest.mark.parametrize("shared", [True, False])
def test_nothing_is_read_back_from_the_device(shared, keep):
    """On the meta device any read of a value raises, so passing through proves that shapes are static."""
    x = torch.empty(16, 4, device="meta")
    labels = torch.empty(16, dtype=torch.int64, device="meta")
    rule = DifferentLabel(labels)
    kept = keep(SimilaritySet(x, x, EachPairOnce(rule, 16) if shared else rule, shared=shared))
    assert kept.logsumexp(2.0).shape == ((1,) if shared else (16,))


def kept_and_all(keep, similarities):
    """Sorted values of each anchor, before and after a filter."""
    _, kept = keep(similarities).dense()
    values, offered = similarities.dense()
    for row, inside, survived in zip(values, offered, kept, strict=True):
        yield sorted(row[inside].tolist()), sorted(row[survived].tolist())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("b", [1, 2, 3, 5, 24])
class TestAgainstSortedLists:
    @pytest.mark.parametrize("k", [1, 3, 10, 10_000])
    def test_top_k(self, b, shared, k):
        for offered, kept in kept_and_all(TopK(k), similarity_set(b, 5, 4, shared, seed=b)):
            assert kept == [v for v in offered if v >= offered[-k:][0]] if offered else not kept

    @pytest.mark.parametrize(("lower", "upper"), [(0.0, 1.0), (0.0, 0.9), (0.1, 0.75), (0.5, 0.999)])
    def test_quantile(self, b, shared, lower, upper):
        for offered, kept in kept_and_all(Quantile(lower, upper), similarity_set(b, 5, 4, shared, seed=b)):
            n = len(offered)
            bounds = [offered[min(math.floor(q * n), n - 1)] for q in (lower, upper)] if n else [0, 0]
            assert kept == [v for v in offered if bounds[0] <= v <= bounds[1]]

    @pytest.mark.parametrize("r", [0.0, 0.5, 1.5, math.inf])
    def test_upper_side_only(self, b, shared, r):
        similarities = similarity_set(b, 5, 4, shared, seed=b)
        both = list(kept_and_all(BoxWhisker(r), similarities))
        for (offered, kept), (_, inner) in zip(kept_and_all(BoxWhisker(r, "upper"), similarities), both, strict=True):
            assert kept == [v for v in offered if v <= inner[-1]] if inner else not kept


def test_the_upper_side_alone_keeps_the_easiest_pair():
    similarities = similarity_set(24, 5, 4, shared=True, seed=1)
    (offered, upper), (_, both) = (next(kept_and_all(BoxWhisker(0.2, s), similarities)) for s in ("upper", "both"))
    assert upper[0] == offered[0] < both[0]
    assert upper[-1] == both[-1] < offered[-1]


def test_ties_at_the_kth_are_all_kept():
    x = torch.ones(6, 2) / math.sqrt(2)
    similarities = SimilaritySet(x, x, EachPairOnce(DifferentLabel(torch.arange(6)), 6), shared=True)
    assert TopK(2)(similarities).count() == 15
    assert Quantile(0.25, 0.5)(similarities).count() == 15


def test_empty_batch_is_left_as_it_is():
    x = torch.empty(0, 4)
    for name in FILTERS:
        rule = EachPairOnce(DifferentLabel(torch.empty(0, dtype=torch.int64)), 0)
        assert FILTERS.build(name)(SimilaritySet(x, x, rule, shared=True)).count() == 0


def test_unpg_takes_another_filter():
    torch.manual_seed(0)
    base = arcface(4, 8)
    x, labels = torch.randn(12, 8), torch.arange(12) % 4
    assert unpg(base, keep=TopK(5))(x, labels).statistics["negatives/kept"] == 5
    assert torch.equal(unpg(base, keep=BoxWhisker(1.0))(x, labels).loss, unpg(base, r=1.0)(x, labels).loss)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BoxWhisker(1.0, "lower"), "both, upper"),
        (lambda: Quantile(0.9, 0.1), "lower < upper"),
        (lambda: Quantile(0.0, float("nan")), "lower < upper"),
        (lambda: TopK(0), "k must be >= 1"),
        (lambda: FILTERS.build("topk"), "Did you mean 'top-k'"),
    ],
)
def test_bad_settings_say_what_is_allowed(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
