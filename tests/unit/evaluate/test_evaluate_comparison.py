import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unpg.errors import ConfigError, DataError
from unpg.evaluate import (
    Bootstrap,
    Difference,
    Replicates,
    compare,
    compare_by_seed,
    holm,
    judge_all_pairs,
    judge_pairs,
    seed_means,
)

SETTINGS = Bootstrap(300)


def noisy(seed, noise, people=60):
    """Faces of the same people, seen by a model that adds ``noise`` of its own."""
    rng = np.random.default_rng(7)
    labels = np.repeat(np.arange(people), 4)
    faces = rng.normal(size=(people, 12))[labels] + 0.6 * rng.normal(size=(len(labels), 12))
    return faces + noise * np.random.default_rng(seed).normal(size=faces.shape), labels


def replicates(seed, noise, settings=SETTINGS, targets=(0.1, 0.01)):
    vectors, labels = noisy(seed, noise)
    return judge_all_pairs("x", vectors, labels, targets=targets, evidence=True).with_intervals(settings).replicates


@pytest.fixture(scope="module")
def good():
    return replicates(1, 0.2)


@pytest.fixture(scope="module")
def bad():
    return replicates(2, 0.7)


def test_a_model_and_itself_do_not_differ(good):
    for difference in compare(good, replicates(1, 0.2)):
        assert (difference.estimate, difference.low, difference.high) == (0.0, 0.0, 0.0)
        assert (difference.p, difference.better) == (1.0, 0.0)
        assert difference.sentence("A", "B").startswith("B and A are not told apart: 0.0 points")
    # Another scale of the vectors is no other model.
    vectors, labels = noisy(1, 0.2)
    again = judge_all_pairs("x", 8 * vectors, labels, targets=(0.1, 0.01), evidence=True).with_intervals(SETTINGS)
    assert all(d.low == d.high == 0 for d in compare(good, again.replicates))


def test_difference_is_that_of_the_replicates_one_by_one(good, bad):
    found = {d.figure: d for d in compare(bad, good, 0.9)}
    assert list(found) == ["auc", "eer", "tar@far=1e-1", "tar@far=1e-2"]
    for k, name in enumerate(good.figures):
        values = sorted(g - b for g, b in zip(good.values[:, k], bad.values[:, k], strict=True))
        assert found[name].estimate == good.estimates[k] - bad.estimates[k]
        assert values[14] <= found[name].low <= values[15]
        assert values[284] <= found[name].high <= values[285]
        rarer = min(sum(v >= 0 for v in values), sum(v <= 0 for v in values))
        assert found[name].p == min(1, 2 * (rarer + 1) / 301)
    assert found["tar@far=1e-2"].sentence("bad", "good").startswith("good beats bad by ")
    assert found["eer"].estimate < 0
    assert found["eer"].sentence("bad", "good").startswith("good beats bad by ")
    assert found["eer"].better == found["tar@far=1e-2"].better == 1.0
    back = {d.figure: d for d in compare(good, bad, 0.9)}
    for name, difference in found.items():
        assert back[name].estimate == -difference.estimate
        assert (back[name].low, back[name].high) == pytest.approx((-difference.high, -difference.low), abs=1e-15)
        assert back[name].sentence("good", "bad") == difference.sentence("bad", "good")


def test_same_draws_make_the_interval_narrow(good):
    close = replicates(3, 0.22)
    other = replicates(3, 0.22, Bootstrap(300, seed=9))
    at = good.figures.index("tar@far=1e-2")
    paired = next(d for d in compare(good, close) if d.figure == "tar@far=1e-2")
    unpaired = np.quantile(other.values[:, at] - good.values[:, at], [0.025, 0.975])
    assert paired.high - paired.low < 0.7 * (unpaired[1] - unpaired[0])


