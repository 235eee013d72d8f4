"""Test sets as objects: what they need, and how they judge an embedding.

A benchmark is anything with a ``name``, ``images`` and ``run(embed)``. ``embed`` turns an image set into
vectors, however it does that (a model, with or without flip; a trivial baseline); it is called once per run.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unpg.data.image_set import ImageSet
from unpg.errors import DataError, ShapeError
from unpg.evaluate.hardest import hardest_pairs, named_pairs
from unpg.evaluate.judge import ALL_PAIRS_TARGETS, PAIR_TARGETS, judge_all_pairs, judge_pairs
from unpg.evaluate.layouts import usual_layout
from unpg.evaluate.quality import pair_quality
from unpg.evaluate.results import AllPairsResult, PairResult, Result

__all__ = ["AllPairsBenchmark", "Benchmark", "EmbedFunction", "PairBenchmark", "data_root", "embedded"]

EmbedFunction = Callable[[ImageSet], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""From an image set to (vectors (n, d), norms (n,)), in the set's order."""


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
        identities: (f,) int, who each image shows, so that intervals can be drawn by identity; None if the list does
            not say.
    """

    name: str
    images: ImageSet
    pairs: NDArray[np.integer]
    same: NDArray[np.bool_]
    folds: NDArray[np.integer] | None = None
    left_out: int = 0
    targets: Sequence[float] = PAIR_TARGETS
    identities: NDArray[np.integer] | None = None

    def run(self, embed: EmbedFunction) -> PairResult:
        """Accuracy by both fold rules and by the all-pairs best threshold, AUC, EER, TAR at each FAR."""
        vectors, norms = embedded(self.images, embed)
        result = judge_pairs(
            self.name,
            vectors,
            self.pairs,
            self.same,
            self.folds,
            left_out=self.left_out,
            targets=self.targets,
            identities=self.identities,
        )
        return replace(
            result,
            quality=pair_quality(*norms[self.pairs].T).astype(np.float32),
            pairs=np.asarray(self.pairs, dtype=np.int32),
            names=_names(self.images),
        )


@dataclass(frozen=True, eq=False)
class AllPairsBenchmark:
    """Every pair of a labelled set.

    Args:
        name: Name in tables.
        images: The set; its labels say who is who.
        targets: FARs to report.
        evidence: Keep what intervals need, at the cost of a second pass over the pairs.
        hardest: Name so many of the hardest pairs of each kind, at the cost of a pass; 0 for none.
        device: Where the embeddings are compared.
    """

    name: str
    images: ImageSet
    targets: Sequence[float] = ALL_PAIRS_TARGETS
    evidence: bool = False
    hardest: int = 0
    device: str = "cpu"

    def run(self, embed: EmbedFunction) -> AllPairsResult:
        """AUC, EER, TAR at each FAR, and the histograms of genuine and impostor cosines."""
        vectors, _ = embedded(self.images, embed)
        labels = self.images.labels
        result = judge_all_pairs(
            self.name, vectors, labels, targets=self.targets, device=self.device, evidence=self.evidence
        )
        if not self.hardest:
            return result
        pairs = hardest_pairs(vectors, labels, self.hardest, device=self.device)
        return replace(result, hardest=named_pairs(_names(self.images), *pairs))


def _names(images: ImageSet) -> list[str]:
    """What the images are called; files by their whole path, so that a report elsewhere finds them."""
    names = (images.name(i) for i in range(len(images)))
    return [os.path.abspath(name) if os.path.isfile(name) else name for name in names]


def embedded(images: ImageSet, embed: EmbedFunction) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors (n, d) and their lengths (n,) before they were normalized.

    Raises:
        ShapeError: The function gave something else.
    """
    vectors, norms = embed(images)
    if norms.shape != (len(images),):
        raise ShapeError(f"The embed function gave lengths of shape {norms.shape} for {len(images)} images, not (n,).")
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise ShapeError(f"The embed function gave shape {vectors.shape} for {len(images)} images, not (n, d).")
    return vectors, norms


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
            raise DataError(f"{said} is {os.fspath(named)!r}, which is no folder. Expected layout:\n{usual_layout()}")
    beside = Path("..", "shared", "data")
    if beside.is_dir():
        return beside
    raise DataError(
        f"No data root: set the environment variable UNPG_DATA to a folder laid out like this:\n{usual_layout()}"
    )
