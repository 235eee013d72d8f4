import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from unpg.errors import ConfigError, ShapeError
from unpg.transforms import Augment
from unpg.transforms import augment as module
from unpg.transforms.counter import uniform

ALL = Augment(flip=0.5, crop=0.5, low_resolution=0.5, photometric=0.5, erasing=0.5)
ONE_AT_A_TIME = [
    Augment(flip=1.0),
    Augment(flip=0, crop=1.0),
    Augment(flip=0, crop=1.0, crop_fill="resize"),
    Augment(flip=0, low_resolution=1.0),
    Augment(flip=0, photometric=1.0),
    Augment(flip=0, erasing=1.0),
]


def batch(n=16, height=20, width=24, seed=0):
    images = torch.randint(
        0, 256, (n, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return images, torch.arange(100, 100 + n)


@pytest.mark.parametrize("augment", [ALL, *ONE_AT_A_TIME])
def test_shape_type_and_the_input_stay(augment):
    images, ids = batch()
    before = images.clone()
    got = augment(images, ids, 1, 2)
    assert got.shape == images.shape
    assert got.dtype == torch.uint8
    assert torch.equal(images, before)
    assert not torch.equal(got, images)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(8)), st.integers(1, 7))
def test_what_an_image_becomes_depends_on_its_id_alone(order, cut):
    images, ids = batch(8)
    whole = ALL(images, ids, 3, 4)
    order = torch.tensor(order)
    shuffled = ALL(images[order], ids[order], 3, 4)
    assert torch.equal(shuffled, whole[order])
    parts = [ALL(images[s], ids[s], 3, 4) for s in (slice(0, cut), slice(cut, 8))]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("change", [(2, 4), (3, 5)])
def test_seed_and_epoch_change_the_draw(change):
    images, ids = batch()
    assert not torch.equal(ALL(images, ids, 3, 4), ALL(images, ids, *change))


