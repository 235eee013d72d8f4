"""Thresholds from elsewhere against trying every score; the hardest pairs against a full sort."""

import numpy as np
import pytest

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate import (
    Bootstrap,
    Roc,
    all_pairs_evidence,
    chosen_threshold,
    hardest_pairs,
    judge_all_pairs,
    judge_at,
    judge_pairs,
    rule_of_three,
)
from unpg.evaluate import parse_threshold_rule as parse
from unpg.evaluate.evidence import list_evidence


def scored(n=400, seed=0):
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.5
    return (rng.normal(size=n) + 1.5 * same).round(1), same


def test_rules_by_trying_every_score():
    scores, same = scored()
    roc = Roc.from_scores(scores, same)
    tries = np.unique(scores)
    fmr = np.array([np.mean(scores[~same] >= t) for t in tries])
    fnmr = np.array([np.mean(scores[same] < t) for t in tries])
    right = np.array([np.mean((scores >= t) == same) for t in tries])
    assert chosen_threshold(roc, parse("a:far=0.1")) == tries[fmr <= 0.1].min()
    assert chosen_threshold(roc, parse("a:eer")) == tries[fmr <= fnmr].min()
    assert chosen_threshold(roc, parse("a:best")) == tries[right == right.max()].max()


def test_rates_at_a_foreign_threshold_are_counts():
    scores, same = scored()
    roc = Roc.from_scores(scores, same)
    for threshold in (-9.0, 0.04, 0.3, 0.35, 9.0):
        found = judge_at(roc, threshold, "a:eer")
        assert found.fmr == np.mean(scores[~same] >= threshold)
        assert found.fnmr == pytest.approx(np.mean(scores[same] < threshold))
        assert found.accuracy == pytest.approx(np.mean((scores >= threshold) == same))
        assert found.intervals == {}


def test_intervals_at_a_foreign_threshold():
    rng = np.random.default_rng(0)
    scores, same = scored(2000)
    first = rng.integers(0, 300, 2000)
    people = np.stack([first, np.where(same, first, (first + rng.integers(1, 300, 2000)) % 300)], axis=1)
    evidence = list_evidence(scores, same, people)
    roc = Roc.from_scores(scores, same)
    found = judge_at(roc, 0.5, "a:eer", evidence=evidence, settings=Bootstrap(replicates=200))
    for name in ("fmr", "fnmr", "accuracy"):
        rate, interval = getattr(found, name), found.intervals[name]
        assert interval.low < rate < interval.high
        assert interval.high - interval.low < 0.15
    once = evidence.curve.weighed(np.ones(evidence.units, dtype=np.int64)).rates_at(0.5)
    assert once == pytest.approx((found.fmr, found.fnmr, found.accuracy))
    few = list_evidence(scores[:9], np.arange(9) < 5, None)
    assert "are needed" in judge_at(roc, 0.5, "a:eer", evidence=few, settings=Bootstrap(replicates=40)).refused


@pytest.mark.parametrize(
    "text",
    [
        "lfw",
        "lfw:",
        ":eer",
        "lfw:far",
        "lfw:far=",
        "lfw:far=2",
        "lfw:far=x",
        "lfw:worst",
        "a:far=0.1@G1",
        "a:fpir=0.1@",
    ],
)
def test_what_is_no_rule_is_said(text):
    with pytest.raises(ConfigError, match="as lfw:far=1e-3"):
        parse(text)


def test_a_path_with_a_colon_is_a_benchmark():
    rule = parse("people/:closed-set:far=1e-2")
    assert (rule.benchmark, rule.rule, rule.target) == ("people/:closed-set", "far", 0.01)
    assert str(parse("lfw:far=1e-3")) == "lfw:far=0.001"
    rule = parse("ijbc-1n:fpir=1e-2@G1")
    assert (rule.benchmark, rule.rule, rule.target, rule.gallery) == ("ijbc-1n", "fpir", 0.01, "G1")
    assert str(rule) == "ijbc-1n:fpir=0.01@G1"


