"""What a bootstrap needs of the pairs that were judged: their scores, and whose they are.

For all pairs of a set no list of them is made: all genuine pairs, the highest impostor pairs as far as the largest
FAR asks for, and a uniform sample of the others, which EER and AUC need.

Axes: n images or pairs, u units (identities, or single pairs where nobody knows the identities).
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unpg.errors import DataError, ShapeError
from unpg.evaluate.allpairs import RESOLUTION, unit_rows
from unpg.evaluate.curves import check_scores, target_name
from unpg.evaluate.verification import INSIGHTFACE_GRID
from unpg.evaluate.weighted import WeightedCurve, WeightedFolds

__all__ = ["Drawable", "Evidence", "all_pairs_evidence", "list_evidence"]

HEADROOM = 1.25
"""The impostor tail is kept up to this times the largest FAR: with other weights the threshold moves."""

LARGEST_TAIL = 2**21
"""Impostor pairs of the tail at most, 42 MB. Beyond, the largest FARs are read off the sample."""

SAMPLE = 2**19
"""Impostor pairs drawn for what lies below the tail: a FAR of 10 % is then right to 0.04 points."""


class Drawable(Protocol):
    """What a bootstrap asks of judged pairs or searches; see :class:`Evidence` for the words."""

    @property
    def unit(self) -> str:
        """``"identity"`` or ``"pair"``."""

    @property
    def units(self) -> int:
        """Their number u."""

    @property
    def genuine_pairs(self) -> NDArray[np.int64]:
        """(u,) int64 genuine pairs, or mated searches, of each unit."""

    def genuine_pairs_of(self, figure: str) -> NDArray[np.int64]:
        """Those that a figure rests on: ``genuine_pairs``, or of a figure of a group that group's (u,)."""

    @property
    def digest(self) -> str:
        """Says what was judged."""

    @property
    def counted(self) -> str:
        """What ``genuine_pairs`` counts, in words."""

    @property
    def sampled(self) -> int:
        """Impostor pairs that stand for others; 0 if all are there."""

    @property
    def tail(self) -> float:
        """The FAR up to which all impostor pairs are there."""

    @property
    def notes(self) -> Sequence[str]:
        """What else a reader of the intervals must know."""

    def figures(self, weights: NDArray[np.int64], targets: Sequence[float]) -> dict[str, float]:
        """Figures by name under ``weights`` (u,)."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The pairs that were judged, ready for weights.

    Attributes:
        unit: ``"identity"`` or ``"pair"``: what is drawn with replacement.
        units: Their number.
        curve: Scores and units of the pairs.
        folds: The same with folds, for accuracies; None if the protocol has none.
        genuine_pairs: (u,) int64 genuine pairs of each unit.
        digest: Says which pairs of whom, in hexadecimal; models judged on the same pairs have the same.
    """

    unit: str
    units: int
    curve: WeightedCurve
    folds: WeightedFolds | None
    genuine_pairs: NDArray[np.int64]
    digest: str
    counted: ClassVar[str] = "genuine pairs"
    notes: ClassVar[Sequence[str]] = ()

    def genuine_pairs_of(self, figure: str) -> NDArray[np.int64]:
        """All: no figure is of a part."""
        del figure
        return self.genuine_pairs

    def figures(self, weights: NDArray[np.int64], targets: Sequence[float]) -> dict[str, float]:
        """AUC, EER, TAR at each FAR of ``targets``, and accuracies over folds, under ``weights`` (u,).

        Named as in ``Result.metrics()``. NaN where the weights leave no pairs.
        """
        found = {}
        if self.folds is not None:
            for rule, accuracy in self.folds.accuracies(weights).items():
                found["accuracy" if rule == "exact" else f"accuracy_{rule.replace('-', '_')}"] = accuracy
        weighed = self.curve.weighed(weights)
        found |= {"auc": weighed.auc, "eer": weighed.eer}
        return found | {f"tar@far={target_name(t)}": weighed.tar_at_far(t) for t in targets}

    @property
    def impostor_pairs(self) -> NDArray[np.float64]:
        """(u,) impostor pairs of each unit; below the tail as many as the sample says."""
        counts = np.ones(len(self.curve.impostor_units[0]))
        if self.sampled:
            assert self.curve.total is not None
            below = self.curve.total(np.ones(self.units, dtype=np.int64)) - self.curve.exact
            counts[self.curve.exact :] = below / self.sampled
        found = np.zeros(self.units)
        for units in self.curve.impostor_units:
            found += np.bincount(units, counts, minlength=self.units)
        return found

    @property
    def sampled(self) -> int:
        """Impostor pairs that stand for those below the tail; 0 if all pairs are there."""
        return len(self.curve.impostor_units[0]) - self.curve.exact

    @property
    def tail(self) -> float:
        """The FAR up to which all impostor pairs are there; 1 if no sample was taken."""
        if self.curve.total is None or not self.sampled:
            return 1.0
        return self.curve.exact / self.curve.total(np.ones(self.units, dtype=np.int64))


