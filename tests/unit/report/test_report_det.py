import re
from statistics import NormalDist

import numpy as np
import pytest

from unpg.evaluate.curves import Roc
from unpg.report.det import det, det_points, probit
from unpg.report.figures import Curve


def normal_scores(genuine, impostor, shift=2.0, seed=0):
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(shift, 1, genuine), rng.normal(0, 1, impostor)])
    return scores, np.arange(genuine + impostor) < genuine


def test_probit_is_the_inverse_of_the_normal_distribution():
    rates = [1e-7, 1e-3, 0.2, 0.5, 0.975]
    np.testing.assert_allclose(probit(rates), [NormalDist().inv_cdf(r) for r in rates], rtol=1e-12, atol=1e-12)


def test_points_are_rates_counted_one_by_one_and_start_where_one_false_match_is_expected():
    scores, same = normal_scores(400, 500)
    fmr, fnmr, sure = det_points(Roc.from_scores(scores, same))
    assert fmr[0] == 1 / 500
    assert fmr[-1] <= 0.5
    for limit, miss, reliable in zip(fmr, fnmr, sure, strict=True):
        # The laxest threshold whose FMR is within the limit, by trying all.
        laxest = min(t for t in [*scores, np.inf] if np.mean(scores[~same] >= t) <= limit + 1e-12)
        assert miss == np.mean(scores[same] < laxest)
        assert reliable == (round(limit * 500, 6) >= 30 and miss * 400 >= 29.5)


def test_normal_scores_give_a_straight_line_of_slope_minus_one():
    fmr, fnmr, _ = det_points(Roc.from_scores(*normal_scores(200_000, 200_000)))
    middle = (fmr > 1e-3) & (fnmr > 1e-3)
    x, y = probit(fmr[middle]), probit(fnmr[middle])
    slope, height = np.polyfit(x, y, 1)
    assert slope == pytest.approx(-1, abs=0.02)
    assert height == pytest.approx(-2, abs=0.02)
    assert np.abs(y - slope * x - height).max() < 0.1


def test_ticks_are_in_per_cent_and_small_sets_have_no_small_rates():
    small = det([Curve("small", Roc.from_scores(*normal_scores(400, 500)))], "c").svg
    labels = re.findall(r"<text[^>]*>([\d.]+)</text>", small)
    assert {"1", "5", "20", "50"} <= set(labels)
    assert "0.1" not in labels[: labels.index("50") + 1]  # FMR: the set resolves 0.2 %
    large = det([Curve("large", Roc.from_scores(*normal_scores(4000, 2_000_000)))], "c").svg
    assert {"0.0001", "0.01"} & set(re.findall(r"<text[^>]*>([\d.]+)</text>", large))


def test_models_without_a_point_are_named_and_no_drawing_is_made_of_nothing():
    level = Roc.from_scores(np.zeros(20), np.arange(20) < 10)
    assert det([Curve("constant", level)], "c") is None
    both = det([Curve("constant", level), Curve("real", Roc.from_scores(*normal_scores(400, 500)))], "c")
    assert both.caption == "c Without a point that has errors of both kinds: constant."
