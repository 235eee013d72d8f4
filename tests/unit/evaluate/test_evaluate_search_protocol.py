"""Identification against loops over probes on the made sets, and draws against searches that are really repeated."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from unpg.cli.main import main
from unpg.data import ArraySet
from unpg.data.megaface import read_feature_list, write_feature, write_feature_list
from unpg.errors import DataError, ShapeError
from unpg.evaluate import (
    BASELINES,
    Bootstrap,
    Enrolled,
    SearchBenchmark,
    closed_set,
    gallery_rates,
    judge_megaface_features,
    load_results,
    open_benchmark,
)
from unpg.evaluate.identification import Searches, search
from unpg.evaluate.search_evidence import GalleryEvidence, SearchEvidence
from unpg.evaluate.templates import pool

STEP = 2**-20


def some_images(labels, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (len(labels), 8, 8, 3)).astype(np.uint8)
    return ArraySet(pixels, np.array(labels), [f"p{i}" for i in range(max(labels) + 1)])


def noisy(labels, d=6, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(max(labels) + 1, d))[labels] + noise * rng.normal(size=(len(labels), d))
    norms = np.linalg.norm(x, axis=1)
    return (x / norms[:, None]).astype(np.float32), norms.astype(np.float32)


def slow_rates(probes, mine, gallery, theirs, ranks, fpir):
    """Probe by probe; the threshold by trying every score of a non-mated search, from the definition."""
    mated, others = [], []
    for probe, subject in zip(probes, mine, strict=True):
        scores = [round(float(probe @ entry) / STEP) * STEP for entry in gallery]
        if subject in theirs:
            own = scores[list(theirs).index(subject)]
            mated.append((own, sum(s >= own for s in scores)))
        else:
            others.append(max(scores))
    found = {k: np.mean([rank <= k for _, rank in mated]) for k in ranks}
    # The smallest T with #(non-mated >= T) <= N * FPIR: just above one of their scores, or below all.
    allowed = [t for t in [-np.inf, *others] if sum(o > t for o in others) <= fpir * len(others)]
    above = min(allowed)
    return found, np.mean([own > above and rank <= 1 for own, rank in mated])


@pytest.mark.parametrize("name", ["ijbb-1n", "ijbc-1n"])
def test_ijb_galleries_are_the_loop(every_set, name):
    benchmark = open_benchmark(name, every_set)
    vectors, norms = BASELINES["grey-pixels"](benchmark.images)
    vectors = vectors + 3.0 * np.random.default_rng(1).normal(size=(len(vectors), 1024)).astype(np.float32) / 32
    result = benchmark.run(lambda images: (vectors, norms))
    raw = vectors * norms[:, None]
    templates = pool(raw, benchmark.pooled.templates, benchmark.pooled.media, "unpg-authors").vectors
    told = result.to_dict()
    assert (told["galleries"], told["probes"], told["mated"], told["subjects"]) == (2, 96, 48, 12)
    slow = {}
    for gallery, enrolled in benchmark.galleries.items():
        slow[gallery] = slow_rates(
            templates[benchmark.probes.rows],
            benchmark.probes.subjects,
            templates[enrolled.rows],
            enrolled.subjects.tolist(),
            (1, 5, 10),
            0.1,
        )
        ours = told["per_gallery"][gallery]
        assert {int(k): rate for k, rate in ours["rank"].items()} == pytest.approx(slow[gallery][0])
        assert ours["tpir_at_fpir"][0]["value"] == pytest.approx(slow[gallery][1])
        assert ours["tpir_at_fpir"][0]["nonmated"] == 24
        assert ours["tpir_at_fpir"][1]["value"] is None  # 24 searches do not resolve FPIR 1 %
    assert told["rank"]["1"] == pytest.approx(np.mean([rates[1] for rates, _ in slow.values()]))
    assert told["tpir_at_fpir"][0]["value"] == pytest.approx(np.mean([tpir for _, tpir in slow.values()]))
    assert told["tpir_at_fpir"][0]["threshold"] is None  # each gallery has its own
    assert 0 < told["tpir_at_fpir"][0]["value"] < 1
    merged = open_benchmark(f"{name}-merged", every_set).run(lambda images: (vectors, norms))
    assert list(merged.per_gallery) == [" + ".join(benchmark.galleries)]
    assert merged.to_dict()["tpir_at_fpir"][0]["threshold"] is not None
    assert merged.benchmark == f"{name}-merged"


@pytest.mark.parametrize("pooling", ["insightface", "magface", "unpg-authors"])
def test_pooling_reaches_the_searches(every_set, pooling):
    benchmark = open_benchmark("ijbc-1n", every_set)
    chosen = SearchBenchmark(**{**vars(benchmark), "pooling": pooling})
    told = chosen.run(BASELINES["grey-pixels"]).to_dict()
    assert told["pooling"]["preset"] == pooling
    assert told["rank"]["1"] > 0.9


def test_closed_set_is_the_loop():
    labels = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3]
    images, (x, norms) = some_images(labels), noisy(labels, noise=0.8)
    benchmark = closed_set("mine", images)
    result = benchmark.run(lambda _: (x, norms))
    gallery = [0, 3, 5, 6]
    hits = []
    for i in (1, 2, 4, 7, 8, 9):
        scores = [round(float(x[i] @ x[g]) / STEP) * STEP for g in gallery]
        own = scores[labels[i]]
        hits.append(sum(s >= own for s in scores))
    expected = [np.mean([h <= k for h in hits]) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(result.arrays()["cmc"], expected)
    assert result.to_dict()["tpir_at_fpir"] == []  # everybody is enrolled
    with pytest.raises(DataError, match="no identity has two images"):
        closed_set("mine", some_images([0, 1, 2]))


def test_draws_are_repeated_searches():
    """A subject drawn twice counts as if its searches had been made twice, and thresholds move with it."""
    rng = np.random.default_rng(0)
    mated = rng.random(300) < 0.5
    best = rng.normal(size=300).round(1).astype(np.float32)  # ties
    mate = np.where(mated, best - rng.integers(0, 3, 300) / 10, -np.inf).astype(np.float32)
    rank = np.where(mated, rng.integers(1, 8, 300), 0)
    people = rng.integers(0, 40, 300) + 100 * ~mated
    rates = gallery_rates(Searches(mated, mate, rank, best, 50), people, ranks=(1, 3), fpirs=(0.1, 0.2))
    kept = GalleryEvidence(rates.searches, people, (1, 3), (0.1, 0.2))
    evidence = SearchEvidence({"g": kept})
    assert evidence.units == len(np.unique(people))
    plain = evidence.figures(np.ones(evidence.units, dtype=np.int64), ())
    assert plain == pytest.approx(
        {"rank=1": rates.rank[1], "rank=3": rates.rank[3]}
        | {f"tpir@fpir={name}": p.value for name, p in zip(("1e-1", "2e-1"), rates.tpir_at_fpir, strict=True)}
    )
    names = np.unique(people)
    for seed in range(5):
        weights = np.random.default_rng(seed).integers(0, 3, evidence.units)
        rows = np.repeat(np.arange(300), weights[np.searchsorted(names, people)])
        repeated = Searches(mated[rows], mate[rows], rank[rows], best[rows], 50)
        expected = gallery_rates(repeated, ranks=(1, 3), fpirs=(0.1, 0.2))
        figures = evidence.figures(weights, ())
        assert figures["rank=3"] == pytest.approx(expected.rank[3])
        assert figures["tpir@fpir=1e-1"] == pytest.approx(expected.tpir_at_fpir[0].value)
        assert figures["tpir@fpir=2e-1"] == pytest.approx(expected.tpir_at_fpir[1].value)
    nobody = evidence.figures(np.zeros(evidence.units, dtype=np.int64), ())
    assert all(np.isnan(value) for value in nobody.values())


def test_intervals_of_searches_hold_the_figures():
    labels = np.repeat(np.arange(60), 4).tolist()
    images, embedded = some_images(labels), noisy(labels, noise=1.2)
    result = closed_set("mine", images).run(lambda _: embedded).with_intervals(Bootstrap(replicates=200))
    assert result.intervals.unit == "identity"
    assert "mated searches" not in " ".join(result.intervals.notes)  # 60 people of equal size: nothing to warn of
    for figure, interval in result.intervals.figures.items():
        assert interval.low < result.metrics()[figure] < interval.high
    few = closed_set("few", some_images(labels[:20])).run(lambda _: (embedded[0][:20], embedded[1][:20]))
    assert "mated searches" in few.with_intervals(Bootstrap(replicates=40)).intervals.refused


def test_blufr_is_mean_less_deviation_of_its_trials(every_set):
    result = open_benchmark("blufr", every_set).run(BASELINES["grey-pixels"])
    told = result.to_dict()
    assert (told["galleries"], told["subjects"]) == (3, 12)
    assert told["probes"] == 3 * (18 * 4 - 12)
    rates = [g.rank[1] for g in result.per_gallery.values()]
    metrics = result.metrics()
    assert metrics["rank=1"] == pytest.approx(np.mean(rates))
    assert metrics["rank=1 (mean - std)"] == pytest.approx(np.mean(rates) - np.std(rates, ddof=1))
    intervals = result.with_intervals(Bootstrap(replicates=40)).intervals
    assert set(intervals.figures) == {"rank=1", "rank=5", "rank=10"}  # without the pairs, no interval of theirs
    assert "mean - std has no interval" in intervals.notes[-1]
    # One trial has no deviation, and JSON no NaN.
    alone = dataclasses.replace(result, per_gallery={"trial 1": result.per_gallery["trial 1"]})
    assert not [name for name in alone.metrics() if name.endswith("(mean - std)")]
    json.dumps(alone.to_dict(), allow_nan=False)


def test_refined_megaface_leaves_the_noise_out(every_set):
    """The noisy distractor shows a probe's person, the noisy probe somebody else: without them pixels find more."""
    names = ("megaface", "megaface-refined")
    plain, refined = (open_benchmark(name, every_set).run(BASELINES["grey-pixels"]) for name in names)
    assert (plain.distractors, refined.distractors) == (61, 60)
    assert plain.to_dict()["probes"] == 23 * 4 * 3 + 5 * 4
    assert refined.to_dict()["probes"] == 24 * 4 * 3
    assert refined.rank[1] > plain.rank[1]
    assert "as published" in plain.notes[0]
    assert "1 noisy probes and 1 noisy distractors" in refined.notes[0]