def list_evidence(
    scores: ArrayLike, same: ArrayLike, identities: ArrayLike | None, folds: ArrayLike | None = None
) -> Evidence:
    """The evidence of a pair list.

    Args:
        scores: (n,) real.
        same: (n,) bool.
        identities: (n, 2) int, who each image of a pair shows; None if nobody knows: single pairs are drawn then.
        folds: (n,) int, or None.

    Raises:
        ShapeError: They do not fit each other.
        DataError: A score is not finite, one kind of pair is missing, or an answer is at odds with the identities.
    """
    values, truth = check_scores(scores, same)
    if truth.all() or not truth.any():
        raise DataError("A pair list needs genuine and impostor pairs; got one kind only.")
    if identities is None:
        columns: tuple[NDArray[np.intp], ...] = (np.arange(len(values)),)
        units, unit = len(values), "pair"
    else:
        who = np.asarray(identities)
        if who.shape != (len(values), 2) or who.dtype.kind not in "iu":
            raise ShapeError(f"identities must be ({len(values)}, 2) integers; got shape {who.shape}, {who.dtype}.")
        odd = np.flatnonzero((who[:, 0] == who[:, 1]) != truth)
        if len(odd):
            kind = "genuine" if truth[odd[0]] else "impostor"
            raise DataError(
                f"Pair {odd[0]} is said to be {kind}, and its images show the identities {who[odd[0]].tolist()}. "
                "Mend the list."
            )
        names, numbers = np.unique(who, return_inverse=True)
        numbers = numbers.reshape(who.shape)
        columns = (numbers[:, 0], numbers[:, 1])
        units, unit = len(names), "identity"
    curve = WeightedCurve(values[truth], columns[0][truth], values[~truth], tuple(column[~truth] for column in columns))
    folded = None
    number = None if folds is None else np.asarray(folds)
    if number is not None:
        if number.shape != values.shape:
            raise ShapeError(f"folds must have one entry per pair, shape {values.shape}; got {number.shape}.")
        grid = INSIGHTFACE_GRID if np.abs(values).max() <= 1.001 else None
        folded = WeightedFolds(values, truth, columns, number, grid)
    genuine = np.bincount(columns[0][truth], minlength=units)
    return Evidence(unit, units, curve, folded, genuine, _digest(unit, truth, *columns))


