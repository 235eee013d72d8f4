import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.curves import Roc, target_name


def slow_points(scores, same):
    """Threshold by threshold, from the definition."""
    pairs = list(zip(scores, same, strict=True))
    return [(math.inf, 0, 0)] + [
        (t, sum(s >= t for s, y in pairs if y), sum(s >= t for s, y in pairs if not y))
        for t in sorted(set(scores), reverse=True)
    ]


def slow_tar(scores, same, target):
    genuine, impostor = sum(same), len(same) - sum(same)
    return max(ta / genuine for _, ta, fa in slow_points(scores, same) if fa / impostor <= target)


mixed = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(y for _, y in rows) < len(rows)
)


@settings(max_examples=80, deadline=None)
@given(mixed, st.floats(0.01, 1.0))
def test_points_and_tar_match_the_slow_loop_with_ties(rows, target):
    scores, same = [float(s) for s, _ in rows], [y for _, y in rows]
    roc = Roc.from_scores(scores, same)
    found = zip(roc.thresholds.tolist(), roc.true_accepts.tolist(), roc.false_accepts.tolist(), strict=True)
    assert list(found) == slow_points(scores, same)
    point = roc.tar_at_far(target)
    if point.resolvable:
        assert point.value == slow_tar(scores, same, target)
        assert point.far <= target
    else:
        assert target < 1 / roc.impostor
        assert point.value is None


@settings(max_examples=60, deadline=None)
@given(mixed)
def test_auc_and_curve_match_scikit_learn(rows):
    scores, same = np.array([float(s) for s, _ in rows]), np.array([y for _, y in rows])
    roc = Roc.from_scores(scores, same)
    fpr, tpr, _ = roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_array_equal(roc.fmr, fpr)
    np.testing.assert_array_equal(roc.tar, tpr)
    assert roc.auc == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
    assert roc.fnmr == pytest.approx(1 - tpr)


def test_order_of_equal_scores_does_not_matter():
    rng = np.random.default_rng(1)
    scores, same = rng.integers(0, 5, 300).astype(np.float32), rng.random(300) < 0.4
    shuffle = rng.permutation(300)
    one, two = Roc.from_scores(scores, same), Roc.from_scores(scores[shuffle], same[shuffle])
    np.testing.assert_array_equal(one.true_accepts, two.true_accepts)
    np.testing.assert_array_equal(one.false_accepts, two.false_accepts)
    assert one.eer == two.eer


@pytest.mark.parametrize(
    ("genuine", "impostor", "eer"),
    [
        ([2, 3], [0, 1], 0.0),  # apart
        ([0, 1], [2, 3], 1.0),  # apart the wrong way
        ([1, 1], [1, 1], 0.5),  # one tie
        ([1, 3], [0, 2], 0.5),  # accept at 2: FMR 1/2, FNMR 1/2
        # FMR 0, FNMR 1/2 at 3; FMR 1/3, FNMR 0 at 1: the lines cross at t / 3 = (1 - t) / 2, t = 3/5
        ([1, 3], [0, 0, 1], 0.2),
    ],
)
def test_eer_of_hand_made_sets(genuine, impostor, eer):
    scores = np.array(genuine + impostor, dtype=float)
    same = np.array([True] * len(genuine) + [False] * len(impostor))
    assert Roc.from_scores(scores, same).eer == pytest.approx(eer, abs=1e-15)


def test_eer_lies_on_the_interpolated_curve_of_scikit_learn():
    rng = np.random.default_rng(3)
    same = rng.random(500) < 0.3
    scores = rng.normal(size=500) + same
    fpr, tpr, _ = roc_curve(same, scores, drop_intermediate=False)
    eer = Roc.from_scores(scores, same).eer
    assert np.interp(eer, fpr, 1 - tpr) == pytest.approx(eer, abs=1e-12)


def test_far_target_is_never_exceeded_though_a_nearer_one_exists():
    # 100 impostors; accepting at 5 costs FAR .01, at 4 .03, and the target .029 is nearer to that.
    impostor = [5.0, 4.0, 4.0] + [0.0] * 97
    genuine = [6.0, 5.0, 4.0, 4.0]
    roc = Roc.from_scores(genuine + impostor, [True] * 4 + [False] * 100)
    point = roc.tar_at_far(0.029)
    assert (point.value, point.far, point.threshold) == (0.5, 0.01, 5.0)
    assert roc.tar_at_far(0.03).value == 1.0
    assert not point.reliable
    assert "2.9" in point.reason


