"""IJB-B and IJB-C by name: 1:1 over the official pairs, 1:N over the galleries."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unpg.data.ijb import IJBMeta, TemplateSubjects, read_ijb
from unpg.data.listed import ListedSet
from unpg.evaluate.benchmark import Benchmark
from unpg.evaluate.layouts import missing_set, require
from unpg.evaluate.registry import BENCHMARKS
from unpg.evaluate.search_benchmark import Enrolled, SearchBenchmark
from unpg.evaluate.template_protocol import TemplateBenchmark, TemplateImages

__all__: list[str] = []


@BENCHMARKS.register("ijbb")
def _ijbb(root: Path) -> Benchmark:
    """IJB-B 1:1: 12,115 templates, 8,010,270 pairs (Whitelam et al. 2017)."""
    return _verification(root, "ijbb")


@BENCHMARKS.register("ijbc")
def _ijbc(root: Path) -> Benchmark:
    """IJB-C 1:1: 23,124 templates, 15,658,489 pairs (Maze et al. 2018)."""
    return _verification(root, "ijbc")


@BENCHMARKS.register("ijbb-1n")
def _ijbb_search(root: Path) -> Benchmark:
    """IJB-B 1:N: rank-k and TPIR at FPIR, each of the galleries S1 and S2, and their mean."""
    return _identification(root, "ijbb", merged=False)


@BENCHMARKS.register("ijbc-1n")
def _ijbc_search(root: Path) -> Benchmark:
    """IJB-C 1:N: rank-k and TPIR at FPIR, each of the galleries G1 and G2, and their mean."""
    return _identification(root, "ijbc", merged=False)


@BENCHMARKS.register("ijbb-1n-merged")
def _ijbb_merged(root: Path) -> Benchmark:
    """IJB-B 1:N with the searches of both galleries judged as of one, as some tools do: no gallery's figures."""
    return _identification(root, "ijbb", merged=True)


@BENCHMARKS.register("ijbc-1n-merged")
def _ijbc_merged(root: Path) -> Benchmark:
    """IJB-C 1:N with the searches of both galleries judged as of one, as some tools do: no gallery's figures."""
    return _identification(root, "ijbc", merged=True)


def _read(root: Path, benchmark: str, name: str) -> tuple[IJBMeta, ListedSet, TemplateImages]:
    lists = (f"{name}/meta/{name}_face_tid_mid.txt", f"{name}/meta/{name}_template_pair_label.txt")
    require(root, benchmark, name, f"{name}/images", *lists)
    meta = read_ijb(root / name, name)
    # 1:1 and 1:N list the same images in the same order, so one embedding serves both.
    people = [str(template) for template in meta.faces.template_ids[meta.faces.templates]]
    images = ListedSet(f"{name}_face_tid_mid.txt", root / name / "images", meta.faces.images, people)
    scores = None if meta.points is None else meta.points.scores
    return meta, images, TemplateImages(meta.faces.templates, meta.faces.media, scores)


def _verification(root: Path, name: str) -> Benchmark:
    meta, images, pooled = _read(root, name, name)
    return TemplateBenchmark(name, images, pooled, meta.pairs.pairs, meta.pairs.same, subjects=_subjects(meta))


def _identification(root: Path, name: str, *, merged: bool) -> Benchmark:
    benchmark = f"{name}-1n-merged" if merged else f"{name}-1n"
    meta, images, pooled = _read(root, benchmark, name)
    if meta.probes is None:
        raise missing_set(root, benchmark, name, f"{name}/meta/{name}_1N_gallery_*.csv and {name}_1N_probe_mixed.csv")
    return SearchBenchmark(
        benchmark,
        images,
        _enrolled(meta.probes),
        {gallery: _enrolled(listed) for gallery, listed in meta.galleries.items()},
        pooled=pooled,
        merged=merged,
    )


def _enrolled(listed: TemplateSubjects) -> Enrolled:
    return Enrolled(listed.templates, listed.subjects)


def _subjects(meta: IJBMeta) -> NDArray[np.int64] | None:
    """Who each template shows, -1 where the lists of the 1:N protocol do not say; None without those lists."""
    if meta.probes is None:
        return None
    subjects = np.full(len(meta.faces.template_ids), -1, dtype=np.int64)
    for listed in (*meta.galleries.values(), meta.probes):
        subjects[listed.templates] = listed.subjects
    return subjects
