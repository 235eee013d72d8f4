import itertools

import pytest
from scipy import stats

from unpg.errors import ConfigError
from unpg.evaluate.intervals import beta_quantile, clopper_pearson_interval, rule_of_three, wilson_interval

COUNTS = [(0, 1), (1, 1), (1, 10), (0, 20), (20, 20), (81, 263), (5, 3000), (2997, 3000), (87, 87_000_000)]


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(("k", "n"), COUNTS)
def test_intervals_match_scipy(k, n, confidence):
    for ours, method in ((wilson_interval, "wilson"), (clopper_pearson_interval, "exact")):
        theirs = stats.binomtest(k, n).proportion_ci(confidence, method)
        assert ours(k, n, confidence) == pytest.approx((theirs.low, theirs.high), rel=1e-6, abs=1e-15), method


@pytest.mark.parametrize("probability", [1e-9, 0.025, 0.5, 0.975, 1 - 1e-9])
def test_beta_quantiles_match_scipy(probability):
    for a, b in itertools.product([0.5, 1, 2.5, 40, 3000, 1e6], repeat=2):
        truth = stats.beta.ppf(probability, a, b)
        assert beta_quantile(probability, a, b) == pytest.approx(truth, rel=1e-7, abs=1e-300), (a, b)


def test_closed_forms():
    assert beta_quantile(0.3, 1, 1) == pytest.approx(0.3, rel=1e-14)  # uniform
    assert beta_quantile(0.3, 4, 1) == pytest.approx(0.3**0.25, rel=1e-14)
    # No success in n trials: 1 - (alpha / 2) ** (1 / n)
    assert clopper_pearson_interval(0, 30) == (0.0, pytest.approx(1 - 0.025 ** (1 / 30), rel=1e-12))


def test_exact_interval_is_symmetric_and_covers():
    for k in range(13):
        low, high = clopper_pearson_interval(k, 12)
        assert clopper_pearson_interval(12 - k, 12) == pytest.approx((1 - high, 1 - low), rel=1e-12)
        # At its ends the count is just as rare as allowed.
        assert k == 0 or stats.binom.sf(k - 1, 12, low) == pytest.approx(0.025, rel=1e-9)
        assert k == 12 or stats.binom.cdf(k, 12, high) == pytest.approx(0.025, rel=1e-9)


def test_wilson_interval_of_the_literature_and_its_ends():
    # Newcombe 1998, table I: 81 of 263 gives .2553 to .3662
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20)[0] == 0.0
    assert wilson_interval(20, 20)[1] == 1.0


def test_rule_of_three():
    assert rule_of_three(1000) == pytest.approx(2.9957e-3, rel=1e-4)
    assert rule_of_three(1000, 0.99) == pytest.approx(4.6052e-3, rel=1e-4)
    assert rule_of_three(1) == 1.0
    # The chance to see no error in 500 trials at that rate is 5 %, nearly.
    assert (1 - rule_of_three(500)) ** 500 == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize("interval", [wilson_interval, clopper_pearson_interval])
@pytest.mark.parametrize(("k", "n", "confidence"), [(1, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_impossible_counts_are_refused(interval, k, n, confidence):
    with pytest.raises(ConfigError):
        interval(k, n, confidence)


def test_impossible_settings_are_refused():
    for wrong in (0, float("nan")):
        with pytest.raises(ConfigError, match="one trial or more"):
            rule_of_three(wrong)
    with pytest.raises(ConfigError, match=r"0\.95"):
        rule_of_three(10, 95)
    with pytest.raises(ConfigError, match="probability"):
        beta_quantile(0, 1, 1)
    with pytest.raises(ConfigError, match="a, b > 0"):
        beta_quantile(0.5, 0, 1)
