"""A benchmark from what a user names: a registered name, or the path of one's own data."""

import dataclasses
import os
from pathlib import Path

from unpg.data.folder import FolderSet
from unpg.data.pairs import csv_pairs
from unpg.errors import DataError, did_you_mean
from unpg.evaluate.benchmark import AllPairsBenchmark, Benchmark, data_root
from unpg.evaluate.named_groups import grouped_folder, grouped_pairs
from unpg.evaluate.named_pairs import bin_benchmark, pair_benchmark
from unpg.evaluate.registry import BENCHMARKS
from unpg.evaluate.search_benchmark import closed_set

__all__ = ["FOLDER_PROTOCOLS", "OWN_DATA", "open_benchmark"]

FOLDER_PROTOCOLS = ("closed-set", "groups")
"""What may follow the path of a folder after a colon; without it all pairs are judged."""

OWN_DATA = (
    "a CSV of pairs (path_a,path_b,same[,fold][,identity_a,identity_b][,group]), a .bin file of pairs, a folder of "
    "identities (all pairs; <folder>:closed-set for rank-k), a folder of groups of identities (<folder>:groups), or "
    "another data root with a name (<folder>:lfw)"
)
"""What may be given instead of a name, in words."""


def open_benchmark(name: str, root: str | os.PathLike[str] | None = None) -> Benchmark:
    """A benchmark by its name, or from one's own data.

    Args:
        name: A name of :data:`BENCHMARKS`; or the path of a CSV of pairs (see :func:`unpg.data.pairs.csv_pairs`), by
            groups if it has a column ``group``; or of a ``.bin`` file of pairs (see
            :class:`unpg.data.bins.BinPairs`); or of a folder with one folder per identity, of which all pairs are
            judged, or with ``:closed-set`` after it searches (:func:`~unpg.evaluate.search_benchmark.closed_set`); or
            with ``:groups`` after it a folder of groups of identities; or of another data root with ``:<name>``.
        root: The data root for named benchmarks; see :func:`~unpg.evaluate.benchmark.data_root`.

    Raises:
        DataError: There is no such name, file or folder, or its data are missing; the message shows the layout that
            is expected.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name](data_root(root))
    folder, _, protocol = name.rpartition(":")
    if folder and protocol in BENCHMARKS and Path(folder).is_dir():
        return dataclasses.replace(BENCHMARKS[protocol](Path(folder)), name=name)  # type: ignore[type-var]  # all are
    if folder and protocol in FOLDER_PROTOCOLS and Path(folder).is_dir():
        if protocol == "groups":
            return grouped_folder(name, Path(folder))
        return closed_set(name, FolderSet(folder))
    path = Path(name)
    if path.is_dir():
        return AllPairsBenchmark(name, FolderSet(path))
    if path.is_file() and path.suffix == ".bin":
        return bin_benchmark(name, path)
    if path.is_file():
        listed = csv_pairs(path)
        return pair_benchmark(name, listed) if listed.groups is None else grouped_pairs(name, listed)
    raise DataError(f"The benchmark {name!r} is no name, and not {OWN_DATA}.{did_you_mean(name, BENCHMARKS)}")
