"""Verification sets by name: a list of pairs with images, or one ``.bin`` file of both."""

from pathlib import Path
from typing import Literal

import numpy as np

from unpg.data.bins import BinPairs
from unpg.data.folder import FolderSet
from unpg.data.kface import kface_pairs
from unpg.data.pairs import PairImages, PairList, cfp_pairs, csv_pairs, flat_pairs, lfw_pairs
from unpg.data.yaleb import YaleBSet
from unpg.evaluate.benchmark import AllPairsBenchmark, Benchmark, PairBenchmark
from unpg.evaluate.layouts import missing_set, require
from unpg.evaluate.registry import BENCHMARKS
from unpg.evaluate.search_benchmark import closed_set

__all__ = ["bin_benchmark", "pair_benchmark"]


def pair_benchmark(name: str, listed: PairList) -> PairBenchmark:
    """The benchmark of a pair list. A list with a single fold has no accuracy over folds."""
    folds = listed.folds if len(np.unique(listed.folds)) > 1 else None
    images = PairImages(listed)
    # With one name missing, two images might show one person unknown to us: then nobody is known.
    identities = None if None in listed.identities else images.labels
    return PairBenchmark(name, images, listed.pairs, listed.same, folds, len(listed.left_out), identities=identities)


def bin_benchmark(name: str, file: Path) -> PairBenchmark:
    """The benchmark of a ``.bin`` file of pairs. Nobody says who is on its images."""
    bins = BinPairs(file)
    folds = bins.folds if len(np.unique(bins.folds)) > 1 else None
    return PairBenchmark(name, bins.images, bins.pairs, bins.same, folds)


def _listed_or_bin(
    root: Path, name: str, set_name: str, listed: tuple[str, ...], bin_name: str
) -> PairBenchmark | None:
    """The benchmark of the ``.bin`` file, or None if the list and its images are there, which say more.

    Raises:
        DataError: Neither is there.
    """
    if all((root / part).exists() for part in listed):
        return None
    if (root / bin_name).is_file():
        return bin_benchmark(name, root / bin_name)
    gone = ", ".join(part for part in listed if not (root / part).exists())
    raise missing_set(root, name, set_name, f"{bin_name}, or {gone}")


@BENCHMARKS.register("lfw")
def _lfw(root: Path) -> Benchmark:
    """LFW View 2: 6,000 pairs in ten folds (Huang et al. 2007)."""
    packed = _listed_or_bin(root, "lfw", "lfw", ("lfw/pairs.txt", "lfw/images"), "lfw.bin")
    return packed or pair_benchmark("lfw", lfw_pairs(root / "lfw/pairs.txt", root / "lfw/images"))


@BENCHMARKS.register("lfw-allpairs")
def _lfw_all(root: Path) -> Benchmark:
    """All pairs of all of LFW."""
    require(root, "lfw-allpairs", "lfw", "lfw/images")
    return AllPairsBenchmark("lfw-allpairs", FolderSet(root / "lfw/images"))


@BENCHMARKS.register("lfw-closed-set")
def _lfw_closed(root: Path) -> Benchmark:
    """LFW, rank-k: the first image of each person is enrolled, the others are searched."""
    require(root, "lfw-closed-set", "lfw", "lfw/images")
    return closed_set("lfw-closed-set", FolderSet(root / "lfw/images"))


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


@BENCHMARKS.register("yaleb")
def _yaleb(root: Path) -> Benchmark:
    """All pairs of Extended Yale B: 38 people, one pose, up to 64 lights each (Georghiades et al. 2001)."""
    require(root, "yaleb", "yaleb", "yaleb")
    return AllPairsBenchmark("yaleb", YaleBSet(root / "yaleb"))


@BENCHMARKS.register("agedb-30")
def _agedb(root: Path) -> Benchmark:
    """AgeDB-30: 6,000 pairs, 30 years apart, in ten folds (Moschoglou et al. 2017)."""
    packed = _listed_or_bin(root, "agedb-30", "agedb-30", ("agedb-30/pairs.csv", "agedb-30/images"), "agedb_30.bin")
    return packed or pair_benchmark("agedb-30", csv_pairs(root / "agedb-30/pairs.csv", root / "agedb-30/images"))


@BENCHMARKS.register("calfw")
def _calfw(root: Path) -> Benchmark:
    """CALFW: 6,000 pairs of LFW's people across ages, in ten folds (Zheng et al. 2017, arXiv 1708.08197)."""
    return _flat(root, "calfw", "calfw/pairs_CALFW.txt")


@BENCHMARKS.register("cplfw")
def _cplfw(root: Path) -> Benchmark:
    """CPLFW: 6,000 pairs of LFW's people across poses, in ten folds (Zheng and Deng 2018)."""
    return _flat(root, "cplfw", "cplfw/pairs_CPLFW.txt")


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
    listed = ("cfp/images", "cfp/protocol/Pair_list_F.txt", "cfp/protocol/Pair_list_P.txt")
    packed = _listed_or_bin(root, name, "cfp", listed, f"cfp_{kind.lower()}.bin")
    return packed or pair_benchmark(name, cfp_pairs(root / "cfp/protocol", kind, root / "cfp/images"))


def _flat(root: Path, name: str, list_file: str) -> Benchmark:
    packed = _listed_or_bin(root, name, name, (list_file, f"{name}/images"), f"{name}.bin")
    return packed or pair_benchmark(name, flat_pairs(root / list_file, root / name / "images", name=name))
