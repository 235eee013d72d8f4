"""What a bootstrap needs of searches, and of the pairs that some protocols judge beside them.

The probes' people are drawn; galleries and distractors stay as they are. A search of person i counts w_i times, in
every gallery and trial alike, a pair as :mod:`unpg.evaluate.weighted` says, and every threshold is chosen anew.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unpg.evaluate.bootstrap import FEWEST_UNITS
from unpg.evaluate.curves import allowed_errors, target_name
from unpg.evaluate.identification import Searches
from unpg.evaluate.weighted import WeightedCurve

__all__ = ["GalleryEvidence", "SearchEvidence", "VerificationEvidence"]


@dataclass(frozen=True, eq=False)
class VerificationEvidence:
    """The pairs that a protocol of searches verifies (BLUFR, MegaFace).

    Attributes:
        curve: Their scores; its units are the people.
        people: (v,) int, who they are, rising.
        targets: FARs of the TARs reported.
    """

    curve: WeightedCurve
    people: NDArray[np.integer]
    targets: Sequence[float]


@dataclass(frozen=True, eq=False)
class GalleryEvidence:
    """The searches of one gallery or trial.

    Attributes:
        searches: What was found.
        people: (p,) int, the subject of each probe.
        ranks: Ranks reported.
        fpirs: FPIRs at which there is a TPIR.
        verification: Pairs judged beside them; None without.
    """

    searches: Searches
    people: NDArray[np.integer]
    ranks: Sequence[int] = ()
    fpirs: Sequence[float] = ()
    verification: VerificationEvidence | None = None


class SearchEvidence:
    """Searches, ready for weights of people; what :func:`~unpg.evaluate.bootstrap.bootstrap` asks for.

    Args:
        galleries: By name.
        notes: What else a reader of the intervals must know.

    Attributes:
        unit: ``"identity"``.
        units: People that search or are in pairs.
        genuine_pairs: (u,) int64 mated searches of each.
        lone: (u,) int64 non-mated searches of each.
        digest: Says which searches of whom, in hexadecimal.
    """

    unit = "identity"
    counted = "mated searches"
    sampled = 0
    tail = 1.0

    def __init__(self, galleries: Mapping[str, GalleryEvidence], notes: Sequence[str] = ()) -> None:
        found = galleries.values()
        verified = [g.verification.people for g in found if g.verification is not None]
        names = np.unique(np.concatenate([*(g.people for g in found), *verified]))
        self.units = len(names)
        parts = [np.searchsorted(names, g.people) for g in found]
        units, mated = np.concatenate(parts), np.concatenate([g.searches.mated for g in found])
        self.genuine_pairs: NDArray[np.int64] = np.bincount(units[mated], minlength=self.units)
        self.lone: NDArray[np.int64] = np.bincount(units[~mated], minlength=self.units)
        own = ["galleries and distractors stay as they are: only the people who search are drawn"]
        strangers = np.count_nonzero(self.lone)
        if 0 < strangers < FEWEST_UNITS:
            said = f"no intervals of rates at an FPIR from {strangers} people with non-mated searches"
            own.append(f"{said}; {FEWEST_UNITS} are needed")
        self.notes = (*own, *notes)
        ends = np.cumsum([len(part) for part in parts]).tolist()
        self.digest = hashlib.sha256(
            b"searches" + np.concatenate([units, mated, *verified]).astype("<i8").tobytes() + str(ends).encode()
        ).hexdigest()
        self._galleries = {
            name: _Weighed(gallery, part, names) for (name, gallery), part in zip(galleries.items(), parts, strict=True)
        }

    def genuine_pairs_of(self, figure: str) -> NDArray[np.int64]:
        """Mated searches; of a TPIR at an FPIR, whose threshold others make, the searches of the fewer people."""
        if not figure.startswith("tpir@"):
            return self.genuine_pairs
        return min(self.genuine_pairs, self.lone, key=np.count_nonzero)

    def figures(self, weights: NDArray[np.int64], targets: Sequence[float]) -> dict[str, float]:
        """Rates by name, as in ``metrics()``, under ``weights`` (u,); NaN where the weights leave no searches.

        ``targets`` (of FARs) are not used: each gallery knows its own.
        """
        return self.mean(gallery.figures(weights) for gallery in self._galleries.values())

    def rates_at(self, weights: NDArray[np.int64], threshold: float) -> dict[str, dict[str, float]]:
        """``fpir`` (where there are non-mated searches), ``fnir`` and ``tpir``, of each gallery."""
        return {name: gallery.rates_at(weights, threshold) for name, gallery in self._galleries.items()}

    @staticmethod
    def mean(rates: Iterable[Mapping[str, float]]) -> dict[str, float]:
        """The mean over galleries of each rate that all have."""
        found = list(rates)
        return {name: float(np.mean([f[name] for f in found])) for name in found[0] if all(name in f for f in found)}


class _Weighed:
    """One gallery's searches, sorted once."""

    def __init__(self, gallery: GalleryEvidence, units: NDArray[np.intp], names: NDArray[np.integer]) -> None:
        searches = gallery.searches
        mated = searches.mated
        self.ranks, self.fpirs, self.verification = gallery.ranks, gallery.fpirs, gallery.verification
        self.verified = None if self.verification is None else np.searchsorted(names, self.verification.people)
        self.mated_units, self.rank, self.mate = units[mated], searches.rank[mated], searches.mate[mated]
        best, others = searches.best[~mated], units[~mated]
        order = np.argsort(-best, kind="stable")
        self.best, self.other_units = best[order], others[order]
        # A candidate set is returned at every distinct score at once: allowed errors end where a score does.
        self.ends = np.flatnonzero(np.append(self.best[1:] != self.best[:-1], True)) if len(best) else np.array([], int)

    def figures(self, weights: NDArray[np.int64]) -> dict[str, float]:
        weight = weights[self.mated_units]
        found = {f"rank={k}": _share(weight, self.rank <= k) for k in self.ranks}
        if self.fpirs:
            accepted = np.cumsum(weights[self.other_units])[self.ends]
            for target in self.fpirs:
                hit = (self.mate > self._above(accepted, target)) & (self.rank <= 1)
                found[f"tpir@fpir={target_name(target)}"] = _share(weight, hit) if accepted[-1] else math.nan
        if self.verification is not None:
            weighed = self.verification.curve.weighed(weights[self.verified])
            for target in self.verification.targets:
                found[f"tar@far={target_name(target)}"] = weighed.tar_at_far(target)
        return found

    def rates_at(self, weights: NDArray[np.int64], threshold: float) -> dict[str, float]:
        tpir = _share(weights[self.mated_units], (self.mate >= threshold) & (self.rank <= 1))
        found = {"fnir": 1 - tpir, "tpir": tpir}
        if len(self.best):
            found = {"fpir": _share(weights[self.other_units], self.best >= threshold)} | found
        return found

    def _above(self, accepted: NDArray[np.int64], target: float) -> float:
        """The largest score that must be refused."""
        allowed = allowed_errors(int(accepted[-1]), target) if accepted[-1] else 0
        refused = int(np.searchsorted(accepted, allowed, side="right"))
        return float(self.best[self.ends[refused]]) if refused < len(self.ends) else -math.inf


def _share(weights: NDArray[np.int64], hit: NDArray[np.bool_]) -> float:
    """NaN where nothing has a weight."""
    total = int(weights.sum())
    return int(weights[hit].sum()) / total if total else math.nan
