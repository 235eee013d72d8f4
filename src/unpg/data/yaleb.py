"""Extended Yale B (Georghiades et al. 2001; Lee et al. 2005): 38 people, one pose, up to 64 lights each.

The set is handed out as crops of 168 x 192 pixels (width x height) that are narrower than the field's: the eyes lie in
the upper fifth, and brow and chin are cut off. As they are, no network takes them for aligned faces; here they are put
where the usual five-point template has them, black around.
"""

import hashlib
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unpg.data.folder import FolderSet

__all__ = ["YaleBSet"]

# From the medians of five landmarks that a detector (YuNet) found on the 38 frontally lit crops: they come within 1.5
# pixels of the template; people differ by 1 to 2.
_LEFT, _TOP, _WIDTH, _HEIGHT = 27, 39, 59, 67


class YaleBSet:
    """The crops in one folder for each person, each at its place in an aligned image of 112 x 112.

    Args:
        root: ``<id>/<id>_P00A+050E-40.*``, whole crops of the proportions 7 to 8, or resized without regard to them.

    Raises:
        DataError: As :class:`~unpg.data.folder.FolderSet`.
    """

    image_size = 112, 112

    def __init__(self, root: str | PathLike[str]) -> None:
        self._crops = FolderSet(Path(root))
        self.labels: NDArray[np.int64] = self._crops.labels
        self.identities = self._crops.identities

    def __len__(self) -> int:
        return len(self._crops)

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (112, 112, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read.
        """
        image = np.zeros((*self.image_size, 3), np.uint8)
        crop = Image.fromarray(self._crops.read(i)).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
        image[_TOP : _TOP + _HEIGHT, _LEFT : _LEFT + _WIDTH] = np.asarray(crop)
        return image

    def name(self, i: int) -> str:
        """The path of its crop."""
        return self._crops.name(i)

    def sources(self) -> Iterable[str]:
        """The files that the images come from."""
        return self._crops.sources()

    def digest(self) -> str:
        """That of the crops, and of where they are put."""
        place = f"placed at {_LEFT}, {_TOP}, {_WIDTH} x {_HEIGHT}"
        return hashlib.sha256(f"{self._crops.digest()} {place}".encode()).hexdigest()
