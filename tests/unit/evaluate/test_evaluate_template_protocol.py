"""IJB 1:1 against loops over pairs of templates; who is who from the pairs."""

import numpy as np
import pytest

from unpg.errors import ConfigError
from unpg.evaluate import BASELINES, Bootstrap, TemplateBenchmark, TemplateImages, open_benchmark
from unpg.evaluate.curves import Roc
from unpg.evaluate.template_protocol import template_people
from unpg.evaluate.templates import POOLINGS, pool, roc_of_cosines, row_scores

STEP = 2**-20


@pytest.mark.parametrize("pooling", list(POOLINGS))
def test_pairs_of_templates_are_the_loop(every_set, pooling):
    benchmark = open_benchmark("ijbc", every_set)
    benchmark = TemplateBenchmark(**{**vars(benchmark), "pooling": pooling, "targets": (0.1, 0.01, 1e-6)})
    vectors, norms = BASELINES["grey-pixels"](benchmark.images)
    result = benchmark.run(lambda images: (vectors, norms))
    pooled = benchmark.pooled
    templates = pool(
        vectors * norms[:, None], pooled.templates, pooled.media, pooling, detector_scores=pooled.detector_scores
    )
    slow = [templates.vectors[a].astype(np.float64) @ templates.vectors[b] for a, b in benchmark.pairs]
    np.testing.assert_allclose(result.scores, slow, atol=3e-6)
    expected = Roc.from_scores(result.scores, benchmark.same)
    assert (result.auc, result.eer) == pytest.approx((expected.auc, expected.eer))
    for point, target in zip(result.tar_at_far, (0.1, 0.01, 1e-6), strict=True):
        assert point.value == expected.tar_at_far(target).value
    assert result.tar_at_far[2].value is None
    assert (result.genuine, result.templates) == (48, 72)
    assert result.genuine_counts.sum() == 48
    assert result.impostor_counts.sum() == result.impostor
    assert result.to_dict()["pooling"] == {"preset": pooling, **vars(POOLINGS[pooling])}
    intervals = result.with_intervals(Bootstrap(replicates=40)).intervals
    assert (intervals.unit, intervals.units) == ("identity", 24)


def test_detector_pooling_needs_the_scores(every_set):
    benchmark = open_benchmark("ijbc", every_set)
    pooled = TemplateImages(benchmark.pooled.templates, benchmark.pooled.media)
    without = TemplateBenchmark(**{**vars(benchmark), "pooled": pooled, "pooling": "insightface"})
    with pytest.raises(ConfigError, match="ijbc: the pooling 'insightface' .*5pts_score"):
        without.run(BASELINES["grey-pixels"])


def slow_people(t, pairs, same, subjects):
    """Groups that grow by one link at a time."""
    groups = [{i} for i in range(t)]
    links = [(a, b) for (a, b), s in zip(pairs, same, strict=True) if s]
    if subjects is not None:
        links += [(a, b) for a in range(t) for b in range(t) if subjects[a] >= 0 and subjects[a] == subjects[b]]
    for a, b in links:
        one, two = (next(g for g in groups if i in g) for i in (a, b))
        if one is not two:
            groups.remove(two)
            one |= two
    return [min(next(g for g in groups if i in g)) for i in range(t)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("known", [True, False])
def test_people_are_what_genuine_pairs_and_lists_join(seed, known):
    rng = np.random.default_rng(seed)
    pairs, same = rng.integers(0, 40, (60, 2)), rng.random(60) < 0.3
    subjects = np.where(rng.random(40) < 0.5, rng.integers(0, 8, 40), -1) if known else None
    assert template_people(40, pairs, same, subjects).tolist() == slow_people(40, pairs.tolist(), same, subjects)


def test_a_long_chain_is_one_person():
    chain = np.stack([np.arange(499), np.arange(1, 500)], axis=1)[np.random.default_rng(0).permutation(499)]
    assert not template_people(500, chain, np.ones(499, dtype=bool)).any()


@pytest.mark.parametrize("shape", [(3, 40), (40, 3), (1, 1), (30, 30)])
def test_scores_of_rows_in_every_shape(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    pairs = np.stack([rng.integers(0, shape[0], 300), 80 - 1 - rng.integers(0, shape[1], 300)], axis=1)
    found = row_scores(x, pairs)
    np.testing.assert_allclose(found, [x[a] @ x[b] for a, b in pairs], atol=2e-6)
    np.testing.assert_array_equal(found, np.round(found / STEP) * STEP)


def test_counting_is_sorting():
    rng = np.random.default_rng(0)
    scores = (rng.integers(-(2**20), 2**20 + 1, 5000) * STEP).astype(np.float32)
    same = rng.random(5000) < 0.3
    counted, genuine, impostor = roc_of_cosines(scores, same)
    ranked = Roc.from_scores(scores, same)
    np.testing.assert_array_equal(counted.thresholds, ranked.thresholds)
    np.testing.assert_array_equal(counted.true_accepts, ranked.true_accepts)
    np.testing.assert_array_equal(counted.false_accepts, ranked.false_accepts)
    assert (genuine.sum(), impostor.sum()) == (same.sum(), (~same).sum())
