"""Few pixels and JPEG: the camera's two losses against Pillow and against slow loops."""

import dataclasses
import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from unpg.data.source import SOURCES
from unpg.data.synthetic import (
    Camera,
    KFaceTwin,
    Light,
    SyntheticFaces,
    Variation,
    View,
    render,
    sample_identity,
    sample_view,
)
from unpg.data.synthetic.jpeg import lose, steps
from unpg.data.synthetic.resample import enlarge, reduce
from unpg.errors import ConfigError

POOR = Variation(jpeg=(10.0, 90.0), resolution=(0.1, 1.0))


def column(*values, kind=torch.int64):
    return torch.tensor(values, dtype=kind)[:, None]


@pytest.fixture(scope="module")
def faces():
    return SyntheticFaces(4, 3, seed=1).materialize().images


# --- what was there stays ---


def test_pictures_and_digests_without_the_factors_are_those_of_edition_3():
    # Taken before the factors were added; a renderer that changes them needs another edition.
    plain = SyntheticFaces(3, 4, seed=0, size=(64, 64))
    worn = dict.fromkeys(("glasses", "sunglasses", "hat", "mask"), (0, 1))
    dressed = SyntheticFaces(2, 3, seed=5, variation=Variation(**worn, warmth=(-2, 2), blur=(0, 3)))
    grid = KFaceTwin(10, "T4", "train", subset=40)
    seen = [
        tuple(found[:16] for found in (hashlib.sha256(images.read_many(range(n))).hexdigest(), images.digest()))
        for images, n in ((plain, 12), (dressed, 6), (grid, 24))
    ]
    assert seen == [
        ("64a5f2ef82b59a46", "ce150c160df510ea"),
        ("596760e932d28912", "bc60b69a2d989669"),
        ("a803e5f999cdf393", "fe415d75583591ef"),
    ]


def test_views_draw_the_new_factors_only_when_asked():
    before, after = (sample_view(v, 2, 3, 4) for v in (Variation(), POOR))
    assert before.camera.jpeg is None
    assert before.camera.resolution == 1.0
    assert dataclasses.replace(after, camera=dataclasses.replace(after.camera, jpeg=None, resolution=1.0)) == before
    drawn = [sample_view(POOR, 2, 3, v).camera for v in range(200)]
    for values, (low, high) in (([c.jpeg for c in drawn], POOR.jpeg), ([c.resolution for c in drawn], POOR.resolution)):
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high >= max(values) > high - 0.05 * (high - low)
    assert len({SyntheticFaces(2, 2, variation=v).digest() for v in (Variation(), POOR, Variation(jpeg=(5, 6)))}) == 3


# --- one picture, whatever is beside it ---


def test_any_batch_gives_the_same_bits():
    images = SyntheticFaces(3, 4, seed=6, size=(50, 44), variation=POOR)
    people = [images.parameters(i) for i in range(12)]
    # Every third one has no loss, every fourth JPEG alone.
    views = [
        dataclasses.replace(v, camera=dataclasses.replace(v.camera, **change))
        for (_, v), change in zip(
            people, [{"jpeg": None, "resolution": 1.0}, {"resolution": 1.0}, {"jpeg": None}, {}] * 3, strict=True
        )
    ]
    who = [person for person, _ in people]
    whole = render(who, views, (50, 44)).images
    for batch in (1, 5):
        parts = [render(who[k : k + batch], views[k : k + batch], (50, 44)).images for k in range(0, 12, batch)]
        assert torch.equal(torch.cat(parts), whole)
    order = [7, 2, 11, 0]
    assert torch.equal(render([who[i] for i in order], [views[i] for i in order], (50, 44)).images, whole[order])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_levels_but_at_their_edges(faces):
    levels = torch.tensor(faces).permute(0, 3, 1, 2).float()
    b = len(levels)
    quality, rows, columns = (
        torch.linspace(1, 100, b),
        torch.linspace(6, 112, b).long()[:, None],
        column(*range(60, 60 + b)),
    )
    there = [t.cuda() for t in (levels, quality, rows, columns)]
    # A coefficient at the edge of two steps may fall to either side, and then its block is another: a fused
    # multiply-add rounds once. With exact sums instead of float32 ones 0.3 % of the levels differ on a CPU.
    assert (lose(*there).cpu() != lose(levels, quality, rows, columns)).float().mean() < 1e-2
    for resize in (reduce, enlarge):
        assert (resize(there[0], *there[2:]).cpu() - resize(levels, rows, columns)).abs().max() < 1e-3


