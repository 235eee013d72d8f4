import json

import numpy as np
import pytest

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.verification import FOLD_RULES, best_threshold, fold_accuracy


def problem(n=600, folds=10, seed=0, digits=None):
    rng = np.random.default_rng(seed)
    same = np.arange(n) % 2 == 0
    scores = np.clip(rng.normal(0.1, 0.15, n) + 0.25 * same, -1, 1).astype(np.float32)
    if digits is not None:
        scores = np.round(scores, digits)
    return scores, same, np.repeat(np.arange(folds), n // folds)


def slow_exact(scores, same, folds):
    found = []
    for fold in sorted(set(folds)):
        train, test = folds != fold, folds == fold
        best, chosen = -1, None
        for t in [np.inf, *sorted(set(scores[train].tolist()), reverse=True)]:
            right = int(((scores[train] >= t) == same[train]).sum())
            if right > best:
                best, chosen = right, t
        found.append(((scores[test] >= chosen) == same[test]).mean())
    return found


def slow_grid(scores, same, folds):
    """insightface's way, from vectors of the plane that have these cosines."""
    angle = np.arccos(np.clip(scores.astype(float), -1, 1))
    distance = (np.cos(angle) - 1) ** 2 + np.sin(angle) ** 2
    grid = np.arange(0, 4, 0.01)
    found = []
    for fold in sorted(set(folds)):
        train, test = folds != fold, folds == fold
        accuracy = [((distance[train] < t) == same[train]).mean() for t in grid]
        found.append(((distance[test] < grid[int(np.argmax(accuracy))]) == same[test]).mean())
    return found


@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize(("rule", "slow"), [("exact", slow_exact), ("insightface-grid", slow_grid)])
def test_folds_match_the_slow_loop(rule, slow, digits):
    # With one digit nearly all scores are ties; the grid needs them off its own points, hence the shift.
    scores, same, folds = problem(digits=digits)
    if digits and rule == "insightface-grid":
        scores = scores + np.float32(0.003)
    result = fold_accuracy(scores, same, folds, rule)
    expected = slow(scores, same, folds)
    assert result.accuracies == pytest.approx(expected, abs=1e-12)
    assert (result.mean, result.std) == pytest.approx((np.mean(expected), np.std(expected)))
    assert 0.6 < result.mean < 0.95


def test_the_tested_fold_has_no_say_in_its_threshold():
    scores, same, folds = problem()
    before = fold_accuracy(scores, same, folds)
    changed = same.copy()
    changed[folds == 3] = ~changed[folds == 3]
    after = fold_accuracy(scores, changed, folds)
    assert after.thresholds[3] == before.thresholds[3]
    assert after.accuracies[3] == pytest.approx(1 - before.accuracies[3])


def test_order_of_pairs_and_names_of_folds_do_not_matter():
    scores, same, folds = problem(digits=2)
    shuffle = np.random.default_rng(7).permutation(len(scores))
    for rule in FOLD_RULES:
        one = fold_accuracy(scores, same, folds, rule)
        two = fold_accuracy(scores[shuffle], same[shuffle], folds[shuffle] * 5 + 2, rule)
        assert one.accuracies == two.accuracies


@pytest.mark.parametrize("rule", FOLD_RULES)
@pytest.mark.parametrize("value", [1.0, 0.37, 0.0, -1.0])
def test_constant_scores_are_chance(rule, value):
    _, same, folds = problem()
    result = fold_accuracy(np.full(len(same), value, dtype=np.float32), same, folds, rule)
    assert result.accuracies == (0.5,) * 10


@pytest.mark.parametrize("rule", FOLD_RULES)
def test_shuffled_labels_are_chance(rule):
    rng = np.random.default_rng(11)
    means = []
    for _ in range(20):
        scores, same, folds = problem(n=1000, seed=int(rng.integers(1 << 30)))
        for fold in range(10):  # within folds, so that they stay balanced
            same[folds == fold] = rng.permutation(same[folds == fold])
        means.append(fold_accuracy(scores, same, folds, rule).mean)
    # One mean has a standard error of 1.6 %; twenty of them .35 %.
    assert np.mean(means) == pytest.approx(0.5, abs=0.015)


def test_strictest_of_equal_thresholds_is_taken():
    # Accepting at .9 or at .5 gets 3 of 4 training pairs right.
    scores = np.array([0.9, 0.7, 0.5, 0.1, 0.6, 0.6])
    same = np.array([True, False, True, False, True, False])
    folds = np.array([0, 0, 0, 0, 1, 1])
    assert fold_accuracy(scores, same, folds).thresholds[1] == 0.9
    assert best_threshold(scores[:4], same[:4]).threshold == 0.9


def test_best_threshold_is_the_optimistic_one():
    scores, same, folds = problem()
    best = best_threshold(scores, same)
    candidates = [*scores.tolist(), np.inf]
    assert best.accuracy == max(((scores >= t) == same).mean() for t in candidates)
    assert ((scores >= best.threshold) == same).mean() == best.accuracy
    assert best.accuracy >= fold_accuracy(scores, same, folds).mean


def test_accepting_none_is_a_threshold_and_json_can_say_so():
    result = fold_accuracy([0.5, 0.5, 0.5, 0.5], [True, False, True, False], [0, 0, 1, 1])
    assert result.thresholds == (None, None)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["thresholds"] == [None, None]
    assert best_threshold([0.1, 0.9], [True, False]).to_dict() == {"accuracy": 0.5, "threshold": None}


def test_errors_say_what_to_do():
    scores, same, folds = problem(n=100)
    with pytest.raises(ConfigError, match=r"Did you mean 'exact'\? Known: exact, insightface-grid"):
        fold_accuracy(scores, same, folds, "exakt")
    with pytest.raises(DataError, match="two folds or more; got 1"):
        fold_accuracy(scores, same, np.zeros(100, int))
    with pytest.raises(ShapeError, match="one entry per pair"):
        fold_accuracy(scores, same, folds[:-1])
    with pytest.raises(ConfigError, match="cosines"):
        fold_accuracy(scores * 10, same, folds, "insightface-grid")
    with pytest.raises(DataError, match="not finite"):
        fold_accuracy(scores * np.nan, same, folds)
