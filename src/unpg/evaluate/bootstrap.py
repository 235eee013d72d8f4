"""Intervals for figures over pairs: a vertex bootstrap by identity.

Pairs that share a person vary together, so people are drawn, not pairs: as many identities as there are, with
replacement; w_i says how often identity i came. A genuine pair of i then counts w_i times, an impostor pair of i and
j w_i w_j times, and every threshold is chosen anew. The interval is cut from the replicates at its tails (percentile).

- Weights are a function of (seed, replicate, number of identities) alone. Models that were judged on the same pairs
  with the same settings got the same weights, so their replicates can be subtracted; see
  :mod:`unpg.evaluate.comparison`.
- Where an impostor pair hardly shares its people with others (a short list, a very strict FAR), the product counts the
  pair's own chance up to three times: the interval is too wide there, never too narrow.
- Where nobody knows identities, single pairs are drawn, which is optimistic; the result says so.

Source: T. A. B. Snijders and S. P. Borgatti, Connections 22 (1999), 161-170 (vertex bootstrap); A. B. Owen, Annals of
Applied Statistics 1 (2007), 386-411 (why products of weights are conservative).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.errors import ConfigError
from unpg.evaluate.evidence import Drawable
from unpg.evaluate.intervals import check_confidence, rule_of_three

__all__ = ["FEWEST_UNITS", "Bootstrap", "Interval", "Intervals", "Replicates", "bootstrap", "effective", "interval"]

FEWEST_UNITS = 20
"""Identities with genuine pairs below which no interval is given: the few that there are say little of others."""

FEW_EFFECTIVE = 30
"""Identities of equal size below which a note says that the figures rest on few people."""


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Args:
        replicates: How often identities are drawn.
        confidence: Of the intervals, in (0, 1).
        seed: Of the draws. Models can be compared in pairs only with the same seed and number of replicates.

    Raises:
        ConfigError: The confidence is not in (0, 1), the seed is negative, or the replicates are so few that none lies
            beyond the interval on a side.
    """

    replicates: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        fewest = math.ceil(round(2 / (1 - check_confidence(self.confidence)), 6))
        if self.replicates < fewest:
            raise ConfigError(
                f"replicates must be {fewest} or more for intervals of {self.confidence:.4g}; "
                f"got {self.replicates}. 1000 is a good number."
            )
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more; got {self.seed}.")

    def draws(self, units: int) -> Iterator[NDArray[np.int64]]:
        """The weights (u,) of every replicate: how often each of ``units`` was drawn; they sum to ``units``."""
        for number in range(self.replicates):
            # A generator of its own: replicate 7 is the same whether 100 or 1000 are asked for.
            rng = np.random.default_rng((self.seed, number))
            yield np.bincount(rng.integers(0, units, units), minlength=units)


@dataclass(frozen=True)
class Interval:
    """The interval of one figure.

    Attributes:
        low: Lower end, a fraction; None if refused.
        high: Upper end.
        method: ``"percentile"``; ``"rule of three"`` where no error (or no success) was seen; ``"refused"``.
        reason: Why it is refused; else empty.
    """

    low: float | None
    high: float | None
    method: str
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Replicates:
    """The figures of all replicates of one model on one benchmark: what a paired comparison needs.

    Attributes:
        figures: (k,) names.
        estimates: (k,) the figures themselves.
        values: (r, k); NaN where a replicate has no pairs of one kind.
        seed: Of the draws.
        unit: What was drawn: ``"identity"`` or ``"pair"``.
        digest: Of the pairs; see :class:`~unpg.evaluate.evidence.Evidence`.
    """

    figures: tuple[str, ...]
    estimates: tuple[float, ...]
    values: NDArray[np.float64] = field(repr=False)
    seed: int
    unit: str
    digest: str


@dataclass(frozen=True)
class Intervals:
    """Intervals of the figures of one result, and how they were made.

    Attributes:
        method: In words.
        confidence: Of every interval.
        replicates: How often units were drawn.
        seed: Of the draws.
        unit: What was drawn: ``"identity"`` or ``"pair"``.
        units: How many there are.
        effective_units: So many units of equal size would weigh as much in the genuine pairs (Kish).
        optimistic: The interval is known to be too narrow.
        digest: Of the pairs.
        notes: What a reader must know.
        refused: Why there are no intervals at all; else empty.
        figures: An interval for each figure.
    """

    method: str
    confidence: float
    replicates: int
    seed: int
    unit: str
    units: int
    effective_units: float
    optimistic: bool
    digest: str
    notes: tuple[str, ...]
    refused: str
    figures: Mapping[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self) | {"notes": list(self.notes), "figures": {k: asdict(i) for k, i in self.figures.items()}}


