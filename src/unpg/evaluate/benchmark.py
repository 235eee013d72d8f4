"""Test sets as objects: what they need, and how they judge an embedding.

A benchmark is anything with a ``name``, ``images`` and ``run(embed)``. ``embed`` turns an image set into
vectors, however it does that (a model, with or without flip; a trivial baseline); it is called once per run.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unpg.data.image_set import ImageSet
from unpg.errors import DataError, ShapeError
from unpg.evaluate.judge import ALL_PAIRS_TARGETS, PAIR_TARGETS, judge_all_pairs, judge_pairs
from unpg.evaluate.results import AllPairsResult, PairResult, Result

__all__ = ["LAYOUT", "AllPairsBenchmark", "Benchmark", "EmbedFunction", "PairBenchmark", "data_root"]

EmbedFunction = Callable[[ImageSet], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""From an image set to (vectors (n, d), norms (n,)), in the set's order."""

LAYOUT = """\
<data root>/
  lfw/images/<Name>/<Name>_NNNN.jpg    LFW, aligned crops of 112 x 112
  lfw/pairs.txt                        the official View-2 list
  cfp/images/<id>/frontal/NN.jpg       CFP, aligned crops
  cfp/images/<id>/profile/NN.jpg
  cfp/protocol/Pair_list_F.txt         the official lists
  cfp/protocol/Pair_list_P.txt
  cfp/protocol/Split/{FF,FP}/01 .. 10/{same,diff}.txt
  celeba288/<id>/*.jpg                 training images
  kface/images/<id>/S001/L1/E01/C1.jpg K-FACE, aligned crops
  kface/kface.Q1.txt .. kface.Q4.txt   its pair lists"""
"""How the data root is laid out, for messages."""


class Benchmark(Protocol):
    """A test set with its protocol."""

    @property
    def name(self) -> str:
        """Name in tables and file names."""

    @property
    def images(self) -> ImageSet:
        """The images that must be embedded."""

    def run(self, embed: EmbedFunction) -> Result:
        """Embed the images once and judge."""


@dataclass(frozen=True, eq=False)
class PairBenchmark:
    """A list of pairs, each said to be of one identity or of two.

    Args:
        name: Name in tables.
        images: The images that the pairs point into.
        pairs: (n, 2) int, indices into ``images``.
        same: (n,) bool.
        folds: (n,) int, or None for a list without folds: no accuracy over folds then.
        left_out: Pairs that the list names and that cannot be judged (missing images).
        targets: FARs to report.
    """

    name: str
    images: ImageSet
    pairs: NDArray[np.integer]
    same: NDArray[np.bool_]
    folds: NDArray[np.integer] | None = None
    left_out: int = 0
    targets: Sequence[float] = PAIR_TARGETS

    def run(self, embed: EmbedFunction) -> PairResult:
        """Accuracy by both fold rules and by the all-pairs best threshold, AUC, EER, TAR at each FAR."""
        vectors = _embedded(self.images, embed)
        return judge_pairs(
            self.name,
            vectors,
            self.pairs,
            self.same,
            self.folds,
            left_out=self.left_out,
            targets=self.targets,
        )


@dataclass(frozen=True, eq=False)
class AllPairsBenchmark:
    """Every pair of a labelled set.

    Args:
        name: Name in tables.
        images: The set; its labels say who is who.
        targets: FARs to report.
    """

    name: str
    images: ImageSet
    targets: Sequence[float] = ALL_PAIRS_TARGETS

    def run(self, embed: EmbedFunction) -> AllPairsResult:
        """AUC, EER, TAR at each FAR, and the histograms of genuine and impostor cosines."""
        return judge_all_pairs(self.name, _embedded(self.images, embed), self.images.labels, targets=self.targets)


def _embedded(images: ImageSet, embed: EmbedFunction) -> NDArray[np.float32]:
    vectors, _ = embed(images)
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise ShapeError(f"The embed function gave shape {vectors.shape} for {len(images)} images, not (n, d).")
    return vectors


def data_root(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where the data lie: ``folder`` if given, else the environment variable ``UNPG_DATA``, else
    ``../shared/data``.

    Raises:
        DataError: The folder that was named does not exist, or none was named and there is no default one.
    """
    for named, said in ((folder, "The data root"), (os.environ.get("UNPG_DATA"), "UNPG_DATA")):
        if named:
            if Path(named).is_dir():
                return Path(named)
            raise DataError(f"{said} is {os.fspath(named)!r}, which is no folder. Expected layout:\n{LAYOUT}")
    beside = Path("..", "shared", "data")
    if beside.is_dir():
        return beside
    raise DataError(f"No data root: set the environment variable UNPG_DATA to a folder laid out like this:\n{LAYOUT}")
