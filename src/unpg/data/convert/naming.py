"""What identities and images are called where they are written: as before, if that can be."""

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import PurePosixPath

import numpy as np

from unpg.data.decode import SUFFIXES
from unpg.data.folder import FolderSet
from unpg.data.image_set import ImageSet
from unpg.data.joined import JoinedSet
from unpg.data.subset import Subset
from unpg.errors import DataError

__all__ = ["LONGEST_NAME", "Naming", "image_ending", "safe_folders"]

LONGEST_NAME = 255
"""Bytes of a file's or folder's name that file systems hold."""

_ENDINGS = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"BM", ".bmp"),
    (b"RIFF", ".webp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"P6", ".ppm"),
    (b"P5", ".pgm"),
)
# Not in names on Windows; a percent sign would look like one of our own.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|%]")
_DEVICES = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])(\..*)?", re.IGNORECASE)


def image_ending(data: bytes) -> str | None:
    """The ending of a file name that fits the image file ``data``, or None if it is of no known kind."""
    return next((ending for start, ending in _ENDINGS if data.startswith(start)), None)


def safe_folders(
    identities: Sequence[str], reserved: Collection[str] = (), longest: int | None = LONGEST_NAME
) -> list[str]:
    """A folder name for each identity: its own name, if every file system holds that, else one with ``%``.

    Args:
        identities: Distinct names.
        reserved: Names that other files have.
        longest: Bytes that a name may have; None where it becomes no folder.

    Returns:
        Names that differ even where capitals do not count.

    Raises:
        DataError: A name of more than ``longest`` bytes.
    """
    taken = {name.lower() for name in reserved}
    folders = []
    for who in identities:
        name = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", who)
        if name[:1] == "." or _DEVICES.fullmatch(name):
            name = f"%{ord(name[0]):02X}{name[1:]}"
        if name[-1:] in (".", " "):
            name = f"{name[:-1]}%{ord(name[-1]):02X}"
        unique, number = name, 1
        while unique.lower() in taken:
            number += 1
            unique = f"{name}~{number}"
        taken.add(unique.lower())
        size = len(unique.encode("utf-8", "surrogateescape"))
        if longest is not None and size > longest:
            raise DataError(
                f"The identity {who!r:.100} would need a folder name of {size} bytes; file systems hold "
                f"{longest}. Shorten the name, or convert to recordio, lmdb, webdataset or parquet."
            )
        folders.append(unique)
    return folders


class Naming:
    """Names ``<folder>/<path inside>`` for the images of a set.

    The path inside is the one that the set has in the identity's folder, if that is known, fits and is unique;
    otherwise all images are numbered, and :attr:`why` says why.

    Args:
        image_set: The set.
        folders: The folder of each identity.
        fits: Whether the form can hold a path inside.
    """

    def __init__(self, image_set: ImageSet, folders: Sequence[str], fits: Callable[[str], bool]) -> None:
        self.folders = list(folders)
        self._labels = image_set.labels
        self._set = image_set
        self.why = self._obstacle(fits)

    def name(self, i: int, ending: str) -> str:
        """``<folder>/<path inside>`` of image ``i``; a number gets ``ending``."""
        folder = self.folders[self._labels[i]]
        return f"{folder}/{i:08d}{ending}" if self.why else f"{folder}/{self._inside(i)}"

    def _inside(self, i: int) -> str | None:
        label = int(self._labels[i])
        return _path_inside(self._set, i, (self._set.identities[label], self.folders[label]))

    def _obstacle(self, fits: Callable[[str], bool]) -> str:
        """Why images must be numbered, or nothing."""
        seen = np.empty(len(self._labels), dtype=np.uint64)
        for i, label in enumerate(self._labels.tolist()):
            inside = self._inside(i)
            if inside is None:
                return "not all of its images have file names"
            if not _plain(inside) or not fits(inside):
                return f"the file name {inside!r:.100} cannot be kept there"
            # Eight bytes each instead of all names of a large set; without capitals, as for folders.
            digest = hashlib.blake2b(f"{label}/{inside.lower()}".encode("utf-8", "surrogateescape"), digest_size=8)
            seen[i] = int.from_bytes(digest.digest(), "little")
        return "" if len(np.unique(seen)) == len(seen) else "two images of an identity have the same file name"


def _plain(inside: str) -> bool:
    """Whether a path holds on every file system, and is found by those who look for images."""
    parts = inside.split("/")
    return (
        PurePosixPath(inside).suffix.lower() in SUFFIXES
        and all(part and part[0] != "." and part[-1] not in ". " and not _UNSAFE.search(part) for part in parts)
        and not any(_DEVICES.fullmatch(part) for part in parts)
        and all(len(part.encode("utf-8", "surrogateescape")) <= LONGEST_NAME for part in parts)
    )


def _path_inside(image_set: ImageSet, i: int, folders: tuple[str, ...]) -> str | None:
    """The path of image ``i`` in its identity's folder, or None where it has no name of its own."""
    if isinstance(image_set, Subset):
        return _path_inside(image_set.image_set, int(image_set.indices[i]), folders)
    if isinstance(image_set, FolderSet):
        return image_set.inside(i)
    if isinstance(image_set, JoinedSet):
        part, inside = image_set.place(i)
        return _path_inside(part, inside, (part.identities[part.labels[inside]],))
    # What a container or list calls the image: without the container's own path, whose parts are no identities.
    own = getattr(image_set, "own_path", image_set.name)(i)
    if own is None or PurePosixPath(own).suffix.lower() not in SUFFIXES:
        return None  # the key of a record
    path = own.replace("\\", "/")
    for folder in folders:
        # The first, for deeper ones may be its namesakes; of a whole path the last, for those above may be, too.
        place = f"/{path}".rfind(f"/{folder}/") if path.startswith("/") else f"/{path}".find(f"/{folder}/")
        if place >= 0:
            return path[place + len(folder) + 1 :]
    return path.rpartition("/")[2]
