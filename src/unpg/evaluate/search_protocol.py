"""Identification: probes are searched in one gallery or several (IJB 1:N, TinyFace, BLUFR, MegaFace, own folders)."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.errors import DataError
from unpg.evaluate.bootstrap import Bootstrap, Intervals, Replicates, bootstrap
from unpg.evaluate.curves import TarAtFar, allowed_errors, target_name
from unpg.evaluate.identification import Searches, TpirAtFpir
from unpg.evaluate.results import kept_replicates, named_tars, told_intervals

__all__ = [
    "CMC_RANKS",
    "FPIR_TARGETS",
    "RANKS",
    "GalleryRates",
    "IdentificationResult",
    "SearchEvidence",
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
        mean_less_std: Report the mean less the standard deviation over the galleries too, as BLUFR does.
        notes: What a reader must know.
        intervals: Of the figures; None if nobody asked.
        replicates: What they were cut from.
    """

    benchmark: str
    per_gallery: Mapping[str, GalleryRates]
    distractors: int = 0
    pooling: dict[str, Any] | None = None
    mean_less_std: bool = False
    notes: tuple[str, ...] = ()
    intervals: Intervals | None = None
    replicates: Replicates | None = field(default=None, repr=False)
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
        if self.mean_less_std:
            for name in shared:
                values = [part[name] for part in parts]
                found[f"{name} (mean - std)"] = self._mean(values) - float(np.std(values, ddof=1))
        return found

    def with_intervals(self, settings: Bootstrap) -> "IdentificationResult":
        """The same with an interval for each rate of searches, by drawing the probes' subjects; the galleries stay.

        Trials of BLUFR share people whom they enroll by lot, and MegaFace keeps no scores of searches: both have no
        intervals, and a note says why.
        """
        if self.mean_less_std or any(g.searches is None or g.people is None for g in self.per_gallery.values()):
            reason = (
                "no intervals: the trials share people, and their spread is the mean - std"
                if self.mean_less_std
                else "no intervals: of the searches only the best distractors are kept"
            )
            return replace(self, notes=(*self.notes, reason))
        evidence = SearchEvidence(list(self.per_gallery.values()))
        intervals, replicates = bootstrap(evidence, self.metrics(), (), settings)
        return replace(self, intervals=intervals, replicates=replicates)

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
        } | told_intervals(self.intervals)

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
) -> GalleryRates:
    """The figures of the searches of one gallery.

    Args:
        searches: What :func:`~unpg.evaluate.identification.search` found.
        people: (p,) int, the subject of each probe.
        ranks: Ranks to report.
        fpirs: FPIRs to report, if some searches are non-mated.
        tar_at_far: Verification, as it is known.

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
    )


class SearchEvidence:
    """Searches, ready for weights of the probes' subjects; what :func:`~unpg.evaluate.bootstrap.bootstrap` asks for.

    Args:
        galleries: Rates with their searches and people.

    Attributes:
        unit: ``"identity"``.
        units: Subjects of probes.
        genuine_pairs: (u,) int64 mated searches of each.
        digest: Says which searches of whom, in hexadecimal.
    """

    unit = "identity"
    counted = "mated searches"
    sampled = 0
    tail = 1.0

    def __init__(self, galleries: Sequence[GalleryRates]) -> None:
        searches = [g.searches for g in galleries if g.searches is not None]
        people = [np.asarray(g.people) for g in galleries if g.people is not None]
        _, units = np.unique(np.concatenate(people), return_inverse=True)
        self.units = int(units.max()) + 1
        ends = np.cumsum([len(s.mated) for s in searches])
        parts = np.split(units, ends[:-1])
        mated = np.concatenate([s.mated for s in searches])
        self.genuine_pairs: NDArray[np.int64] = np.bincount(units[mated], minlength=self.units).astype(np.int64)
        self.digest = hashlib.sha256(
            b"searches" + np.concatenate([units, mated]).astype("<i8").tobytes() + str(ends.tolist()).encode()
        ).hexdigest()
        self._galleries = [
            _Weighed(s, who, list(g.rank), [t.target for t in g.tpir_at_fpir if t.value is not None])
            for s, who, g in zip(searches, parts, galleries, strict=True)
        ]

    def figures(self, weights: NDArray[np.int64], targets: Sequence[float]) -> dict[str, float]:
        """Rates by name, as in ``metrics()``, under ``weights`` (u,); NaN where the weights leave no searches.

        ``targets`` (of FARs) are not used: searches have ranks and FPIRs.
        """
        found = [gallery.figures(weights) for gallery in self._galleries]
        return {name: float(np.mean([f[name] for f in found])) for name in found[0] if all(name in f for f in found)}


class _Weighed:
    """One gallery's searches, sorted once."""

    def __init__(
        self, searches: Searches, units: NDArray[np.integer], ranks: Sequence[int], fpirs: Sequence[float]
    ) -> None:
        self.ranks, self.fpirs = ranks, fpirs
        mated = searches.mated
        self.mated_units, self.rank, self.mate = units[mated], searches.rank[mated], searches.mate[mated]
        best, others = searches.best[~mated], units[~mated]
        order = np.argsort(-best, kind="stable")
        self.best, self.other_units = best[order], others[order]
        # A candidate set is returned at every distinct score at once: allowed errors end where a score does.
        self.ends = np.flatnonzero(np.append(self.best[1:] != self.best[:-1], True)) if len(best) else np.array([], int)

    def figures(self, weights: NDArray[np.int64]) -> dict[str, float]:
        weight = weights[self.mated_units].astype(np.float64)
        total = weight.sum()
        rate = (lambda hit: float(weight[hit].sum() / total)) if total else (lambda hit: math.nan)
        found = {f"rank={k}": rate(self.rank <= k) for k in self.ranks}
        if self.fpirs:
            accepted = np.cumsum(weights[self.other_units])[self.ends]
            searches = int(weights[self.other_units].sum())
            for target in self.fpirs:
                found[f"tpir@fpir={target_name(target)}"] = (
                    rate((self.mate > self._above(accepted, searches, target)) & (self.rank <= 1))
                    if searches
                    else math.nan
                )
        return found

    def _above(self, accepted: NDArray[np.int64], searches: int, target: float) -> float:
        """The largest score that must be refused."""
        allowed = allowed_errors(searches, target)
        refused = int(np.searchsorted(accepted, allowed, side="right"))
        return float(self.best[self.ends[refused]]) if refused < len(self.ends) else -math.inf


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
