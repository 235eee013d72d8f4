import numpy as np
import pytest
import torch

from unpg.errors import DataError, ShapeError
from unpg.evaluate.allpairs import RESOLUTION, all_pairs, unit_rows
from unpg.evaluate.curves import Roc


def clouds(n, identities, dim, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, identities, n)
    centers = rng.normal(size=(identities, dim))
    return (centers[labels] + spread * rng.normal(size=(n, dim))).astype(np.float32), labels


def dense(embeddings, labels):
    """Every pair in a double loop, in float64, rounded as documented."""
    x = embeddings.astype(np.float64)
    scores, same = [], []
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            lengths = np.linalg.norm(x[i]) * np.linalg.norm(x[j])
            cosine = x[i] @ x[j] / lengths if lengths > 0 else 0.0
            scores.append(np.round(cosine / RESOLUTION) * RESOLUTION)
            same.append(labels[i] == labels[j])
    return np.array(scores), np.array(same)


@pytest.mark.parametrize(("rows", "columns"), [(1024, 4096), (7, 5), (16, 200), (30, 11)])
def test_counts_and_rates_match_the_double_loop(rows, columns):
    embeddings, labels = clouds(90, 12, 8, seed=rows)
    found = all_pairs(embeddings, labels, block_rows=rows, block_columns=columns)
    scores, same = dense(embeddings, labels)
    truth = Roc.from_scores(scores, same)
    assert (found.roc.genuine, found.roc.impostor) == (same.sum(), (~same).sum())
    for target in (1e-3, 0.01, 0.1, 0.3, 0.9):
        a, b = found.roc.tar_at_far(target), truth.tar_at_far(target)
        assert a.value == b.value, target
        assert a.far == b.far
    assert found.roc.eer == pytest.approx(truth.eer, abs=1e-4)
    assert found.roc.auc == pytest.approx(truth.auc, abs=1e-6)
    np.testing.assert_array_equal(found.genuine, np.histogram(scores[same], found.edges)[0])
    np.testing.assert_array_equal(found.impostor, np.histogram(scores[~same], found.edges)[0])


def test_whole_curve_is_exact_with_many_ties():
    # Corners of a cube with 4 axes: all cosines are multiples of 1/2, and nearly all pairs tie.
    rng = np.random.default_rng(0)
    embeddings, labels = rng.choice([-1.0, 1.0], (120, 4)), rng.integers(0, 9, 120)
    found = all_pairs(embeddings, labels, block_rows=32, block_columns=50).roc
    truth = Roc.from_scores(*dense(embeddings, labels))
    np.testing.assert_array_equal(found.thresholds, truth.thresholds)
    np.testing.assert_array_equal(found.true_accepts, truth.true_accepts)
    np.testing.assert_array_equal(found.false_accepts, truth.false_accepts)


def test_hand_made_set():
    east, north = [1.0, 0.0], [0.0, 2.0]
    found = all_pairs([east, east, north, north], [7, 7, 3, 3]).roc
    assert (found.genuine, found.impostor, found.eer, found.auc) == (2, 4, 0.0, 1.0)
    assert found.thresholds.tolist() == [np.inf, 1.0, 0.0]


@pytest.mark.parametrize("n", [97, 1500])
@pytest.mark.parametrize("vector", ["ones", "random"])
def test_constant_embeddings_get_nothing(n, vector):
    rng = np.random.default_rng(2)
    row = np.full(512, 0.3) if vector == "ones" else rng.normal(size=512)
    found = all_pairs(np.tile(row, (n, 1)), rng.integers(0, 20, n), block_rows=64, block_columns=333).roc
    for target in (0.001, 0.1, 0.5, 0.999):
        assert found.tar_at_far(target).value == 0.0
    assert (found.eer, found.auc) == (0.5, 0.5)


def test_shuffled_labels_are_chance():
    embeddings, labels = clouds(1500, 30, 16, seed=4, spread=0.5)
    honest = all_pairs(embeddings, labels).roc
    shuffled = all_pairs(embeddings, np.random.default_rng(5).permutation(labels)).roc
    assert honest.eer < 0.05
    assert shuffled.eer == pytest.approx(0.5, abs=0.03)
    assert shuffled.tar_at_far(0.01).value == pytest.approx(0.01, abs=0.01)


