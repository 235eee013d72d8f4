"""A ``.bin`` file, the field's form of a verification set, from a list of pairs."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path

import numpy as np

from unpg.data.bins import write_bin
from unpg.data.pairs import PairList, even_folds
from unpg.errors import ConfigError, DataError

__all__ = ["convert_pairs"]


def convert_pairs(
    pair_list: PairList, out: str | PathLike[str], progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Write the pairs in the order of their folds, image files byte for byte; the file appears when it is whole.

    Args:
        pair_list: The pairs.
        out: The file, ending in ``.bin``, which does not exist yet.
        progress: Called with (files read, all).

    Returns:
        What a ``.bin`` file cannot hold of the list, in sentences.

    Raises:
        ConfigError: ``out`` exists or ends otherwise.
        DataError: A file cannot be read.
    """
    out = Path(out)
    if out.suffix != ".bin":
        raise ConfigError(f"A verification set in a pickle ends in .bin, got {out}.")
    if out.exists():
        raise ConfigError(f"{out} exists. Remove it, or name another file.")
    contents = []
    for done, file in enumerate(pair_list.files, start=1):
        try:
            contents.append(Path(file).read_bytes())
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
        if progress:
            progress(done, len(pair_list.files))
    order = np.argsort(pair_list.folds, kind="stable")
    write_bin(out, [contents[i] for i in pair_list.pairs[order].reshape(-1)], pair_list.same[order].tolist())
    notes = []
    if pair_list.left_out:
        notes.append(f"{len(pair_list.left_out):,} pairs are left out, since a file of theirs is missing.")
    if len(np.unique(pair_list.folds)) > 1 and not np.array_equal(pair_list.folds[order], even_folds(len(order))):
        notes.append("A .bin file has no folds: it is read as ten runs of equal length, and these folds are others.")
    if any(who is not None for who in pair_list.identities):
        notes.append("A .bin file has no identities: each of its images counts as a person.")
    return notes
