"""Images that are far from their identity: near another one, or near nobody.

Axes: n images, m of them far from their identity, k identities.
"""

import numpy as np
from numpy.typing import NDArray

from unpg.audit.findings import LabelNoise
from unpg.audit.scan import rounded
from unpg.audit.side import Side

__all__ = ["find_label_noise"]

_ROWS = 1024  # far images compared at a time
_CENTERS = 1024  # centers they are compared with at a time


def find_label_noise(side: Side, match: float, far: float) -> list[LabelNoise]:
    """Images whose cosine to the center of their identity's other images is below ``far``.

    Of an identity with one image nothing can be said. Of two images that do not fit each other both are found: which
    is wrong cannot be known.

    Args:
        side: The set.
        match: Cosine to another identity's center from which on the image is that person's.
        far: Cosine below which an image is as far from its identity as a stranger's.

    Returns:
        Those near another identity first, most alike first; then those near nobody, farthest first.
    """
    own = rounded(side.own_similarity())
    suspects = np.flatnonzero(own < far)
    nearest, similarity = _nearest_center(side, suspects)
    found = []
    for i, who, score in zip(suspects.tolist(), nearest.tolist(), similarity.tolist(), strict=True):
        label = int(side.labels[i])
        there = side.of(who) if who >= 0 else np.zeros(0, np.int64)
        alike = rounded(side.units[there].astype(np.float64) @ side.units[i].astype(np.float64))
        found.append(
            LabelNoise(
                image=side.names[i],
                identity=side.identities[label],
                images_of_identity=int(side.counts[label]),
                own_similarity=float(own[i]),
                verdict="another" if who >= 0 and score >= match else "nobody",
                nearest_identity=side.identities[who] if who >= 0 else "",
                nearest_similarity=score if who >= 0 else None,
                nearest_image=side.names[int(there[alike.argmax()])] if who >= 0 else "",
            )
        )
    return sorted(found, key=_order)


def _order(finding: LabelNoise) -> tuple[bool, float, str]:
    if finding.verdict == "another":
        return False, -(finding.nearest_similarity or 0.0), finding.image
    return True, finding.own_similarity, finding.image


def _nearest_center(side: Side, suspects: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each image (m,) the other identity with the nearest center, -1 if there is none, and the cosine."""
    nearest = np.full(len(suspects), -1, np.int64)
    similarity = np.full(len(suspects), np.nan)
    if len(side.identities) < 2:
        return nearest, similarity
    similarity[:] = -np.inf
    for start in range(0, len(suspects), _ROWS):
        part = suspects[start : start + _ROWS]
        units = side.units[part].astype(np.float64)
        best, at = similarity[start : start + _ROWS], nearest[start : start + _ROWS]
        for first in range(0, len(side.identities), _CENTERS):
            cosines = rounded(units @ side.centers[first : first + _CENTERS].astype(np.float64).T)
            own = side.labels[part] - first
            inside = np.flatnonzero((own >= 0) & (own < cosines.shape[1]))
            cosines[inside, own[inside]] = -np.inf
            place = cosines.argmax(axis=1)
            found = cosines[np.arange(len(part)), place]
            better = found > best  # of equals the first
            best[better], at[better] = found[better], first + place[better]
    return nearest, similarity
