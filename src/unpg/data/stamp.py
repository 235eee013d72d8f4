"""Whether the files of a set are as they were, on this machine: what a digest of names and sizes cannot tell."""

import hashlib

from unpg.data.image_set import ImageSet
from unpg.data.index_cache import file_state

__all__ = ["stamp"]


def stamp(image_set: ImageSet) -> str:
    """Hexadecimal digest of size and time of the last change of each file that the images come from.

    For what is kept on this machine only; copies of a set have the same :meth:`~unpg.data.ImageSet.digest`, but other
    times. A set says its files by a method ``sources``; one without that has its content in its digest.
    """
    sha = hashlib.sha256()
    for file in getattr(image_set, "sources", list)():
        sha.update(repr(file_state(file)).encode())
    return sha.hexdigest()