def test_feature_files_give_what_images_give(every_set, tmp_path, capsys):
    """The devkit's files of the vectors that a model would give: the same figures, without an image or a network."""
    for name in ("megaface", "megaface-refined"):
        benchmark = open_benchmark(name, every_set)
        vectors, norms = BASELINES["grey-pixels"](benchmark.images)
        scrub, _ = benchmark.images.parts.values()
        for i, vector in enumerate(vectors * norms[:, None]):
            part, root = ("f", "facescrub_images") if i < len(scrub) else ("m", "megaface_images")
            path = Path(benchmark.images.name(i)).relative_to(every_set / "megaface" / root)
            write_feature(tmp_path / part / f"{path}_x.bin", vector)
        found = judge_megaface_features(name, tmp_path / "f", tmp_path / "m", "_x.bin", every_set)
        expected = benchmark.run(lambda images, v=vectors, n=norms: (v, n))
        assert found.metrics() == expected.metrics()
        assert found.distractors == expected.distractors
    words = ["evaluate", "--features", str(tmp_path / "f"), str(tmp_path / "m"), "_x.bin", "--data", str(every_set)]
    assert main([*words, "--benchmark", "megaface", "megaface-refined", "--out", str(tmp_path / "out")]) == 0
    assert "60 distractors" in capsys.readouterr().out
    assert set(load_results(tmp_path / "out")["results"]) == {"megaface", "megaface-refined"}
    assert main([*words, "--benchmark", "lfw"]) == 2
    assert "'megaface' or 'megaface-refined'; got 'lfw'" in capsys.readouterr().err
    assert main([*words, "model.safetensors"]) == 2
    assert "takes the place of a model" in capsys.readouterr().err
    (tmp_path / "m/3/3@N/3_0.png_x.bin").unlink()
    with pytest.raises(DataError, match=r"3_0\.png_x\.bin cannot be read"):
        judge_megaface_features("megaface", tmp_path / "f", tmp_path / "m", "_x.bin", every_set)
    write_feature(tmp_path / "g/P0/P0_0.png_x.bin", np.ones(3))
    for path in (tmp_path / "f").rglob("*.bin"):
        write_feature(tmp_path / "g" / path.relative_to(tmp_path / "f"), np.ones(3))
    with pytest.raises(ShapeError, match="3 numbers"):
        judge_megaface_features(
            "megaface-refined", tmp_path / "g", tmp_path / "f", "_x.bin", fewer(every_set, tmp_path)
        )


