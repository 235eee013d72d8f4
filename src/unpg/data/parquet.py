"""Parquet files of labeled images: the image files themselves, or their paths. Needs the extra ``interop``."""

import hashlib
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.data.decode import decode, decode_sized, first_size
from unpg.data.image_set import set_digest
from unpg.data.listed import ListedSet
from unpg.errors import ConfigError, DataError, did_you_mean

__all__ = ["ParquetSet"]


class ParquetSet:
    """Rows of a Parquet file, in order. Images lie in memory as files: convert large sets to RecordIO.

    Args:
        path: The file, or a folder of parts, which are read by name.
        root: What relative paths are relative to; the folder of ``path`` if not given.
        image_column: Bytes of image files, texts that are paths, or a structure with the fields ``bytes`` and, if
            the images have names, ``path``.
        identity_column: Who each shows: text or whole numbers. Labels are given in order of first appearance.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: The file is broken, lacks a column, has an empty cell (with its row, from 0), or no rows.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        root: str | PathLike[str] | None = None,
        *,
        image_column: str = "image",
        identity_column: str = "identity",
    ) -> None:
        self.path = str(path)
        images: list[Any] = []
        people: list[str] = []
        self._names: list[str] = []
        for part in _parts(Path(path)):
            found = _columns(str(part), image_column, identity_column)
            images += found[0]
            people += found[1]
            self._names += found[2]
        if not isinstance(images[0], str | bytes) or not all(isinstance(image, type(images[0])) for image in images):
            raise DataError(f"{self.path}: some parts hold image files and others paths. Open them one by one.")
        number: dict[str, int] = {}
        self.labels: NDArray[np.int64] = np.array([number.setdefault(p, len(number)) for p in people], dtype=np.int64)
        self.identities = list(number)
        self._contents: list[bytes] = []
        self._listed: ListedSet | None = None
        if isinstance(images[0], str):
            beside = Path(path) if Path(path).is_dir() else Path(path).parent
            base = Path(root) if root is not None else beside
            self._listed = ListedSet(self.path, base, images, people)
            self.image_size = self._listed.image_size
        else:
            self._contents = images
            self.image_size, self._like = first_size(len(self), self._decoded, self.name, self.path)

    def __len__(self) -> int:
        return len(self.labels)

    def content(self, i: int) -> bytes:
        """The image file of row ``i``, untouched."""
        return self._listed.content(i) if self._listed else self._contents[i]

    def read(self, i: int) -> NDArray[np.uint8]:
        """The image of row ``i``, (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read.
            SizeError: It is not of the size of the set's first readable image.
        """
        if self._listed:
            return self._listed.read(i)
        return decode_sized(self._contents[i], self.image_size, lambda: self.name(i), self._like)

    def name(self, i: int) -> str:
        """Its path, or ``<file>#<name of the image, or row>``."""
        return self._listed.name(i) if self._listed else f"{self.path}#{self._names[i] or i}"

    def own_path(self, i: int) -> str | None:
        """The path of the image of row ``i`` as it stands there, if it does."""
        return self._listed.own_path(i) if self._listed else self._names[i] or None

    def sources(self) -> Iterable[str]:
        """The files that the images come from."""
        return self._listed.sources() if self._listed else []

    def digest(self) -> str:
        """From identities, and paths and file sizes or the image files."""
        if self._listed:
            return self._listed.digest()
        names = (f"{hashlib.sha256(c).hexdigest()}\0{self.identities[label]}" for c, label in self._pairs())
        return set_digest(names, self.labels, map(len, self._contents))

    def _decoded(self, i: int) -> NDArray[np.uint8]:
        return decode(self._contents[i], name=self.name(i))

    def _pairs(self) -> Any:
        return zip(self._contents, self.labels.tolist(), strict=True)


def _parts(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.parquet"))
    if not found:
        raise DataError(f"{path} has no .parquet files.")
    return found


def _columns(path: str, image_column: str, identity_column: str) -> tuple[list[Any], list[str], list[str]]:
    """Images, identities, and names of the images, of which some may be empty."""
    try:
        from pyarrow import ArrowException  # type: ignore[import-untyped]  # an extra: a plain install has none
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow: pip install 'unpg[interop]'.") from error
    try:
        with ParquetFile(path) as file:
            known = file.schema_arrow.names
            for column in (image_column, identity_column):
                if column not in known:
                    raise DataError(f"{path}: no column is called {column!r}.{did_you_mean(column, known)}")
            table = file.read(columns=[image_column, identity_column])
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}.") from error
    cells = table[image_column].to_pylist()
    images = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
    names = [cell.get("path") if isinstance(cell, dict) else None for cell in cells]
    people = table[identity_column].to_pylist()
    if not images:
        raise DataError(f"{path} has no rows.")
    for row, (image, who) in enumerate(zip(images, people, strict=True)):
        # An image file of 0 bytes is one that cannot be read, as in other forms; a path of none is no path.
        if not isinstance(image, type(images[0])) or not isinstance(image, bytes | str) or image == "":
            raise DataError(
                f"{path}, row {row}: expected an image file or a path in {image_column!r}, got {image!r:.80}."
            )
        if not isinstance(who, str | int) or who == "":
            raise DataError(f"{path}, row {row}: expected a name or number in {identity_column!r}, got {who!r:.80}.")
    return images, [str(who) for who in people], [name if isinstance(name, str) else "" for name in names]
