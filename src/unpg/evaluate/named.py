"""Benchmarks by name, and one's own pairs or identities by path.

A new benchmark is one function ``(data root) -> Benchmark`` under ``@BENCHMARKS.register("name")``.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from unpg.data.bins import BinPairs
from unpg.data.folder import FolderSet
from unpg.data.kface import kface_pairs
from unpg.data.pairs import PairImages, PairList, cfp_pairs, csv_pairs, lfw_pairs
from unpg.errors import DataError, did_you_mean
from unpg.evaluate.benchmark import AllPairsBenchmark, Benchmark, PairBenchmark, data_root
from unpg.evaluate.layouts import require
from unpg.registry import Registry

__all__ = ["BENCHMARKS", "open_benchmark", "pair_benchmark"]

BENCHMARKS: Registry[Callable[[Path], Benchmark]] = Registry("benchmark")


def open_benchmark(name: str, root: str | os.PathLike[str] | None = None) -> Benchmark:
    """A benchmark by its name, or from one's own data.

    Args:
        name: A name of :data:`BENCHMARKS`; or the path of a CSV of pairs (``path_a,path_b,same[,fold]``, see
            :func:`unpg.data.pairs.csv_pairs`); or of a ``.bin`` file of pairs (see
            :class:`unpg.data.bins.BinPairs`); or the path of a folder with one folder per identity, of which all
            pairs are judged.
        root: The data root for named benchmarks; see :func:`~unpg.evaluate.benchmark.data_root`.

    Raises:
        DataError: There is no such name, file or folder, or its data are missing; the message shows the layout that
            is expected.
    """
    if name in BENCHMARKS:
        builder: Callable[[Path], Benchmark] = BENCHMARKS[name]
        return builder(data_root(root))
    path = Path(name)
    if path.is_dir():
        return AllPairsBenchmark(name, FolderSet(path))
    if path.is_file() and path.suffix == ".bin":
        bins = BinPairs(path)
        folds = bins.folds if len(np.unique(bins.folds)) > 1 else None
        return PairBenchmark(name, bins.images, bins.pairs, bins.same, folds)
    if path.is_file():
        return pair_benchmark(name, csv_pairs(path))
    raise DataError(
        f"The benchmark {name!r} is no name, no CSV of pairs (header path_a,path_b,same[,fold]), no .bin file, and no "
        f"folder with one folder of images per identity.{did_you_mean(name, BENCHMARKS)}"
    )


def pair_benchmark(name: str, listed: PairList) -> PairBenchmark:
    """The benchmark of a pair list. A list with a single fold has no accuracy over folds."""
    folds = listed.folds if len(np.unique(listed.folds)) > 1 else None
    images = PairImages(listed)
    # With one name missing, two images might show one person unknown to us: then nobody is known.
    identities = None if None in listed.identities else images.labels
    return PairBenchmark(name, images, listed.pairs, listed.same, folds, len(listed.left_out), identities=identities)


@BENCHMARKS.register("lfw")
def _lfw(root: Path) -> Benchmark:
    """LFW View 2: 6,000 pairs in ten folds (Huang et al. 2007)."""
    require(root, "lfw", "lfw", "lfw/pairs.txt", "lfw/images")
    return pair_benchmark("lfw", lfw_pairs(root / "lfw/pairs.txt", root / "lfw/images"))


@BENCHMARKS.register("lfw-allpairs")
def _lfw_all(root: Path) -> Benchmark:
    """All pairs of all of LFW."""
    require(root, "lfw-allpairs", "lfw", "lfw/images")
    return AllPairsBenchmark("lfw-allpairs", FolderSet(root / "lfw/images"))


@BENCHMARKS.register("cfp-ff")
def _cfp_frontal(root: Path) -> Benchmark:
    """CFP, frontal against frontal: 7,000 pairs in ten folds (Sengupta et al. 2016)."""
    return _cfp(root, "FF")


@BENCHMARKS.register("cfp-fp")
def _cfp_profile(root: Path) -> Benchmark:
    """CFP, frontal against profile: 7,000 pairs in ten folds (Sengupta et al. 2016)."""
    return _cfp(root, "FP")


@BENCHMARKS.register("cfp-allpairs")
def _cfp_all(root: Path) -> Benchmark:
    """All pairs of all of CFP, both poses."""
    require(root, "cfp-allpairs", "cfp", "cfp/images")
    return AllPairsBenchmark("cfp-allpairs", FolderSet(root / "cfp/images"))


@BENCHMARKS.register("kface-q1")
def _kface_q1(root: Path) -> Benchmark:
    """K-FACE Q1: 1,000 pairs, cameras 4 to 10 (arXiv 2111.01717)."""
    return _kface(root, "Q1")


@BENCHMARKS.register("kface-q2")
def _kface_q2(root: Path) -> Benchmark:
    """K-FACE Q2: 100,000 pairs, accessories and nine lights too."""
    return _kface(root, "Q2")


@BENCHMARKS.register("kface-q3")
def _kface_q3(root: Path) -> Benchmark:
    """K-FACE Q3: 100,000 pairs, expressions too, 17 lights, cameras 1 to 13."""
    return _kface(root, "Q3")


@BENCHMARKS.register("kface-q4")
def _kface_q4(root: Path) -> Benchmark:
    """K-FACE Q4: 100,000 pairs, every attribute but light 7."""
    return _kface(root, "Q4")


def _kface(root: Path, list_name: str) -> Benchmark:
    name = f"kface-{list_name.lower()}"
    require(root, name, "kface", f"kface/kface.{list_name}.txt", "kface/images")
    return pair_benchmark(name, kface_pairs(root / f"kface/kface.{list_name}.txt", root / "kface/images"))


def _cfp(root: Path, kind: Literal["FF", "FP"]) -> Benchmark:
    name = f"cfp-{kind.lower()}"
    require(root, name, "cfp", "cfp/images", "cfp/protocol/Pair_list_F.txt", "cfp/protocol/Pair_list_P.txt")
    return pair_benchmark(name, cfp_pairs(root / "cfp/protocol", kind, root / "cfp/images"))
