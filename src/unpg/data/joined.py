"""Several image sets as one, in which people of different sets stay different people."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from unpg.data.content import content
from unpg.data.image_set import ImageSet
from unpg.errors import DataError

__all__ = ["JoinedSet"]


class JoinedSet:
    """One set after the other, in the order given.

    Args:
        parts: The sets by name. Identities are called ``<name>/<identity>``.

    Raises:
        DataError: No part.
    """

    def __init__(self, parts: Mapping[str, ImageSet]) -> None:
        if not parts:
            raise DataError("JoinedSet has no parts; give one set or more, each with a name.")
        self.parts = dict(parts)
        self._sets = list(self.parts.values())
        self._starts = np.cumsum([0, *(len(part) for part in self._sets)])
        first = np.cumsum([0, *(len(part.identities) for part in self._sets)])
        self.identities = [f"{name}/{who}" for name, part in self.parts.items() for who in part.identities]
        self.labels: NDArray[np.int64] = np.concatenate(
            [part.labels + start for part, start in zip(self._sets, first[:-1], strict=True)]
        ).astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB. Raises as its part does."""
        part, inside = self.place(i)
        return part.read(inside)

    def content(self, i: int) -> bytes:
        """Its image file. Raises as its part does."""
        return content(*self.place(i))

    def name(self, i: int) -> str:
        """Its name in its part."""
        part, inside = self.place(i)
        return part.name(inside)

    def sources(self) -> Iterable[str]:
        """The files that the images come from, part after part."""
        return chain.from_iterable(getattr(part, "sources", list)() for part in self._sets)

    def digest(self) -> str:
        """From the parts' names and digests."""
        return hashlib.sha256(json.dumps([(n, p.digest()) for n, p in self.parts.items()]).encode()).hexdigest()

    def place(self, i: int) -> tuple[ImageSet, int]:
        """The part that has image ``i``, and its index there."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} is not in [0, {len(self)})")
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self._sets[part], i - int(self._starts[part])
