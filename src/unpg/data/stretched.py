"""Image files of any size, stretched to one: for sets whose faces are too small to be aligned."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unpg.data.decode import decode
from unpg.data.listed import ListedSet
from unpg.errors import ConfigError

__all__ = ["StretchedSet"]


class StretchedSet(ListedSet):
    """As :class:`~unpg.data.listed.ListedSet`, but each image is resized (bicubic) to ``size`` when it is read.

    Args:
        source: What to call the list in messages.
        root: What the files' paths are relative to.
        files: (n,) their paths.
        people: (n,) who each shows.
        size: (height, width) in pixels.

    Raises:
        ConfigError: A size below 1.
        DataError: No file, or the first cannot be read.
    """

    def __init__(
        self,
        source: str,
        root: Path,
        files: Sequence[str],
        people: Sequence[str],
        size: tuple[int, int] = (112, 112),
    ) -> None:
        if min(size) < 1:
            raise ConfigError(f"StretchedSet.size must be 1 or more in height and width; got {size}.")
        self.stretched = size
        super().__init__(source, root, files, people)
        self.image_size = size

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read.
        """
        height, width = self.stretched
        image = Image.fromarray(decode(self.path(i)))
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)

    def name(self, i: int) -> str:
        """Its path and size: it is not the image of the file."""
        return f"{self.path(i)} at {self.stretched[0]} x {self.stretched[1]}"

    def digest(self) -> str:
        """From the paths as listed, identities, file sizes and the size that images get."""
        return super().digest() + f"-{self.stretched[0]}x{self.stretched[1]}"
