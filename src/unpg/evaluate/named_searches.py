"""MegaFace, TinyFace and BLUFR by name."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unpg.data.blufr import draw_blufr_trials, read_blufr
from unpg.data.folder import FolderSet
from unpg.data.joined import JoinedSet
from unpg.data.listed import ListedSet
from unpg.data.megaface import (
    MegaFaceList,
    is_noise,
    read_facescrub_noises,
    read_feature_list,
    read_features,
    read_megaface_noises,
)
from unpg.data.stretched import StretchedSet
from unpg.data.tinyface import read_tinyface
from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.benchmark import Benchmark, data_root
from unpg.evaluate.layouts import missing_set, require
from unpg.evaluate.registry import BENCHMARKS
from unpg.evaluate.search_benchmark import (
    BlufrBenchmark,
    DistractorBenchmark,
    Enrolled,
    SearchBenchmark,
    judge_distractors,
)
from unpg.evaluate.search_protocol import IdentificationResult

__all__ = ["judge_megaface_features"]

_LISTS = ("facescrub_features_list.json", "megaface_features_list.json_1000000_1")


@BENCHMARKS.register("megaface")
def _megaface(root: Path) -> Benchmark:
    """MegaFace, challenge 1, FaceScrub, as published (not cleaned): rank 1, TAR at FAR 1e-6 (arXiv 1512.00596)."""
    return _distractors(root, "megaface", refined=False)


@BENCHMARKS.register("megaface-refined")
def _megaface_refined(root: Path) -> Benchmark:
    """MegaFace, challenge 1, without the images that insightface lists as noise; they are left out on both sides."""
    return _distractors(root, "megaface-refined", refined=True)


@dataclass(frozen=True, eq=False)
class _MegaFace:
    """What the lists say.

    Attributes:
        sought: Probes, noisy ones too.
        others: Distractors, noisy ones too.
        probes: (p,) int, which of ``sought`` are judged.
        far: (n,) int, which of ``others``.
        note: What was left out.
    """

    sought: MegaFaceList
    others: MegaFaceList
    probes: NDArray[np.int64]
    far: NDArray[np.int64]
    note: str


def _lists(root: Path, name: str, *needed: str, refined: bool) -> _MegaFace:
    noises = ("megaface/facescrub_noises.txt", "megaface/megaface_noises.txt")
    lists = [f"megaface/templatelists/{file}" for file in _LISTS]
    require(root, name, "megaface", *needed, *lists, *(noises if refined else ()))
    sought, others = (read_feature_list(root / file) for file in lists)
    if sought.people is None:
        raise DataError(f"{root / lists[0]} has no id for its paths: who a probe shows must be said.")
    probes = np.arange(len(sought.paths))
    far = np.arange(len(others.paths))
    note = "as published: noisy images are in (not 'refined')"
    if refined:
        noisy = is_noise(sought.paths, read_facescrub_noises(root / noises[0]))
        noisy_far = is_noise(others.paths, read_megaface_noises(root / noises[1]))
        probes, far = probes[~noisy], far[~noisy_far]
        note = f"refined: {noisy.sum():,} noisy probes and {noisy_far.sum():,} noisy distractors are left out"
        if not len(probes) or not len(far):
            raise DataError(f"{name}: the lists of noise leave {len(probes)} probes and {len(far)} distractors.")
    return _MegaFace(sought, others, probes, far, note)


def _distractors(root: Path, name: str, *, refined: bool) -> Benchmark:
    found = _lists(root, name, "megaface/facescrub_images", "megaface/megaface_images", refined=refined)
    sought, others, base = found.sought, found.others, root / "megaface"
    # All images are embedded, so that 'megaface' and 'megaface-refined' share one pass.
    images = JoinedSet(
        {
            "facescrub": ListedSet(_LISTS[0], base / "facescrub_images", sought.paths, sought.people or []),
            "megaface": ListedSet(_LISTS[1], base / "megaface_images", others.paths, others.paths),
        }
    )
    probes, far = found.probes, len(sought.paths) + found.far
    return DistractorBenchmark(name, images, probes, images.labels[probes], far, notes=(found.note,))


def judge_megaface_features(
    name: str,
    facescrub: str | os.PathLike[str],
    megaface: str | os.PathLike[str],
    ending: str,
    root: str | os.PathLike[str] | None = None,
) -> IdentificationResult:
    """MegaFace from feature files of the devkit: no image and no network is needed, only the lists.

    Args:
        name: ``"megaface"`` or ``"megaface-refined"``.
        facescrub: The folder with a feature file for each probe, ``<path of the list><ending>``.
        megaface: The same for the distractors.
        ending: Of the files' names, as ``"_r100.bin"``.
        root: The data root with the lists; see :func:`~unpg.evaluate.benchmark.data_root`.

    Raises:
        ConfigError: Another name.
        DataError: A list or feature file is missing or broken.
        ShapeError: Probes and distractors are of different length.
    """
    if name not in ("megaface", "megaface-refined"):
        raise ConfigError(f"Feature files are judged on 'megaface' or 'megaface-refined'; got {name!r}.")
    found = _lists(data_root(root), name, refined=name == "megaface-refined")
    people = np.array(found.sought.people)[found.probes]
    probes = read_features(facescrub, [found.sought.paths[i] for i in found.probes], ending)
    distractors = read_features(megaface, [found.others.paths[i] for i in found.far], ending)
    if probes.shape[1] != distractors.shape[1]:
        raise ShapeError(
            f"{facescrub} has features of {probes.shape[1]} numbers, {megaface} of {distractors.shape[1]}: make both "
            "with one model."
        )
    _, subjects = np.unique(people, return_inverse=True)
    return judge_distractors(name, probes, subjects, distractors, notes=(found.note, f"features: *{ending}"))


@BENCHMARKS.register("tinyface")
def _tinyface(root: Path) -> Benchmark:
    """TinyFace: 3,728 probes of about 20 x 16 pixels among 157,871, rank-k (Cheng et al. 2018, arXiv 1811.08965)."""
    base = root / "tinyface"
    require(
        root,
        "tinyface",
        "tinyface",
        *(f"tinyface/Testing_Set/{k}_img_ID_pairs.mat" for k in ("gallery_match", "probe")),
    )
    aligned = base / "aligned"
    folder = aligned if aligned.is_dir() else base / "Testing_Set"
    if not (folder / "Gallery_Distractor").is_dir():
        raise missing_set(root, "tinyface", "tinyface", f"{folder.relative_to(root)}/Gallery_Distractor")
    listed = read_tinyface(base, images=folder)
    files = [str(path.relative_to(folder)) for path in (*listed.gallery, *listed.probes, *listed.distractors)]
    g, q, d = len(listed.gallery), len(listed.probes), len(listed.distractors)
    people = [str(who) for who in (*listed.gallery_ids.tolist(), *listed.probe_ids.tolist())]
    people += [f"distractor {i}" for i in range(d)]
    kind = ListedSet if aligned.is_dir() else StretchedSet
    images = kind("tinyface", folder, files, people)
    entries = np.concatenate([np.arange(g), np.arange(g + q, g + q + d)])
    note = "aligned crops" if aligned.is_dir() else "images as they are, stretched to 112 x 112 without alignment"
    return SearchBenchmark(
        "tinyface",
        images,
        Enrolled(np.arange(g, g + q), images.labels[g : g + q]),
        {"gallery and distractors": Enrolled(entries, images.labels[entries])},
        distractors=d,
        notes=(note,),
    )


@BENCHMARKS.register("blufr")
def _blufr(root: Path) -> Benchmark:
    """BLUFR on LFW, official trials: TAR at FAR 0.1 %, open-set TPIR at FPIR 1 % (Liao et al. 2014)."""
    require(root, "blufr", "blufr", "lfw/images", "lfw/blufr_lfw_config.mat")
    images = FolderSet(root / "lfw/images")
    names = [Path(images.name(i)).name for i in range(len(images))]
    return BlufrBenchmark("blufr", images, read_blufr(root / "lfw/blufr_lfw_config.mat", names))


@BENCHMARKS.register("blufr-like")
def _blufr_like(root: Path) -> Benchmark:
    """LFW in BLUFR's way with ten trials drawn here (seed 0): not the official trials, so not BLUFR's figures."""
    require(root, "blufr-like", "blufr", "lfw/images")
    images = FolderSet(root / "lfw/images")
    note = "trials drawn by BLUFR's proportions with seed 0, not the official ones"
    return BlufrBenchmark("blufr-like", images, draw_blufr_trials(images.labels), notes=(note,))
