"""Intervals of a proportion from *independent* trials: Wilson, Clopper-Pearson, and the rule of three.

Pairs that share images or identities are not independent; over all pairs of a set these intervals are far too
narrow, and :mod:`unpg.evaluate.bootstrap` is called for.
"""

import math
from statistics import NormalDist

from unpg.errors import ConfigError

__all__ = [
    "beta_quantile",
    "check_confidence",
    "clopper_pearson_interval",
    "rule_of_three",
    "t_p_value",
    "t_quantile",
    "wilson_interval",
]


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, within [0, 1]: right on average, not in the worst case.

    Raises:
        ConfigError: ``confidence`` is not in (0, 1), or the counts are not 0 <= successes <= trials, trials
            >= 1.

    Source: E. B. Wilson, JASA 22 (1927), 209-212.
    """
    _check_counts(successes, trials)
    z = NormalDist().inv_cdf(0.5 + check_confidence(confidence) / 2)
    p = successes / trials
    center = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    # At the ends the formula is exact on paper only; rounding must not exclude the observed proportion.
    low = 0.0 if successes == 0 else max(center - half, 0.0)
    high = 1.0 if successes == trials else min(center + half, 1.0)
    return low, high


def clopper_pearson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval: it covers the truth in at least ``confidence`` of all cases, whatever the truth.

    Raises:
        ConfigError: As :func:`wilson_interval`.

    Source: C. J. Clopper and E. S. Pearson, Biometrika 26 (1934), 404-413.
    """
    _check_counts(successes, trials)
    tail = (1 - check_confidence(confidence)) / 2
    low = 0.0 if successes == 0 else beta_quantile(tail, successes, trials - successes + 1)
    # By symmetry, which keeps the digits of a bound near 1.
    high = 1.0 if successes == trials else 1 - beta_quantile(tail, trials - successes, successes + 1)
    return low, high


def rule_of_three(trials: float, confidence: float = 0.95) -> float:
    """Upper bound of the rate of an error that was never seen: ``-ln(1 - confidence) / trials``, at most 1.

    At 95 % that is 3.0 / trials. One-sided. ``trials`` may be an effective number.

    Raises:
        ConfigError: ``confidence`` is not in (0, 1), or there is less than one trial.

    Source: J. A. Hanley and A. Lippman-Hand, JAMA 249 (1983), 1743-1745.
    """
    if not trials >= 1:
        raise ConfigError(f"The rule of three needs one trial or more; got {trials}.")
    return min(-math.log1p(-check_confidence(confidence)) / trials, 1.0)


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The x in (0, 1) below which a Beta(a, b) variable lies with ``probability``.

    Newton's steps on the distribution function, each kept within a bracket that shrinks.

    Raises:
        ConfigError: ``probability`` is not in (0, 1), or a or b is not positive and finite.
    """
    if not 0 < probability < 1:
        raise ConfigError(f"A quantile needs a probability in (0, 1); got {probability}.")
    if not (0 < a < math.inf and 0 < b < math.inf):
        raise ConfigError(f"A beta distribution needs a, b > 0 and finite; got a={a}, b={b}.")
    low, high = 0.0, 1.0
    x = a / (a + b)
    for _ in range(1100):  # halving alone reaches any float in that many steps
        error = _beta_cdf(x, a, b) - probability
        low, high = (low, x) if error > 0 else (x, high)
        slope = math.exp(_log_kernel(x, a, b) - math.log(x) - math.log1p(-x))
        newton = x - error / slope if slope > 0 else math.nan
        if abs(newton - x) <= 4e-16 * x:
            break
        ahead = newton if low < newton < high else (low + high) / 2
        if not low < ahead < high:
            break
        x = ahead
    return x


def t_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t: ``freedom / (freedom + t^2)`` has the distribution Beta(freedom / 2, 1 / 2).

    >>> round(t_quantile(0.975, 4), 3)
    2.776

    Raises:
        ConfigError: ``probability`` is not in (0, 1), or ``freedom`` is not positive and finite.
    """
    if probability == 0.5:
        return 0.0
    x = beta_quantile(2 * min(probability, 1 - probability), freedom / 2, 0.5)
    return math.copysign(math.sqrt(freedom * (1 / x - 1)), probability - 0.5)


def t_p_value(t: float, freedom: float) -> float:
    """The chance that Student's t lies as far from 0 as ``t`` or farther, on either side; 0 for an infinite one.

    >>> round(t_p_value(2.776, 4), 3)
    0.05
    """
    x = freedom / (freedom + t * t)
    if x in (0.0, 1.0):  # the ends, by rounding too, where the kernel has no logarithm
        return x
    return min(_beta_cdf(x, freedom / 2, 0.5), 1.0)


def check_confidence(confidence: float) -> float:
    """``confidence`` as it is.

    Raises:
        ConfigError: It is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must lie in (0, 1); got {confidence}. For 95 % write 0.95.")
    return confidence


def _check_counts(successes: int, trials: int) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise ConfigError(
            f"An interval needs 0 <= successes <= trials and one trial or more; got {successes} of {trials}."
        )


def _beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction on the side where that converges fast.

    Source: DLMF 8.17.22; evaluated by Lentz's method.
    """
    if x > (a + 1) / (a + b + 2):
        return 1 - math.exp(_log_kernel(x, a, b)) / b * _fraction(1 - x, b, a)
    return math.exp(_log_kernel(x, a, b)) / a * _fraction(x, a, b)


def _log_kernel(x: float, a: float, b: float) -> float:
    return math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)


def _fraction(x: float, a: float, b: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1), tiny)
    value = d
    # The number of terms grows with the root of the larger parameter.
    for m in range(1, 200 + 20 * math.isqrt(math.ceil(max(a, b)))):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_zero(1 + term * d, tiny)
            c = _away_from_zero(1 + term / c, tiny)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
