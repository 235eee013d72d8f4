"""The image file behind an image of a set, byte for byte where there is one."""

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from unpg.data.folder import FolderSet
from unpg.data.image_set import ImageSet
from unpg.data.pairs import PairImages
from unpg.data.subset import Subset
from unpg.errors import DataError

__all__ = ["content", "has_files"]


def content(image_set: ImageSet, i: int) -> bytes:
    """The file of image ``i``, untouched; of a set that has pixels only, a PNG, which loses nothing.

    Raises:
        DataError: It cannot be read.
    """
    if isinstance(image_set, Subset):
        return content(image_set.image_set, int(image_set.indices[i]))
    if isinstance(image_set, FolderSet | PairImages):
        try:
            return Path(image_set.name(i)).read_bytes()
        except (OSError, ValueError) as error:  # a name from a list need be no path at all
            raise DataError(f"{image_set.name(i)} cannot be read: {error}.") from error
    own = getattr(image_set, "content", None)
    if own is not None:
        data: bytes = own(i)
        return data
    file = io.BytesIO()
    Image.fromarray(image_set.read(i)).save(file, "PNG")
    return file.getvalue()


def has_files(image_set: ImageSet) -> bool:
    """Whether :func:`content` gives files as they are; else it has to encode pixels, which takes time."""
    if isinstance(image_set, Subset):
        return has_files(image_set.image_set)
    parts = getattr(image_set, "parts", None)
    if isinstance(parts, Mapping):  # a joined set
        return all(has_files(part) for part in parts.values())
    return isinstance(image_set, FolderSet | PairImages) or hasattr(image_set, "content")