def fewer(every_set, tmp_path):
    """Lists whose distractors are the probes themselves, so that their features are all there."""
    root = tmp_path / "lists"
    shutil.copytree(every_set / "megaface/templatelists", root / "megaface/templatelists")
    for file in ("facescrub_noises.txt", "megaface_noises.txt"):
        shutil.copy(every_set / "megaface" / file, root / "megaface" / file)
    probes = read_feature_list(root / "megaface/templatelists/facescrub_features_list.json").paths
    write_feature_list(root / "megaface/templatelists/megaface_features_list.json_1000000_1", probes)
    return root


def test_tinyface_says_that_images_are_stretched(every_set):
    benchmark = open_benchmark("tinyface", every_set)
    assert benchmark.images.read(0).shape == (112, 112, 3)
    result = benchmark.run(BASELINES["grey-pixels"])
    assert (result.distractors, result.to_dict()["probes"]) == (40, 48)
    assert "stretched" in result.notes[0]


def test_several_entries_of_a_subject_count_by_the_nearest():
    x = np.eye(4, dtype=np.float32)
    found = search(x[:1], [7], x, [7, 8, 7, 9])
    assert (found.rank[0], found.subjects) == (1, 3)
    gallery = Enrolled(np.arange(4), np.array([7, 8, 7, 9]))
    probe = Enrolled(np.array([0]), np.array([7]))
    benchmark = SearchBenchmark("mine", some_images([0, 1, 0, 2]), probe, {"g": gallery})
    assert benchmark.run(lambda _: (x, np.ones(4, np.float32))).rank[1] == 1.0