# --- JPEG ---


def through_pillow(images, quality):
    made = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        made.append(np.array(Image.open(file)))
    return np.stack(made)


@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 95, 100])
@pytest.mark.parametrize("size", [(112, 112), (47, 61), (22, 22), (9, 17)])
def test_jpeg_is_what_pillow_makes_of_the_file(faces, quality, size):
    images = np.ascontiguousarray(faces[:, : size[0], : size[1]])
    b = len(images)
    # In the corner of a canvas whose rest must not matter.
    canvas = torch.rand(b, 3, size[0] + 5, size[1] + 7).mul(255).round()
    canvas[:, :, : size[0], : size[1]] = torch.tensor(images).permute(0, 3, 1, 2)
    made = lose(canvas, torch.full((b,), float(quality)), column(*[size[0]] * b), column(*[size[1]] * b))
    ours = made[:, :, : size[0], : size[1]].permute(0, 2, 3, 1).double().numpy()
    theirs, original = through_pillow(images, quality).astype(float), images.astype(float)
    assert np.array_equal(ours, ours.round())
    lost = np.square(theirs - original).mean() ** 0.5
    assert np.square(ours - original).mean() ** 0.5 == pytest.approx(lost, rel=0.02)
    assert 10 * np.log10(255**2 / max(np.square(ours - theirs).mean(), 1e-9)) > 42


@pytest.mark.parametrize("quality", [1, 17, 49, 50, 51, 80, 100])
def test_tables_are_those_in_a_file_of_that_quality(faces, quality):
    file = io.BytesIO()
    Image.fromarray(faces[0]).save(file, "JPEG", quality=quality)
    written = Image.open(file).quantization
    for k, table in enumerate(steps(torch.tensor([quality + 0.3]))):
        assert table.flatten().tolist() == list(written[k])


def test_rendered_jpeg_is_the_file_of_the_rendered_picture():
    who, view = sample_identity(0, 3), View(camera=Camera(noise=3.0), noise_seed=5)
    clean = render([who], [view]).images.numpy()
    filed = render([who], [dataclasses.replace(view, camera=Camera(noise=3.0, jpeg=40.0))]).images.numpy()
    assert np.abs(filed.astype(int) - through_pillow(clean, 40)).mean() < 0.3
    assert np.abs(filed.astype(int) - clean).mean() > 2


def test_lower_quality_loses_more():
    view = View(camera=Camera(noise=2.0))
    cameras = [Camera(noise=2.0, jpeg=q) for q in (90.0, 60.0, 30.0, 10.0, 3.0)]
    images = render([sample_identity(0, 3)] * 6, [view, *(View(camera=c) for c in cameras)]).images.double()
    lost = [float((image - images[0]).square().mean()) for image in images[1:]]
    assert lost == sorted(lost)
    assert lost[0] < 0.1 * lost[-1]


# --- few pixels ---


def slow_reduce(image, rows, columns):
    """Means over the areas of the larger pixels, from a picture each of whose pixels is cut into whole parts."""
    fine = image.repeat(rows, 0).repeat(columns, 1)
    return fine.reshape(rows, image.shape[0], columns, image.shape[1]).mean((1, 3))


def slow_enlarge(image, height, width):
    rows, columns = image.shape
    made = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y, x = (i + 0.5) * rows / height - 0.5, (j + 0.5) * columns / width - 0.5
            r, c = int(np.floor(y)), int(np.floor(x))
            made[i, j] = sum(
                (1 - abs(y - r - a)) * (1 - abs(x - c - b))
                * image[min(max(r + a, 0), rows - 1), min(max(c + b, 0), columns - 1)]
                for a in (0, 1)
                for b in (0, 1)
            )  # fmt: skip
    return made


