"""A folder per identity: ``<root>/<identity>/**/<image>``, as the field keeps its cleaned sets.

Whatever lies deeper counts under the identity, so ``001/frontal/01.jpg`` is an image of ``001``. A file
``<root>/identities.json``, an object from folder to name, names those whose folder cannot be called so. Several
roots can be joined; people of different roots are different people, even if their folders are namesakes.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpg.data.decode import SUFFIXES, decode, decode_sized, file_content, first_size
from unpg.data.exclude import read_identity_list
from unpg.data.image_set import set_digest
from unpg.data.names_file import NAMES_FILE, read_folder_names
from unpg.errors import ConfigError, DataError, did_you_mean

__all__ = ["FolderSet", "Skipped", "file_size"]

Paths = str | PathLike[str] | Sequence[str | PathLike[str]]


class Skipped(NamedTuple):
    """Something in a root that is not part of the set."""

    path: str
    reason: str


@dataclass(frozen=True)
class _Root:
    name: str
    path: Path
    given: str


class FolderSet:
    """Images in folders, one folder per identity. Order: roots as given, then identities, then paths by name.

    Args:
        roots: One folder, several, or a mapping from a name to a folder. With several, identities are called
            ``<root name>/<identity>``; the name of a root without one is the shortest end of its path that
            no other root has.
        exclude: Lists of identities to leave out (see :func:`~unpg.data.exclude.read_identity_list` for the
            grammar). One list or several for all roots, or a mapping from a root (its name, or its path as
            given) to its own lists: needed where a name exists in more than one root.
        min_images: Leave out identities with fewer images. One number for all roots, or a mapping from a root
            (as in ``exclude``) to its own; a root that is not in the mapping has 1.
        allow_missing: Accept excluded names that no folder has; they are then in ``not_found``.

    Attributes:
        labels: (n,) int64.
        identities: The name of each label.
        image_size: (height, width) of the first readable image; :meth:`read` refuses others.
        skipped: Files and folders that are not part of the set, with the reason: hidden, not an image, no
            identity folder around it, no image in it.
        excluded: Names of the identities that ``exclude`` took out.
        too_few: Names of the identities that ``min_images`` took out.
        not_found: Excluded names that no folder has.

    Raises:
        ConfigError: Roots that contain each other, an unknown root in ``exclude``, ``min_images`` below 1.
        DataError: A root or list is missing, fewer than two identities are left, an excluded name is in no
            root or, for a list that is meant for all roots, in several.
    """

    def __init__(
        self,
        roots: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]],
        exclude: Paths | Mapping[str, Paths] | None = None,
        *,
        min_images: int | Mapping[str, int] = 1,
        allow_missing: bool = False,
    ) -> None:
        self._roots = _named(roots)
        least = _least(self._roots, min_images)
        self.skipped: list[Skipped] = []
        self._renamed: list[dict[str, str]] = []
        found = {root.name: self._scan(root) for root in self._roots}
        self.skipped.sort()
        removed, self.not_found = _exclusions(self._roots, found, exclude, allow_missing)

        # To build a Path for each reading takes longer than to open the file.
        self._prefixes = [str(root.path / "x")[:-1] for root in self._roots]
        joined = len(self._roots) > 1
        self.identities: list[str] = []
        self.excluded: list[str] = []
        self.too_few: list[str] = []
        self._files: list[tuple[int, str]] = []  # (root, path inside it with forward slashes)
        labels: list[int] = []
        for r, root in enumerate(self._roots):
            for identity, files in found[root.name].items():
                name = f"{root.name}/{identity}" if joined else identity
                if identity in removed[root.name]:
                    self.excluded.append(name)
                elif not files:
                    continue  # an empty folder is nobody; it is in `skipped`
                elif len(files) < least[root.name]:
                    self.too_few.append(name)
                else:
                    labels += [len(self.identities)] * len(files)
                    self.identities.append(name)
                    self._files += [(r, file) for file in files]
        self.labels: NDArray[np.int64] = np.array(labels, dtype=np.int64)
        self._require_two()
        whole = ", ".join(root.given for root in self._roots)
        self.image_size, self._like = first_size(len(self), lambda i: decode(self.name(i)), self.name, whole)

    def __len__(self) -> int:
        return len(self._files)

    def name(self, i: int) -> str:
        """The path of image ``i``."""
        r, file = self._files[i]
        return self._prefixes[r] + (file if os.sep == "/" else file.replace("/", os.sep))

    def inside(self, i: int) -> str:
        """The path of image ``i`` in its identity's folder, with forward slashes."""
        return self._files[i][1].partition("/")[2]

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read.
            SizeError: It is not of the size of the set's first image.
        """
        path = self.name(i)
        return decode_sized(file_content(path, path), self.image_size, lambda: path, self._like)

    def read_into(self, i: int, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Image ``i`` in ``out`` (h, w, 3), which is returned. Raises as :meth:`read`."""
        path = self.name(i)
        return decode_sized(file_content(path, path), self.image_size, lambda: path, self._like, out)

    def sources(self) -> Iterable[str]:
        """The files that the images come from."""
        return map(self.name, range(len(self)))

    def digest(self) -> str:
        """From paths inside the roots, labels and file sizes, not from where the roots lie.

        Asks the file system for the size of every file.
        """
        joined = len(self._roots) > 1
        names = (f"{self._roots[r].name}/{file}" if joined else file for r, file in self._files)
        listed = set_digest(names, self.labels, map(file_size, map(self.name, range(len(self)))))
        if not self._renamed:
            return listed
        return hashlib.sha256(json.dumps([listed, self._renamed]).encode()).hexdigest()

    def summary(self) -> str:
        """One line for logs: what is in, and how much was left out for which reason."""
        parts = [f"{len(self.identities):,} identities, {len(self):,} images"]
        for what, names in (
            ("excluded by list", self.excluded),
            ("identities with too few images", self.too_few),
            ("excluded names not found", self.not_found),
            ("files and folders skipped", self.skipped),
        ):
            if names:
                parts.append(f"{len(names):,} {what}")
        return "; ".join(parts)

    def _scan(self, root: _Root) -> dict[str, list[str]]:
        """Identity -> its images, both sorted by name."""
        if not root.path.is_dir():
            state = "is not a folder" if root.path.exists() else "does not exist"
            raise DataError(
                f"The image root {root.given} {state}. Expected <root>/<identity>/<image>, one folder per identity."
            )
        found: dict[str, list[str]] = {}
        names_file = root.path / NAMES_FILE
        names = read_folder_names(names_file)
        if names:
            self._renamed.append(dict(names))
        for entry in _entries(root.path):
            if entry.name == NAMES_FILE:
                continue
            if entry.name.startswith("."):
                self.skipped.append(Skipped(entry.path, "hidden"))
            elif not entry.is_dir():
                image = Path(entry.name).suffix.lower() in SUFFIXES
                reason = "not in an identity's folder" if image else "not an image"
                self.skipped.append(Skipped(entry.path, reason))
            else:
                files = self._images(Path(entry.path), entry.name, ())
                name = names.pop(entry.name, entry.name)
                if name in found:
                    raise DataError(f"{names_file}: two folders are called {name!r}. Correct or remove the file.")
                # Across subfolders, too, the order is that of the whole path.
                found[name] = sorted(files)
                if not files:
                    self.skipped.append(Skipped(entry.path, "no image in this folder"))
        if names:
            raise DataError(
                f"{names_file} names the folder {next(iter(names))!r}, which is not there. Correct or remove the file."
            )
        return found

    def _images(self, folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> list[str]:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise DataError(f"{folder} is a link to a folder around it. Remove the link.")
        files: list[str] = []
        for entry in _entries(folder):
            inside = f"{prefix}/{entry.name}"
            if entry.name.startswith("."):
                self.skipped.append(Skipped(entry.path, "hidden"))
            elif entry.is_dir():
                files += self._images(Path(entry.path), inside, (*above, here))
            elif Path(entry.name).suffix.lower() in SUFFIXES:
                files.append(inside)
            else:
                self.skipped.append(Skipped(entry.path, "not an image"))
        return files

    def _require_two(self) -> None:
        if len(self.identities) >= 2:
            return
        where = ", ".join(root.given for root in self._roots)
        loose = sum(s.reason == "not in an identity's folder" for s in self.skipped)
        hints = [
            f"{len(self.excluded)} left out by the exclude list" if self.excluded else "",
            f"{len(self.too_few)} with fewer images than min_images asks for" if self.too_few else "",
            f"{loose} images lie in the root itself, without an identity's folder" if loose else "",
            f"do you mean {deeper}?" if (deeper := self._only_folder()) else "",
        ]
        because = "; ".join(h for h in hints if h)
        raise DataError(
            f"{where} has {len(self.identities)} identities with images{f' ({because})' if because else ''}, "
            "but a set needs two or more. Expected <root>/<identity>/<image>, one folder per identity."
        )

    def _only_folder(self) -> str | None:
        """The folder deeper down that holds several folders with images, if all images are in it."""
        paths = [Path(file) for _, file in self._files] if len(self._roots) == 1 else []
        common = Path(os.path.commonpath(paths)) if len(paths) > 1 else Path()
        several = len({path.relative_to(common).parts[0] for path in paths if path.parent != common}) > 1
        return str(Path(self._roots[0].given) / common) if several and common.parts else None


def _named(
    roots: str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, str | PathLike[str]],
) -> list[_Root]:
    """The roots with a name each, after a check that none lies in another."""
    if isinstance(roots, Mapping):
        named = [_Root(name, Path(path), str(path)) for name, path in roots.items()]
    else:
        listed = [roots] if isinstance(roots, str | PathLike) else list(roots)
        ends = _shortest_ends([Path(path).resolve() for path in listed])
        named = [_Root(name, Path(path), str(path)) for name, path in zip(ends, listed, strict=True)]
    if not named:
        raise ConfigError("FolderSet.roots is empty; give one folder or more.")
    for a in named:
        for b in named:
            if a is not b and b.path.resolve().is_relative_to(a.path.resolve()):
                raise ConfigError(
                    f"FolderSet.roots: {b.given} lies in {a.given}, so its images would belong to two "
                    "identities. Give folders that do not contain each other."
                )
    return named


