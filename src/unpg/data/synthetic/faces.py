"""Synthetic faces as sets of labelled images, rendered on demand.

Axes: n images of a set, b images of a batch.
"""

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from unpg.data.image_set import ArraySet, set_digest
from unpg.data.label_noise import Truth
from unpg.data.synthetic.factors import Variation, View, sample_view
from unpg.data.synthetic.identity import Identity
from unpg.data.synthetic.picture import Picture, check_size, render
from unpg.data.synthetic.population import Noise, Population, person, require_whole
from unpg.errors import ConfigError

__all__ = ["RenderedSet", "SyntheticFaces", "edition"]

_EDITION = 3  # raised whenever the same parameters give other pixels


def edition() -> int:
    """Number of the renderer: raised whenever the same parameters give other pixels."""
    return _EDITION


class RenderedSet(ABC):
    """An :class:`~unpg.data.image_set.ImageSet` without files: each image is rendered when it is read.

    A set says whom each image shows and how; the rest is here.

    Args:
        population: Who there is; its noise decides whom an image shows.
        labels: (n,) int64.
        size: (height, width) in pixels; faces are aligned to the field's template, scaled with the height.

    Attributes:
        population: As given.
        labels: As given.
        identities: The name of each label.
        size: As given.
        true_labels: (n,) int64, whom each image shows.
        takes: (n,) int64, see :meth:`~unpg.data.synthetic.population.Population.shown`.

    Raises:
        ConfigError: The size is not (height, width).
        DataError: Labels are to be flipped, and the set shows one person only.
    """

    def __init__(self, population: Population, labels: NDArray[np.int64], size: tuple[int, int]) -> None:
        check_size(size)
        self.population = population
        self.size = (size[0], size[1])
        self.labels = labels
        self.identities = population.names
        self.true_labels, self.takes = population.shown(labels)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of all images."""
        return self.size

    @property
    def truth(self) -> Truth | None:
        """Whom the images show, if the population has noise; else None."""
        if self.population.noise == Noise():
            return None
        return Truth(self.true_labels, self.population.twin_of[self.true_labels])

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def view(self, i: int, number: int, take: int) -> View:
        """How person ``number`` is seen in image ``i``; other takes of one place must differ."""

    @abstractmethod
    def stem(self, i: int) -> str:
        """The path of image ``i`` in a folder of such a set, without its ending; begins with the identity."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the pixels depend on besides names and labels, fit for JSON."""

    def name(self, i: int) -> str:
        """What to call image ``i``."""
        return f"synthetic/{self.stem(i)}"

    def parameters(self, i: int) -> tuple[Identity, View]:
        """Who is in image ``i``, and how it is seen.

        Raises:
            IndexError: There is no image ``i``.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)} synthetic faces: the number must be in [0, {len(self)})")
        number = int(self.population.people[self.true_labels[i]])
        return person(self.population.seed, number), self.view(i, number, int(self.takes[i]))

    def render(self, indices: Sequence[int] | NDArray[np.int64], device: torch.device | str = "cpu") -> Picture:
        """Images ``indices`` with their landmarks, masks and depths, on ``device``."""
        who, how = zip(*(self.parameters(int(i)) for i in indices), strict=True)
        return render(who, how, self.size, device)

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB."""
        image: NDArray[np.uint8] = self.render([i]).images[0].numpy()
        return image

    def read_many(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """Images (b,) at once, (b, h, w, 3) uint8 RGB: the same pixels as one by one, sooner."""
        images: NDArray[np.uint8] = self.render(np.asarray(indices, dtype=np.int64)).images.numpy()
        return images

    def digest(self) -> str:
        """Over names, labels, whom the images show, settings, size and the edition of the renderer."""
        content = {"edition": _EDITION, "size": self.size, **self.settings()}
        sha = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        shown = self.true_labels + (self.takes << 32)
        sha.update(set_digest(map(self.name, range(len(self))), self.labels, shown.tolist()).encode())
        return sha.hexdigest()

    def materialize(self, batch_size: int = 64, device: torch.device | str = "cpu") -> ArraySet:
        """All images, rendered now and kept in memory. The batch size changes the time, not the pixels.

        Raises:
            ConfigError: The batch size is below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"materialize: batch_size must be at least 1, got {batch_size}.")
        images = np.empty((len(self), *self.size, 3), np.uint8)
        for start in range(0, len(self), batch_size):
            stop = min(start + batch_size, len(self))
            images[start:stop] = self.render(range(start, stop), device).images.cpu().numpy()
        names = [self.name(i) for i in range(len(self))]
        return ArraySet(images, self.labels, self.identities, names, self.truth)


class SyntheticFaces(RenderedSet):
    """``identities`` people, each seen in ``views`` views.

    Image i is of identity ``i // views``, in view ``i % views``. Without noise identity k is person
    ``first_identity + k``, and an image is a pure function of seed, person, view, size and variation, so more people
    or views can be had later without changing these.

    Args:
        identities: Number of identities.
        views: Pictures of each.
        seed: Of the population; another seed gives other people.
        size: (height, width) in pixels; faces are aligned to the field's template, scaled with the height.
        variation: Ranges of the factors that make views differ.
        first_identity: Number of the first person. Sets whose numbers do not overlap share nobody.
        noise: Faults whose truth is in ``true_labels`` and ``population``.

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
        noise: Noise | None = None,
    ) -> None:
        require_whole("views", views, 1)
        population = Population(identities, seed, first_identity, noise)
        super().__init__(population, np.repeat(np.arange(identities, dtype=np.int64), views), size)
        self.views = views
        self.variation = Variation() if variation is None else variation

    def view(self, i: int, number: int, take: int) -> View:
        """View ``i % views``, of later rounds of views for other takes."""
        return sample_view(self.variation, self.population.seed, number, take * self.views + i % self.views)

    def stem(self, i: int) -> str:
        """Identity and view."""
        return f"{self.identities[self.labels[i]]}/view{i % self.views:04d}"

    def settings(self) -> dict[str, Any]:
        """The ranges of the factors."""
        ranges = dataclasses.asdict(self.variation)
        # Factors that came after the first sets were digested; without them the pixels are what they were.
        off = {"jpeg": None, "resolution": (1.0, 1.0)}
        return {"variation": {name: ends for name, ends in ranges.items() if name not in off or ends != off[name]}}
