"""The truth of a set on disk whose labels are wrong on purpose, as ``unpg data synth`` writes it."""

from os import PathLike
from pathlib import Path

import numpy as np

from unpg.data.csv_file import csv_rows
from unpg.data.image_set import ImageSet
from unpg.data.label_noise import Truth
from unpg.errors import DataError

__all__ = ["read_truth"]


def read_truth(file: str | PathLike[str], image_set: ImageSet) -> Truth:
    """Whom the images of a set show, from ``truth.csv``, and whose near-twins they are, from ``identities.csv`` beside.

    Args:
        file: A table ``path,identity,shows``; a path begins with the folder of the identity. It may have more images
            than the set.
        image_set: Images in folders of identities.

    Raises:
        DataError: The table does not read like that (with the line), lacks an image of the set, or has it under
            another identity.
    """
    shown: dict[str, tuple[str, str]] = {}
    for path, identity, shows in _rows(Path(file), ("path", "identity", "shows")):
        shown[path] = (identity, shows)
    beside = Path(file).with_name("identities.csv")
    rows = _rows(beside, ("identity", "twin_of")) if beside.is_file() else []
    twins = {identity: model for identity, model in rows}  # noqa: C416  (so that the types are pairs)
    names = list(image_set.identities)
    number = {name: k for k, name in enumerate(names)}
    labels, twin_of = [], []
    for i, label in enumerate(image_set.labels.tolist()):
        whole = image_set.name(i).replace("\\", "/")
        before, found, inside = whole.rpartition(f"{names[label]}/")
        path = f"{names[label]}/{inside}"
        if not found or (before and not before.endswith("/")) or path not in shown:
            raise DataError(f"{file} has no line for {whole}. Give the truth.csv of this set.")
        identity, shows = shown[path]
        if identity != names[label]:
            raise DataError(f"{file}: {path} is of {identity!r} there, and of {names[label]!r} in the set.")
        labels.append(number.setdefault(shows, len(number)))
        model = twins.get(shows, "")
        twin_of.append(number.setdefault(model, len(number)) if model else -1)
    return Truth(np.array(labels, dtype=np.int64), np.array(twin_of, dtype=np.int64))


def _rows(file: Path, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    rows = csv_rows(file)
    _, header = next(rows, (1, []))
    lacking = [column for column in columns if column not in header]
    if lacking:
        raise DataError(f"{file}, line 1: expected the columns {', '.join(columns)}; {', '.join(lacking)} is missing.")
    found = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(f"{file}, line {line}: expected {len(header)} values, got {len(cells)}.")
        found.append(tuple(cells[header.index(column)] for column in columns))
    return found