def test_fewer_pixels_and_back_against_slow_loops():
    sizes = [(1, 1), (3, 5), (7, 4), (19, 22), (20, 23)]
    images = torch.tensor(np.random.default_rng(0).uniform(0, 255, (5, 2, 20, 23)), dtype=torch.float32)
    rows, columns = (column(*(s[k] for s in sizes)) for k in range(2))
    small = reduce(images, rows, columns)
    large = enlarge(images, rows, columns)
    for k, (h, w) in enumerate(sizes):
        for c in range(2):
            image = images[k, c].double().numpy()
            assert np.allclose(small[k, c, :h, :w], slow_reduce(image, h, w), rtol=1e-5, atol=1e-3)
            assert np.allclose(large[k, c], slow_enlarge(image[:h, :w], 20, 23), rtol=1e-5, atol=1e-3)


def test_low_resolution_keeps_the_tone_and_drops_the_detail():
    who = [sample_identity(0, 3)] * 4
    images = render(who, [View(camera=Camera(resolution=r)) for r in (1.0, 0.5, 0.25, 0.1)]).images.double()
    detail = [float((image[1:] - image[:-1]).square().mean()) for image in images]
    assert detail == sorted(detail, reverse=True)
    assert detail[-1] < 0.3 * detail[0]
    assert float((images.mean((1, 2)) - images[0].mean((0, 1))).abs().max()) < 6


def test_noise_of_few_pixels_is_coarse():
    def rest(resolution):
        cameras = [Camera(blur=0.0, noise=n, resolution=resolution) for n in (8.0, 0.0)]
        one, other = render([sample_identity(0, 3)] * 2, [View(camera=c) for c in cameras]).images.double()
        return one - other

    fine, coarse = rest(1.0), rest(0.25)
    together = [float((r[1:] * r[:-1]).mean() / r.square().mean()) for r in (fine, coarse)]
    assert abs(together[0]) < 0.1
    assert together[1] > 0.7


# --- colored light ---


@pytest.mark.parametrize(
    ("lamp", "strong", "weak"),
    [({"warmth": 2.0}, 0, 2), ({"warmth": -2.0}, 2, 0), ({"tint": 2.0}, 1, 0), ({"tint": -2.0}, 2, 1)],
)
def test_lamps_may_be_colored(lamp, strong, weak):
    white, colored = (
        render([sample_identity(0, 3)], [View(light=Light(azimuth=0.0, **given))]).images[0, 40:90, 36:76]
        for given in ({}, lamp)
    )
    white, colored = white.double().mean((0, 1)), colored.double().mean((0, 1))
    assert colored[strong] / white[strong] > 1.15 * colored[weak] / white[weak]


# --- how it is asked for ---


def test_a_source_and_its_bad_ranges():
    ranges = {"jpeg": [20, 40], "resolution": [0.2, 0.5]}
    made = SOURCES.build("synthetic", {"identities": 1, "views": 2, "size": [48, 48], "variation": ranges})
    same = SyntheticFaces(1, 2, size=(48, 48), variation=Variation(jpeg=(20, 40), resolution=(0.2, 0.5)))
    assert np.array_equal(made.read(1), same.read(1))
    with pytest.raises(ConfigError, match="no factor is called 'jpg'. Did you mean 'jpeg'"):
        SOURCES.build("synthetic", {"identities": 1, "views": 1, "variation": {"jpg": [20, 40]}})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Camera(jpeg=0.0), "Camera.jpeg must be None or a number from 1.0 to 100.0, got 0.0"),
        (lambda: Camera(jpeg=101), "Camera.jpeg"),
        (lambda: Camera(jpeg="low"), "Camera.jpeg"),
        (lambda: Camera(resolution=0.0), "Camera.resolution must be a number from 0.05 to 1.0, got 0.0"),
        (lambda: Camera(resolution=1.5), "Camera.resolution"),
        (lambda: Camera(blur=None), "Camera.blur must be a number"),
        (lambda: Variation(jpeg=(0, 50)), r"Variation.jpeg must be None or a range \(low, high\) within 1.0 to 100.0"),
        (lambda: Variation(jpeg=50), "Variation.jpeg"),
        (lambda: Variation(resolution=(0.5, 2.0)), "Variation.resolution must be a range"),
        (lambda: Variation(noise=None), "Variation.noise must be a range"),
    ],
)
def test_bad_values(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
