"""BLUFR's trials on LFW (Liao et al. 2014, "A benchmark study of large-scale unconstrained face recognition").

Each of ten trials has a test set of people; of some of them one image each is enrolled, and the other images of the
test set are probes: those of people enrolled, and those of others. The official trials are in ``blufr_lfw_config.mat``.

Axes: n images, t images of a test set, g of a gallery, q probes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.data.mat5 import read_mat5
from unpg.errors import DataError, did_you_mean

__all__ = ["BlufrTrial", "draw_blufr_trials", "read_blufr"]

TRIALS = 10
TRAINING_SHARE = 1_500 / 5_749
"""Of LFW's people, the share that BLUFR keeps for training in each trial."""

GALLERY_SHARE = 1_000 / 4_249
"""Of the people of a test set, the share that is enrolled."""


@dataclass(frozen=True, eq=False)
class BlufrTrial:
    """One trial; all are indices into the image set.

    Attributes:
        test: (t,) images of the test set; all their pairs are compared.
        gallery: (g,) one image of each person enrolled.
        probes: (q,) images that are searched.
    """

    test: NDArray[np.int64]
    gallery: NDArray[np.int64]
    probes: NDArray[np.int64]


def read_blufr(file: str | PathLike[str], names: Sequence[str]) -> list[BlufrTrial]:
    """The official trials: variables ``imageList``, ``testIndex``, ``galIndex``, ``probIndex``, which count from 1.

    Args:
        file: ``blufr_lfw_config.mat``.
        names: (n,) the file names of the image set's images, as ``AJ_Cook_0001.jpg``.

    Raises:
        DataError: A variable is missing or does not read like that, or an image of a trial is not in the set.
    """
    found = read_mat5(file)
    for key in ("imageList", "testIndex", "galIndex", "probIndex"):
        if key not in found:
            raise DataError(f"{file} has no variable {key!r}.{did_you_mean(key, found)}")
    listed = found["imageList"]
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise DataError(f"{file}: imageList must be a cell of file names.")
    place = {name.rpartition("/")[2]: i for i, name in enumerate(names)}
    rows = np.array([place.get(str(name).rpartition("/")[2], -1) for name in listed], dtype=np.int64)
    parts = [_indices(found[key], rows, listed, f"{file}: {key}") for key in ("testIndex", "galIndex", "probIndex")]
    if len({len(part) for part in parts}) != 1:
        raise DataError(f"{file}: testIndex, galIndex and probIndex have {[len(p) for p in parts]} trials.")
    return [BlufrTrial(*trial) for trial in zip(*parts, strict=True)]


def _indices(value: Any, rows: NDArray[np.int64], listed: Sequence[Any], where: str) -> list[NDArray[np.int64]]:
    if not isinstance(value, list) or not value or not all(isinstance(part, np.ndarray) for part in value):
        raise DataError(f"{where} must be a cell of numbers, one entry a trial.")
    found = []
    for part in value:
        numbers = part.reshape(-1)
        if not len(numbers) or numbers.min() < 1 or numbers.max() > len(rows) or (numbers != np.floor(numbers)).any():
            raise DataError(f"{where} must be whole numbers from 1 to {len(rows)}, the images of imageList.")
        at = rows[numbers.astype(np.int64) - 1]
        if (at < 0).any():
            gone = listed[int(numbers[np.flatnonzero(at < 0)[0]]) - 1]
            raise DataError(f"{where}: the image {gone!r} is not in the image set ({int((at < 0).sum())} such images).")
        found.append(at)
    return found


def draw_blufr_trials(labels: NDArray[np.int64], seed: int = 0, trials: int = TRIALS) -> list[BlufrTrial]:
    """Trials drawn by BLUFR's proportions, for who has no official file; they are not the official ones.

    In each trial 26.1 % of the people are set aside, as for training. Of the others 23.5 % are enrolled, drawn among
    those with two images or more (all of those if they are fewer), with one image each, drawn too; the other images of
    the test set are probes.

    Args:
        labels: (n,) int64, who each image shows.
        seed: Of the draws, a function of it, the trial and the labels alone.
        trials: Their number.

    Raises:
        DataError: A test set would have nobody to enroll, or nobody who is not enrolled.
    """
    people, images = np.unique(labels, return_counts=True)
    found = []
    for number in range(trials):
        rng = np.random.default_rng((seed, number))
        tested = rng.permutation(len(people))[round(TRAINING_SHARE * len(people)) :]
        able = tested[images[tested] >= 2]
        enrolled = rng.permutation(able)[: round(GALLERY_SHARE * len(tested))]
        if not len(enrolled) or len(enrolled) == len(tested):
            raise DataError(
                f"BLUFR's way needs people with two images or more and others beside them; of {len(people)} people a "
                f"test set has {len(tested)}, and {len(enrolled)} of them would be enrolled."
            )
        test = np.flatnonzero(np.isin(labels, people[tested]))
        gallery = np.array([rng.choice(np.flatnonzero(labels == people[person])) for person in np.sort(enrolled)])
        found.append(BlufrTrial(test, gallery, np.setdiff1d(test, gallery)))
    return found
