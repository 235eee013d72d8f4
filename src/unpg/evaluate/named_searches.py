"""MegaFace, TinyFace and BLUFR by name."""

from pathlib import Path

import numpy as np

from unpg.data.blufr import draw_blufr_trials, read_blufr
from unpg.data.folder import FolderSet
from unpg.data.joined import JoinedSet
from unpg.data.listed import ListedSet
from unpg.data.megaface import is_noise, read_facescrub_noises, read_feature_list, read_megaface_noises
from unpg.data.stretched import StretchedSet
from unpg.data.tinyface import read_tinyface
from unpg.errors import DataError
from unpg.evaluate.benchmark import Benchmark
from unpg.evaluate.layouts import missing_set, require
from unpg.evaluate.registry import BENCHMARKS
from unpg.evaluate.search_benchmark import BlufrBenchmark, DistractorBenchmark, Enrolled, SearchBenchmark

__all__: list[str] = []

_LISTS = ("facescrub_features_list.json", "megaface_features_list.json_1000000_1")


@BENCHMARKS.register("megaface")
def _megaface(root: Path) -> Benchmark:
    """MegaFace, challenge 1, FaceScrub, as published (not cleaned): rank 1, TAR at FAR 1e-6 (arXiv 1512.00596)."""
    return _distractors(root, "megaface", refined=False)


@BENCHMARKS.register("megaface-refined")
def _megaface_refined(root: Path) -> Benchmark:
    """MegaFace, challenge 1, without the images that insightface lists as noise; they are left out on both sides."""
    return _distractors(root, "megaface-refined", refined=True)


def _distractors(root: Path, name: str, *, refined: bool) -> Benchmark:
    base, noises = root / "megaface", ("megaface/facescrub_noises.txt", "megaface/megaface_noises.txt")
    lists = [f"megaface/templatelists/{file}" for file in _LISTS]
    folders = ("megaface/facescrub_images", "megaface/megaface_images")
    require(root, name, "megaface", *folders, *lists, *(noises if refined else ()))
    sought, others = (read_feature_list(root / file) for file in lists)
    if sought.people is None:
        raise DataError(f"{root / lists[0]} has no id for its paths: who a probe shows must be said.")
    probes = np.arange(len(sought.paths))
    far = np.arange(len(others.paths))
    notes = ["as published: noisy images are in (not 'refined')"]
    if refined:
        noisy = is_noise(sought.paths, read_facescrub_noises(root / noises[0]))
        noisy_far = is_noise(others.paths, read_megaface_noises(root / noises[1]))
        probes, far = probes[~noisy], far[~noisy_far]
        notes = [f"refined: {noisy.sum():,} noisy probes and {noisy_far.sum():,} noisy distractors are left out"]
        if not len(probes) or not len(far):
            raise DataError(f"{name}: the lists of noise leave {len(probes)} probes and {len(far)} distractors.")
    # All images are embedded, so that 'megaface' and 'megaface-refined' share one pass.
    images = JoinedSet(
        {
            "facescrub": ListedSet(_LISTS[0], base / "facescrub_images", sought.paths, sought.people),
            "megaface": ListedSet(_LISTS[1], base / "megaface_images", others.paths, others.paths),
        }
    )
    return DistractorBenchmark(name, images, probes, images.labels[probes], len(sought.paths) + far, notes=tuple(notes))


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
