"""One against many: closed-set ranks and open-set searches.

Terms of ISO/IEC 19795-1. A *search* compares a probe with a gallery; it is *mated* if the probe's subject is enrolled
there. A candidate is returned when its score is >= T. FPIR(T): share of non-mated searches that return any candidate.
TPIR(r, T): share of mated searches whose mate is returned among the r best; FNIR = 1 - TPIR. Ties count against the
model: whoever scores as high as the mate stands before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.allpairs import full_precision, rounded, unit_rows
from unpg.evaluate.curves import RELIABLE_FALSE_ACCEPTS, allowed_errors, target_name

__all__ = ["Searches", "TpirAtFpir", "labelled", "search"]


@dataclass(frozen=True)
class TpirAtFpir:
    """TPIR at the smallest threshold whose FPIR does not exceed a target.

    Attributes:
        target: FPIR that must not be exceeded.
        rank: The mate must be among so many best candidates.
        value: TPIR; None when the searches cannot resolve the target.
        above: Candidates are returned when their score is above this: the largest score that must be refused.
            -inf when all may be accepted, None when refused.
        fpir: FPIR that this really has; None when refused.
        expected_false_positives: ``target`` times the number of non-mated searches.
        reliable: At least thirty are expected.
        reason: Why the value is refused or marked; empty when it is neither.
    """

    target: float
    rank: int
    value: float | None
    above: float | None
    fpir: float | None
    expected_false_positives: float
    reliable: bool
    reason: str


@dataclass(frozen=True, eq=False)
class Searches:
    """What searching each of p probes in a gallery found.

    Attributes:
        mated: (p,) bool, whether the probe's subject is enrolled.
        mate: (p,) float32, score of the mate; -inf where there is none.
        rank: (p,) int64, 1 + how many other subjects score as high as the mate or higher; 0 where there is none.
        best: (p,) float32, highest score of any subject.
        subjects: Number of subjects enrolled.
    """

    mated: NDArray[np.bool_]
    mate: NDArray[np.float32]
    rank: NDArray[np.int64]
    best: NDArray[np.float32]
    subjects: int

    def identification_rate(self, rank: int) -> float:
        """Closed set: share of mated searches whose mate is among the ``rank`` best. The curve over ranks is the CMC.

        Raises:
            ConfigError: The rank is not 1 or more.
            DataError: No search is mated.
        """
        if rank < 1:
            raise ConfigError(f"A rank is 1 or more; got {rank}.")
        return float(np.mean(self._mated_ranks() <= rank))

    def cmc(self, most: int | None = None) -> NDArray[np.float64]:
        """(r,) identification rate at ranks 1 .. r; by default up to the number of subjects."""
        ranks = self._mated_ranks()
        most = self.subjects if most is None else most
        return np.cumsum(np.bincount(ranks, minlength=most + 1)[1 : most + 1]) / len(ranks)

    def _mated_ranks(self) -> NDArray[np.int64]:
        if not self.mated.any():
            raise DataError("No probe's subject is in the gallery: ranks need mated searches. Check the subjects.")
        return self.rank[self.mated]

    def tpir_at_fpir(self, target: float, *, rank: int = 1) -> TpirAtFpir:
        """TPIR(rank, T) at the smallest T with ``#(non-mated searches >= T) <= N * target``, N of them in all.

        Refused (``value`` None) where less than one false positive is expected, marked below thirty.

        Raises:
            ConfigError: ``target`` is not in (0, 1], or the rank is not 1 or more.
            DataError: There are no mated or no non-mated searches.
        """
        if not 0 < target <= 1 or rank < 1:
            raise ConfigError(f"An FPIR target lies in (0, 1] and a rank is 1 or more; got {target} and {rank}.")
        others = np.sort(self.best[~self.mated])[::-1]
        n, ranks = len(others), self._mated_ranks()
        if not n:
            raise DataError("All probes' subjects are in the gallery: FPIR needs non-mated searches.")
        expected = target * n
        if 1 / n > target:
            reason = f"{n:,} non-mated searches resolve FPIR {1 / n:.1e} and above"
            return TpirAtFpir(target, rank, None, None, None, expected, False, reason)
        allowed = allowed_errors(n, target)
        above = float(others[allowed]) if allowed < n else -np.inf
        found = (self.mate[self.mated] > above) & (ranks <= rank)
        reliable = RELIABLE_FALSE_ACCEPTS / n <= target
        reason = "" if reliable else f"only {expected:.3g} false positives expected at FPIR {target_name(target)}"
        fpir = float(np.mean(others > above))
        return TpirAtFpir(target, rank, float(found.mean()), above, fpir, expected, reliable, reason)

    @staticmethod
    def merged(parts: Sequence["Searches"]) -> "Searches":
        """Searches of several galleries as if they were of one: the way of tools that pool galleries. Its figures are
        not those of any gallery, and belong under their own name.
        """
        mated, mate, rank, best = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("mated", "mate", "rank", "best")
        )
        return Searches(mated, mate, rank, best, max(p.subjects for p in parts))


def search(
    probes: ArrayLike | Tensor,
    probe_subjects: ArrayLike,
    gallery: ArrayLike | Tensor,
    gallery_subjects: ArrayLike,
    *,
    device: torch.device | str = "cpu",
    block: int = 1024,
) -> Searches:
    """Search every probe in the gallery, by cosine; a subject with several entries scores by the nearest.

    Args:
        probes: (p, d) real.
        probe_subjects: (p,) integer.
        gallery: (g, d) real.
        gallery_subjects: (g,) integer.
        device: Where to multiply.
        block: Probes at a time; memory is about ``12 * block * g`` bytes beyond the vectors.

    Raises:
        ShapeError: Vectors and subjects do not fit each other.
        DataError: A vector is not finite, or there is no probe or no entry.
    """
    x, mine = labelled("probes", probes, probe_subjects)
    y, theirs = labelled("gallery", gallery, gallery_subjects)
    if x.shape[1] != y.shape[1]:
        raise ShapeError(f"Probes have {x.shape[1]} dimensions, the gallery {y.shape[1]}: embed both with one model.")
    names, entry = torch.unique(theirs, return_inverse=True)
    at = torch.searchsorted(names, mine).clamp(max=len(names) - 1)
    mated = names[at] == mine
    x, y, entry, at, mated = (t.to(device) for t in (x, y, entry, at, mated))
    mate, rank, best = [], [], []
    with torch.inference_mode(), full_precision():
        for start in range(0, len(x), block):
            scores = rounded(x[start : start + block] @ y.T)
            if len(names) < len(y):
                nearest = scores.new_full((len(scores), len(names)), -torch.inf)
                scores = nearest.scatter_reduce_(1, entry.expand(len(scores), -1), scores, "amax")
            own, has = at[start : start + block, None], mated[start : start + block]
            own_score = scores.gather(1, own)
            # The mate itself is >= its own score: that is the 1 of the rank.
            position = (scores >= own_score).sum(dim=1)
            best.append(scores.amax(dim=1))
            mate.append(torch.where(has, own_score.squeeze(1), -torch.inf))
            rank.append(torch.where(has, position, 0))
    mates, positions, top = (torch.cat(parts).cpu().numpy() for parts in (mate, rank, best))
    return Searches(mated.cpu().numpy(), mates, positions, top, len(names))


def labelled(what: str, vectors: ArrayLike | Tensor, subjects: ArrayLike) -> tuple[Tensor, Tensor]:
    """Unit rows (n, d) and subjects (n,) int64.

    Raises:
        ShapeError: There is not one integer subject for each vector; ``what`` names them.
        DataError: A vector is not finite.
    """
    x, labels = unit_rows(vectors), np.asarray(subjects)
    if labels.shape != (len(x),) or labels.dtype.kind not in "iu":
        raise ShapeError(
            f"{what}: one integer subject for each of the {len(x):,} vectors is needed; got shape {labels.shape}, "
            f"dtype {labels.dtype}."
        )
    return x, torch.from_numpy(labels.astype(np.int64))
