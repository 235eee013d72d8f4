"""MegaFace, challenge 1: each probe among a million distractors and one other image of its subject."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.allpairs import full_precision, rounded, unit_rows
from unpg.evaluate.curves import RELIABLE_FALSE_ACCEPTS, TarAtFar, allowed_errors, check_target, target_name
from unpg.evaluate.identification import Searches, labelled
from unpg.evaluate.threads import in_threads
from unpg.evaluate.weighted import WeightedCurve

__all__ = ["DistractorResult", "with_distractors"]

HEADROOM = 4
"""The hardest pairs are kept up to this times the largest FAR: draws of a bootstrap look beyond it."""

LARGEST_TAIL = 2**21
"""Hardest pairs beyond the largest FAR at most."""


@dataclass(frozen=True, eq=False)
class DistractorResult:
    """MegaFace's two figures, and what they come from.

    Attributes:
        rates: Identification rate by rank: over ordered pairs (gallery image, probe) of one subject, the share whose
            score is above that of the rank-th best distractor of the probe.
        pairs: Number of ordered pairs.
        distractors: Number of distractors.
        verification: TAR at FAR; genuine: unordered pairs of one subject, impostor: probes with distractors.
        searches: The ordered pairs as mated searches, ranks beyond the largest one reported as that plus one; then
            each probe among the distractors alone, as a non-mated search.
        people: (searches,) int64, the subject of each probe.
        curve: Genuine pairs and hardest impostor pairs, for weights of the subjects in rising order. The impostor pairs
            that were not kept count as if they scored as the easiest one kept: no TAR comes out too high.
    """

    rates: dict[int, float]
    pairs: int
    distractors: int
    verification: tuple[TarAtFar, ...]
    searches: Searches = field(repr=False)
    people: NDArray[np.int64] = field(repr=False)
    curve: WeightedCurve = field(repr=False)


def with_distractors(
    probes: ArrayLike | Tensor,
    subjects: ArrayLike,
    distractors: ArrayLike | Tensor,
    *,
    ranks: Sequence[int] = (1, 5, 10),
    targets: Sequence[float] = (1e-6,),
    device: torch.device | str = "cpu",
    block: int = 2048,
) -> DistractorResult:
    """MegaFace, challenge 1: each probe image among all distractors and one other image of its subject.

    No (p, distractors) matrix is kept: of each block only what a rank or a threshold may need.

    Args:
        probes: (p, d) real.
        subjects: (p,) integer.
        distractors: (n, d) real.
        ranks: Ranks to report.
        targets: FARs to report; refused below one expected false accept.
        device: Where to multiply.
        block: Distractors at a time.

    Raises:
        ConfigError: A rank is larger than the number of distractors, or a target is not in (0, 1].
        ShapeError: Vectors and subjects, or probes and distractors, do not fit each other.
        DataError: No two probes are of one subject.

    Source: Kemelmacher-Shlizerman et al. 2016, "The MegaFace benchmark: 1 million faces for recognition at scale".
    """
    x, mine = labelled("probes", probes, subjects)
    y = unit_rows(distractors)
    if x.shape[1] != y.shape[1]:
        raise ShapeError(f"Probes have {x.shape[1]} dimensions, distractors {y.shape[1]}: embed both with one model.")
    for target in targets:
        check_target(target)
    most = max(ranks)
    if min(ranks) < 1 or most > len(y):
        raise ConfigError(f"Ranks go from 1 to the number of distractors ({len(y):,}); got {list(ranks)}.")
    total = len(x) * len(y)
    needed = max((allowed_errors(total, t) + 1 for t in targets if 1 / total <= t), default=1)
    hardest = min(max(needed, min(HEADROOM * needed, LARGEST_TAIL)), total)
    x, y, mine = x.to(device), y.to(device), mine.to(device)
    starts = iter(range(0, len(y), block))

    @torch.inference_mode()
    def scan() -> tuple[Tensor, Tensor, Tensor]:
        """The best of each probe, the hardest of all and whose they are, over the blocks that are left."""
        best = x.new_full((len(x), most), -torch.inf)
        tail, owner = x.new_full((hardest,), -torch.inf), mine.new_zeros(hardest)
        for start in starts:
            scores = x @ y[start : start + block].T
            # One look at the largest of each row tells which rows can change anything: soon few can.
            largest = scores.amax(dim=1)
            rows = (largest > best[:, -1]).nonzero().squeeze(1)
            better = torch.cat([best[rows], scores[rows].topk(min(most, scores.shape[1]), dim=1).values], dim=1)
            best[rows] = better.topk(most, dim=1).values
            rows = (largest > tail[-1]).nonzero().squeeze(1)
            high = scores[rows]
            at = (high > tail[-1]).nonzero(as_tuple=True)
            tail, kept = torch.cat([tail, high[at]]).topk(hardest)
            owner = torch.cat([owner, rows[at[0]]])[kept]
        return best, tail, owner

    with torch.inference_mode(), full_precision():
        parts = in_threads(scan, x.device)
        best = torch.cat([part[0] for part in parts], dim=1).topk(most, dim=1).values
        tail, kept = torch.cat([part[1] for part in parts]).topk(hardest)
        owner = torch.cat([part[2] for part in parts])[kept]
        same = (mine[:, None] == mine) & ~torch.eye(len(x), dtype=torch.bool, device=device)
        if not same.any():
            raise DataError("No two probes are of one subject: there is nothing to find among the distractors.")
        # Rounding keeps the order, so it may wait until little is left.
        genuine, leading, hard = (rounded(scores).cpu().numpy() for scores in (x @ x.T, best, tail))
    people, first, second = (part.cpu().numpy() for part in (mine, *same.nonzero(as_tuple=True)))
    searches = _searches(genuine[first, second], second, leading, len(y))
    ranked = searches.rank[searches.mated]
    once = first < second
    pairs = genuine[first, second][once]
    return DistractorResult(
        rates={k: float(np.mean(ranked <= k)) for k in ranks},
        pairs=len(first),
        distractors=len(y),
        verification=tuple(_tail_tar(pairs, hard, total, t) for t in targets),
        searches=searches,
        people=np.concatenate([people[second], people]),
        curve=_tail_curve(pairs, people[first][once], hard, owner.cpu().numpy(), people, len(y)),
    )


def _searches(own: NDArray[Any], probe: NDArray[np.int64], best: NDArray[Any], distractors: int) -> Searches:
    """Pairs (q,) with the score ``own`` of the ``probe``, then each probe alone; ``best`` (p, k) falls in each row."""
    lone = best[:, 0]
    return Searches(
        mated=np.arange(len(own) + len(lone)) < len(own),
        mate=np.concatenate([own, np.full_like(lone, -np.inf)]),
        rank=np.concatenate([1 + (best[probe] >= own[:, None]).sum(axis=1), np.zeros(len(lone), dtype=np.int64)]),
        best=np.concatenate([np.maximum(own, lone[probe]), lone]),
        subjects=distractors + 1,
    )


def _tail_curve(
    genuine: NDArray[Any],
    whose: NDArray[np.int64],
    tail: NDArray[Any],
    owner: NDArray[np.int64],
    people: NDArray[np.int64],
    distractors: int,
) -> WeightedCurve:
    """Genuine pairs of ``whose`` subjects, and the hardest impostor pairs, of the probes ``owner``."""
    names, unit, images = np.unique(people, return_inverse=True, return_counts=True)
    # Of those that tie with the last one kept, some may not be there: one stands for them and all below.
    above = tail > tail[-1]
    return WeightedCurve(
        genuine,
        np.searchsorted(names, whose),
        np.append(tail[above], tail[-1]),
        (np.append(unit[owner[above]], 0),),
        exact=int(above.sum()),
        total=lambda weights: int(np.dot(weights, images)) * distractors,
    )


def _tail_tar(genuine: NDArray[Any], hardest: NDArray[Any], impostor: int, target: float) -> TarAtFar:
    """TAR at FAR where only the hardest impostor scores are known, in falling order."""
    expected = target * impostor
    if 1 / impostor > target:
        reason = f"{impostor:,} impostor pairs resolve FAR {1 / impostor:.1e} and above"
        return TarAtFar(target, None, None, None, expected, False, False, reason)
    allowed = allowed_errors(impostor, target)
    above = float(hardest[allowed]) if allowed < impostor else -np.inf
    accepted = genuine[genuine > above]
    false_accepts = int((hardest > above).sum())
    scores = np.concatenate([accepted, hardest[hardest > above]])
    threshold = float(scores.min()) if len(scores) else None
    reliable = RELIABLE_FALSE_ACCEPTS / impostor <= target
    reason = "" if reliable else f"only {expected:.3g} false accepts expected at FAR {target_name(target)}"
    value = len(accepted) / len(genuine)
    return TarAtFar(target, value, threshold, false_accepts / impostor, expected, True, reliable, reason)
