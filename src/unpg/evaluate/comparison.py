"""Is one model better than another? Paired differences over the same draws, and the price of asking often.

Axes: r replicates, k figures, s models trained with different seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.errors import ConfigError, DataError
from unpg.evaluate.bootstrap import Interval, Replicates, interval
from unpg.evaluate.intervals import check_confidence

__all__ = ["Difference", "SeedMean", "compare", "compare_by_seed", "holm", "seed_means"]

LESS_IS_BETTER = frozenset({"eer", "fmr", "fnmr"})
"""Figures that are errors; those of a group too, as ``fmr/African``."""


def _less_is_better(figure: str) -> bool:
    return figure.partition("/")[0] in LESS_IS_BETTER


@dataclass(frozen=True)
class Difference:
    """A figure of model B less that of model A, on the same pairs.

    Attributes:
        figure: Its name.
        estimate: B - A, a fraction.
        low: Lower end of the interval of B - A.
        high: Upper end.
        p: Two-sided: twice the share of replicates on the rarer side of 0, ties on both sides; at least
            2 / (replicates + 1), at most 1.
        better: Share of replicates in which B is strictly better.
        confidence: Of the interval.
        replicates: How many count.
        seeds: Models of A and of B that were averaged. With one each, the chance of training is not in the interval.
    """

    figure: str
    estimate: float
    low: float
    high: float
    p: float
    better: float
    confidence: float
    replicates: int
    seeds: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)

    @property
    def gain(self) -> tuple[float, float, float]:
        """By how much B is better, with its interval: the estimate, low and high, turned round for errors."""
        if _less_is_better(self.figure):
            return 0.0 - self.estimate, 0.0 - self.high, 0.0 - self.low
        return self.estimate, self.low, self.high

    @property
    def points(self) -> tuple[str, ...]:
        """B - A, low and high in percentage points, as finely as the width of the interval deserves."""
        return self._written(self.estimate, self.low, self.high)

    def sentence(self, a: str, b: str, *, sure: bool | None = None) -> str:
        """In words; ``a`` and ``b`` are the models' names. ``sure``: whether one is better, where a correction for many
        questions has decided that; None goes by the interval.

        >>> Difference("accuracy", 0.013, 0.004, 0.022, 0.006, 0.997, 0.95, 1000, (1, 1)).sentence("A", "B")
        'B beats A by 1.3 points, 95 % interval 0.4 to 2.2'
        """
        gain, low, high = self.gain
        told = f"{b} and {a} are not told apart:"
        if sure if sure is not None else not low <= 0 <= high:
            if gain < 0:
                a, b, gain, low, high = b, a, -gain, -high, -low
            told = f"{b} beats {a} by"
        written = self._written(gain, low, high)
        return f"{told} {written[0]} points, {100 * self.confidence:.4g} % interval {written[1]} to {written[2]}"

    def _written(self, *rates: float) -> tuple[str, ...]:
        width = 100 * (self.high - self.low)
        decimals = min(max(1, 1 - math.floor(math.log10(width))), 4) if width > 0 else 1
        # Adding 0 makes the zero that has a sign one that has none.
        return tuple(f"{round(100 * rate, decimals) + 0.0:.{decimals}f}".replace("-", "−") for rate in rates)


@dataclass(frozen=True)
class SeedMean:
    """A figure of one recipe, over its training seeds.

    Attributes:
        figure: Its name.
        mean: Over the seeds, a fraction.
        spread: Standard deviation between seeds (of a sample: s - 1); None with one.
        interval: Of the mean: what other people and, with two seeds or more, other seeds would change.
        seeds: Models averaged.
    """

    figure: str
    mean: float
    spread: float | None
    interval: Interval
    seeds: int


def seed_means(models: Sequence[Replicates], effective: float, confidence: float = 0.95) -> tuple[SeedMean, ...]:
    """The mean of each figure over models that differ in their training seed alone.

    Each replicate draws people and has a deviation for the seeds, as :func:`compare` does.

    Args:
        models: One for each seed, judged with the same draws.
        effective: Identities (or pairs) of equal size that would weigh as much; for figures without any error.
        confidence: Of the intervals.

    Returns:
        One entry for each figure that all have.

    Raises:
        DataError: The replicates are of other pairs, or of other draws.
        ConfigError: ``confidence`` is not in (0, 1), or there is no model.
    """
    check_confidence(confidence)
    _check_same_draws(models)
    found = []
    for figure in models[0].figures:
        if not all(figure in model.figures for model in models):
            continue
        mean, drawn = _mean(tuple(models), figure, 0)
        # With two seeds the deviations are wide: no rate is below 0 or above 1 (a ratio of two may be).
        drawn = np.clip(
            drawn, 0.0, max(np.fmax.reduce(m.values[:, m.figures.index(figure)], initial=1.0) for m in models)
        )
        single = [model.estimates[model.figures.index(figure)] for model in models]
        spread = float(np.std(single, ddof=1)) if len(models) > 1 else None
        found.append(SeedMean(figure, mean, spread, interval(mean, drawn, effective, confidence), len(models)))
    return tuple(found)


def compare(
    a: Replicates | Sequence[Replicates], b: Replicates | Sequence[Replicates], confidence: float = 0.95
) -> tuple[Difference, ...]:
    """The figures of B less those of A, from replicates with the same weights.

    Several models each, trained with different seeds, are averaged, and each replicate has for A and for B apart a
    deviation of Student's t with s - 1 degrees of freedom times the standard error of that draw's mean: what other
    seeds would change. Two seeds on a side hence give an interval that says little.

    Args:
        a: One model, or the same with several training seeds.
        b: The other.
        confidence: Of the intervals.

    Returns:
        One difference for each figure that all have; none for a figure of which less than 95 % of the replicates have
        pairs of both kinds.

    Raises:
        DataError: The replicates are of other pairs, or of other draws.
        ConfigError: ``confidence`` is not in (0, 1), or a side has no model.
    """
    check_confidence(confidence)
    sides = [(side,) if isinstance(side, Replicates) else tuple(side) for side in (a, b)]
    models = [model for side in sides for model in side]
    if not all(sides):
        raise ConfigError("A comparison needs one model or more on each side.")
    _check_same_draws(models)
    found = []
    for figure in models[0].figures:
        if not all(figure in model.figures for model in models):
            continue
        estimates, drawn = zip(*(_mean(side, figure, place) for place, side in enumerate(sides)), strict=True)
        seeds = len(sides[0]), len(sides[1])
        found.append(_told(figure, estimates[1] - estimates[0], drawn[1] - drawn[0], confidence, seeds))
    return tuple(difference for difference in found if difference is not None)


def compare_by_seed(
    a: Sequence[Replicates], b: Sequence[Replicates], confidence: float = 0.95
) -> tuple[Difference, ...]:
    """The figures of B less those of A, where model i of both was trained with the same seed.

    What a seed does to both (the first weights, the order of the images, or whole epochs that they share) cancels in
    its difference, so the interval is that of a mean of paired differences: each replicate has the mean of that draw's
    differences, and a deviation of Student's t with s - 1 degrees of freedom times their standard error. Without the
    draws of people that is the paired t-test.

    Args:
        a: Models with s training seeds.
        b: Others, with the same seeds in the same order.
        confidence: Of the intervals.

    Returns:
        As :func:`compare`.

    Raises:
        DataError: The replicates are of other pairs, or of other draws.
        ConfigError: ``confidence`` is not in (0, 1), or the sides have no models, or not as many.
    """
    check_confidence(confidence)
    if not a or len(a) != len(b):
        raise ConfigError(f"A comparison by seed needs as many models on both sides, one or more: {len(a)}, {len(b)}.")
    _check_same_draws([*a, *b])
    found = []
    for figure in a[0].figures:
        if not all(figure in model.figures for model in (*a, *b)):
            continue
        places = [(one.figures.index(figure), other.figures.index(figure)) for one, other in zip(a, b, strict=True)]
        models = list(zip(a, b, places, strict=True))
        estimate = float(np.mean([other.estimates[j] - one.estimates[i] for one, other, (i, j) in models]))
        values = np.stack([other.values[:, j] - one.values[:, i] for one, other, (i, j) in models])
        drawn = _with_other_seeds(values, a[0].seed, 2)
        found.append(_told(figure, estimate, drawn, confidence, (len(a), len(a))))
    return tuple(difference for difference in found if difference is not None)


def _told(
    figure: str, estimate: float, values: NDArray[np.float64], confidence: float, seeds: tuple[int, int]
) -> Difference | None:
    """A difference from its replicates (r,); None where too few of them are numbers."""
    real = values[np.isfinite(values)]
    if len(real) < 0.95 * len(values):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(real, [tail, 1 - tail])
    not_above, not_below = int(np.sum(real <= 0)), int(np.sum(real >= 0))
    return Difference(
        figure=figure,
        estimate=float(estimate),
        low=float(low),
        high=float(high),
        p=min(2 * (min(not_above, not_below) + 1) / (len(real) + 1), 1.0),
        better=float(np.mean(real < 0) if _less_is_better(figure) else np.mean(real > 0)),
        confidence=confidence,
        replicates=len(real),
        seeds=seeds,
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values that stay honest when many questions were asked at once.

    Rejecting those at most 0.05 makes one false claim or more in at most 5 % of all such families, however the
    questions depend on each other.

    Raises:
        ConfigError: A p-value is not in [0, 1].

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    wrong = [p for p in p_values if not 0 <= p <= 1]
    if wrong:
        raise ConfigError(f"p-values must lie in [0, 1]; got {wrong[0]}.")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min((len(p_values) - rank) * p_values[at], 1.0))
        adjusted[at] = highest
    return tuple(adjusted)


def _check_same_draws(models: Sequence[Replicates]) -> None:
    if not models:
        raise ConfigError("A mean over training seeds needs one model or more.")
    first = models[0]
    for model in models[1:]:
        if (model.digest, model.unit) != (first.digest, first.unit):
            raise DataError("The models were judged on different pairs, so no pair by pair comparison is possible.")
        if (model.seed, len(model.values)) != (first.seed, len(first.values)):
            raise DataError(
                f"The models were judged with different draws: seed {first.seed} and {len(first.values)} replicates, "
                f"seed {model.seed} and {len(model.values)}. Judge them again with the same."
            )


def _mean(models: tuple[Replicates, ...], figure: str, side: int) -> tuple[float, NDArray[np.float64]]:
    """The mean figure over the training seeds of one side, and its replicates (r,)."""
    estimates = [model.estimates[model.figures.index(figure)] for model in models]
    values = np.stack([model.values[:, model.figures.index(figure)] for model in models])
    return float(np.mean(estimates)), _with_other_seeds(values, models[0].seed, side)


def _with_other_seeds(values: NDArray[np.float64], seed: int, side: int) -> NDArray[np.float64]:
    """Means (r,) of values (s, r), each with a deviation of Student's t times its standard error.

    Drawing the s seeds anew instead is far too sure of itself with few of them: in simulations with no effect and three
    seeds a side it found one, at 5 %, in 13 %.
    """
    s, r = values.shape
    mean: NDArray[np.float64] = values.mean(axis=0)
    if s > 1:
        rng = np.random.default_rng((seed, r, side))
        mean += rng.standard_t(s - 1, r) * values.std(axis=0, ddof=1) / math.sqrt(s)
    return mean