def all_pairs_evidence(
    embeddings: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    largest_far: float = 1e-2,
    seed: int = 0,
    sample: int = SAMPLE,
    largest_tail: int = LARGEST_TAIL,
    device: torch.device | str = "cpu",
    block_rows: int = 1024,
    block_columns: int = 4096,
) -> Evidence:
    """The evidence of all pairs of a set, in one pass over the products and bounded memory.

    Scores are rounded as :func:`~unpg.evaluate.allpairs.all_pairs` does. Up to ``2 * sample`` impostor pairs are all
    kept. Memory, beyond the embeddings: 16 bytes a genuine pair and 40 an impostor pair that is kept.

    Args:
        embeddings: (n, d) real.
        labels: (n,) int.
        largest_far: The tail reaches beyond this FAR.
        seed: Of the sample.
        sample: Impostor pairs drawn, with replacement, for what lies below the tail.
        largest_tail: Impostor pairs of the tail at most, nearly.
        device: Where to multiply.
        block_rows: Images compared with others at a time.
        block_columns: Others compared at a time.

    Raises:
        ShapeError: The two do not fit each other.
        DataError: An embedding is not finite, or there is no genuine or no impostor pair.
    """
    rows = unit_rows(embeddings)
    said = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if said.shape != (len(rows),) or said.dtype.kind not in "iu":
        raise ShapeError(f"labels must be ({len(rows)},) integers; got shape {said.shape}, dtype {said.dtype}.")
    _, identity, images = np.unique(said, return_inverse=True, return_counts=True)
    genuine_pairs = images * (images - 1) // 2
    impostors = _impostor_pairs(images)
    if not genuine_pairs.any() or not impostors:
        raise DataError(
            f"All pairs of a set need two identities, and one with two images; got {len(rows)} images of "
            f"{len(images)} identities."
        )
    order = np.argsort(identity, kind="stable")
    who = identity[order]
    x = rows[torch.from_numpy(order)].to(device)
    sampled = None
    floor = -math.inf
    if impostors > 2 * sample:
        sampled = _sample(x, who, sample, seed)
        ranked = np.sort(sampled[0])[::-1]
        # Strictly above the floor lies no more than that share of the sample, even if all scores are equal.
        share = min(HEADROOM * largest_far, largest_tail / impostors, 1.0)
        floor = float(ranked[min(math.ceil(share * sample), sample - 1)])
    genuine, tail = [], []
    for scores, a, b, same in _blocks(x, torch.from_numpy(who).to(device), floor, block_rows, block_columns):
        genuine.append((scores[same], who[a[same]]))
        tail.append((scores[~same], who[a[~same]], who[b[~same]]))
    exact = sum(len(scores) for scores, _, _ in tail)
    if sampled is not None:
        below = sampled[0] <= floor
        tail.append((sampled[0][below], sampled[1][below], sampled[2][below]))
    curve = WeightedCurve(
        np.concatenate([scores for scores, _ in genuine]),
        np.concatenate([owner for _, owner in genuine]),
        np.concatenate([scores for scores, _, _ in tail]),
        (np.concatenate([first for _, first, _ in tail]), np.concatenate([second for _, _, second in tail])),
        exact=exact,
        total=lambda weights: _impostor_pairs(weights * images),
    )
    return Evidence("identity", len(images), curve, None, genuine_pairs, _digest("all pairs", identity))


def _impostor_pairs(images: NDArray[np.integer]) -> int:
    """Pairs of two identities, of whom ``images`` (u,) are there."""
    return (int(images.sum()) ** 2 - int(np.dot(images, images))) // 2


def _blocks(
    x: Tensor, who: Tensor, floor: float, block_rows: int, block_columns: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]:
    """Scores, both images and "one identity" of the genuine pairs and the impostor pairs above ``floor``.

    ``x`` (n, d) unit rows sorted by ``who`` (n,).
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 carries three decimals
    try:
        with torch.inference_mode():
            for a in range(0, len(x), block_rows):
                b = min(a + block_rows, len(x))
                near = int(torch.searchsorted(who, who[b - 1 : b], right=True))
                for c in range(a, len(x), block_columns):
                    d = min(c + block_columns, len(x))
                    scores = _rounded(x[a:b] @ x[c:d].T)
                    wanted = scores > floor
                    if c < near:
                        wanted |= who[a:b, None] == who[c:d]
                        wanted &= torch.arange(c, d, device=x.device) > torch.arange(a, b, device=x.device)[:, None]
                    i, j = wanted.nonzero(as_tuple=True)
                    same = who[a + i] == who[c + j]
                    yield tuple(part.cpu().numpy() for part in (scores[i, j], a + i, c + j, same))  # type: ignore[misc]
    finally:
        torch.set_float32_matmul_precision(before)


def _sample(
    x: Tensor, who: NDArray[np.intp], size: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp]]:
    """Scores and identities of ``size`` impostor pairs, drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((0, 2), dtype=np.int64)
    while len(drawn) < size:
        pairs = rng.integers(0, len(who), (size, 2))
        drawn = np.concatenate([drawn, pairs[who[pairs[:, 0]] != who[pairs[:, 1]]]])
    drawn = drawn[:size]
    scores = np.empty(size, dtype=np.float32)
    for a in range(0, size, 8192):
        left, right = (x[torch.from_numpy(drawn[a : a + 8192, side]).to(x.device)] for side in (0, 1))
        scores[a : a + 8192] = _rounded((left * right).sum(dim=1)).cpu().numpy()
    return scores, who[drawn[:, 0]], who[drawn[:, 1]]


def _rounded(cosines: Tensor) -> Tensor:
    scores: Tensor = cosines.div_(RESOLUTION).round_().mul_(RESOLUTION).clamp_(-1, 1)
    return scores


def _digest(kind: str, *arrays: NDArray[Any]) -> str:
    sha = hashlib.sha256(kind.encode())
    for array in arrays:
        sha.update(np.ascontiguousarray(array).astype("<i8").tobytes())
    return sha.hexdigest()