def test_target_that_is_a_quotient_in_decimal_is_met():
    scores = np.arange(200.0)
    same = np.arange(200) % 2 == 0
    assert 0.29 * 100 < 29  # the trap
    assert Roc.from_scores(scores, same).tar_at_far(0.29).far == 0.29


def test_resolution_is_stated():
    impostors = 1000
    scores = np.concatenate([np.full(10, 2.0), np.linspace(0, 1, impostors)])
    same = np.arange(10 + impostors) < 10
    roc = Roc.from_scores(scores, same)
    refused = roc.tar_at_far(9.99e-4)
    assert (refused.value, refused.far, refused.threshold) == (None, None, None)
    assert not refused.resolvable
    assert not refused.reliable
    assert "1,000 impostor pairs" in refused.reason
    assert roc.tar_at_far(1e-3).resolvable
    assert not roc.tar_at_far(0.0299).reliable
    marked = roc.tar_at_far(0.03)
    assert marked.reliable
    assert marked.reason == ""
    assert json.loads(json.dumps(marked.to_dict()))["value"] == 1.0


def test_constant_score_accepts_nothing_below_far_one():
    roc = Roc.from_scores(np.ones(1000, dtype=np.float32), np.arange(1000) < 100)
    for target in (0.01, 0.5, 0.999):
        point = roc.tar_at_far(target)
        assert (point.value, point.far, point.threshold) == (0.0, 0.0, None)
    assert roc.tar_at_far(1.0).value == 1.0
    assert (roc.eer, roc.auc) == (0.5, 0.5)


def test_accuracy_at_a_threshold():
    scores, same = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    roc = Roc.from_scores(scores, same)
    for threshold in (-1, 0.1, 0.2, 0.4, 0.5, 0.8, 0.9):
        assert roc.accuracy(threshold) == np.mean((scores >= threshold) == same), threshold


def test_counts_give_the_same_curve_as_scores():
    rng = np.random.default_rng(5)
    scores, same = rng.integers(0, 9, 200), rng.random(200) < 0.5
    values = np.arange(-3, 12)
    by_counts = Roc.from_counts(
        values, [(scores[same] == v).sum() for v in values], [(scores[~same] == v).sum() for v in values]
    )
    by_scores = Roc.from_scores(scores, same)
    np.testing.assert_array_equal(by_counts.thresholds, by_scores.thresholds)
    np.testing.assert_array_equal(by_counts.true_accepts, by_scores.true_accepts)
    np.testing.assert_array_equal(by_counts.false_accepts, by_scores.false_accepts)


@pytest.mark.parametrize(
    ("scores", "same", "error", "words"),
    [
        ([0.0, np.nan, 1.0], [True, False, True], DataError, "pair 1"),
        ([0.0, np.inf], [True, False], DataError, "not finite"),
        ([], [], ShapeError, "Boolean"),
        ([0.0, 1.0], [True, True], DataError, "2 genuine and 0 impostor"),
        ([0.0, 1.0], [False, False], DataError, "0 genuine and 2 impostor"),
        ([0.0, 1.0], [True], ShapeError, "one length"),
        ([[0.0], [1.0]], [[True], [False]], ShapeError, "one length"),
        ([0.0, 1.0], [1, 0], ShapeError, "Boolean"),
    ],
)
def test_bad_scores_are_refused(scores, same, error, words):
    with pytest.raises(error, match=words):
        Roc.from_scores(scores, same)


def test_empty_scores_are_refused():
    with pytest.raises(DataError, match="no scores"):
        Roc.from_scores([], np.zeros(0, dtype=bool))


@pytest.mark.parametrize(
    ("values", "genuine", "impostor", "error", "words"),
    [
        ([0, 1], [1], [1, 1], ShapeError, "one length"),
        ([1, 0], [1, 1], [1, 1], ShapeError, "rising"),
        ([0, 1], [1, -1], [1, 1], DataError, "negative"),
        ([0, 1], [0, 0], [1, 1], DataError, "0 genuine"),
    ],
)
def test_bad_counts_are_refused(values, genuine, impostor, error, words):
    with pytest.raises(error, match=words):
        Roc.from_counts(values, genuine, impostor)


@pytest.mark.parametrize("target", [0, -0.1, 1.5, math.nan])
def test_far_targets_out_of_range_are_refused(target):
    with pytest.raises(ConfigError, match="FAR target"):
        Roc.from_scores([0.0, 1.0], [False, True]).tar_at_far(target)


def test_names_of_targets():
    assert [target_name(t) for t in (1e-3, 0.1, 2.5e-5, 1.0, 0.02)] == [
        "1e-3",
        "1e-1",
        "2.5e-5",
        "1e+0",
        "2e-2",
    ]
