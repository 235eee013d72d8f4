"""From vectors to results: the arithmetic of the protocols, without a word about files or models."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unpg.errors import ShapeError
from unpg.evaluate.allpairs import all_pairs, unit_rows
from unpg.evaluate.curves import Roc
from unpg.evaluate.evidence import all_pairs_evidence
from unpg.evaluate.results import AllPairsResult, PairResult
from unpg.evaluate.verification import FOLD_RULES, best_threshold, fold_accuracy

__all__ = ["ALL_PAIRS_TARGETS", "PAIR_TARGETS", "judge_all_pairs", "judge_pairs", "pair_scores"]

PAIR_TARGETS = (1e-2, 1e-3, 1e-4)
"""FARs reported for pair lists; those that a list cannot resolve are shown as refused."""

ALL_PAIRS_TARGETS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""FARs reported for all pairs of a set."""


def judge_pairs(
    name: str,
    vectors: NDArray[np.floating],
    pairs: NDArray[np.integer],
    same: ArrayLike,
    folds: ArrayLike | None = None,
    *,
    left_out: int = 0,
    targets: Sequence[float] = PAIR_TARGETS,
    identities: NDArray[np.integer] | None = None,
) -> PairResult:
    """Judge vectors (n, d) by the pairs (p, 2) of their rows; see :class:`PairBenchmark`."""
    scores, truth = pair_scores(vectors, pairs), np.asarray(same)
    roc = Roc.from_scores(scores, truth)
    rules = FOLD_RULES if folds is not None else ()
    return PairResult(
        benchmark=name,
        genuine=roc.genuine,
        impostor=roc.impostor,
        left_out=left_out,
        accuracy={rule: fold_accuracy(scores, truth, folds, rule) for rule in rules if folds is not None},
        best_threshold=best_threshold(scores, truth),
        auc=roc.auc,
        eer=roc.eer,
        tar_at_far=tuple(roc.tar_at_far(t) for t in targets),
        scores=scores,
        same=truth,
        identities=None if identities is None else np.asarray(identities)[np.asarray(pairs)],
        folds=None if folds is None else np.asarray(folds),
    )


def judge_all_pairs(
    name: str,
    vectors: NDArray[np.floating],
    labels: ArrayLike,
    *,
    targets: Sequence[float] = ALL_PAIRS_TARGETS,
    device: str = "cpu",
    evidence: bool = False,
) -> AllPairsResult:
    """Judge vectors (n, d) by all pairs of their rows, with ``labels`` (n,) integer.

    ``evidence``: keep what intervals need, at the cost of a second pass.
    """
    found = all_pairs(vectors, labels, device=device)
    return AllPairsResult(
        benchmark=name,
        images=len(vectors),
        identities=len(np.unique(np.asarray(labels))),
        genuine=found.roc.genuine,
        impostor=found.roc.impostor,
        auc=found.roc.auc,
        eer=found.roc.eer,
        tar_at_far=tuple(found.roc.tar_at_far(t) for t in targets),
        edges=found.edges,
        genuine_counts=found.genuine,
        impostor_counts=found.impostor,
        roc=found.roc,
        evidence=all_pairs_evidence(vectors, labels, largest_far=max(targets), device=device) if evidence else None,
    )


def pair_scores(vectors: ArrayLike, pairs: ArrayLike) -> NDArray[np.float32]:
    """Cosines (p,) float32 of the rows of ``vectors`` (n, d) named by ``pairs`` (p, 2); zero rows have cosine
    0.

    Summed in float64, so that equal pairs have equal scores whatever their place in memory.

    Raises:
        ShapeError: ``pairs`` is not (p, 2) integer, or points outside the vectors.
        DataError: A vector is not finite.
    """
    unit = unit_rows(vectors).numpy()
    index = np.asarray(pairs)
    if index.ndim != 2 or index.shape[1] != 2 or index.dtype.kind not in "iu":
        raise ShapeError(f"pairs must be (p, 2) integers; got shape {index.shape}, dtype {index.dtype}.")
    if index.size and not 0 <= index.min() <= index.max() < len(unit):
        raise ShapeError(f"pairs point to rows {index.min()} .. {index.max()} of {len(unit)} embeddings.")
    scores = np.empty(len(index), dtype=np.float32)
    for a in range(0, len(index), 4096):
        left, right = (unit[index[a : a + 4096, side]].astype(np.float64) for side in (0, 1))
        scores[a : a + 4096] = np.einsum("pd,pd->p", left, right)
    return scores
