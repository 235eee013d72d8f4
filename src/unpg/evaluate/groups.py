"""Groups of people side by side: the same threshold for all, and each its own (RFW and the like)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.curves import Roc, TarAtFar, check_scores

__all__ = ["GroupRates", "GroupsResult", "compare_groups", "largest_over_smallest"]


@dataclass(frozen=True)
class GroupRates:
    """One group.

    Attributes:
        group: Its name.
        genuine: Genuine pairs.
        impostor: Impostor pairs.
        fmr: False match rate at the common threshold.
        fnmr: False non-match rate at the common threshold.
        own: TAR at the FAR target with the group's own threshold; refused where its pairs cannot resolve it.
        accuracy: Share judged rightly at the common threshold.
    """

    group: str
    genuine: int
    impostor: int
    fmr: float
    fnmr: float
    own: TarAtFar
    accuracy: float


@dataclass(frozen=True)
class GroupsResult:
    """All groups at one threshold.

    Attributes:
        common: The operating point of all pairs together, whose threshold is the common one.
        groups: In the order of their names.
        fmr_ratio: Largest over smallest FMR; inf where a group has none, NaN where none has any.
        fnmr_ratio: Likewise.
        skewed_error_ratio: Largest over smallest error rate (1 - accuracy) at the common threshold.
    """

    common: TarAtFar
    groups: tuple[GroupRates, ...]
    fmr_ratio: float
    fnmr_ratio: float
    skewed_error_ratio: float


def compare_groups(
    scores: ArrayLike, same: ArrayLike, groups: ArrayLike, *, target: float = 1e-3, threshold: float | None = None
) -> GroupsResult:
    """Error rates of each group of pairs.

    Args:
        scores: (n,) real, higher = more alike.
        same: (n,) bool.
        groups: (n,), the group of each pair (both of its people); pairs across groups are left out beforehand.
        target: FAR of the operating points.
        threshold: The common threshold, from another set say; None takes the one at which all pairs together have
            FAR <= target.

    Raises:
        ShapeError: The columns do not fit each other.
        DataError: Fewer than two groups, a group without genuine or impostor pairs, or a target that all pairs
            together cannot resolve.

    Source: Wang et al. 2019, "Racial faces in the wild", arXiv 1812.00194 (skewed error ratio: Wang and Deng 2020,
    arXiv 1911.10692).
    """
    values, truth = check_scores(scores, same)
    names = np.asarray(groups)
    if names.shape != values.shape:
        raise ShapeError(f"groups must have one entry per pair, {values.shape}; got {names.shape}.")
    found = np.unique(names)
    if len(found) < 2:
        raise DataError(f"Groups are compared with each other: two or more are needed, got {len(found)}.")
    whole = Roc.from_scores(values, truth)
    common = whole.tar_at_far(target)
    at = common.threshold if threshold is None else threshold
    if threshold is None and not common.resolvable:
        raise DataError(f"No common threshold: {common.reason}. Take a larger target, or give a threshold.")
    if threshold is not None and not np.isfinite(threshold):
        raise ConfigError(f"A threshold is a finite score; got {threshold}.")
    at = np.inf if at is None else at
    rates = []
    for name in found:
        member = names == name
        if not truth[member].any() or truth[member].all():
            raise DataError(
                f"Group {name!r} needs genuine and impostor pairs; it has {int(member.sum())} pairs of one kind."
            )
        roc = Roc.from_scores(values[member], truth[member])
        accepted = values[member] >= at
        kind = truth[member]
        rates.append(
            GroupRates(
                group=str(name),
                genuine=roc.genuine,
                impostor=roc.impostor,
                fmr=float(accepted[~kind].mean()),
                fnmr=float((~accepted[kind]).mean()),
                own=roc.tar_at_far(target),
                accuracy=float((accepted == kind).mean()),
            )
        )
    return GroupsResult(
        common,
        tuple(rates),
        largest_over_smallest([r.fmr for r in rates]),
        largest_over_smallest([r.fnmr for r in rates]),
        largest_over_smallest([1 - r.accuracy for r in rates]),
    )


def largest_over_smallest(rates: list[float]) -> float:
    """The ratio of the largest rate to the smallest; inf if only the smallest is 0, NaN if all are."""
    low, high = min(rates), max(rates)
    if high == 0:
        return float("nan")
    return high / low if low > 0 else float("inf")
