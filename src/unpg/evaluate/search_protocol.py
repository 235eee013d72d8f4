"""Identification: probes are searched in one gallery or several (IJB 1:N, TinyFace, BLUFR, MegaFace, own folders)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.errors import ConfigError, DataError
from unpg.evaluate.bootstrap import Bootstrap, Intervals, Replicates, bootstrap
from unpg.evaluate.curves import TarAtFar, target_name
from unpg.evaluate.identification import Searches, TpirAtFpir
from unpg.evaluate.results import kept_replicates, named_tars, told_intervals, told_threshold
from unpg.evaluate.search_evidence import GalleryEvidence, SearchEvidence, VerificationEvidence
from unpg.evaluate.search_transfer import SearchesAtThreshold, judge_searches_at, search_threshold
from unpg.evaluate.transfer import ThresholdRule

__all__ = [
    "CMC_RANKS",
    "FPIR_TARGETS",
    "RANKS",
    "GalleryRates",
    "IdentificationResult",
    "gallery_rates",
]

RANKS = (1, 5, 10)
"""Ranks reported."""

FPIR_TARGETS = (0.1, 0.01)
"""FPIRs reported where there are non-mated searches."""

CMC_RANKS = 100
"""Ranks of the CMC at most."""


@dataclass(frozen=True, eq=False)
class GalleryRates:
    """The figures of one gallery.

    Attributes:
        subjects: Subjects enrolled.
        probes: Searches.
        mated: Searches whose subject is enrolled.
        rank: Identification rate by rank, over the mated searches.
        tpir_at_fpir: TPIR at rank 1, one per FPIR; none without non-mated searches.
        tar_at_far: Verification, where the protocol has it.
        cmc: (k,) identification rate at ranks 1 .. k.
        searches: What the figures come from; None where only counts are kept.
        people: (p,) int, the subject of each search, for intervals; None where nobody asked.
        verification: The pairs behind ``tar_at_far``, for intervals; None where nobody asked.
    """

    subjects: int
    probes: int
    mated: int
    rank: Mapping[int, float]
    tpir_at_fpir: tuple[TpirAtFpir, ...]
    tar_at_far: tuple[TarAtFar, ...]
    cmc: NDArray[np.float64] = field(repr=False)
    searches: Searches | None = field(default=None, repr=False)
    people: NDArray[np.integer] | None = field(default=None, repr=False)
    verification: VerificationEvidence | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "subjects": self.subjects,
            "probes": self.probes,
            "mated": self.mated,
            "rank": {str(k): rate for k, rate in self.rank.items()},
            "tpir_at_fpir": [_told_tpir(point, self.probes - self.mated) for point in self.tpir_at_fpir],
            "tar_at_far": [point.to_dict() for point in self.tar_at_far],
        }


@dataclass(frozen=True, eq=False)
class IdentificationResult:
    """Result over searches. With several galleries (or trials) each figure is the mean of theirs.

    Attributes:
        benchmark: Its name.
        per_gallery: The figures of each gallery or trial, by name.
        distractors: Images in the gallery that are nobody sought.
        pooling: How images became templates; None if nothing was pooled.
        mean_less_std: Report the mean less the standard deviation over the galleries too, as BLUFR does; one alone has
            none.
        notes: What a reader must know.
        intervals: Of the figures; None if nobody asked.
        replicates: What they were cut from.
        at_threshold: Rates at a threshold from another set or gallery; None if nobody asked.
    """

    benchmark: str
    per_gallery: Mapping[str, GalleryRates]
    distractors: int = 0
    pooling: dict[str, Any] | None = None
    mean_less_std: bool = False
    notes: tuple[str, ...] = ()
    intervals: Intervals | None = None
    replicates: Replicates | None = field(default=None, repr=False)
    at_threshold: SearchesAtThreshold | None = None
    protocol: str = "identification"

    @property
    def rank(self) -> dict[int, float]:
        """Identification rate by rank."""
        return {k: self._mean([g.rank[k] for g in self.per_gallery.values()]) for k in self._first.rank}

    @property
    def tpir_at_fpir(self) -> list[dict[str, Any]]:
        """``target``, ``value``, ``threshold`` (of a single gallery only), ``nonmated``, ``reliable``, ``reason``."""
        told = [gallery.to_dict()["tpir_at_fpir"] for gallery in self.per_gallery.values()]
        return [_joined(points) for points in zip(*told, strict=True)]

    @property
    def tar_at_far(self) -> list[dict[str, Any]]:
        """As of a list of pairs; ``threshold`` of a single gallery only."""
        told = [gallery.to_dict()["tar_at_far"] for gallery in self.per_gallery.values()]
        return [_joined(points) for points in zip(*told, strict=True)]

    def metrics(self) -> dict[str, float]:
        """``rank=1`` ..., ``tpir@fpir=1e-1`` ..., ``tar@far=1e-3`` ...; with ``mean_less_std`` the last two and
        ``rank=1`` as ``... (mean - std)``, too. Fractions; refused ones are absent.
        """
        parts = [_metrics(gallery) for gallery in self.per_gallery.values()]
        shared = [name for name in parts[0] if all(name in part for part in parts)]
        found = {name: self._mean([part[name] for part in parts]) for name in shared}
        if self.mean_less_std and len(parts) > 1:
            for name in shared:
                values = [part[name] for part in parts]
                found[f"{name} (mean - std)"] = self._mean(values) - float(np.std(values, ddof=1))
        return found

    def threshold(self, rule: ThresholdRule) -> float:
        """The threshold that ``rule`` takes from a gallery; see
        :func:`~unpg.evaluate.search_transfer.search_threshold`.
        """
        return search_threshold({name: _kept(name, g).searches for name, g in self.per_gallery.items()}, rule)

    def with_threshold(
        self, threshold: float, chosen: str, settings: Bootstrap | None = None, *, without: str = ""
    ) -> "IdentificationResult":
        """The same with error rates at a threshold from elsewhere; with ``settings`` they have intervals.

        Args:
            threshold: Candidates are returned at and above it.
            chosen: Where it comes from.
            settings: How intervals are drawn.
            without: The gallery that it was chosen on, which is not judged.
        """
        return replace(self, at_threshold=judge_searches_at(self._evidence(without), threshold, chosen, settings))

    def with_intervals(self, settings: Bootstrap) -> "IdentificationResult":
        """The same with an interval for each rate, by drawing the people who search; galleries and distractors stay.

        A mean less the deviation over trials has none: in a draw all copies of a person are in the same trials, which
        therefore differ more than the trials do.
        """
        notes = ("mean - std has no interval: drawn people come in copies, so that trials of a draw differ more",)
        evidence = self._evidence(notes=notes if self.mean_less_std else ())
        intervals, replicates = bootstrap(evidence, self.metrics(), (), settings)
        return replace(self, intervals=intervals, replicates=replicates)

    def _evidence(self, without: str = "", notes: Sequence[str] = ()) -> SearchEvidence:
        return SearchEvidence({name: _kept(name, g) for name, g in self.per_gallery.items() if name != without}, notes)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the CMC, fit for JSON. ``galleries`` and ``probes`` are numbers: of galleries (or trials), and
        of searches in all of them.
        """
        galleries = self.per_gallery.values()
        return {
            "benchmark": self.benchmark,
            "protocol": self.protocol,
            "galleries": len(self.per_gallery),
            "subjects": max(g.subjects for g in galleries),
            "probes": sum(g.probes for g in galleries),
            "mated": sum(g.mated for g in galleries),
            "distractors": self.distractors,
            "pooling": self.pooling,
            "rank": {str(k): rate for k, rate in self.rank.items()},
            "tpir_at_fpir": self.tpir_at_fpir,
            "tar_at_far": self.tar_at_far,
            "per_gallery": {name: g.to_dict() for name, g in self.per_gallery.items()},
            "notes": list(self.notes),
            "metrics": self.metrics(),
        } | (told_threshold(self.at_threshold) | told_intervals(self.intervals))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``cmc`` (k,) identification rate at ranks 1 .. k <= 100; with intervals ``replicates``."""
        shortest = min(len(g.cmc) for g in self.per_gallery.values())
        mean = np.mean([g.cmc[:shortest] for g in self.per_gallery.values()], axis=0)
        return {"cmc": mean} | kept_replicates(self.replicates)

    @property
    def _first(self) -> GalleryRates:
        return next(iter(self.per_gallery.values()))

    @staticmethod
    def _mean(values: Sequence[float]) -> float:
        return float(np.mean(values))


def gallery_rates(
    searches: Searches,
    people: NDArray[np.integer] | None = None,
    *,
    ranks: Sequence[int] = RANKS,
    fpirs: Sequence[float] = FPIR_TARGETS,
    tar_at_far: Sequence[TarAtFar] = (),
    verification: VerificationEvidence | None = None,
) -> GalleryRates:
    """The figures of the searches of one gallery.

    Args:
        searches: What :func:`~unpg.evaluate.identification.search` found.
        people: (p,) int, the subject of each probe.
        ranks: Ranks to report.
        fpirs: FPIRs to report, if some searches are non-mated.
        tar_at_far: Verification, as it is known.
        verification: The pairs behind it, for intervals.

    Raises:
        DataError: No search is mated.
    """
    if not searches.mated.any():
        raise DataError("No probe's subject is in the gallery: ranks need mated searches. Check the subjects.")
    open_set = not searches.mated.all()
    return GalleryRates(
        subjects=searches.subjects,
        probes=len(searches.mated),
        mated=int(searches.mated.sum()),
        rank={k: searches.identification_rate(k) for k in ranks},
        tpir_at_fpir=tuple(searches.tpir_at_fpir(t) for t in fpirs) if open_set else (),
        tar_at_far=tuple(tar_at_far),
        cmc=searches.cmc(min(searches.subjects, CMC_RANKS)),
        searches=searches,
        people=people,
        verification=verification,
    )


def _kept(name: str, gallery: GalleryRates) -> GalleryEvidence:
    if gallery.searches is None or gallery.people is None:
        raise ConfigError(
            f"{name!r} was judged without keeping its searches and their people; use gallery_rates(searches, people)."
        )
    fpirs = [point.target for point in gallery.tpir_at_fpir if point.value is not None]
    return GalleryEvidence(gallery.searches, gallery.people, list(gallery.rank), fpirs, gallery.verification)


def _metrics(gallery: GalleryRates) -> dict[str, float]:
    found = {f"rank={k}": rate for k, rate in gallery.rank.items()}
    found |= {f"tpir@fpir={target_name(p.target)}": p.value for p in gallery.tpir_at_fpir if p.value is not None}
    return found | named_tars(gallery.tar_at_far)


def _told_tpir(point: TpirAtFpir, nonmated: int) -> dict[str, Any]:
    above = point.above
    return {
        "target": point.target,
        "rank": point.rank,
        "value": point.value,
        # Candidates must score above it; -inf (everything) has no place in JSON.
        "threshold": above if above is not None and math.isfinite(above) else None,
        "fpir": point.fpir,
        "nonmated": nonmated,
        "reliable": point.reliable,
        "reason": point.reason,
    }


def _joined(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of one figure over galleries: refused if one is, marked if one is, no threshold of several."""
    if len(points) == 1:
        return points[0]
    first = dict(points[0])
    reasons = [p["reason"] for p in points if p["reason"]]
    refused = any(p["value"] is None for p in points)
    first["value"] = None if refused else float(np.mean([p["value"] for p in points]))
    first["threshold"] = None
    first["reliable"] = all(p["reliable"] for p in points)
    first["reason"] = reasons[0] if reasons else ""
    for name in ("nonmated", "expected_false_accepts"):
        if name in first:
            first[name] = sum(p[name] for p in points)
    for name in ("fpir", "far"):
        if name in first:
            first[name] = None if refused else float(np.mean([p[name] for p in points]))
    if "resolvable" in first:
        first["resolvable"] = all(p["resolvable"] for p in points)
    return first
