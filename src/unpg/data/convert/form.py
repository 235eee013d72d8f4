"""What a form to convert to has to say; a new one is one file and one ``@FORMS.register``."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unpg.data.convert.naming import Naming, image_ending, safe_folders
from unpg.data.image_set import ImageSet
from unpg.errors import ConfigError, DataError
from unpg.registry import Registry

__all__ = ["FORMS", "Form", "Job"]


class Job:
    """What is to be written.

    Args:
        image_set: The set.
        fits: Whether the form can hold a path of an image within its identity.
        reserved: Names that no folder may have.
        every: Images after which a kill loses nothing.
        shard_images: Most images in a file of a form that has several.

    Attributes:
        folders: A folder name for each identity, of any length.
        naming: What images are called.

    Raises:
        ConfigError: ``every`` or ``shard_images`` below 1.
        DataError: Identities without a name, or two of one name.
    """

    def __init__(
        self,
        image_set: ImageSet,
        fits: Callable[[str], bool],
        reserved: Collection[str],
        *,
        every: int,
        shard_images: int,
    ) -> None:
        if every < 1 or shard_images < 1:
            raise ConfigError(f"every and shard_images must be >= 1, got {every} and {shard_images}.")
        self.image_set, self.every, self.shard_images = image_set, every, shard_images
        self.identities = list(image_set.identities)
        if len(set(self.identities)) != len(self.identities) or "" in self.identities:
            raise DataError("The set has two identities of one name, or one without; give each a name of its own.")
        self.folders = safe_folders(self.identities, reserved, longest=None)
        self.naming = Naming(image_set, self.folders, fits)

    def name(self, i: int, data: bytes) -> str:
        """``<folder>/<file>`` of image ``i``.

        Raises:
            DataError: It has no file name of its own, and ``data`` is no image file whose ending is known.
        """
        if not self.naming.why:
            return self.naming.name(i, "")
        ending = image_ending(data)
        if ending is None:
            raise DataError(
                f"{self.image_set.name(i)} is no JPEG, PNG, BMP, WebP, TIFF or PPM file. `unpg data check` lists such "
                "files."
            )
        return self.naming.name(i, ending)


class Form(Protocol):
    """Writes a set into a folder. On opening it takes up what a stopped run has left there."""

    done: int
    """Images that are there already, in the order of writing."""

    def __init__(self, folder: Path, job: Job) -> None: ...

    @staticmethod
    def fits(inside: str) -> bool:
        """Whether an image may be called so within its identity."""
        ...

    @staticmethod
    def require(identities: list[str]) -> None:
        """Raise a :class:`DataError` for a name that the form cannot hold."""
        ...

    @staticmethod
    def order(labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) the images in the order in which they are written."""
        ...

    def add(self, place: int, i: int, data: bytes) -> None:
        """Write the file ``data`` of image ``i``, the one at ``place`` in the order."""
        ...

    def finish(self) -> list[tuple[str, str]]:
        """Write the rest; (SHA-256, name) of every file."""
        ...

    def close(self) -> None:
        """Close what is open, also after a fault."""
        ...


FORMS: Registry[type[Form]] = Registry("form")
