"""Identities that look like one person: split in two within a set, or shared by two sets.

The rule: two identities are one person if the cosine of their centers reaches the threshold. It was chosen on LFW
alone, cut in halves: against the rule of the best image pair it found more and was wrong less often
(docs/how-to/data.md has the figures).
"""

from collections.abc import Callable

import numpy as np
import torch

from unpg.audit.findings import IdentityMatch
from unpg.audit.scan import rounded, scan
from unpg.audit.side import Side

__all__ = ["compare_identities", "find_identity_matches"]

_ROWS = 1024  # images of the first identity compared with all of the second at a time


def find_identity_matches(
    a: Side,
    b: Side | None,
    match: float,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[IdentityMatch]:
    """Pairs of identities of ``a``, or of one of ``a`` and one of ``b``, whose centers reach ``match``.

    Most alike first.

    Raises:
        DataError: As :func:`unpg.audit.scan.scan`.
    """
    pairs = scan(a.centers, None if b is None else b.centers, least=match, device=device, progress=progress)
    found = [
        compare_identities(a, int(one), b or a, int(other), match)
        for one, other in zip(pairs.left, pairs.right, strict=True)
    ]
    return sorted(found, key=lambda m: (-m.similarity, m.identity_a, m.identity_b))


def compare_identities(a: Side, one: int, b: Side, other: int, match: float) -> IdentityMatch:
    """What speaks for identity ``one`` of ``a`` and identity ``other`` of ``b`` being one person."""
    left, right = a.of(one), b.of(other)
    there = b.units[right].astype(np.float64)
    count, best, at = 0, -np.inf, (0, 0)
    for start in range(0, len(left), _ROWS):
        cosines = rounded(a.units[left[start : start + _ROWS]].astype(np.float64) @ there.T)
        count += int((cosines >= match).sum())
        top = int(cosines.argmax())
        if cosines.flat[top] > best:
            best, at = float(cosines.flat[top]), (start + top // len(right), top % len(right))
    centers = rounded(a.centers[one].astype(np.float64)[None] @ b.centers[other].astype(np.float64))
    return IdentityMatch(
        identity_a=a.identities[one],
        identity_b=b.identities[other],
        similarity=float(centers[0]),
        images_a=len(left),
        images_b=len(right),
        matching_pairs=count,
        best_similarity=best,
        best_image_a=a.names[int(left[at[0]])],
        best_image_b=b.names[int(right[at[1]])],
    )
