import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, wasserstein_distance

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.allpairs import RESOLUTION, all_pairs, count_cosines, fine_cosines
from unpg.evaluate.curves import Roc
from unpg.evaluate.distribution import Distribution


@pytest.mark.parametrize(("n", "m", "grid"), [(500, 300, None), (400, 400, 0.1), (7, 1, None), (200, 60, 0.5)])
def test_distances_are_those_of_scipy(n, m, grid):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0, 0.2, n).clip(-1, 1), rng.normal(0.1, 0.3, m).clip(-1, 1)
    if grid:  # many ties, within and between the two
        a, b = (np.round(x / grid) * grid for x in (a, b))
    one, two = Distribution.of_scores(a), Distribution.of_scores(b)
    assert one.wasserstein(two) == pytest.approx(wasserstein_distance(a, b), abs=1e-12)
    assert two.wasserstein(one) == pytest.approx(one.wasserstein(two), abs=1e-12)
    assert one.kolmogorov_smirnov(two) == pytest.approx(ks_2samp(a, b).statistic, abs=1e-12)
    assert one.wasserstein(one) == one.kolmogorov_smirnov(one) == 0


def test_counts_may_be_weights():
    values = [-0.5, 0.0, 0.25, 0.75]
    one, two = Distribution.of_counts(values, [1, 0, 2.5, 4]), Distribution.of_counts(values, [0.5, 3, 0, 1])
    assert one.values.tolist() == [-0.5, 0.25, 0.75]
    expected = wasserstein_distance(values, values, [1, 0, 2.5, 4], [0.5, 3, 0, 1])
    assert one.wasserstein(two) == pytest.approx(expected, abs=1e-12)
    doubled = Distribution.of_counts(values, [2, 0, 5, 8])
    assert one.wasserstein(doubled) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("n", [1, 2, 10, 999, 1000, 1001])
def test_quantiles_are_values_by_nearest_rank(n):
    scores = np.random.default_rng(n).normal(size=n)
    found = Distribution.of_scores(scores)
    for q in (0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.999, 1):
        assert found.quantile(q) == np.quantile(scores, q, method="inverted_cdf"), q
    assert (found.minimum, found.maximum) == (scores.min(), scores.max())
    assert found.mean == pytest.approx(scores.mean())


def test_counting_and_the_hardest_against_loops():
    rng = np.random.default_rng(3)
    scores = np.round(rng.normal(0, 0.3, 2000), 2)
    found = Distribution.of_scores(scores)
    for point in (-2, scores.min(), 0.0, 0.015, 0.3, scores.max(), 2):
        assert found.count_above(point) == sum(s > point for s in scores)
        assert found.count_at_least(point) == sum(s >= point for s in scores)
        assert found.cdf(point) == pytest.approx(sum(s <= point for s in scores) / 2000)
    for share in (0.001, 0.0011, 0.5, 1.0):
        wanted, start = found.largest(share)
        assert wanted == int(np.ceil(share * 2000))
        assert start == np.sort(scores)[-int(wanted)]
    edges = np.linspace(-0.5, 0.5, 11)
    counts = found.histogram(edges)
    assert counts.sum() == 2000
    assert counts[0] == sum(s < edges[1] for s in scores)


def test_curves_and_fine_histograms_give_their_scores_back():
    rng = np.random.default_rng(4)
    scores, same = np.round(rng.normal(size=300), 1), rng.random(300) < 0.4
    genuine, impostor = Distribution.of_roc(Roc.from_scores(scores, same))
    for found, truth in ((genuine, scores[same]), (impostor, scores[~same])):
        values, counts = np.unique(truth, return_counts=True)
        np.testing.assert_array_equal(found.values, values)
        np.testing.assert_array_equal(found.counts, counts)


def test_fine_counts_round_as_all_pairs_does():
    x = torch.nn.functional.normalize(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)))
    labels = np.arange(40) % 5
    upper = torch.ones(40, 40, dtype=torch.bool).triu(1)
    cosines = (x @ x.T)[upper]
    before = cosines.clone()
    counted = Distribution.of_counts(fine_cosines(), count_cosines(cosines).numpy())
    assert torch.equal(cosines, before)
    whole = np.concatenate(
        [d.values.repeat(d.counts.astype(int)) for d in Distribution.of_roc(all_pairs(x, labels).roc)]
    )
    again = Distribution.of_scores(whole)
    np.testing.assert_allclose(again.values, counted.values, atol=2 * RESOLUTION)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="one similarity or more"):
        Distribution.of_counts([0.0, 1.0], [0, 0])
    with pytest.raises(DataError, match="one similarity or more"):
        Distribution.of_scores([])
    with pytest.raises(DataError, match=">= 0"):
        Distribution.of_counts([0.0, 1.0], [2, -1])
    with pytest.raises(ShapeError, match="must rise"):
        Distribution.of_counts([1.0, 1.0], [1, 1])
    with pytest.raises(ShapeError, match="vector"):
        Distribution.of_scores(np.zeros((2, 2)))
    with pytest.raises(DataError, match="1 of 2 similarities are not finite"):
        Distribution.of_scores([0.0, np.nan])
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        Distribution.of_scores([0.0]).quantile(1.5)
