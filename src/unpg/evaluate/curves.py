"""From scores to operating points: ROC, EER, TAR at a FAR, AUC.

Conventions, the same in all protocols here:

- A pair is *accepted* when ``score >= T``. All pairs of one score are accepted together or not at all, so
  ties can never be ordered in a model's favor.
- FMR (also FAR): share of impostor pairs accepted. FNMR: share of genuine pairs refused. TAR = 1 - FNMR.
- All rates are fractions in [0, 1], not per cent.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unpg.errors import ConfigError, DataError, ShapeError

__all__ = [
    "RELIABLE_FALSE_ACCEPTS",
    "Roc",
    "TarAtFar",
    "allowed_errors",
    "check_scores",
    "check_target",
    "tally",
    "target_name",
]

RELIABLE_FALSE_ACCEPTS = 30
"""Doddington's rule of 30: with thirty errors, the true rate is within 30 % of it in nine cases of ten."""


@dataclass(frozen=True)
class TarAtFar:
    """The largest TAR at a threshold whose FAR does not exceed a target.

    Attributes:
        target: FAR that must not be exceeded.
        value: TAR; None when the set cannot resolve the target.
        threshold: Smallest score accepted; None when nothing is accepted or the target is refused.
        far: FAR that this threshold really has, at most ``target``; None when refused.
        expected_false_accepts: ``target`` times the number of impostor pairs.
        resolvable: At least one false accept is expected at the target.
        reliable: At least thirty are.
        reason: Why the value is refused or marked; empty when it is neither.
    """

    target: float
    value: float | None
    threshold: float | None
    far: float | None
    expected_false_accepts: float
    resolvable: bool
    reliable: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Roc:
    """The operating points of a set of scores, from "accept nothing" to "accept everything".

    Attributes:
        thresholds: (t,), strictly falling; the first is +inf (nothing is accepted), then every distinct
            score.
        true_accepts: (t,) int64, genuine pairs with score >= threshold.
        false_accepts: (t,) int64, impostor pairs with score >= threshold.
        genuine: Number of genuine pairs.
        impostor: Number of impostor pairs.
    """

    thresholds: NDArray[np.floating[Any]]
    true_accepts: NDArray[np.int64]
    false_accepts: NDArray[np.int64]
    genuine: int
    impostor: int

    @classmethod
    def from_scores(cls, scores: ArrayLike, same: ArrayLike) -> "Roc":
        """The curve of ``scores`` (n,) real, higher = more alike, and ``same`` (n,) bool.

        Raises:
            ShapeError: The two are not vectors of one length, or ``same`` is not Boolean.
            DataError: A score is not finite, or there is no genuine or no impostor pair.
        """
        values, truth = check_scores(scores, same)
        return cls._of(*tally(values, truth))

    @classmethod
    def from_counts(cls, values: ArrayLike, genuine: ArrayLike, impostor: ArrayLike) -> "Roc":
        """The curve of a histogram: ``values`` (t,) strictly rising scores, with the pairs (t,) that have
        each.

        Raises:
            ShapeError: The three are not vectors of one length, or the values do not rise.
            DataError: A count is negative, or there is no genuine or no impostor pair.
        """
        scores, g, i = np.asarray(values), np.asarray(genuine), np.asarray(impostor)
        if not (scores.ndim == 1 and scores.shape == g.shape == i.shape):
            raise ShapeError(
                f"values, genuine and impostor must be vectors of one length; got {scores.shape}, {g.shape}, {i.shape}."
            )
        if not bool(np.all(scores[1:] > scores[:-1])):
            raise ShapeError("values must be strictly rising, one entry per distinct score; merge or sort them first.")
        if (g < 0).any() or (i < 0).any():
            raise DataError("Counts of pairs must not be negative.")
        held = (g > 0) | (i > 0)
        thresholds = np.concatenate([[np.inf], scores[held][::-1]])
        accepted = [np.concatenate([[0], np.cumsum(c[held][::-1], dtype=np.int64)]) for c in (g, i)]
        return cls._of(thresholds, accepted[0], accepted[1])

    @classmethod
    def _of(cls, thresholds: NDArray[Any], ta: NDArray[np.int64], fa: NDArray[np.int64]) -> "Roc":
        genuine, impostor = int(ta[-1]), int(fa[-1])
        if not genuine or not impostor:
            raise DataError(
                f"A curve needs genuine and impostor pairs; got {genuine} genuine and {impostor} impostor. "
                "Check the pair list, or that the set holds two identities and one with two images."
            )
        return cls(thresholds, ta, fa, genuine, impostor)

    @property
    def fmr(self) -> NDArray[np.float64]:
        """(t,) false match rate = FAR, rising from 0 to 1."""
        return self.false_accepts / self.impostor

    @property
    def tar(self) -> NDArray[np.float64]:
        """(t,) true accept rate, rising from 0 to 1."""
        return self.true_accepts / self.genuine

    @property
    def fnmr(self) -> NDArray[np.float64]:
        """(t,) false non-match rate = 1 - TAR, counted from the refused pairs."""
        return (self.genuine - self.true_accepts) / self.genuine

    @property
    def eer(self) -> float:
        """Equal error rate, in [0, 1].

        Where FMR equals FNMR at an operating point, that rate; otherwise both are joined by straight lines
        between the last point with FMR < FNMR and the first with FMR > FNMR, and the rate is that of the
        crossing. A constant score has the two points (0, 1) and (1, 0), hence 0.5.
        """
        # Quotients of counts are rounded correctly, so rates that are equal give a gap of exactly 0.
        gap = self.fmr - self.fnmr
        after = int(np.searchsorted(gap, 0.0))
        high = float(self.fmr[after])
        if gap[after] == 0:
            return high
        low = float(self.fmr[after - 1])
        part = float(-gap[after - 1] / (gap[after] - gap[after - 1]))
        return low + part * (high - low)

    @property
    def auc(self) -> float:
        """Area under the ROC curve: chance that a genuine pair outscores an impostor one; ties are one
        half.
        """
        return float(np.sum(np.diff(self.fmr) * (self.tar[1:] + self.tar[:-1])) / 2)

    def tar_at_far(self, target: float) -> TarAtFar:
        """The largest TAR among the thresholds with FAR <= ``target``; never the nearest FAR.

        It is refused (``value`` None) where less than one false accept is expected at the target: any number
        would then be a statement about a single pair. It is marked (``reliable`` False) below thirty.

        Raises:
            ConfigError: ``target`` is not in (0, 1].
        """
        check_target(target)
        n = self.impostor
        expected = target * n
        # Compared as quotients: 0.29 * 100 falls below 29, while 29 / 100 is the number that the user wrote.
        if 1 / n > target:
            reason = (
                f"{n:,} impostor pairs: below one expected false accept at FAR {target_name(target)}; "
                f"the set resolves FAR {1 / n:.1e} and above"
            )
            return TarAtFar(target, None, None, None, expected, False, False, reason)
        reliable = RELIABLE_FALSE_ACCEPTS / n <= target
        reason = "" if reliable else f"only {expected:.3g} false accepts expected at FAR {target_name(target)}"
        allowed = allowed_errors(n, target)
        at = int(np.searchsorted(self.false_accepts, allowed, side="right")) - 1
        threshold = float(self.thresholds[at]) if at else None
        return TarAtFar(
            target=target,
            value=float(self.true_accepts[at] / self.genuine),
            threshold=threshold,
            far=float(self.false_accepts[at] / n),
            expected_false_accepts=expected,
            resolvable=True,
            reliable=reliable,
            reason=reason,
        )

    def accuracy(self, threshold: float) -> float:
        """Share of all pairs that are judged rightly when those with score >= ``threshold`` are accepted."""
        at = int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1
        right = int(self.true_accepts[max(at, 0)]) + self.impostor - int(self.false_accepts[max(at, 0)])
        return right / (self.genuine + self.impostor)


