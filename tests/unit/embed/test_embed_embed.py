import tracemalloc

import numpy as np
import pytest
import torch

from unpg.data import ArraySet, SizeError
from unpg.embed import Model, embed, normalize
from unpg.errors import ConfigError, DataError
from unpg.transforms import Preprocessing


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    preprocessing = Preprocessing(size=(24, 16), crop=(0, 4, 24, 16), channels="bgr", mean=(100.0, 110.0, 120.0))
    model = Model.create("small_iresnet", dim=6, input_size=(24, 16), preprocessing=preprocessing, widths=(4, 4, 8, 8))
    # Fresh batch norms are nearly the identity; these are not.
    model.backbone(torch.randn(64, 3, 24, 16))
    return model


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (11, 24, 24, 3), np.uint8)
    return ArraySet(pixels, np.arange(11) % 3, ["a", "b", "c"])


class Spoiled:
    """A set in which some images cannot be read."""

    def __init__(self, inner, broken, error=DataError):
        self.inner, self.broken, self.error = inner, broken, error
        self.labels, self.identities, self.name, self.digest = inner.labels, inner.identities, inner.name, inner.digest

    def __len__(self):
        return len(self.inner)

    def read(self, i):
        if i in self.broken:
            raise self.error(f"{self.name(i)} is broken.")
        return self.inner.read(i)


def slow(model, images, i, flip):
    """One image, one step after the other, from the definition."""
    pixels = images.read(i)[:, 4:20, ::-1].astype(np.float32)
    x = (pixels - np.array([100, 110, 120], np.float32)) / np.float32(127.5)
    net = model.backbone.eval()
    with torch.no_grad():
        e = net(torch.tensor(x.transpose(2, 0, 1)[None].copy()))[0].numpy()
        m = net(torch.tensor(x[:, ::-1].transpose(2, 0, 1)[None].copy()))[0].numpy()
    e = {"none": e, "sum": e + m, "concat": np.concatenate([e, m])}[flip]
    length = np.sqrt((e.astype(np.float64) ** 2).sum())
    return e / length, length