def test_invariances():
    embeddings, labels = clouds(300, 40, 16, seed=6)
    roc = all_pairs(embeddings, labels).roc
    rng = np.random.default_rng(7)
    shuffle = rng.permutation(300)
    lengths = rng.uniform(0.01, 100, (300, 1)).astype(np.float32)
    other = all_pairs((embeddings * lengths)[shuffle], labels[shuffle] * 1000 - 17, block_rows=100).roc
    assert [other.tar_at_far(t).value for t in (0.01, 0.1)] == [roc.tar_at_far(t).value for t in (0.01, 0.1)]
    assert other.eer == pytest.approx(roc.eer, abs=1e-4)


@pytest.mark.data
def test_lfw_has_as_many_pairs_as_it_has(faces):
    sizes = [len(list(folder.iterdir())) for folder in sorted((faces / "lfw" / "images").iterdir())]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    found = all_pairs(np.eye(2)[labels % 2], labels).roc
    assert (len(labels), len(sizes)) == (13_233, 5_749)
    assert (found.genuine, found.impostor) == (242_257, 13_233 * 13_232 // 2 - 242_257)


def test_labels_and_embeddings_may_be_tensors():
    embeddings, labels = clouds(50, 5, 4, seed=8)
    a = all_pairs(torch.tensor(embeddings, requires_grad=True), torch.tensor(labels)).roc
    assert a.auc == all_pairs(embeddings, labels).roc.auc


def test_matmul_precision_of_the_caller_is_left_alone():
    torch.set_float32_matmul_precision("high")
    try:
        all_pairs([[1.0, 0], [1.0, 0], [0, 1.0]], [0, 0, 1])
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_unit_rows_of_extreme_lengths():
    rows = unit_rows(np.array([[3e200, 4e200], [3e-200, 4e-200], [0.0, 0.0], [-5.0, 0.0]]))
    np.testing.assert_allclose(rows.numpy(), [[0.6, 0.8], [0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-7)


@pytest.mark.parametrize(
    ("embeddings", "labels", "error", "words"),
    [
        (np.ones((3, 2)), [0, 0], ShapeError, "one entry per embedding"),
        (np.ones((3, 2)), [0.0, 0.0, 1.0], ShapeError, "integers"),
        (np.ones((3, 2)), ["a", "a", "b"], ShapeError, "integers; got <U1"),
        (np.ones(3), [0, 0, 1], ShapeError, r"\(n, d\)"),
        (np.ones((0, 2)), [], ShapeError, r"\(n, d\)"),
        ([[1.0, 0], [np.nan, 0], [0, 1]], [0, 0, 1], DataError, "first is row 1"),
        (np.ones((3, 2)), [0, 0, 0], DataError, "3 genuine and 0 impostor"),
        (np.ones((3, 2)), [0, 1, 2], DataError, "0 genuine and 3 impostor"),
        (np.ones((1, 2)), [0], DataError, "two identities"),
    ],
)
def test_bad_input_is_refused(embeddings, labels, error, words):
    with pytest.raises(error, match=words):
        all_pairs(embeddings, labels)


def test_threads_change_nothing():
    """Blocks are shared out among threads; counts are the same, and torch's own setting is put back."""
    rng = np.random.default_rng(5)
    x, labels = rng.normal(size=(300, 6)), rng.integers(0, 40, 300)
    alone = all_pairs(x, labels, block_rows=16, block_columns=32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        shared = all_pairs(x, labels, block_rows=16, block_columns=32)
        assert torch.get_num_threads() == 3
        with pytest.raises(DataError):
            all_pairs(x, np.arange(300))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    for name in ("genuine", "impostor"):
        assert np.array_equal(getattr(alone, name), getattr(shared, name))
    assert np.array_equal(alone.roc.false_accepts, shared.roc.false_accepts)


@pytest.mark.parametrize("kind", ["int8", "uint8", "uint16", "uint32", "uint64"])
def test_labels_may_be_integers_of_any_width(kind):
    labels = np.array([7, 3, 7, 3, 5])
    x = np.random.default_rng(0).normal(size=(5, 4))
    assert all_pairs(x, labels.astype(kind)).roc.eer == all_pairs(x, labels).roc.eer