def test_p_values_are_uniform_where_models_are_equally_good():
    """Two models with noise of one size, on people drawn anew each time: 5 % of the p-values are below 0.05."""
    found = []
    for trial in range(120):
        rng = np.random.default_rng(trial)
        who = np.repeat(np.arange(200), 2)
        faces = rng.normal(size=(200, 12))[who] + 0.6 * rng.normal(size=(400, 12))
        partner = np.stack([np.arange(400), (np.arange(400) + 2) % 400], 1)
        pairs = np.concatenate([np.arange(400).reshape(-1, 2), partner])
        same = np.arange(len(pairs)) < 200
        a, b = (
            judge_pairs("x", faces + 0.5 * rng.normal(size=faces.shape), pairs, same, targets=(), identities=who)
            .with_intervals(Bootstrap(100))
            .replicates
            for _ in range(2)
        )
        found.append(next(d.p for d in compare(a, b) if d.figure == "auc"))
    # Conservative on a short list, since products of weights are; never too bold.
    assert np.mean(np.array(found) < 0.05) <= 0.1
    assert stats.kstest(found, "uniform", alternative="greater").pvalue > 0.001


def test_replicates_of_other_pairs_or_draws_are_refused(good):
    with pytest.raises(DataError, match="different pairs"):
        compare(good, dataclasses.replace(good, digest="other"))
    with pytest.raises(DataError, match="different pairs"):
        compare(good, dataclasses.replace(good, unit="pair"))
    with pytest.raises(DataError, match="seed 0 and 300 replicates, seed 1 and 300"):
        compare(good, dataclasses.replace(good, seed=1))
    with pytest.raises(DataError, match="300 replicates, seed 0 and 299"):
        compare([good], [good, dataclasses.replace(good, values=good.values[1:])])
    with pytest.raises(ConfigError, match="each side"):
        compare(good, [])
    with pytest.raises(ConfigError, match="confidence"):
        compare(good, good, 95)


def test_figures_that_one_lacks_are_left_out(good, bad):
    short = dataclasses.replace(bad, figures=bad.figures[:1], estimates=bad.estimates[:1], values=bad.values[:, :1])
    assert [d.figure for d in compare(good, short)] == ["auc"]
    blank = dataclasses.replace(bad, values=np.where(np.arange(300)[:, None] < 30, np.nan, bad.values))
    assert compare(good, blank) == ()


def made(values, estimate=0.5):
    return Replicates(("accuracy",), (estimate,), np.asarray(values, dtype=float)[:, None], 0, "identity", "d")


def test_training_seeds_widen_the_interval_as_they_should():
    """Identities do not matter here, so all that is left is the variance of a mean of training seeds: s^2 / n."""
    rng = np.random.default_rng(3)
    levels = rng.normal(0.8, 0.02, 5)
    a = [made(np.full(4000, level), level) for level in levels]
    b = [made(np.full(4000, 0.7), 0.7)]
    (found,) = compare(b, a)
    assert found.seeds == (1, 5)
    assert found.estimate == pytest.approx(levels.mean() - 0.7)
    truth = stats.ttest_1samp(levels - 0.7, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(truth), abs=2e-3)
    # And identities alone, if all seeds agree.
    drawn = rng.normal(0.8, 0.03, 4000)
    (alone,) = compare(b, [made(drawn, 0.8)] * 3)
    (single,) = compare(b, made(drawn, 0.8))
    assert (alone.low, alone.high) == pytest.approx((single.low, single.high), abs=1e-12)


def test_by_seed_is_the_paired_t_test_where_people_do_nothing():
    rng = np.random.default_rng(4)
    base = rng.normal(0.7, 0.05, 4)
    gain = rng.normal(0.01, 0.004, 4)
    a = [made(np.full(20000, x), x) for x in base]
    b = [made(np.full(20000, x), x) for x in base + gain]
    (found,) = compare_by_seed(a, b)
    truth = stats.ttest_1samp(gain, 0)
    assert found.estimate == pytest.approx(gain.mean())
    assert (found.low, found.high) == pytest.approx(tuple(truth.confidence_interval(0.95)), abs=3e-4)
    assert found.p == pytest.approx(truth.pvalue, abs=0.005)
    assert found.seeds == (4, 4)
    (apart,) = compare(a, b)  # the seed's own effect, ten times the gain's, does not cancel
    assert apart.high - apart.low > 5 * (found.high - found.low)