def check_target(target: float) -> None:
    """Raise unless ``target`` is a FAR that one may ask for.

    Raises:
        ConfigError: It is not in (0, 1].
    """
    if not 0 < target <= 1:
        raise ConfigError(f"A FAR target must lie in (0, 1]; got {target}. For 0.1 % write 1e-3.")


def allowed_errors(n: int, target: float) -> int:
    """The largest k with ``k / n <= target``, compared as quotients: 0.29 * 100 falls below 29, but 29 / 100 is the
    number that the user wrote.
    """
    k = min(int(target * n), n)
    while k < n and (k + 1) / n <= target:
        k += 1
    while k / n > target:
        k -= 1
    return k


def check_scores(scores: ArrayLike, same: ArrayLike) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
    """``scores`` as (n,) float32 or float64 and ``same`` as (n,) bool, or an error that says what is wrong.

    Raises:
        ShapeError: They are not vectors of one length, or ``same`` is not Boolean.
        DataError: They are empty, or a score is not finite.
    """
    values, truth = np.asarray(scores), np.asarray(same)
    if values.ndim != 1 or values.shape != truth.shape:
        raise ShapeError(f"scores and same must be vectors of one length; got shapes {values.shape} and {truth.shape}.")
    if truth.dtype != np.bool_:
        raise ShapeError(
            f"same must be Boolean (True: one identity); got dtype {truth.dtype}. "
            "Other codings are guessed wrong too easily: compare with the value that means genuine."
        )
    if not len(values):
        raise DataError("There are no scores. Check that the pair list is not empty.")
    if values.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        values = values.astype(np.float32 if values.dtype == np.float16 else np.float64)
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values))
        raise DataError(
            f"{len(bad):,} of {len(values):,} scores are not finite; the first is pair {bad[0]}: "
            f"{values[bad[0]]}. The embeddings of that pair hold NaN or infinity; check the model."
        )
    return values, truth


def tally(
    scores: NDArray[np.floating[Any]], same: NDArray[np.bool_]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64], NDArray[np.int64]]:
    """Falling thresholds (t,), starting with +inf, and the genuine and impostor pairs (t,) that each accepts.

    ``scores`` (n,) finite, ``same`` (n,) bool; sorts once. Unlike :class:`Roc` it does not mind one kind
    missing.
    """
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    true_accepts = np.cumsum(same[order], dtype=np.int64)[last]
    start = np.zeros(1, dtype=np.int64)
    thresholds = np.concatenate([np.array([np.inf], dtype=ranked.dtype), ranked[last]])
    return thresholds, np.concatenate([start, true_accepts]), np.concatenate([start, last + 1 - true_accepts])


def target_name(target: float) -> str:
    """A FAR target as it is written in tables and metric names.

    >>> target_name(0.001), target_name(2.5e-05)
    ('1e-3', '2.5e-5')
    """
    return np.format_float_scientific(target, trim="-", exp_digits=1)