def test_scores_that_tell_nobody_apart_give_no_threshold():
    roc = Roc.from_scores(np.zeros(100), np.arange(100) < 50)
    for rule in ("a:eer", "a:best", "a:far=0.1"):
        with pytest.raises(DataError, match="accept no pair"):
            chosen_threshold(roc, parse(rule))
    with pytest.raises(ConfigError, match="a has pairs and no searches"):
        chosen_threshold(roc, parse("a:fpir=0.1"))
    with pytest.raises(DataError, match="below one expected false accept"):
        chosen_threshold(roc, parse("a:far=1e-4"))


def test_results_carry_the_rates():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 4)
    x = rng.normal(size=(30, 8))[labels] + rng.normal(size=(120, 8))
    every = judge_all_pairs("all", x, labels, evidence=True)
    told = every.with_threshold(0.5, "lfw:eer", Bootstrap(replicates=50)).to_dict()["at_threshold"]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    a, b = np.triu_indices(120, 1)
    cosines, same = (unit @ unit.T)[a, b], labels[a] == labels[b]
    assert told["fmr"] == pytest.approx(np.mean(cosines[~same] >= 0.5))
    assert told["fnmr"] == pytest.approx(np.mean(cosines[same] < 0.5))
    assert told["intervals"]["fmr"]["low"] <= told["fmr"] <= told["intervals"]["fmr"]["high"]
    pairs = judge_pairs("list", x, np.stack([a, b], axis=1), same)
    assert pairs.with_threshold(0.5, "lfw:eer").to_dict()["at_threshold"]["fmr"] == pytest.approx(told["fmr"])


@pytest.mark.parametrize("count", [1, 7, 10_000])
def test_hardest_pairs_are_the_ends_of_a_full_sort(count, monkeypatch):
    monkeypatch.setattr("unpg.evaluate.hardest._BLOCK", 16)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, 90)
    x = rng.normal(size=(90, 6))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pairs, scores, same = hardest_pairs(x, labels, count)
    a, b = np.triu_indices(90, 1)
    cosines, truth = (unit @ unit.T)[a, b], labels[a] == labels[b]
    impostors, genuine = np.sort(cosines[~truth])[::-1][:count], np.sort(cosines[truth])[:count]
    np.testing.assert_allclose(scores[~same], impostors, atol=2e-6)
    np.testing.assert_allclose(scores[same], genuine, atol=2e-6)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    np.testing.assert_allclose([unit[i] @ unit[j] for i, j in pairs], scores, atol=2e-6)
    np.testing.assert_array_equal(labels[pairs[:, 0]] == labels[pairs[:, 1]], same)


def test_no_pair_is_hardest_of_none():
    with pytest.raises(ConfigError, match="1 or more"):
        hardest_pairs(np.eye(3), [0, 0, 1], 0)
    for labels in ([0, 0], [0, 0, 1, 1], ["a", "a", "b"]):
        with pytest.raises(ShapeError, match="labels must"):
            hardest_pairs(np.eye(3), labels)
    pairs, _, same = hardest_pairs(np.eye(3), [0, 1, 2], 5)
    assert (len(pairs), same.any()) == (3, False)  # nobody has two images


def test_no_false_match_goes_by_the_people_of_the_impostor_pairs():
    images = np.array([60, *[2] * 300])  # one man makes most of the genuine pairs
    labels = np.repeat(np.arange(len(images)), images)
    result = judge_all_pairs("x", np.eye(len(images))[labels], labels, targets=(0.01,), evidence=True)
    rates = result.with_threshold(0.5, "y:eer", Bootstrap(50)).at_threshold
    each = images * (len(labels) - images)
    bound = rule_of_three(each.sum() ** 2 / (each**2).sum())
    assert bound < 0.05
    assert (rates.intervals["fmr"].low, rates.intervals["fmr"].high) == (0.0, pytest.approx(bound))
    assert rates.intervals["fnmr"].high == 1.0  # of genuine pairs there is hardly more than that man
    # Where impostor pairs are sampled, each stands for as many as there are.
    sampled = all_pairs_evidence(np.random.default_rng(0).normal(size=(len(labels), 8)), labels, sample=2**14)
    assert 0 < sampled.sampled < len(sampled.curve.impostor_units[0])
    assert sampled.impostor_pairs.sum() == pytest.approx(each.sum())
    assert sampled.impostor_pairs[0] == pytest.approx(each[0], rel=0.1)
