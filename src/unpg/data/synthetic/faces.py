"""Synthetic faces as a set of labelled images, rendered on demand."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from unpg.data.image_set import ArraySet, set_digest
from unpg.data.synthetic.factors import Variation, View, sample_view
from unpg.data.synthetic.identity import Identity, sample_identity
from unpg.data.synthetic.picture import Picture, check_size, render
from unpg.errors import ConfigError

__all__ = ["SyntheticFaces"]

_EDITION = 2  # raised whenever the same parameters give other pixels


class SyntheticFaces:
    """``identities`` persons, each seen in ``views`` views: an :class:`~unpg.data.image_set.ImageSet` without files.

    Image i shows person ``first_identity + i // views`` in view ``i % views``. It is a pure function of seed, person,
    view, size and variation, so more persons or views can be had later without changing these.

    Args:
        identities: Number of persons.
        views: Pictures of each.
        seed: Of the population; another seed gives other persons.
        size: (height, width) in pixels; faces are aligned to the field's template, scaled with the height.
        variation: Ranges of the factors that make views differ.
        first_identity: Number of the first person. Sets whose numbers do not overlap share nobody.

    Raises:
        ConfigError: A count is not a whole number of at least 1, the first identity or the seed not one of at least
            0, or the size is not (height, width).
    """

    def __init__(
        self,
        identities: int,
        views: int,
        seed: int = 0,
        size: tuple[int, int] = (112, 112),
        variation: Variation | None = None,
        first_identity: int = 0,
    ) -> None:
        whole = {"identities": (identities, 1), "views": (views, 1), "seed": (seed, 0)}
        for name, (value, least) in (whole | {"first_identity": (first_identity, 0)}).items():
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"SyntheticFaces.{name} must be a whole number of at least {least}, got {value!r}.")
        check_size(size)
        self.views = views
        self.seed = seed
        self.size = (size[0], size[1])
        self.variation = Variation() if variation is None else variation
        self.first_identity = first_identity
        self.labels: NDArray[np.int64] = np.repeat(np.arange(identities, dtype=np.int64), views)
        self.identities = [f"seed{seed}-{first_identity + k:06d}" for k in range(identities)]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of all images."""
        return self.size

    def __len__(self) -> int:
        return len(self.labels)

    def parameters(self, i: int) -> tuple[Identity, View]:
        """Who is in image ``i``, and how it is seen.

        Raises:
            IndexError: There is no image ``i``.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)} synthetic faces: the number must be in [0, {len(self)})")
        number, view = self.first_identity + i // self.views, i % self.views
        return sample_identity(self.seed, number), sample_view(self.variation, self.seed, number, view)

    def render(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Picture:
        """Images ``indices`` with their landmarks, masks and depths, on ``device``."""
        who, how = zip(*(self.parameters(int(i)) for i in indices), strict=True)
        return render(who, how, self.size, device)

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB."""
        image: NDArray[np.uint8] = self.render([i]).images[0].numpy()
        return image

    def name(self, i: int) -> str:
        """Person and view of image ``i``."""
        return f"synthetic/{self.identities[self.labels[i]]}/view{i % self.views:04d}"

    def digest(self) -> str:
        """Over names, labels, size, ranges of the factors and the edition of the renderer."""
        content = {"edition": _EDITION, "size": self.size, "variation": dataclasses.asdict(self.variation)}
        sha = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        sha.update(set_digest(map(self.name, range(len(self))), self.labels, [0] * len(self)).encode())
        return sha.hexdigest()

    def materialize(self, batch_size: int = 64, device: torch.device | str = "cpu") -> ArraySet:
        """All images, rendered now and kept in memory. The batch size changes the time, not the pixels.

        Raises:
            ConfigError: The batch size is below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"SyntheticFaces.materialize: batch_size must be at least 1, got {batch_size}.")
        images = np.empty((len(self), *self.size, 3), np.uint8)
        for start in range(0, len(self), batch_size):
            stop = min(start + batch_size, len(self))
            images[start:stop] = self.render(range(start, stop), device).images.cpu().numpy()
        return ArraySet(images, self.labels, self.identities, [self.name(i) for i in range(len(self))])
