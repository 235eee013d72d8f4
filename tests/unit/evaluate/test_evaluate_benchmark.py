import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from unpg.data import ArraySet, ImageSet
from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate import (
    BASELINES,
    BENCHMARKS,
    AllPairsBenchmark,
    PairBenchmark,
    data_root,
    judge_all_pairs,
    judge_pairs,
    load_results,
    open_benchmark,
    pair_scores,
    save_results,
)
from unpg.evaluate.results import scores_path


def pictures(identities=8, each=6, size=24, seed=0):
    """One random picture per identity, each image of it with noise: pixels tell them apart, and nothing is a face."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), each)
    base = rng.uniform(40, 215, (identities, size, size, 3))
    noisy = base[labels] + rng.normal(0, 60, (len(labels), size, size, 3))
    return ArraySet(np.clip(noisy, 0, 255).astype(np.uint8), labels, [f"id{i}" for i in range(identities)])


def balanced_pairs(images, folds=5):
    same = [(i, i + 1) for i in range(len(images) - 1) if images.labels[i] == images.labels[i + 1]]
    other = [(i, (i + 6) % len(images)) for i in range(len(same))]
    answers = np.arange(2 * len(same)) < len(same)
    return np.array(same + other), answers, np.tile(np.arange(folds), len(answers) // folds)


@pytest.fixture(scope="module")
def images():
    return pictures()


def test_scores_are_cosines_of_rows():
    rng = np.random.default_rng(0)
    vectors, pairs = rng.normal(size=(30, 7)), rng.integers(0, 30, (9000, 2))
    a, b = vectors[pairs[:, 0]], vectors[pairs[:, 1]]
    truth = [x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(pair_scores(vectors, pairs), truth, atol=3e-7)


def test_equal_vectors_have_equal_scores_wherever_they_lie():
    vectors = np.tile(np.random.default_rng(1).normal(size=511).astype(np.float32), (5000, 1))
    assert len(np.unique(pair_scores(vectors, np.random.default_rng(2).integers(0, 5000, (9999, 2))))) == 1


def test_pairs_that_point_nowhere_are_refused():
    with pytest.raises(ShapeError, match=r"\(p, 2\)"):
        pair_scores(np.ones((3, 2)), [[0, 1, 2]])
    with pytest.raises(ShapeError, match=r"\(p, 2\) integers"):
        pair_scores(np.ones((3, 2)), [[0.0, 1.0]])
    for row in ([0, 3], [-1, 0]):
        with pytest.raises(ShapeError, match="of 3 embeddings"):
            pair_scores(np.ones((3, 2)), [row])


def test_pair_benchmark_reports_every_figure(images):
    pairs, same, folds = balanced_pairs(images)
    benchmark = PairBenchmark("mine", images, pairs, same, folds, left_out=3, targets=(0.1, 1e-4))
    result = benchmark.run(BASELINES["grey-pixels"])
    assert (result.genuine, result.impostor, result.left_out) == (40, 40, 3)
    assert set(result.metrics()) == {
        "accuracy",
        "accuracy_std",
        "accuracy_insightface_grid",
        "accuracy_best_threshold",
        "auc",
        "eer",
        "tar@far=1e-1",  # 1e-4 cannot be resolved with 40 impostor pairs
    }
    assert result.metrics()["accuracy"] > 0.9
    stored = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert stored["tar_at_far"][1]["value"] is None
    assert "40 impostor pairs" in stored["tar_at_far"][1]["reason"]


def test_a_pair_has_the_quality_of_its_worse_image(images):
    pairs, same, _ = balanced_pairs(images)
    vectors, norms = BASELINES["grey-pixels"](images)
    result = PairBenchmark("mine", images, pairs, same).run(lambda _: (vectors, norms))
    arrays = result.arrays()
    assert arrays["quality"].tolist() == [min(norms[a], norms[b]) for a, b in pairs]
    assert (arrays["quality"].dtype, arrays["pairs"].dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(arrays["pairs"], pairs)
    assert result.names == [images.name(i) for i in range(len(images))]
    with pytest.raises(ShapeError, match="lengths of shape"):
        PairBenchmark("mine", images, pairs, same).run(lambda _: (vectors, norms[:3]))


def test_names_with_line_breaks_do_not_shift_the_others(tmp_path, images):
    pairs, same, _ = balanced_pairs(images)
    result = PairBenchmark("mine", images, pairs, same).run(BASELINES["grey-pixels"])
    names = ["a\nb", *result.names[1:]]
    save_results(tmp_path, [dataclasses.replace(result, names=names)])
    assert (tmp_path / "scores/mine.names.txt").read_text().splitlines() == ["a b", *names[1:]]
    save_results(tmp_path, [dataclasses.replace(result, names=None, pairs=None)])
    assert not (tmp_path / "scores/mine.names.txt").exists()  # names of other pairs would mislead


def test_list_without_folds_has_no_accuracy_over_folds(images):
    pairs, same, _ = balanced_pairs(images)
    result = PairBenchmark("mine", images, pairs, same).run(BASELINES["grey-pixels"])
    assert "accuracy" not in result.metrics()
    assert result.metrics()["accuracy_best_threshold"] > 0.9


def test_all_pairs_benchmark(images):
    result = AllPairsBenchmark("all", images).run(BASELINES["grey-pixels"])
    assert (result.images, result.identities) == (48, 8)
    assert (result.genuine, result.impostor) == (8 * 15, 48 * 47 // 2 - 8 * 15)
    assert result.genuine_counts.sum() == result.genuine
    assert result.metrics()["eer"] < 0.05
    json.dumps(result.to_dict(), allow_nan=False)


def test_constant_embedding_is_chance_in_every_protocol(images):
    pairs, same, folds = balanced_pairs(images)
    by_pairs = PairBenchmark("mine", images, pairs, same, folds, targets=(0.1,)).run(BASELINES["constant"]).metrics()
    assert by_pairs == {
        "accuracy": 0.5,
        "accuracy_std": 0.0,
        "accuracy_insightface_grid": 0.5,
        "accuracy_best_threshold": 0.5,
        "auc": 0.5,
        "eer": 0.5,
        "tar@far=1e-1": 0.0,
    }
    every = AllPairsBenchmark("all", images, targets=(0.1, 0.01)).run(BASELINES["constant"]).metrics()
    assert every == {"auc": 0.5, "eer": 0.5, "tar@far=1e-1": 0.0, "tar@far=1e-2": 0.0}


@pytest.mark.parametrize("name", ["constant", "grey-pixels", "mean-color"])
def test_baselines_embed_in_order_and_to_unit_length(images, name):
    vectors, norms = BASELINES[name](images)
    assert vectors.dtype == norms.dtype == np.float32
    assert len(vectors) == len(norms) == len(images)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_baselines_of_known_pictures():
    red = np.zeros((1, 40, 50, 3), dtype=np.uint8)
    red[..., 0] = 255
    half = np.zeros((1, 40, 50, 3), dtype=np.uint8)
    half[:, :20] = 200
    dark = half // 2
    one = ArraySet(np.concatenate([red, half, dark]), np.zeros(3, int), ["x"])
    vectors, norms = BASELINES["mean-color"](one)
    np.testing.assert_allclose(vectors[0] * norms[0], [127.5, -127.5, -127.5], rtol=1e-6)
    vectors, norms = BASELINES["grey-pixels"](one)
    assert norms[0] == 0  # one grey value: no picture at all
    assert vectors[1] @ vectors[2] == pytest.approx(1)  # brightness does not matter
    assert norms[1] == pytest.approx(100 * 32)


def test_embed_function_of_wrong_shape_is_refused(images):
    with pytest.raises(ShapeError, match="for 48 images"):
        AllPairsBenchmark("all", images).run(lambda s: (np.ones((3, 4), np.float32), np.ones(3, np.float32)))


# results on disk


def test_results_are_kept_and_joined(tmp_path, images):
    pairs, same, folds = balanced_pairs(images)
    vectors, _ = BASELINES["grey-pixels"](images)
    first = judge_pairs("lists/mine.csv", vectors, pairs, same, folds)
    save_results(tmp_path, [first], model="pixels")
    path = save_results(tmp_path, [judge_all_pairs("all", vectors, images.labels)], flip="none")
    kept = load_results(tmp_path)
    assert path == tmp_path / "results.json"
    assert list(kept["results"]) == ["lists/mine.csv", "all"]
    assert (kept["model"], kept["flip"]) == ("pixels", "none")
    assert kept["results"]["all"]["protocol"] == "all-pairs"
    with np.load(scores_path(tmp_path, "lists/mine.csv")) as stored:
        np.testing.assert_array_equal(stored["scores"], first.scores)
        np.testing.assert_array_equal(stored["same"], first.same)
        assert set(stored.files) == {"scores", "same"}
    with np.load(scores_path(tmp_path, "all")) as stored:
        assert set(stored.files) == {"genuine", "impostor", "edges"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.json", "scores"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), ("{", "not JSON"), ("[]", "must hold a JSON object"), ("{}", "no object")],
)
def test_broken_results_are_named(tmp_path, content, words):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=re.escape(str(tmp_path)) + f".*{words}"):
        load_results(tmp_path)


# by name and by path


def write_tree(root, images):
    for i in range(len(images)):
        who = images.identities[images.labels[i]]
        (root / who).mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.read(i)).save(root / who / f"{i:03d}.png")


def test_own_folder_and_own_pairs(tmp_path, images):
    write_tree(tmp_path / "set", images)
    found = open_benchmark(str(tmp_path / "set"))
    assert isinstance(found, AllPairsBenchmark)
    assert isinstance(found.images, ImageSet)
    in_memory = AllPairsBenchmark("all", images).run(BASELINES["grey-pixels"])
    assert found.run(BASELINES["grey-pixels"]).metrics() == in_memory.metrics()

    table = tmp_path / "mine.csv"
    rows = ["set/id0/000.png,set/id0/001.png,1", "set/id0/000.png,set/id1/006.png,0", "set/id0/000.png,gone.png,0"]
    table.write_text("\n".join(["path_a,path_b,same", *rows]))
    result = open_benchmark(str(table)).run(BASELINES["grey-pixels"])
    assert (result.genuine, result.impostor, result.left_out) == (1, 1, 1)
    assert result.metrics()["auc"] == 1.0


@pytest.mark.parametrize(
    ("columns", "rows", "known"),
    [
        ("", ["", ""], None),
        (",identity_a,identity_b", [",x,x", ",x,y"], [0, 0, 1]),
        (",identity_a,identity_b", [",x,x", ",x,"], None),  # one unknown: then nobody can be drawn
    ],
)
def test_identities_of_a_pair_list_reach_the_bootstrap(tmp_path, images, columns, rows, known):
    write_tree(tmp_path / "set", images)
    table = tmp_path / "mine.csv"
    pairs = ["set/id0/000.png,set/id0/001.png,1", "set/id0/000.png,set/id1/006.png,0"]
    table.write_text("\n".join([f"path_a,path_b,same{columns}", *(a + b for a, b in zip(pairs, rows, strict=True))]))
    found = open_benchmark(str(table))
    assert (None if found.identities is None else found.identities.tolist()) == known
    result = found.run(BASELINES["grey-pixels"])
    assert (None if result.identities is None else result.identities.tolist()) == (known and [[0, 0], [0, 1]])


def test_unknown_benchmark_is_an_error_with_the_nearest_name(tmp_path):
    with pytest.raises(DataError, match=r"path_a,path_b,same.*Did you mean 'cfp-fp'\? Known: .*lfw-allpairs"):
        open_benchmark("cfpfp", tmp_path)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_missing_set_shows_the_layout(tmp_path, name):
    with pytest.raises(DataError, match=rf"(?s)'{name}' needs .*Expected layout.*Where one gets it: "):
        open_benchmark(name, tmp_path)


def test_data_root_is_argument_then_environment_then_neighbor(tmp_path, monkeypatch):
    for name in ("given", "environment", "shared/data", "here"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("UNPG_DATA", str(tmp_path / "environment"))
    assert data_root(tmp_path / "given") == tmp_path / "given"
    assert data_root() == tmp_path / "environment"
    monkeypatch.delenv("UNPG_DATA")
    assert data_root().resolve() == tmp_path / "shared" / "data"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"(?s)UNPG_DATA.*lfw/images"):
        data_root()
    monkeypatch.setenv("UNPG_DATA", "nowhere")
    with pytest.raises(DataError, match="UNPG_DATA is 'nowhere', which is no folder"):
        data_root()
    with pytest.raises(DataError, match="data root is 'elsewhere'"):
        data_root("elsewhere")


@pytest.mark.data
def test_official_lists_of_the_real_sets(faces):
    def constant(images):
        return np.ones((len(images), 2), np.float32), np.ones(len(images), np.float32)

    counted = {}
    for name in ("lfw", "cfp-ff", "cfp-fp"):
        result = open_benchmark(name, faces).run(constant)
        people = len(np.unique(result.identities))
        counted[name] = (result.genuine + result.impostor, result.left_out, people)
    assert counted == {"lfw": (6000, 0, 4281), "cfp-ff": (7000, 0, 500), "cfp-fp": (6971, 29, 500)}


def test_what_is_said_of_a_model_is_joined_and_not_lost(tmp_path):
    labels = np.repeat(np.arange(3), 2)
    result = judge_all_pairs("one", np.eye(3)[labels], labels, targets=(0.5,))
    save_results(tmp_path, [result], model="m", data_digests={"one": "aa"})
    save_results(tmp_path, [replace(result, benchmark="two")], model="n", data_digests={"two": "bb"})
    found = load_results(tmp_path)
    assert (found["model"], found["data_digests"]) == ("n", {"one": "aa", "two": "bb"})
    assert list(found["results"]) == ["one", "two"]


def test_what_several_write_to_one_folder_is_all_there(tmp_path):
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(40, 4)).astype(np.float32), np.arange(40) // 4
    result = judge_all_pairs("one", vectors, labels)
    names = [f"set-{i}" for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(save_results, tmp_path, [replace(result, benchmark=name)]) for name in names]
        assert {future.result() for future in done} == {tmp_path / "results.json"}
    assert sorted(load_results(tmp_path)["results"]) == sorted(names)


def test_two_benchmarks_never_share_a_file_of_scores(tmp_path):
    labels = np.repeat(np.arange(3), 2)
    result = judge_all_pairs("../people", np.eye(3)[labels], labels, targets=(0.5,))
    save_results(tmp_path, [result])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"of '../people' and of './people' would both be kept in .*_people.npz"):
        save_results(tmp_path, [replace(result, benchmark="./people")])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_benchmark_may_have_a_path_longer_than_a_file_name(tmp_path):
    labels = np.repeat(np.arange(3), 2)
    names = [f"/{'ä' * 200}/{n}/pairs.csv" for n in "ab"]
    result = judge_all_pairs(names[0], np.eye(3)[labels], labels, targets=(0.5,))
    save_results(tmp_path, [result, replace(result, benchmark=names[1])])
    assert list(load_results(tmp_path)["results"]) == names
    assert len(list((tmp_path / "scores").iterdir())) == 2
