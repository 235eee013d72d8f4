"""Two lists of images from a set, with no identity in both."""

import os
import secrets
from os import PathLike
from pathlib import Path

from unpg.data.image_set import ImageSet
from unpg.data.names_file import is_utf8
from unpg.data.subset import split_identities
from unpg.errors import DataError

__all__ = ["split_to_lists"]


def split_to_lists(
    image_set: ImageSet, out: str | PathLike[str], *, fraction: float, seed: int
) -> tuple[tuple[Path, int], tuple[Path, int]]:
    """Write ``<out>/rest.txt`` and ``<out>/held_out.txt``, lines ``<path> <tab> <identity>``.

    Args:
        image_set: A set of files: a folder, a list, a table.
        out: Folder for the two lists.
        fraction: Share of the identities to hold out, in (0, 1).
        seed: Which ones.

    Returns:
        Both lists with their number of identities.

    Raises:
        ConfigError: ``fraction`` out of range.
        DataError: Too few identities for two sides, images without a file of their own, a name that a list cannot hold,
            or another split is there.
    """
    sides = split_identities(image_set, fraction, seed)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {}
    for side, name in zip(sides, ("rest.txt", "held_out.txt"), strict=True):
        lines = []
        for i, label in enumerate(side.labels.tolist()):
            file, who = Path(side.name(i)), side.identities[label]
            if not file.is_file():
                raise DataError(f"{file} is no file of its own, so a list cannot name it. Convert the set to a folder.")
            # Not resolved: two links to one file are two images.
            place = str(file.absolute())
            if not _can_be_listed(place) or not _can_be_listed(who):
                raise DataError(
                    f"{place} of {who!r}: a tab or line break, a space at an end, or what is no UTF-8 cannot stand in "
                    "a list. Rename it."
                )
            lines.append(f"{place}\t{who}\n")
        texts[folder / name] = "".join(lines)
    for path, text in texts.items():
        if path.exists() and path.read_bytes() != text.encode():
            raise DataError(f"{path} is there already, and of another split. Delete it, or write to another folder.")
    for path, text in texts.items():
        temporary = folder / f".{path.name}.{secrets.token_hex(4)}"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    first, second = texts
    return (first, len(sides[0].identities)), (second, len(sides[1].identities))


def _can_be_listed(cell: str) -> bool:
    """Whether :func:`~unpg.data.listed.list_set` reads it as it is."""
    return cell == cell.strip() and not set(cell) & set("\t\n\r") and is_utf8(cell)
