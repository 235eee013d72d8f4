"""A part of an image set, relabeled from 0 without gaps, and the split by identities.

A split by images would put the same people on both sides; what is held out here are people.
"""

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unpg.data.image_set import ImageSet, truth_of
from unpg.data.label_noise import Truth
from unpg.errors import ConfigError, DataError, did_you_mean

__all__ = ["Subset", "select_identities", "split_identities"]


class Subset:
    """Some images of a set. Identities keep their order; those without an image are gone.

    Args:
        image_set: The whole.
        indices: (m,) distinct indices into it, in the order wanted.

    Raises:
        DataError: An index out of range, or given twice.
    """

    def __init__(self, image_set: ImageSet, indices: ArrayLike) -> None:
        indices = np.asarray(indices, dtype=np.int64)
        wrong = indices[(indices < 0) | (indices >= len(image_set))]
        if len(wrong):
            raise DataError(f"Subset: index {wrong[0]} is not in [0, {len(image_set)}), the images of the set.")
        if len(np.unique(indices)) != len(indices):
            raise DataError("Subset: an index is given twice; each image may be in a set once.")
        kept, labels = np.unique(image_set.labels[indices], return_inverse=True)
        self.image_set = image_set
        self.indices = indices
        self.labels: NDArray[np.int64] = labels.astype(np.int64).reshape(-1)
        self.identities = [image_set.identities[label] for label in kept]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i`` of the part, (h, w, 3) uint8."""
        return self.image_set.read(int(self.indices[i]))

    @property
    def read_many(self) -> Callable[[NDArray[np.int64]], NDArray[np.uint8]] | None:
        """Reads images (b,) of the part at once, if the whole set can do that; else None."""
        whole = getattr(self.image_set, "read_many", None)
        return None if whole is None else lambda indices: whole(self.indices[indices])

    @property
    def truth(self) -> Truth | None:
        """What is known of labels that are wrong on purpose; people without a label in the part get numbers after."""
        whole = truth_of(self.image_set)
        if whole is None:
            return None
        kept = np.unique(self.image_set.labels[self.indices])
        labels, twin_of = whole.labels[self.indices], whole.twin_of[self.indices]
        people = [*kept, *np.setdiff1d(np.concatenate([labels, twin_of[twin_of >= 0]]), kept)]
        number = {-1: -1} | {int(label): i for i, label in enumerate(people)}
        return Truth(*(np.array([number[k] for k in part.tolist()], dtype=np.int64) for part in (labels, twin_of)))

    def read_into(self, i: int, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Image ``i`` in ``out`` (h, w, 3), which is returned."""
        whole = getattr(self.image_set, "read_into", None)
        if whole is None:
            out[:] = self.read(i)
        else:
            whole(int(self.indices[i]), out)
        return out

    def name(self, i: int) -> str:
        """Its name in the whole set."""
        return self.image_set.name(int(self.indices[i]))

    def sources(self) -> Iterable[str]:
        """The files that the images of the whole set come from."""
        found: Iterable[str] = getattr(self.image_set, "sources", list)()
        return found

    def digest(self) -> str:
        """From the whole set's digest and the indices."""
        sha = hashlib.sha256(self.image_set.digest().encode())
        sha.update(np.ascontiguousarray(self.indices).data)
        return sha.hexdigest()


def select_identities(image_set: ImageSet, names: Iterable[str]) -> Subset:
    """The images of the identities ``names``, in the order of the set.

    Raises:
        DataError: A name that the set does not have.
    """
    labels = {name: label for label, name in enumerate(image_set.identities)}
    wanted = set()
    for name in names:
        if name not in labels:
            raise DataError(f"The set has no identity {name!r}.{_near(name, image_set)}")
        wanted.add(labels[name])
    return _with_labels(image_set, np.array(sorted(wanted), dtype=np.int64))


def split_identities(image_set: ImageSet, fraction: float, seed: int) -> tuple[Subset, Subset]:
    """Split into (rest, held out) such that no identity is on both sides.

    Args:
        image_set: The set to split.
        fraction: Share of the *identities* to hold out, in (0, 1), rounded to the nearest whole number.
        seed: Which ones. The choice depends on the seed and the number of identities only.

    Raises:
        ConfigError: ``fraction`` is not in (0, 1).
        DataError: A side would get fewer than two identities.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"The fraction of identities to hold out must be in (0, 1), got {fraction}.")
    count = len(image_set.identities)
    held_count = round(fraction * count)
    if held_count < 2 or count - held_count < 2:
        raise DataError(
            f"Holding out {fraction:g} of {count} identities leaves {count - held_count} and {held_count}; "
            "each side needs two or more. Change the fraction, or add identities."
        )
    order = np.random.Generator(np.random.Philox(key=[seed % 2**64, 0x5B1])).permutation(count)
    held = np.sort(order[:held_count])
    rest = np.sort(order[held_count:])
    return _with_labels(image_set, rest), _with_labels(image_set, held)


def _with_labels(image_set: ImageSet, labels: NDArray[np.int64]) -> Subset:
    return Subset(image_set, np.flatnonzero(np.isin(image_set.labels, labels)))


def _near(name: str, image_set: ImageSet) -> str:
    # The full list of a large set would bury the message.
    if len(image_set.identities) <= 20:
        return did_you_mean(name, image_set.identities)
    hint = did_you_mean(name, image_set.identities).partition(" Known:")[0]
    return f"{hint} It has {len(image_set.identities)} identities."