def test_by_seed_with_one_seed_or_equal_gains_has_the_chance_of_people_alone():
    rng = np.random.default_rng(5)
    people = rng.normal(0, 0.03, 4000)
    a = [made(0.7 + x + people, 0.7 + x) for x in (0.0, 0.1, -0.2)]
    b = [made(0.8 + x + 2 * people, 0.8 + x) for x in (0.0, 0.1, -0.2)]
    (one,) = compare_by_seed(a[:1], b[:1])
    assert (one.low, one.high) == pytest.approx(tuple(np.quantile(0.1 + people, [0.025, 0.975])))
    (three,) = compare_by_seed(a, b)
    assert (three.low, three.high) == pytest.approx((one.low, one.high))
    assert three.estimate == pytest.approx(0.1)


def test_by_seed_covers_what_it_says():
    """Seeds and people both: 400 experiments of five seeds, the gain of a seed and that of a draw of people normal."""
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(400):
        level, gain = rng.normal(0.7, 0.1, 5), rng.normal(0.02, 0.01, 5) + rng.normal(0, 0.006)
        people = rng.normal(0, 0.006, 500)  # of the difference; what both share cancels
        a = [made(np.full(500, x), x) for x in level]
        b = [made(x + y + people, x + y) for x, y in zip(level, gain, strict=True)]
        (found,) = compare_by_seed(a, b)
        held += found.low <= 0.02 <= found.high
    assert 0.93 <= held / 400 <= 0.98


def test_by_seed_needs_as_many_on_both_sides(good, bad):
    with pytest.raises(ConfigError, match="as many models on both sides, one or more: 1, 2"):
        compare_by_seed([good], [bad, bad])
    with pytest.raises(ConfigError, match="0, 0"):
        compare_by_seed([], [])
    with pytest.raises(DataError, match="different pairs"):
        compare_by_seed([good], [dataclasses.replace(good, digest="other")])


