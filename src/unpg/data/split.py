"""Two lists of images from a set, with no identity in both."""

import os
import secrets
from os import PathLike
from pathlib import Path

from unpg.data.image_set import ImageSet
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
        DataError: Too few identities for two sides, images without a file of their own, or another split is there.
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
            if any(c in f"{file}{who}" for c in "\t\n\r"):
                raise DataError(f"{file}: a tab or line break in a name cannot stand in a list. Rename it.")
            lines.append(f"{file.resolve()}\t{who}\n")
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
