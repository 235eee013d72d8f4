"""Searches at a threshold from elsewhere, and a threshold for elsewhere from searches; see
:mod:`unpg.evaluate.transfer`.

ISO/IEC 19795-1 gives an identification system's errors as functions of its threshold T: FPIR(T), the share of non-mated
searches that return a candidate, and FNIR(T), the share of mated ones that do not return the mate at rank 1. T is a
score, wherever it was chosen: at an FPIR of another gallery, or at a FAR of pairs, of which a search makes as many as
the gallery has entries.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unpg.errors import ConfigError, DataError
from unpg.evaluate.bootstrap import FEWEST_UNITS, Bootstrap, Interval, effective, interval
from unpg.evaluate.identification import Searches
from unpg.evaluate.search_evidence import SearchEvidence
from unpg.evaluate.transfer import ThresholdRule

__all__ = ["SearchesAtThreshold", "judge_searches_at", "search_threshold"]


@dataclass(frozen=True)
class SearchesAtThreshold:
    """Error rates of searches at a threshold from elsewhere; of several galleries the mean of theirs.

    Attributes:
        chosen: Where the threshold comes from: ``"lfw:far=0.001"``, ``"ijbc-1n:fpir=0.01@G1"``.
        threshold: Candidates are returned at and above this score.
        mated: Mated searches, in all galleries.
        nonmated: Non-mated searches.
        fpir: Share of non-mated searches that return a candidate; None if there are none.
        fnir: Share of mated searches whose mate is not returned at rank 1.
        tpir: ``1 - fnir``.
        galleries: ``fpir`` and ``fnir`` of each.
        intervals: Of ``fpir``, ``fnir`` and ``tpir``; the threshold and the galleries stay as they are.
        refused: Why there are no intervals though somebody asked; else empty.
    """

    chosen: str
    threshold: float
    mated: int
    nonmated: int
    fpir: float | None
    fnir: float
    tpir: float
    galleries: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Interval]
    refused: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def search_threshold(searches: Mapping[str, Searches], rule: ThresholdRule) -> float:
    """The smallest threshold at which no more than the FPIR of ``rule`` return a candidate.

    Args:
        searches: By gallery. Of several the rule must name one: each has a threshold of its own.
        rule: ``fpir``.

    Raises:
        ConfigError: The rule is none for searches, or names no gallery that is there.
        DataError: The gallery cannot resolve the FPIR, or there are no non-mated searches.
    """
    rule.require_searches()
    assert rule.target is not None
    gallery = rule.gallery or (next(iter(searches)) if len(searches) == 1 else "")
    if gallery not in searches:
        raise ConfigError(
            f"{rule.benchmark} has the galleries {', '.join(searches)}, each with a threshold of its own. Name one, as "
            f"{rule.benchmark}:fpir={rule.target:g}@{next(iter(searches))}; got {str(rule)!r}."
        )
    found = searches[gallery]
    point = found.tpir_at_fpir(rule.target)
    if point.above is None:
        raise DataError(f"No threshold from {rule}: {point.reason}.")
    if point.above == -np.inf:  # all may be accepted
        return float(found.best[~found.mated].min())
    return float(np.nextafter(np.float32(point.above), np.float32(np.inf)))  # scores are float32


def judge_searches_at(
    evidence: SearchEvidence, threshold: float, chosen: str, settings: Bootstrap | None = None
) -> SearchesAtThreshold:
    """Rates at ``threshold``; with ``settings`` they have intervals, by drawing the probes' people."""
    once = np.ones(evidence.units, dtype=np.int64)
    galleries = evidence.rates_at(once, threshold)
    rates = evidence.mean(galleries.values())
    intervals, refused = {}, ""
    if settings is not None:
        held = int(np.count_nonzero(evidence.genuine_pairs))
        if held < FEWEST_UNITS:
            refused = f"no intervals from {held} people with mated searches; {FEWEST_UNITS} are needed"
        else:
            drawn = [evidence.mean(evidence.rates_at(w, threshold).values()) for w in settings.draws(evidence.units)]
            intervals = {
                name: interval(
                    rate,
                    np.array([of[name] for of in drawn]),
                    effective(evidence.lone if name == "fpir" else evidence.genuine_pairs),
                    settings.confidence,
                )
                for name, rate in rates.items()
            }
            strangers = np.count_nonzero(evidence.lone)
            if 0 < strangers < FEWEST_UNITS:
                reason = f"{strangers} people with non-mated searches; {FEWEST_UNITS} are needed"
                intervals["fpir"] = Interval(None, None, "refused", reason)
    return SearchesAtThreshold(
        chosen,
        threshold,
        int(evidence.genuine_pairs.sum()),
        int(evidence.lone.sum()),
        rates.get("fpir"),
        rates["fnir"],
        rates["tpir"],
        galleries,
        intervals,
        refused,
    )
