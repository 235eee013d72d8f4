"""What a set of labelled face images is to the rest of the program, and the one that lies in memory.

Axes: n images of a set, b images of a batch, h rows, w columns, 3 channels (RGB).
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unpg.data.label_noise import Truth
from unpg.errors import DataError, ShapeError

__all__ = ["ArraySet", "Batch", "ImageSet", "SizeError", "check_labels", "set_digest", "truth_of"]


class SizeError(DataError):
    """An image that is whole but not of the size that its set has.

    Kept apart from other data errors because no substitute mends it: the folder has not been aligned.
    """


class Batch(NamedTuple):
    """What the loader hands out. All three tensors lie on the same device."""

    images: Tensor
    """(b, h, w, 3) uint8 RGB."""
    labels: Tensor
    """(b,) int64, the class of each image that is shown."""
    sample_ids: Tensor
    """(b,) int64, the index of each image that is shown in its set."""


@runtime_checkable
class ImageSet(Protocol):
    """Images of one size with an identity each. What ``read`` returns depends on the index alone.

    A set is sent to worker processes, so it must be picklable.
    """

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) int64 in ``[0, len(identities))``."""
        ...

    @property
    def identities(self) -> Sequence[str]:
        """The name of each label."""
        ...

    def __len__(self) -> int: ...

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i`` as (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read; names the file.
        """
        ...

    def name(self, i: int) -> str:
        """What to call image ``i`` in messages and lists: its path, or a description."""
        ...

    def digest(self) -> str:
        """Hexadecimal digest of what makes this another data set: names, labels, sizes."""
        ...


def truth_of(image_set: ImageSet) -> Truth | None:
    """What is known of the labels of a set that are wrong on purpose; None where nothing is."""
    found: Truth | None = getattr(image_set, "truth", None)
    return found


def check_labels(labels: NDArray[np.int64], identities: Sequence[str], source: str) -> None:
    """Raise unless each label (n,) names one of ``identities``.

    Raises:
        DataError: A label is out of range. Names the first one.
        ShapeError: ``labels`` is not one-dimensional.
    """
    if labels.ndim != 1:
        raise ShapeError(f"{source}: labels must have shape (n,), got {labels.shape}.")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(identities)))
    if len(wrong):
        i = int(wrong[0])
        raise DataError(
            f"{source}: label {labels[i]} of image {i} is not in [0, {len(identities)}), the identities "
            f"given ({len(wrong)} such labels). Number the identities from 0 without gaps."
        )


def set_digest(names: Iterable[str], labels: NDArray[np.int64], sizes: Iterable[int]) -> str:
    """SHA-256 over names, labels and sizes (bytes or any number that tells contents apart), in order."""
    sha = hashlib.sha256()
    for name, label, size in zip(names, labels.tolist(), sizes, strict=True):
        sha.update(f"{name}\0{label}\0{size}\n".encode("utf-8", "surrogateescape"))
    return sha.hexdigest()


class ArraySet:
    """Images that lie in memory.

    Args:
        images: (n, h, w, 3) uint8 RGB.
        labels: (n,) integers in ``[0, len(identities))``.
        identities: The name of each label.
        names: The name of each image; ``"<identity>/<index>"`` if not given.
        truth: What is known of labels that are wrong on purpose.

    Raises:
        ShapeError: The arrays do not fit each other.
        DataError: A label without an identity.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        identities: Sequence[str],
        names: Sequence[str] | None = None,
        truth: Truth | None = None,
    ) -> None:
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ShapeError(f"ArraySet.images must be (n, h, w, 3) uint8, got {images.shape} {images.dtype}.")
        labels = np.asarray(labels, dtype=np.int64)
        check_labels(labels, identities, "ArraySet")
        if len(labels) != len(images) or (names is not None and len(names) != len(images)):
            counts = f"{len(images)} images, {len(labels)} labels" + (f", {len(names)} names" if names else "")
            raise ShapeError(f"ArraySet needs one label and one name per image, got {counts}.")
        self.images = images
        self.labels = labels
        self.identities = list(identities)
        self._names = None if names is None else list(names)
        if truth is not None and truth.labels.shape != labels.shape:
            raise ShapeError(f"ArraySet needs one true label per image ({len(labels)}), got {truth.labels.shape}.")
        self.truth = truth

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of all images."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8: a view, not a copy."""
        image: NDArray[np.uint8] = self.images[i]
        return image

    def name(self, i: int) -> str:
        """The name given, or identity and index."""
        return self._names[i] if self._names is not None else f"{self.identities[self.labels[i]]}/{i}"

    def digest(self) -> str:
        """Over names, labels, identities and pixels, since in memory the pixels are at hand."""
        sha = hashlib.sha256(set_digest(map(self.name, range(len(self))), self.labels, [0] * len(self)).encode())
        sha.update("\0".join(self.identities).encode("utf-8", "surrogateescape"))
        sha.update(repr(self.images.shape).encode())
        sha.update(np.ascontiguousarray(self.images).data)
        return sha.hexdigest()
