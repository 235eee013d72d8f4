"""Names, layouts and own data: what is opened, and what a missing or broken set says."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from unpg.data.blufr import draw_blufr_trials, read_blufr
from unpg.data.mat5 import read_mat5
from unpg.data.pairs import flat_pairs
from unpg.data.subset import Subset
from unpg.embed import Model
from unpg.errors import DataError
from unpg.evaluate import BASELINES, BENCHMARKS, LAYOUTS, MODEL_BASELINES, embedder, open_benchmark
from unpg.evaluate.layouts import set_of

scipy_io = pytest.importorskip("scipy.io")


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_a_missing_set_says_what_is_expected_and_where_it_is_to_be_had(tmp_path, name):
    with pytest.raises(DataError) as told:
        open_benchmark(name, tmp_path)
    layout = LAYOUTS[set_of(name)]
    message = str(told.value)
    assert f"benchmark {name!r} needs" in message
    assert all(line.strip() in message for line in layout.tree.splitlines())
    assert layout.source in message


@pytest.mark.parametrize(
    ("name", "gone", "words"),
    [
        ("lfw", "lfw/pairs.txt", r"lfw\.bin, or lfw/pairs\.txt"),
        ("agedb-30", "agedb-30/images", r"agedb_30\.bin, or agedb-30/images"),
        ("calfw", "calfw/pairs_CALFW.txt", r"calfw\.bin, or calfw/pairs_CALFW\.txt"),
        ("cplfw", "cplfw.bin", r"cplfw\.bin, or cplfw/pairs_CPLFW\.txt, cplfw/images"),
        ("ijbc", "ijbc/images", "ijbc/images"),
        ("ijbc-1n", "ijbc/meta/ijbc_1N_probe_mixed.csv", "1:N protocol in part"),
        ("megaface-refined", "megaface/facescrub_noises.txt", r"facescrub_noises\.txt"),
        ("tinyface", "tinyface/Testing_Set/Gallery_Distractor", "Gallery_Distractor"),
        ("blufr", "lfw/blufr_lfw_config.mat", r"blufr_lfw_config\.mat"),
    ],
)
def test_the_part_that_lacks_is_named(every_set, tmp_path, name, gone, words):
    first = gone.partition("/")[0]
    if (every_set / first).is_dir():
        shutil.copytree(every_set / first, tmp_path / first)
        target = tmp_path / gone
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(DataError, match=words):
        open_benchmark(name, tmp_path)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_another_data_root_stands_before_a_name(every_set, tmp_path, name):
    here = open_benchmark(f"{every_set}:{name}", tmp_path)
    assert here.name == f"{every_set}:{name}"
    assert here.images.digest() == open_benchmark(name, every_set).images.digest()
    with pytest.raises(DataError, match=f"benchmark '{name}' needs"):
        open_benchmark(f"{tmp_path}:{name}", every_set)


def test_lists_of_1n_may_lack_where_they_are_not_needed(every_set, tmp_path):
    shutil.copytree(every_set / "ijbc", tmp_path / "ijbc")
    for file in (tmp_path / "ijbc/meta").glob("*_1N_*"):
        file.unlink()
    found = open_benchmark("ijbc", tmp_path)
    assert found.subjects is None
    with pytest.raises(DataError, match=r"1N_gallery_\*\.csv"):
        open_benchmark("ijbc-1n", tmp_path)


@pytest.mark.parametrize("name", ["lfw", "cfp-ff", "cfp-fp", "agedb-30", "calfw"])
def test_a_bin_file_serves_where_the_list_is_not_there(every_set, tmp_path, name):
    bin_name = name.replace("-", "_")
    shutil.copy(every_set / "cplfw.bin", tmp_path / f"{bin_name}.bin")
    found = open_benchmark(name, tmp_path)
    assert (found.name, len(found.same), len(np.unique(found.folds))) == (name, 120, 10)
    assert found.identities is None
    # The list and its images say who is who, so they come first.
    listed = open_benchmark(name, every_set)
    assert name == "agedb-30" or listed.identities is not None


def test_calfw_s_list(every_set):
    found = flat_pairs(every_set / "calfw/pairs_CALFW.txt", every_set / "calfw/images", name="calfw")
    assert np.bincount(found.folds[found.same]).tolist() == [6] * 10
    assert np.bincount(found.folds[~found.same]).tolist() == [6] * 10
    assert np.all(np.diff(found.folds[~found.same]) >= 0)  # runs, in order of the list
    assert found.identities[found.pairs[0, 0]] == found.identities[found.pairs[0, 1]]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a_0001.jpg 1"], "1 lines; a pair is two"),
        (["a_0001.jpg 1", "a_0002.jpg 2"], "line 2: .* the numbers 1 and 2"),
        (["a_0001.jpg", "a_0002.jpg 1"], "line 1: expected"),
        (["a_0001.jpg one", "a_0002.jpg 1"], "line 1: expected"),
        (["../a_0001.jpg 1", "a_0002.jpg 1"], "line 1: expected"),
        (["a_0001.jpg 1", "b_0001.jpg 1"], "said to be genuine shows 'a' and 'b'"),
        (["a_0001.jpg 0", "a_0002.jpg 0"], "said to be impostor shows 'a' and 'a'"),
        ([], "no pairs"),
    ],
)
def test_broken_flat_lists_are_named(tmp_path, lines, words):
    (tmp_path / "list.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=words):
        flat_pairs(tmp_path / "list.txt", tmp_path, name="mine")


# BLUFR


def cell(values):
    found = np.empty((len(values), 1), dtype=object)
    found[:, 0] = values
    return found


def test_cells_of_numbers_are_read(tmp_path):
    parts = [np.array([[1.0, 2.0]]), np.array([[3], [4]], dtype=np.int32), np.zeros((0, 0))]
    scipy_io.savemat(tmp_path / "a.mat", {"x": cell(parts)})
    found = read_mat5(tmp_path / "a.mat")["x"]
    assert [f.tolist() for f in found] == [p.tolist() for p in parts]


def test_blufr_trials_point_to_the_images_they_name(every_set):
    names = [f"Name_{chr(97 + p)}_{i:04d}.jpg" for p in range(24) for i in range(1, 5)]
    order = np.random.default_rng(0).permutation(len(names))
    shuffled = [names[i] for i in order]
    raw = scipy_io.loadmat(every_set / "lfw/blufr_lfw_config.mat")
    trials = read_blufr(every_set / "lfw/blufr_lfw_config.mat", shuffled)
    assert len(trials) == 3
    listed = [entry[0][0] for entry in raw["imageList"]]
    for number, trial in enumerate(trials):
        for ours, theirs in ((trial.test, "testIndex"), (trial.gallery, "galIndex"), (trial.probes, "probIndex")):
            expected = [listed[int(i) - 1] for i in raw[theirs][number, 0].ravel()]
            assert [shuffled[i] for i in ours] == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"galIndex": None}, "no variable 'galIndex'"),
        ({"imageList": np.arange(3.0)}, "imageList must be a cell of file names"),
        ({"galIndex": np.arange(3.0)}, "galIndex must be a cell of numbers"),
        ({"galIndex": cell([np.array([[0.0]])] * 3)}, "whole numbers from 1 to 96"),
        ({"galIndex": cell([np.array([[97.0]])] * 3)}, "whole numbers from 1 to 96"),
        ({"galIndex": cell([np.array([[1.5]])] * 3)}, "whole numbers from 1 to 96"),
        ({"galIndex": cell([np.array([[1.0]])] * 2)}, r"have \[3, 2, 3\] trials"),
    ],
)
def test_broken_trials_are_named(every_set, tmp_path, change, words):
    raw = scipy_io.loadmat(every_set / "lfw/blufr_lfw_config.mat")
    kept = {k: v for k, v in {**raw, **change}.items() if not k.startswith("__") and v is not None}
    scipy_io.savemat(tmp_path / "b.mat", kept)
    names = [entry[0][0] for entry in raw["imageList"]]
    with pytest.raises(DataError, match=words):
        read_blufr(tmp_path / "b.mat", names)


def test_an_image_of_a_trial_that_is_not_there_is_named(every_set):
    with pytest.raises(DataError, match=r"the image 'Name_\w_000\d\.jpg' is not in the image set"):
        read_blufr(every_set / "lfw/blufr_lfw_config.mat", ["Name_a_0001.jpg"])


def test_drawn_trials_keep_blufr_s_proportions():
    rng = np.random.default_rng(0)
    labels = np.sort(np.concatenate([np.arange(5749), rng.integers(0, 1680, 13233 - 5749)]))
    trials = draw_blufr_trials(labels)
    assert len(trials) == 10
    for trial in trials:
        assert len(np.unique(labels[trial.test])) == 4249
        assert len(trial.gallery) == len(np.unique(labels[trial.gallery])) == 1000
        assert set(trial.gallery) | set(trial.probes) == set(trial.test)
        assert not set(trial.gallery) & set(trial.probes)
        enrolled = np.isin(labels[trial.probes], labels[trial.gallery])
        assert enrolled.any()
        assert not enrolled.all()
        # Everybody enrolled is sought.
        assert set(labels[trial.probes][enrolled]) == set(labels[trial.gallery])
    again = draw_blufr_trials(labels)
    assert all(np.array_equal(a.gallery, b.gallery) for a, b in zip(trials, again, strict=True))
    assert not np.array_equal(trials[0].test, trials[1].test)
    with pytest.raises(DataError, match="two images or more"):
        draw_blufr_trials(np.arange(100))


# own data, and baselines


def test_own_folder_as_a_closed_set(every_set):
    found = open_benchmark(f"{every_set / 'lfw/images'}:closed-set")
    result = found.run(BASELINES["grey-pixels"])
    assert (result.protocol, result.to_dict()["probes"]) == ("identification", 72)
    with pytest.raises(DataError, match="closed-set for rank-k"):
        open_benchmark(f"{every_set / 'lfw/images'}:open-set")


def test_block_lbp_is_the_loop(every_set):
    images = Subset(open_benchmark("lfw-allpairs", every_set).images, [5])
    vectors, _ = BASELINES["block-lbp"](images)
    resized = Image.fromarray(images.read(0)).convert("L").resize((56, 56), Image.Resampling.BOX)
    grey = np.asarray(resized).astype(int)
    patterns = [p for p in range(256) if sum((p >> k & 1) != (p >> (k + 1) % 8 & 1) for k in range(8)) <= 2]
    assert len(patterns) == 58
    histogram = np.zeros((7, 7, 59))
    circle = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    for y in range(1, 55):
        for x in range(1, 55):
            code = sum((grey[y + dy, x + dx] >= grey[y, x]) << k for k, (dy, dx) in enumerate(circle))
            bin_ = patterns.index(code) if code in patterns else 58
            histogram[(y - 1) * 7 // 54, (x - 1) * 7 // 54, bin_] += 1
    expected = np.sqrt(histogram.ravel())
    np.testing.assert_allclose(vectors[0], expected / np.linalg.norm(expected), atol=1e-6)


def test_baselines_of_a_model(every_set):
    torch.manual_seed(5)
    model = Model.create("small_iresnet", dim=8, input_size=(16, 16), widths=(4, 4, 4, 4))
    images = open_benchmark("lfw-closed-set", every_set).images
    state = torch.get_rng_state()
    own, norms = embedder(model)(images)
    fresh, _ = MODEL_BASELINES["untrained-backbone"](model, embedder)(images)
    again, _ = MODEL_BASELINES["untrained-backbone"](model, embedder)(images)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(fresh, again)
    assert not np.allclose(fresh, own)
    moved, moved_norms = MODEL_BASELINES["shuffled-labels"](model, embedder)(images)
    where = [int(np.flatnonzero((own == row).all(axis=1))[0]) for row in moved]
    assert sorted(where) == list(range(len(own)))
    assert where != sorted(where)
    np.testing.assert_array_equal(moved_norms, norms[where])
