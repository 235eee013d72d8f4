"""Image sets that a text file lists: lines of path and identity, or a table with commas."""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unpg.data.csv_file import csv_rows
from unpg.data.decode import decode, decode_sized, file_content, first_size
from unpg.data.folder import file_size
from unpg.data.image_set import set_digest
from unpg.errors import DataError, did_you_mean

__all__ = ["ListedSet", "csv_set", "list_set"]

AnyPath = str | PathLike[str]


class ListedSet:
    """Image files with an identity each, in the order given.

    Args:
        source: What to call the list in messages.
        root: What the files' paths are relative to.
        files: (n,) their paths.
        people: (n,) who each shows. Labels are given in order of first appearance.

    Raises:
        DataError: No file, or the first cannot be read.
    """

    def __init__(self, source: str, root: Path, files: Sequence[str], people: Sequence[str]) -> None:
        if not files:
            raise DataError(f"{source} lists no image.")
        number: dict[str, int] = {}
        self.labels: NDArray[np.int64] = np.array([number.setdefault(p, len(number)) for p in people], dtype=np.int64)
        self.identities = list(number)
        self._root, self._files = root, list(files)
        self.image_size, self._like = first_size(len(self), lambda i: decode(self.path(i)), self.path, source)

    def __len__(self) -> int:
        return len(self._files)

    def path(self, i: int) -> str:
        """The file of image ``i``."""
        return str(self._root / self._files[i])

    def name(self, i: int) -> str:
        """The path of image ``i``."""
        return self.path(i)

    def own_path(self, i: int) -> str:
        """The path of image ``i`` as it is listed."""
        return self._files[i]

    def content(self, i: int) -> bytes:
        """Its file, untouched.

        Raises:
            DataError: It cannot be read.
        """
        try:
            return Path(self.path(i)).read_bytes()
        except (OSError, ValueError) as error:  # a name from a list need be no path at all
            raise DataError(f"{self.path(i)} cannot be read: {error}.") from error

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read.
            SizeError: It is not of the size of the set's first readable image.
        """
        path = self.name(i)
        return decode_sized(file_content(path, path), self.image_size, lambda: path, self._like)

    def sources(self) -> Iterable[str]:
        """The files that the images come from."""
        return map(self.path, range(len(self)))

    def digest(self) -> str:
        """From the paths as listed, identities and file sizes."""
        listed = (f"{file}\0{self.identities[label]}" for file, label in zip(self._files, self.labels, strict=True))
        return set_digest(listed, self.labels, (file_size(self.path(i)) for i in range(len(self))))


def list_set(file: AnyPath, root: AnyPath | None = None) -> ListedSet:
    """Lines ``<path> <tab> <identity>``, or without tabs ``<path> <identity>``, where the last space divides.

    Args:
        file: The list, UTF-8. Blank lines and lines that start with ``#`` are comments.
        root: What relative paths are relative to; the folder of ``file`` if not given.

    Raises:
        DataError: A line does not read like that (with its number), a path is given twice, or nothing is listed.
    """
    rows = []
    # Names may hold what Python takes for line ends beside \n.
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.split("\t") if "\t" in line else line.strip().rsplit(" ", 1)
        if len(cells) != 2 or not all(cell.strip() for cell in cells):
            raise DataError(f"{file}, line {number}: expected '<path> <tab> <identity>', got {line[:200]!r}.")
        rows.append((number, cells[0].strip(), cells[1].strip()))
    return _listed(file, root, rows)


def csv_set(
    file: AnyPath, root: AnyPath | None = None, *, path_column: str = "path", identity_column: str = "identity"
) -> ListedSet:
    """A table with commas whose first line names the columns.

    Args:
        file: The table, UTF-8.
        root: What relative paths are relative to; the folder of ``file`` if not given.
        path_column: The column of the images' paths.
        identity_column: The column of who they show.

    Raises:
        DataError: No such column, a line that does not read as CSV, or with another number of cells or an empty one
            (with its number), a path is given twice, or nothing is listed.
    """
    table = csv_rows(file)
    _, header = next(table, (1, []))
    for column in (path_column, identity_column):
        if column not in header:
            raise DataError(
                f"{file}, line 1: no column is called {column!r}.{did_you_mean(column, header)} Columns are separated "
                f"by commas; path_column and identity_column, in a recipe or a .yaml file in place of this one, name "
                f"others."
            )
    at = header.index(path_column), header.index(identity_column)
    rows = []
    for number, cells in table:
        if len(cells) != len(header) or not all(cells[i].strip() for i in at):
            raise DataError(
                f"{file}, line {number}: expected {len(header)} cells with a path and an identity, got {cells}."
            )
        rows.append((number, cells[at[0]], cells[at[1]]))
    return _listed(file, root, rows)


def _listed(file: AnyPath, root: AnyPath | None, rows: list[tuple[int, str, str]]) -> ListedSet:
    seen: dict[str, int] = {}
    for number, path, _ in rows:
        if path in seen:
            raise DataError(f"{file}, line {number}: {path} is in line {seen[path]} already. Remove one of the two.")
        seen[path] = number
    base = Path(root) if root is not None else Path(file).parent
    return ListedSet(str(file), base, [path for _, path, _ in rows], [who for _, _, who in rows])


def _text(file: AnyPath) -> str:
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            return opened.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list {file} cannot be read: {error}.") from error
