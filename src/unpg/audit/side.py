"""An image set with its embeddings, put in an order that does not depend on how the set was listed.

Axes: n readable images, k identities with a readable image, d embedding size.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unpg.data.image_set import ImageSet
from unpg.embed import Embeddings
from unpg.errors import ShapeError
from unpg.evaluate.allpairs import unit_rows

__all__ = ["Side"]

_ROWS = 65_536  # images turned to float64 at a time


@dataclass(frozen=True, eq=False)
class Side:
    """One set of an audit.

    Images are taken by name and identities by name, so that every choice between equals, and with it every finding,
    is the same however the set was ordered. Unreadable images and identities without a readable image are left out.

    Args:
        name: What to call the set.
        images: The set.
        embeddings: One row for each image of it, in its order.

    Attributes:
        rows: (n,) int64, index of each image in ``images``.
        names: Name of each image, rising.
        units: (n, d) float32, rows of length 1 (or 0).
        labels: (n,) int64, place of each image's identity in ``identities``.
        identities: Names of the k identities, rising.
        counts: (k,) int64, readable images of each.
        centers: (k, d) float32: the mean direction of each identity's images, at length 1 (or 0).

    Raises:
        ShapeError: Not one embedding per image.
    """

    name: str
    images: ImageSet
    embeddings: Embeddings
    rows: NDArray[np.int64] = field(init=False, repr=False)
    names: list[str] = field(init=False, repr=False)
    units: NDArray[np.float32] = field(init=False, repr=False)
    labels: NDArray[np.int64] = field(init=False, repr=False)
    identities: list[str] = field(init=False, repr=False)
    counts: NDArray[np.int64] = field(init=False, repr=False)
    centers: NDArray[np.float32] = field(init=False, repr=False)
    _sums: NDArray[np.float64] = field(init=False, repr=False)
    _by_identity: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.images) != len(self.embeddings):
            raise ShapeError(
                f"{self.name}: {len(self.embeddings)} embeddings for {len(self.images)} images; embed the whole set."
            )
        good = np.flatnonzero(self.embeddings.readable)
        names = [self.images.name(int(i)) for i in good]
        order = sorted(range(len(good)), key=names.__getitem__)
        rows = good[np.array(order, dtype=np.int64)]
        old = self.images.labels[rows]
        held = sorted(set(old.tolist()), key=self.images.identities.__getitem__)
        place = {label: k for k, label in enumerate(held)}
        labels = np.array([place[label] for label in old.tolist()], dtype=np.int64)
        vectors = self.embeddings.vectors[rows]
        units = unit_rows(vectors).numpy() if len(rows) else vectors
        sums = np.zeros((len(held), units.shape[1]))
        for i in range(0, len(units), _ROWS):
            np.add.at(sums, labels[i : i + _ROWS], units[i : i + _ROWS].astype(np.float64))
        set_ = object.__setattr__  # the dataclass is frozen for its users, not for its own construction
        set_(self, "rows", rows)
        set_(self, "names", [names[i] for i in order])
        set_(self, "units", units)
        set_(self, "labels", labels)
        set_(self, "identities", [self.images.identities[label] for label in held])
        set_(self, "counts", np.bincount(labels, minlength=len(held)))
        set_(self, "centers", _normalized(sums).astype(np.float32))
        set_(self, "_sums", sums)
        set_(self, "_by_identity", np.argsort(labels, kind="stable"))

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, identity: int) -> NDArray[np.int64]:
        """The images of an identity, as places in ``rows``."""
        start = int(self.counts[:identity].sum())
        return self._by_identity[start : start + int(self.counts[identity])]

    def own_similarity(self) -> NDArray[np.float64]:
        """(n,) cosine of each image to the center of the *other* images of its identity; NaN if there is none."""
        found = np.full(len(self), np.nan)
        for i in range(0, len(self), _ROWS):
            labels = self.labels[i : i + _ROWS]
            images = self.units[i : i + _ROWS].astype(np.float64)
            others = _normalized(self._sums[labels] - images)
            cosines = np.einsum("nd,nd->n", images, others)
            found[i : i + _ROWS] = np.where(self.counts[labels] > 1, cosines, np.nan)
        return found


def _normalized(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows at length 1; those that cancel out to nothing become 0."""
    lengths = np.sqrt(np.square(rows).sum(1, keepdims=True))
    # What is left of a sum of unit rows that cancel is rounding, and has no direction.
    return np.where(lengths > 1e-6, rows / np.maximum(lengths, 1e-6), 0.0)