def test_torchs_random_state_is_neither_used_nor_moved():
    images, ids = batch()
    torch.manual_seed(1)
    first = ALL(images, ids, 3, 4)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(ALL(images, ids, 3, 4), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("augment", [ALL, *ONE_AT_A_TIME])
def test_the_branch_free_path_of_gpus_gives_the_same(augment, monkeypatch):
    images, ids = batch()
    expected = augment(images, ids, 3, 4)

    def as_on_a_gpu(images, chosen, sample_ids, key, change):
        changed = change(images, module._Draw(sample_ids, key))
        return torch.where(chosen[:, None, None, None], changed, images)

    def flipped_as_on_a_gpu(images, chosen):
        return torch.where(chosen[:, None, None, None], images.flip(2), images)

    monkeypatch.setattr(module, "_change", as_on_a_gpu)
    monkeypatch.setattr(module, "_flipped", flipped_as_on_a_gpu)
    got = augment(images, ids, 3, 4)
    # Matrix products may sum in another order for another batch size, so a tie may round the other way.
    assert (got.int() - expected.int()).abs().max() <= 1
    assert (got != expected).float().mean() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("augment", [ALL, *ONE_AT_A_TIME])
def test_cuda_gives_the_same_as_the_cpu(augment):
    images, ids = batch(64, 112, 112)
    got = augment(images.cuda(), ids.cuda(), 3, 4).cpu()
    expected = augment(images, ids, 3, 4)
    # A level that rounds the other way in resampling goes through brightness, contrast and saturation: 1.5 times each.
    assert (got.int() - expected.int()).abs().max() <= (4 if augment is ALL else 1)
    # A place is known to 112 / 2^24, and neighbors of these images, which are noise, differ by up to 255 levels.
    assert (got != expected).float().mean() < 5e-3


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_each_image_is_flipped_or_not_and_at_the_asked_rate(p):
    images, ids = batch(4000, 2, 3)
    got = Augment(flip=p)(images, ids, 0, 0)
    flipped = (got == images.flip(2)).flatten(1).all(1)
    kept = (got == images).flatten(1).all(1)
    assert (flipped | kept).all()
    assert abs(flipped.float().mean().item() - p) < 4 * (p * (1 - p) / 4000) ** 0.5


def test_flip_alone_is_the_default_and_nothing_is_nothing():
    images, ids = batch()
    assert torch.equal(Augment()(images, ids, 0, 0), Augment(flip=0.5)(images, ids, 0, 0))
    assert Augment(flip=0)(images, ids, 0, 0) is images


def test_black_crop_keeps_one_rectangle_in_place():
    images, ids = batch(60)
    images = images.clamp_min(1)
    got = Augment(flip=0, crop=1.0, crop_area=0.3)(images, ids, 0, 0)
    shares = []
    for image, mine in zip(images.numpy(), got.numpy(), strict=True):
        inside = (mine > 0).all(-1)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = np.zeros_like(inside)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert (inside == box).all()
        assert (mine[box] == image[box]).all()
        assert (mine[~box] == 0).all()
        shares.append(box.mean())
    assert min(shares) > 0.25  # 0.3 less the rounding of sides
    assert max(shares) > 0.8
    assert np.std(shares) > 0.1


def test_resized_crop_is_torchs_bilinear_enlargement_of_the_rectangle():
    images, ids = batch(20)
    black = Augment(flip=0, crop=1.0)(images.clamp_min(1), ids, 0, 0).numpy()
    got = Augment(flip=0, crop=1.0, crop_fill="resize")(images.clamp_min(1), ids, 0, 0)
    for cut, mine in zip(black, got, strict=True):
        inside = (cut > 0).all(-1)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        patch = cut[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        truth = functional.interpolate(
            torch.from_numpy(patch).permute(2, 0, 1)[None].double(), size=(20, 24), mode="bilinear"
        )[0].permute(1, 2, 0)
        assert (mine.double() - truth).abs().max() <= 0.51


def test_low_resolution_is_torchs_antialiased_shrinking_and_bilinear_enlarging():
    images, ids = batch(20)
    low = 0.2
    got = Augment(flip=0, low_resolution=1.0, low_resolution_side=low)(images, ids, 5, 6)
    share = low + (1 - low) * uniform(ids, 5, 6, 2, 1)
    for image, mine, s in zip(images, got, share, strict=True):
        size = [max(round(float(s * side)), 1) for side in (20, 24)]
        x = image.permute(2, 0, 1)[None].double()
        small = functional.interpolate(x, size=size, mode="bilinear", antialias=True)
        truth = functional.interpolate(small, size=(20, 24), mode="bilinear")[0].permute(1, 2, 0)
        assert (mine.double() - truth).abs().max() <= 0.51


def test_photometric_equals_a_slow_loop():
    images, ids = batch(12)
    strength = 0.5
    got = Augment(flip=0, photometric=1.0, photometric_strength=strength)(images, ids, 5, 6)
    for n, image in enumerate(images.numpy().astype(np.float64)):
        b, c, s = (1 - strength + 2 * strength * uniform(ids[n : n + 1], 5, 6, 3, i).item() for i in (1, 2, 3))
        x = np.clip(image * b, 0, 255)
        mean = (x @ [0.299, 0.587, 0.114]).mean()
        x = np.clip(mean + (x - mean) * c, 0, 255)
        for y in range(x.shape[0]):
            for z in range(x.shape[1]):
                grey = 0.299 * x[y, z, 0] + 0.587 * x[y, z, 1] + 0.114 * x[y, z, 2]
                x[y, z] = np.clip(grey + (x[y, z] - grey) * s, 0, 255)
        assert np.abs(got[n].numpy() - x).max() <= 0.501


def test_without_strength_photometric_changes_nothing():
    images, ids = batch()
    assert torch.equal(Augment(flip=0, photometric=1.0, photometric_strength=0.0)(images, ids, 0, 0), images)


def test_erasing_replaces_one_rectangle_by_noise():
    images, ids = torch.zeros(60, 40, 40, 3, dtype=torch.uint8), torch.arange(60)
    got = Augment(flip=0, erasing=1.0, erasing_area=0.3)(images, ids, 0, 0).numpy()
    shares = []
    for mine in got:
        touched = (mine > 0).any(-1)
        rows, columns = np.flatnonzero(touched.any(1)), np.flatnonzero(touched.any(0))
        box = mine[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        shares.append(box.shape[0] * box.shape[1] / 1600)
        if box.size > 600:  # enough noise for its mean to be near 127.5
            assert 115 < box.mean() < 140
        assert (mine > 0).sum() == (box > 0).sum()
    assert max(shares) < 0.33
    assert min(shares) < 0.1


def test_an_empty_batch_stays_empty():
    images, ids = batch(0)
    assert ALL(images, ids, 0, 0).shape == images.shape


@pytest.mark.parametrize(
    "setting",
    [
        {"flip": 1.1},
        {"crop": -0.1},
        {"crop_area": 0.0},
        {"crop_fill": "white"},
        {"low_resolution": 2.0},
        {"low_resolution_side": 0.0},
        {"photometric": float("nan")},
        {"photometric_strength": 1.5},
        {"erasing": -1.0},
        {"erasing_area": 0.01},
    ],
)
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(ConfigError, match=f"Augment.{next(iter(setting))} must be"):
        Augment(**setting)


def test_wrong_arrays_are_refused():
    images, ids = batch()
    with pytest.raises(ShapeError, match=r"uint8 RGB, got .* torch.float32"):
        ALL(images.float(), ids, 0, 0)
    with pytest.raises(ShapeError, match="sample_ids must be"):
        ALL(images, ids[:-1], 0, 0)
    with pytest.raises(ShapeError, match="sample_ids must be"):
        ALL(images, ids.int(), 0, 0)


def test_flipping_a_training_batch_takes_milliseconds():
    images, ids = batch(256, 112, 112)
    best = min(_seconds(lambda: Augment()(images, ids, 0, 0)) for _ in range(5))
    assert best < 0.05  # far above what it takes, far below what any pass in float32 would


def _seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start