@pytest.mark.parametrize("flip", ["none", "sum", "concat"])
def test_rows_equal_a_slow_loop(model, images, flip):
    found = embed(model, images, flip=flip, batch_size=4)
    expected = [slow(model, images, i, flip) for i in range(len(images))]
    assert found.vectors.shape == (11, 12 if flip == "concat" else 6)
    np.testing.assert_allclose(found.vectors, [v for v, _ in expected], rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(found.norms, [n for _, n in expected], rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-6)
    assert found.labels.tolist() == images.labels.tolist()
    assert list(found.names) == [images.name(i) for i in range(11)]
    assert found.readable.all()
    assert found.info == {"kind": "small_iresnet", "flip": flip, "precision": "fp32"}


def test_a_mirrored_image_has_the_same_sum(model, images):
    mirrored = ArraySet(images.images[:, :, ::-1].copy(), images.labels, images.identities)
    a, b = (embed(model, s, flip="sum").vectors for s in (images, mirrored))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
    assert np.abs(embed(model, images).vectors - embed(model, mirrored).vectors).max() > 1e-3


@pytest.mark.parametrize("batch_size", [1, 3, 11, 500])
def test_batch_size_changes_rounding_only(model, images, batch_size):
    np.testing.assert_allclose(
        embed(model, images, batch_size=batch_size).vectors, embed(model, images).vectors, rtol=1e-4, atol=2e-6
    )


def test_workers_and_repetition_change_nothing(model, images):
    once = embed(model, images, batch_size=2)
    for workers in (0, 1, 4):
        again = embed(model, images, batch_size=2, workers=workers)
        assert np.array_equal(once.vectors, again.vectors)
        assert once.names == again.names


def test_indices_choose_order_and_repeat(model, images):
    found = embed(model, images, indices=[7, 2, 7], batch_size=3)
    every = embed(model, images)
    np.testing.assert_allclose(found.vectors, every.vectors[[7, 2, 7]], rtol=1e-4, atol=2e-6)
    assert found.names == [images.name(i) for i in (7, 2, 7)]
    assert found.labels.tolist() == images.labels[[7, 2, 7]].tolist()


@pytest.mark.parametrize("index", [-1, 11])
def test_an_index_outside_is_refused(model, images, index):
    with pytest.raises(DataError, match=f"index {index} is outside.* 11 images"):
        embed(model, images, indices=[0, index])


@pytest.mark.parametrize("flip", ["none", "concat"])
def test_no_images_give_no_rows(model, images, flip):
    found = embed(model, images, indices=[], flip=flip)
    assert found.vectors.shape == (0, 12 if flip == "concat" else 6)
    assert len(found) == 0


def test_progress_counts_images(model, images):
    calls = []
    embed(model, images, batch_size=4, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(4, 11), (8, 11), (11, 11)]


@pytest.mark.parametrize("fails", [False, True])
def test_the_backbone_is_left_as_it_was(model, images, fails):
    net = model.backbone.train()
    net.layer2.eval()  # somebody froze a part
    before = {k: v.clone() for k, v in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    source = Spoiled(images, {3}) if fails else images
    if fails:
        with pytest.raises(DataError):
            embed(model, source)
    else:
        found = embed(model, source)
        np.testing.assert_allclose(found.vectors[0], slow(model, images, 0, "none")[0], rtol=1e-4, atol=2e-6)
        net.train()
        net.layer2.eval()
    assert [m.training for m in net.modules()] == modes
    assert len(set(modes)) == 2
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert all(p.requires_grad and not p.is_inference() for p in net.parameters())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_stops_with_its_name(model, images, workers):
    with pytest.raises(DataError, match="c/8 is broken"):
        embed(model, Spoiled(images, {8}), workers=workers, batch_size=3)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("broken", [{0}, {2, 3, 4, 5}, set(range(11))])
def test_unreadable_images_can_be_marked_instead(model, images, broken, workers):
    found = embed(model, Spoiled(images, broken), on_error="skip", batch_size=2, workers=workers)
    every = embed(model, images, batch_size=2)
    assert set(np.flatnonzero(~found.readable)) == broken
    assert found.unreadable == [images.name(i) for i in sorted(broken)]
    assert len(found) == len(found.names) == 11
    for i in range(11):
        expected = np.zeros(6) if i in broken else every.vectors[i]
        np.testing.assert_allclose(found.vectors[i], expected, rtol=1e-4, atol=2e-6)


def test_a_set_that_is_not_aligned_is_no_matter_of_skipping(model, images):
    with pytest.raises(SizeError, match="broken"):
        embed(model, Spoiled(images, {4}, SizeError), on_error="skip")


def test_images_of_two_sizes_are_named(model, images):
    class Mixed(Spoiled):
        def read(self, i):
            return self.inner.read(i)[: 20 if i == 5 else 24]

    with pytest.raises(DataError, match=r"c/5 is 20 x 24 .* a/0 .* 24 x 24"):
        embed(model, Mixed(images, ()))


def test_a_zero_embedding_stays_zero(images):
    model = Model.create("small_iresnet", dim=5, input_size=(24, 24), widths=(4, 4, 4, 4))
    torch.nn.init.zeros_(model.backbone.features.weight)
    for flip in ("none", "sum", "concat"):
        found = embed(model, images, flip=flip)
        assert not found.vectors.any()
        assert not found.norms.any()
        assert found.readable.all()


def test_an_embedding_that_is_not_finite_is_refused(images):
    model = Model.create("small_iresnet", dim=5, input_size=(24, 24), widths=(4, 4, 4, 4))
    model.backbone.features.bias.data[2] = torch.nan
    with pytest.raises(DataError, match="embedding of a/0 is not finite.*diverged"):
        embed(model, images)


def test_bfloat16_is_close_and_not_the_same(model, images):
    exact, rough = embed(model, images), embed(model, images, precision="bf16")
    assert rough.vectors.dtype == np.float32
    assert not np.array_equal(exact.vectors, rough.vectors)
    assert (exact.vectors * rough.vectors).sum(1).min() > 0.98


def test_the_callers_autocast_does_not_decide(model, images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = embed(model, images)
    assert np.array_equal(inside.vectors, embed(model, images).vectors)


def test_a_device_that_is_given_is_used_and_left(model, images):
    found = embed(model, images, device="cpu")
    assert np.array_equal(found.vectors, embed(model, images).vectors)
    assert next(model.backbone.parameters()).device.type == "cpu"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"flip": "mean"}, "flip must be one of none, sum, concat, got 'mean'"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"workers": -1}, "workers must be 0 .* got -1"),
        ({"precision": "fp64"}, "precision must be 'fp32' or 'bf16', got 'fp64'"),
        ({"on_error": "ignore"}, "on_error must be 'raise' or 'skip', got 'ignore'"),
    ],
)
def test_a_wrong_setting_is_named(model, images, setting, message):
    with pytest.raises(ConfigError, match=message):
        embed(model, images, **setting)


def test_normalize_has_no_bad_lengths():
    rows = np.array([[3, 4], [0, 0], [3e-30, 4e-30], [3e30, -4e30], [0, 1e-45]], np.float32)
    units, norms = normalize(rows)
    np.testing.assert_allclose(units, [[0.6, 0.8], [0, 0], [0.6, 0.8], [0.6, -0.8], [0, 1]], rtol=1e-6)
    np.testing.assert_allclose(norms, np.float32([5, 0, 5e-30, 5e30, 1e-45]), rtol=1e-6)
    assert units.dtype == norms.dtype == np.float32
    assert normalize(np.zeros((0, 3), np.float32))[0].shape == (0, 3)


def test_normalize_takes_rows_piece_by_piece_and_gives_the_same_bits():
    rows = np.random.default_rng(0).standard_normal((2**14, 190)).astype(np.float32)
    rows[5] = 0
    exact = rows.astype(np.float64)
    lengths = np.sqrt(np.square(exact).sum(1))
    tracemalloc.start()
    units, norms = normalize(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(units, (exact / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32))
    np.testing.assert_array_equal(norms, lengths.astype(np.float32))
    assert peak < 3.5 * rows.nbytes