def _shortest_ends(paths: list[Path]) -> list[str]:
    """The last parts of each path, as few as tell it from the others."""
    names = []
    for path in paths:
        others = [other.parts for other in paths if other != path]
        length = 1
        while length < len(path.parts) and any(o[-length:] == path.parts[-length:] for o in others):
            length += 1
        names.append("/".join(path.parts[-length:]))
    return names


def _root_called(key: str, roots: list[_Root], setting: str) -> str:
    for root in roots:
        if key in (root.name, root.given):
            return root.name
    raise ConfigError(f"FolderSet.{setting}: no root is called {key!r}.{did_you_mean(key, [r.name for r in roots])}")


def _least(roots: list[_Root], min_images: int | Mapping[str, int]) -> dict[str, int]:
    """For each root how many images an identity needs."""
    if isinstance(min_images, Mapping):
        least = {root.name: 1 for root in roots}
        least.update({_root_called(key, roots, "min_images"): value for key, value in min_images.items()})
    else:
        least = {root.name: min_images for root in roots}
    if min(least.values()) < 1:
        raise ConfigError(f"FolderSet.min_images must be >= 1, got {min_images}.")
    return least


def _exclusions(
    roots: list[_Root],
    found: Mapping[str, Mapping[str, list[str]]],
    exclude: Paths | Mapping[str, Paths] | None,
    allow_missing: bool,
) -> tuple[dict[str, set[str]], list[str]]:
    """For each root the identities to leave out, and the names that were found nowhere."""
    removed: dict[str, set[str]] = {root.name: set() for root in roots}
    not_found: list[str] = []
    for key, lists in exclude.items() if isinstance(exclude, Mapping) else [(None, exclude)]:
        scope = list(removed) if key is None else [_root_called(key, roots, "exclude")]
        for source in [lists] if isinstance(lists, str | PathLike) else lists or []:
            for name in read_identity_list(source):
                owners = [root for root in scope if name in found[root]]
                if len(owners) > 1:
                    raise DataError(
                        f"{source}: {name!r} is an identity in {' and in '.join(owners)}. Say which is "
                        "meant: make FolderSet.exclude a mapping from root to list."
                    )
                if owners:
                    removed[owners[0]].add(name)
                elif allow_missing:
                    not_found.append(name)
                else:
                    raise DataError(
                        f"{source}: no identity is called {name!r} in {', '.join(scope)}. Correct the list, "
                        "or set allow_missing to accept names that are not there."
                    )
    return removed, not_found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be listed: {error.strerror or error}.") from error


def file_size(path: str) -> int:
    """Bytes of a file, for digests; -1 if it is missing."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return -1  # a missing file makes another digest, and an error only when it is read
