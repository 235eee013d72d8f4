"""A threshold chosen on one set, judged on another: what happens to who deploys a model.

``tar@far`` of a benchmark chooses its threshold on the very pairs that it reports. Whoever uses a model has to choose
on a set that they have, and meets other people: there the FMR is what it is.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unpg.errors import ConfigError, DataError
from unpg.evaluate.bootstrap import FEWEST_UNITS, Bootstrap, Interval, effective, interval
from unpg.evaluate.curves import Roc
from unpg.evaluate.evidence import Evidence
from unpg.evaluate.verification import strictest_best

__all__ = ["THRESHOLD_RULES", "AtThreshold", "ThresholdRule", "chosen_threshold", "judge_at", "parse_threshold_rule"]

THRESHOLD_RULES = ("eer", "best", "far=<rate>", "fpir=<rate>[@<gallery>]")
"""``eer``: FMR <= FNMR, as near to equal as can be; ``best``: most pairs judged rightly; ``far=1e-3``: FAR at most
that. ``fpir=1e-2``: FPIR of searches at most that, in one gallery. Of several thresholds that fit, ``best`` takes the
strictest and the others the laxest."""


@dataclass(frozen=True)
class ThresholdRule:
    """Where a threshold comes from.

    Attributes:
        benchmark: The set that it is chosen on.
        rule: ``"eer"``, ``"best"``, ``"far"``, or of searches ``"fpir"``.
        target: The FAR of ``"far"``, the FPIR of ``"fpir"``.
        gallery: The gallery (or trial) of ``"fpir"``; empty where there is one.
    """

    benchmark: str
    rule: str
    target: float | None = None
    gallery: str = ""

    def __str__(self) -> str:
        target = "" if self.target is None else f"={self.target:g}"
        return f"{self.benchmark}:{self.rule}{target}" + (f"@{self.gallery}" if self.gallery else "")

    def require_pairs(self) -> None:
        """Raise ConfigError unless the rule is one for a set of pairs."""
        if self.rule == "fpir":
            raise ConfigError(
                f"{self.benchmark} has pairs and no searches: far=<rate>, eer or best take a threshold from it; got "
                f"{str(self)!r}."
            )

    def require_searches(self) -> None:
        """Raise ConfigError unless the rule is one for searches."""
        if self.rule != "fpir":
            raise ConfigError(
                f"{self.benchmark} has searches and no pairs to choose a threshold on: fpir=<rate> does that, as "
                f"{self.benchmark}:fpir=0.01; got {str(self)!r}."
            )


@dataclass(frozen=True)
class AtThreshold:
    """Error rates at a threshold from elsewhere.

    Attributes:
        chosen: Where the threshold comes from: ``"lfw:far=0.001"``.
        threshold: Pairs are accepted at and above this score.
        genuine: Genuine pairs.
        impostor: Impostor pairs.
        fmr: Share of impostor pairs accepted.
        fnmr: Share of genuine pairs refused.
        accuracy: Share of all pairs judged rightly.
        intervals: Of ``fmr``, ``fnmr`` and ``accuracy``, the threshold kept as it is: how it would vary itself is not
            in them. Empty if nobody asked or they are refused.
        refused: Why there are no intervals though somebody asked; else empty.
    """

    chosen: str
    threshold: float
    genuine: int
    impostor: int
    fmr: float
    fnmr: float
    accuracy: float
    intervals: Mapping[str, Interval]
    refused: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def parse_threshold_rule(text: str) -> ThresholdRule:
    """``lfw:far=1e-3``, ``lfw:eer``, ``lfw:best``, ``ijbc-1n:fpir=0.01@G1``; what stands before the last colon names
    the benchmark.

    Raises:
        ConfigError: It does not read like that.
    """
    benchmark, _, rule = text.rpartition(":")
    name, _, value = rule.partition("=")
    if benchmark and rule in ("eer", "best"):
        return ThresholdRule(benchmark, rule)
    if benchmark and name in ("far", "fpir"):
        number, at, gallery = value.partition("@")
        try:
            target = float(number)
        except ValueError:
            target = math.nan
        if 0 < target <= 1 and bool(at) == bool(gallery) and (name == "fpir" or not at):
            return ThresholdRule(benchmark, name, target, gallery)
    raise ConfigError(
        f"A threshold is taken from <benchmark>:<rule> with a rule of {', '.join(THRESHOLD_RULES)}, as lfw:far=1e-3; "
        f"got {text!r}."
    )


def chosen_threshold(roc: Roc, rule: ThresholdRule) -> float:
    """The threshold that ``rule`` takes from a curve.

    Raises:
        ConfigError: The rule is one for searches.
        DataError: The set cannot resolve the FAR, or the rule would accept no pair at all.
    """
    rule.require_pairs()
    if rule.rule == "far":
        point = roc.tar_at_far(rule.target if rule.target is not None else math.nan)
        if not point.resolvable:
            raise DataError(f"No threshold from {rule}: {point.reason}.")
        at = point.threshold
    elif rule.rule == "eer":
        gap = roc.fmr - roc.fnmr
        at = float(roc.thresholds[np.flatnonzero(gap <= 0)[-1]])
    else:
        at = float(roc.thresholds[strictest_best(roc.true_accepts, roc.false_accepts)])
    if at is None or not math.isfinite(at):
        raise DataError(
            f"No threshold from {rule}: there the best is to accept no pair at all; the scores tell nobody apart."
        )
    return at


def judge_at(
    roc: Roc,
    threshold: float,
    chosen: str,
    *,
    evidence: Evidence | None = None,
    settings: Bootstrap | None = None,
) -> AtThreshold:
    """Rates at ``threshold``, with intervals if there is evidence and somebody asks.

    Args:
        roc: The curve of the set that is judged.
        threshold: Accept at and above.
        chosen: Where it comes from.
        evidence: The pairs, for intervals.
        settings: How to draw them.
    """
    at = max(int(np.searchsorted(-roc.thresholds, -threshold, side="right")) - 1, 0)
    accepted, false = int(roc.true_accepts[at]), int(roc.false_accepts[at])
    rates = {
        "fmr": false / roc.impostor,
        "fnmr": (roc.genuine - accepted) / roc.genuine,
        "accuracy": (accepted + roc.impostor - false) / (roc.genuine + roc.impostor),
    }
    intervals, refused = {}, ""
    if evidence is not None and settings is not None:
        held = evidence.genuine_pairs[evidence.genuine_pairs > 0]
        if len(held) < FEWEST_UNITS:
            refused = f"no intervals from {len(held)} people or pairs; {FEWEST_UNITS} are needed"
        else:
            drawn = [evidence.curve.weighed(weights).rates_at(threshold) for weights in settings.draws(evidence.units)]
            columns = np.array([(fmr, fnmr, right) for fmr, fnmr, right in drawn]).T
            # Who makes most genuine pairs makes far fewer of the impostor pairs.
            weight = {"fmr": effective(evidence.impostor_pairs)}
            intervals = {
                name: interval(rate, column, weight.get(name, effective(held)), settings.confidence)
                for (name, rate), column in zip(rates.items(), columns, strict=True)
            }
    return AtThreshold(chosen, threshold, roc.genuine, roc.impostor, **rates, intervals=intervals, refused=refused)