def test_holm_by_hand():
    # 4 x .005, 3 x .01, 2 x .03, 1 x .04, each at least the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    assert holm([0.7, 0.8]) == (1.0, 1.0)
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        holm([0.1, -0.1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.floats(0.001, 0.999))
def test_holm_rejects_what_closed_testing_rejects(p_values, alpha):
    """A hypothesis falls if every set of hypotheses that holds it falls by Bonferroni."""
    n = len(p_values)
    sets = [s for size in range(1, n + 1) for s in itertools.combinations(range(n), size)]
    for i, adjusted in enumerate(holm(p_values)):
        # Smallest level at which all of them fall.
        truth = max(min(len(s) * min(p_values[j] for j in s), 1.0) for s in sets if i in s)
        assert adjusted == pytest.approx(truth)


@pytest.mark.parametrize(
    ("figure", "ends", "words"),
    [
        ("accuracy", (0.013, 0.004, 0.022), "B beats A by 1.3 points, 95 % interval 0.4 to 2.2"),
        ("eer", (0.013, 0.004, 0.022), "A beats B by 1.3 points, 95 % interval 0.4 to 2.2"),
        ("auc", (-0.00013, -0.0002, -0.0001), "A beats B by 0.013 points, 95 % interval 0.010 to 0.020"),
        (
            "auc",
            (0.02, -0.01, 0.05),
            "B and A are not told apart: 2.0 points, 95 % interval −1.0 to 5.0",
        ),
    ],
)
def test_sentences(figure, ends, words):
    assert Difference(figure, *ends, 0.01, 0.99, 0.95, 1000, (1, 1)).sentence("A", "B") == words


def test_mean_over_seeds_is_that_of_the_models_and_its_draws_those_of_the_weights(good):
    models = [good, replicates(4, 0.25), replicates(5, 0.3)]
    means = {mean.figure: mean for mean in seed_means(models, 60.0)}
    assert list(means) == ["auc", "eer", "tar@far=1e-1", "tar@far=1e-2"]
    for k, name in enumerate(good.figures):
        single = [model.estimates[k] for model in models]
        assert means[name].mean == pytest.approx(sum(single) / 3, rel=1e-12)
        assert means[name].spread == pytest.approx(np.std(single, ddof=1), rel=1e-12)
        assert means[name].interval.low < means[name].mean < means[name].interval.high
    # One model alone: the interval is that of its own draws, and there is no spread.
    (alone, *_) = seed_means([good], 60.0, 0.9)
    assert alone.spread is None
    assert (alone.interval.low, alone.interval.high) == tuple(np.quantile(good.values[:, 0], [0.05, 0.95]))


def test_interval_of_a_mean_covers_what_new_seeds_give():
    # Models whose figure is a truth plus what their seed does; people do nothing here.
    def model(value):
        return Replicates(("eer",), (value,), np.full((400, 1), value), 0, "identity", "d")

    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        (mean,) = seed_means([model(0.3 + 0.02 * v) for v in rng.normal(size=3)], 60.0)
        held += mean.interval.low <= 0.3 <= mean.interval.high
    assert 0.91 <= held / 200 <= 0.99


def test_an_interval_of_two_seeds_stays_among_the_rates():
    figures, nothing = ("eer", "ratio", "none"), float("nan")
    models = [
        Replicates(figures, (x, 3.0, 0.5), np.full((400, 3), (x, 3.0, nothing)), 0, "identity", "d") for x in (0.1, 0.2)
    ]
    eer, ratio, none = seed_means(models, 60.0)
    assert (eer.interval.low, eer.interval.high) == (0.0, pytest.approx(0.8, abs=0.21))
    assert (ratio.interval.low, ratio.interval.high) == (3.0, 3.0)
    assert none.interval.method == "refused"


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_two_equal_recipes_are_seldom_told_apart(seeds):
    """No effect, people that do nothing, and each seed another figure: few more false claims than the 5 % allowed."""
    rng = np.random.default_rng(7)
    claims = 0
    for _ in range(400):
        a, b = ([made(np.full(500, x), x) for x in rng.normal(0.7, 0.02, seeds)] for _ in range(2))
        claims += compare(a, b)[0].p <= 0.05
    assert claims / 400 <= 0.08


def test_means_without_any_error_go_by_the_rule_of_three():
    perfect = Replicates(("eer",), (0.0,), np.zeros((100, 1)), 0, "identity", "d")
    (mean,) = seed_means([perfect, perfect], 60.0)
    assert mean.interval.method == "rule of three"
    assert (mean.spread, mean.interval.low) == (0.0, 0.0)
    assert 0.04 < mean.interval.high < 0.06


def test_means_need_the_same_pairs_and_draws(good):
    with pytest.raises(DataError, match="different draws"):
        seed_means([good, replicates(1, 0.2, Bootstrap(300, seed=4))], 60.0)
    with pytest.raises(DataError, match="different pairs"):
        seed_means([good, dataclasses.replace(good, digest="other")], 60.0)
    with pytest.raises(ConfigError, match="one model or more"):
        seed_means([], 60.0)


def test_errors_of_groups_are_errors():
    less = Difference("fmr/African", -0.01, -0.02, -0.005, 0.01, 1.0, 0.95, 100, (1, 1))
    assert less.sentence("A", "B") == "B beats A by 1.0 points, 95 % interval 0.5 to 2.0"
    assert less.sentence("A", "B", sure=False).startswith("B and A are not told apart: 1.0 points")
