import json

import numpy as np
import pytest
from scipy.stats import norm

from unpg.errors import DataError
from unpg.evaluate import all_pairs
from unpg.evaluate.distribution import Distribution
from unpg.evaluate.wdfs import Wdfs, overlap


def of(positives, negatives):
    return Wdfs(Distribution.of_scores(positives), Distribution.of_scores(negatives))


def of_set(embeddings, labels):
    return Wdfs(*Distribution.of_roc(all_pairs(embeddings, labels).roc))


def test_hand_made_set():
    # Two people on a circle, at 0 and 60, and at 90 and 120 degrees.
    angles = np.radians([0, 60, 90, 120])
    found = of_set(np.stack([np.cos(angles), np.sin(angles)], 1), [0, 0, 1, 1])
    # Positives: 60 and 30 degrees apart. Negatives: 90, 120, 30 and 60.
    root = np.sqrt(3) / 2
    assert found.positives.values == pytest.approx([0.5, root], abs=1e-6)
    assert found.negatives.values == pytest.approx([-0.5, 0, 0.5, root], abs=1e-6)
    assert found.gap == pytest.approx(0.5 - root, abs=1e-6)
    assert (found.genuine_below, found.impostor_above) == (2, 2)
    assert found.violation == pytest.approx((2 + 1) / 8)  # 0.5 meets 0.5 and root, root meets root
    assert found.auc_complement == pytest.approx((2 * 0.5 + 1) / 8)  # the two ties are one half


def test_figures_match_a_double_loop():
    rng = np.random.default_rng(0)
    p, n = np.round(rng.normal(0.4, 0.2, 150), 2), np.round(rng.normal(0, 0.2, 400), 2)
    found = of(p, n)
    assert found.violation == pytest.approx(np.mean([a <= b for a in p for b in n]), abs=1e-12)
    half = np.mean([(a < b) + 0.5 * (a == b) for a in p for b in n])
    assert found.auc_complement == pytest.approx(half, abs=1e-12)
    assert found.genuine_below == sum(a <= n.max() for a in p)
    assert found.impostor_above == sum(b >= p.min() for b in n)
    assert found.robust_inf == np.quantile(p, 0.001, method="inverted_cdf")
    assert found.robust_sup == np.quantile(n, 0.999, method="inverted_cdf")
    assert found.robust_gap == found.robust_inf - found.robust_sup
    assert found.relative_gap == pytest.approx(found.robust_gap / (p.mean() - n.mean()), rel=1e-9)


def test_the_relative_gap_does_not_see_how_wide_similarities_are_spread():
    rng = np.random.default_rng(3)
    p, n = rng.normal(0.4, 0.1, 2000), rng.normal(0, 0.1, 4000)
    wide, narrow = of(p, n), of(0.5 * p + 0.1, 0.5 * n + 0.1)
    assert narrow.robust_gap == pytest.approx(wide.robust_gap / 2, rel=1e-6)
    assert narrow.relative_gap == pytest.approx(wide.relative_gap, rel=1e-6)
    assert of(n, p).relative_gap is None
    assert of([0.5], [0.5]).to_dict()["relative_gap"] is None


def test_auc_is_that_of_the_curve():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 12, 200)
    roc = all_pairs(rng.normal(size=(12, 8))[labels] + rng.normal(size=(200, 8)), labels).roc
    found = Wdfs(*Distribution.of_roc(roc))
    assert found.auc_complement == pytest.approx(1 - roc.auc, abs=1e-12)


def test_robust_forms_shrug_at_one_mislabelled_picture():
    rng = np.random.default_rng(2)
    p, n = rng.uniform(0.6, 0.9, 5000), rng.uniform(-0.3, 0.3, 50_000)
    clean, noisy = of(p, n), of(np.append(p, [-0.2]), np.append(n, [0.95]))
    assert clean.gap > 0 > noisy.gap
    assert noisy.robust_gap == pytest.approx(clean.robust_gap, abs=1e-3)
    assert noisy.relative_gap == pytest.approx(clean.relative_gap, abs=1e-2)


def test_a_perfectly_separated_set_does_not_overlap():
    eye = np.eye(6)[np.repeat(np.arange(6), 3)]
    found = of_set(eye, np.repeat(np.arange(6), 3))
    assert (found.gap, found.robust_gap, found.relative_gap) == (1.0, 1.0, 1.0)
    assert (found.overlap, found.violation, found.auc_complement) == (0, 0, 0)
    assert (found.genuine_below, found.impostor_above) == (0, 0)
    # Apart, but within one bin of the overlap.
    close = of(np.linspace(0.506, 0.509, 200), np.linspace(0.501, 0.504, 200))
    assert close.gap > 0
    assert close.overlap == 0


def test_a_constant_embedding_is_chance():
    found = of_set(np.ones((40, 8)), np.arange(40) % 4)
    assert found.gap == pytest.approx(0, abs=1e-6)
    assert (found.violation, found.auc_complement, found.overlap) == (1, 0.5, 1)
    assert found.genuine_below == found.positives.total
    assert found.impostor_above == found.negatives.total


def test_shuffled_labels_are_chance():
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(30), 30)
    embeddings = rng.normal(size=(30, 16))[labels] + 0.5 * rng.normal(size=(900, 16))
    honest, shuffled = of_set(embeddings, labels), of_set(embeddings, rng.permutation(labels))
    assert honest.violation < 0.02 < honest.overlap + 0.02
    assert shuffled.violation == pytest.approx(0.5, abs=0.02)
    assert shuffled.overlap > 0.9


@pytest.mark.parametrize(("distance", "spread"), [(0.3, 0.1), (0.1, 0.1), (0.0, 0.1)])
def test_overlap_of_two_bells(distance, spread):
    grid = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    a, b = (Distribution.of_scores(m + spread * grid) for m in (0.0, distance))
    # Two bells of one width overlap by twice the tail beyond the middle.
    assert overlap(a, b) == pytest.approx(2 * norm.cdf(-distance / (2 * spread)), abs=0.01)
    assert overlap(a, b) == overlap(b, a)


def test_dictionary_is_plain_json():
    told = of([0.5, 0.9], [0.1, 0.6]).to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["genuine_below"] == {"pairs": 1, "share": 0.5}
    assert told["inf_positive"] == 0.5
    assert told["positives"]["quantiles"]["0.5"] == 0.5


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_one_identity_or_one_image_each_is_refused(labels):
    with pytest.raises(DataError, match="two identities, and one with two images"):
        of_set(np.eye(3), labels)