def bootstrap(
    evidence: Drawable, estimates: Mapping[str, float], targets: Sequence[float], settings: Bootstrap
) -> tuple[Intervals, Replicates | None]:
    """Draw, judge each draw, and cut the intervals.

    Args:
        evidence: The pairs.
        estimates: The figures that want an interval, as they are reported; others are left out.
        targets: FARs of the TARs among them.
        settings: Replicates, confidence, seed.

    Returns:
        The intervals, and the replicates that they were cut from; None if there are too few units to draw from. A
        figure of a group with too few has neither.
    """
    held = evidence.genuine_pairs[evidence.genuine_pairs > 0]
    weight = effective(held)
    paired = evidence.unit == "pair"
    what = "pairs" if paired else f"identities with {evidence.counted}"
    found = Intervals(
        method=f"{'bootstrap over pairs' if paired else 'vertex bootstrap by identity'}, percentile",
        confidence=settings.confidence,
        replicates=settings.replicates,
        seed=settings.seed,
        unit=evidence.unit,
        units=evidence.units,
        effective_units=weight,
        optimistic=paired,
        digest=evidence.digest,
        notes=tuple(_notes(evidence, held, weight)),
        refused="",
        figures={},
    )
    if len(held) < FEWEST_UNITS:
        return replace(found, refused=f"no intervals from {len(held)} {what}; {FEWEST_UNITS} are needed"), None
    rows = [evidence.figures(weights, targets) for weights in settings.draws(evidence.units)]
    counts = {name: evidence.genuine_pairs_of(name) for name in rows[0] if name in estimates}
    figures = tuple(name for name, of in counts.items() if np.count_nonzero(of) >= FEWEST_UNITS)
    values = np.array([[row[name] for name in figures] for row in rows])
    reported = tuple(float(estimates[name]) for name in figures)
    cut = {
        name: interval(estimate, column, effective(counts[name]), settings.confidence)
        for name, estimate, column in zip(figures, reported, values.T, strict=True)
    }
    drawn = Replicates(figures, reported, values, settings.seed, evidence.unit, evidence.digest)
    return replace(found, figures=cut), drawn


def effective(counts: NDArray[np.integer | np.floating]) -> float:
    """So many units of equal size would weigh as much as those of ``counts`` (u,) pairs or searches do (Kish)."""
    return float(counts.sum()) ** 2 / float(np.square(counts, dtype=np.float64).sum())


def interval(estimate: float, values: NDArray[np.float64], effective: float, confidence: float) -> Interval:
    """The interval of one figure.

    Args:
        estimate: The figure itself.
        values: (r,) the figure of every replicate; NaN where it has none.
        effective: Units of equal size that would weigh as much.
        confidence: Of the interval.
    """
    real = values[np.isfinite(values)]
    if len(real) < 0.95 * len(values):
        reason = f"{len(values) - len(real)} of {len(values)} replicates have no pairs of one kind"
        return Interval(None, None, "refused", reason)
    tail = (1 - confidence) / 2
    low, high = (float(end) for end in np.quantile(real, [tail, 1 - tail]))
    if estimate not in (0.0, 1.0):
        return Interval(low, high, "percentile")
    # Not one error, or not one success: what was never seen cannot be drawn, and the replicates look too sure.
    bound = rule_of_three(effective, confidence)
    ends = (min(low, 1 - bound), 1.0) if estimate else (0.0, max(high, bound))
    return Interval(*ends, "rule of three")


def _notes(evidence: Drawable, held: NDArray[np.int64], effective: float) -> Iterator[str]:
    if evidence.unit == "pair":
        yield (
            "the list does not say who is on the images: single pairs were drawn, as if no two shared a person; "
            "optimistic: the true intervals are wider"
        )
    elif effective < FEW_EFFECTIVE <= len(held):
        yield (
            f"{held.max() / held.sum():.0%} of the {evidence.counted} are of one person, and all weigh as "
            f"{effective:.1f} people of equal size would: figures of {evidence.counted} rest on few people, and their "
            "intervals may be too narrow"
        )
    if evidence.sampled:
        yield (
            f"above FAR {evidence.tail:.1e} the replicates, and hence those of AUC, rest on a sample of "
            f"{evidence.sampled:,} impostor pairs"
        )
    yield from evidence.notes
