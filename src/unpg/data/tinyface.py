"""TinyFace (Cheng et al. 2018): identification of faces of about 20 x 16 pixels, 3,728 probes of 2,569 people.

In the folder ``Testing_Set`` lie ``gallery_match_img_ID_pairs.mat`` and ``probe_img_ID_pairs.mat``, each with the
names of images (``gallery_set``, ``probe_set``) and the numbers of people (``gallery_ids``, ``probe_ids``), and the
images in ``Gallery_Match``, ``Probe`` and ``Gallery_Distractor``; the last are nobody that is sought.

Axes: g gallery images, q probes, d distractors.
"""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unpg.data.decode import SUFFIXES
from unpg.data.mat5 import read_mat5
from unpg.errors import DataError, did_you_mean

__all__ = ["TinyFace", "read_tinyface"]


@dataclass(frozen=True, eq=False)
class TinyFace:
    """The protocol. A probe is looked for among gallery and distractors together.

    Attributes:
        gallery: (g,) paths.
        gallery_ids: (g,) int64, whom each shows.
        probes: (q,) paths.
        probe_ids: (q,) int64.
        distractors: (d,) paths, by name.
    """

    gallery: list[Path]
    gallery_ids: NDArray[np.int64]
    probes: list[Path]
    probe_ids: NDArray[np.int64]
    distractors: list[Path]


def read_tinyface(folder: str | PathLike[str], images: str | PathLike[str] | None = None) -> TinyFace:
    """Lists and paths; whether the images are there is seen when they are read.

    Args:
        folder: ``Testing_Set``, or the folder around it.
        images: Where ``Gallery_Match``, ``Probe`` and ``Gallery_Distractor`` lie, such as a folder of aligned
            copies; ``Testing_Set`` if not given.

    Raises:
        DataError: A list is missing or does not read, or a probe's person is not in the gallery.
    """
    lists = Path(folder)
    if (lists / "Testing_Set").is_dir():
        lists = lists / "Testing_Set"
    base = Path(images) if images is not None else lists
    gallery, gallery_ids = _listed(lists / "gallery_match_img_ID_pairs.mat", "gallery")
    probes, probe_ids = _listed(lists / "probe_img_ID_pairs.mat", "probe")
    unknown = np.flatnonzero(~np.isin(probe_ids, gallery_ids))
    if len(unknown):
        i = int(unknown[0])
        raise DataError(
            f"{lists}: probe {probes[i]} shows person {probe_ids[i]}, of whom the gallery has no image ({len(unknown)} "
            "such probes). Every probe of TinyFace has a mate; fetch the lists again."
        )
    far = base / "Gallery_Distractor"
    try:
        distractors = sorted(path for path in far.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise DataError(f"The distractors in {far} cannot be listed: {error.strerror or error}.") from error
    return TinyFace(
        [base / "Gallery_Match" / name for name in gallery],
        gallery_ids,
        [base / "Probe" / name for name in probes],
        probe_ids,
        distractors,
    )


def _listed(file: Path, kind: str) -> tuple[list[str], NDArray[np.int64]]:
    """Names of images and numbers of people."""
    found = read_mat5(file)
    for key in (f"{kind}_set", f"{kind}_ids"):
        if key not in found:
            raise DataError(f"{file} has no variable {key!r}.{did_you_mean(key, found)}")
    names, ids = found[f"{kind}_set"], found[f"{kind}_ids"]
    if (
        not isinstance(names, list)
        or isinstance(ids, list)
        or not all(isinstance(name, str) for name in names)
        or ids.size != len(names)
        or not names
    ):
        count = len(names) if isinstance(names, list) else "no"
        raise DataError(f"{file}: expected one name in {kind}_set per number in {kind}_ids, got {count} names.")
    numbers = ids.reshape(-1)
    if not (np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) < 2**53)).all():
        raise DataError(f"{file}: {kind}_ids must be whole numbers.")
    for i, name in enumerate(map(str, names)):
        if not name or "/" in name or "\\" in name or name in (".", ".."):
            raise DataError(f"{file}: name {i} of {kind}_set is {name!r}, no file name.")
    return [str(name) for name in names], numbers.astype(np.int64)
