"""Synthetic faces: pure functions of (seed, identity, view), lit and turned as physics says."""

import dataclasses
import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage.transform import SimilarityTransform

from unpg.data.image_set import ArraySet, ImageSet
from unpg.data.synthetic import (
    Background,
    Camera,
    Expression,
    Identity,
    Light,
    Pose,
    SyntheticFaces,
    Variation,
    View,
    render,
    sample_identity,
    sample_view,
)
from unpg.data.synthetic.camera import TEMPLATE, align, develop, template
from unpg.data.synthetic.parameters import Draws, columns
from unpg.data.synthetic.raster import rasterize
from unpg.errors import ConfigError, ShapeError

SMALL = (48, 48)
STILL = Camera(blur=0.0)  # no noise, no blur, no error of the aligner


def picture(identity=None, size=(112, 112), **factors):
    return render([identity or Identity()], [View(**{"camera": STILL, **factors})], size)


def gray(made):
    return made.images[0].double().mean(2)


# --- draws ---


def test_draws_are_even_and_normal():
    even = np.array([Draws(7, i).uniform("x") for i in range(4000)])
    assert even.min() > 0
    assert even.max() < 1
    assert abs(even.mean() - 0.5) < 4 * (1 / 12 / 4000) ** 0.5
    assert np.histogram(even, 10, (0, 1))[0].min() > 320
    bells = np.array([Draws(7).normal(i, "x") for i in range(4000)])
    assert abs(bells.mean()) < 4 / 4000**0.5
    assert abs(bells.std() - 1) < 0.05
    assert abs(np.corrcoef(even[1:], even[:-1])[0, 1]) < 0.06


def test_draws_depend_on_every_key():
    keys = [(0, 1, "a"), (1, 0, "a"), (0, 1, "b"), (0, 1), (2**70, 1, "a"), (0, -1, "a")]
    assert len({Draws(*k).uniform() for k in keys}) == len(keys)
    assert Draws(3, "a").uniform(2) == Draws(3).uniform("a", 2)


def test_identities_stay_in_limits_and_fill_them():
    people = [sample_identity(0, i) for i in range(300)]
    for name, (low, high) in Identity.limits().items():
        values = [getattr(p, name) for p in people]
        assert low <= min(values)
        assert max(values) <= high
        assert np.std(values) > 0.1 * (high - low), name
    tones = np.histogram([p.melanin for p in people], 5, (0, 1))[0]
    assert tones.min() > 30, "skin tones over the whole range"


def test_views_stay_in_ranges_and_a_point_range_is_fixed():
    variation = Variation(yaw=(10.0, 10.0), smile=(0.2, 0.9), noise=(0.0, 0.0))
    views = [sample_view(variation, 3, 5, v) for v in range(50)]
    assert {v.pose.yaw for v in views} == {10.0}
    assert {v.camera.noise for v in views} == {0.0}
    assert all(0.2 <= v.expression.smile <= 0.9 for v in views)
    assert len({v.light.azimuth for v in views}) == 50


# --- determinism ---


@pytest.fixture(scope="module")
def faces():
    return SyntheticFaces(5, 3, seed=4, size=SMALL)


@pytest.fixture(scope="module")
def made(faces):
    return faces.materialize()


def test_any_order_and_batch_give_the_same_bits(faces, made):
    order = np.random.default_rng(0).permutation(len(faces))
    for batch in (1, 4, 15):
        for k in range(0, 15, batch):
            part = order[k : k + batch]
            assert np.array_equal(faces.render(part).images.numpy(), made.images[part])
    assert np.array_equal(faces.materialize(batch_size=2).images, made.images)


def test_batches_larger_than_a_chunk_give_the_same_bits(monkeypatch, faces):
    whole = faces.render(range(9))
    monkeypatch.setattr("unpg.data.synthetic.picture._CPU_PIXELS", 1)
    for a, b in zip(whole, faces.render(range(9)), strict=True):
        assert torch.equal(a, b)


def test_threads_do_not_matter(faces, made):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert np.array_equal(faces.render(range(4)).images.numpy(), made.images[:4])
    finally:
        torch.set_num_threads(threads)


def test_another_process_gives_the_same_bits(faces, made):
    code = (
        "from unpg.data.synthetic import SyntheticFaces; import sys;"
        "sys.stdout.buffer.write(SyntheticFaces(5, 3, seed=4, size=(48, 48)).read(7).tobytes())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert out == made.images[7].tobytes()


def test_more_people_or_views_change_nobody(faces, made):
    more = SyntheticFaces(9, 4, seed=4, size=SMALL)
    assert np.array_equal(more.read(2 * 4 + 1), made.images[2 * 3 + 1])
    later = SyntheticFaces(2, 3, seed=4, size=SMALL, first_identity=3)
    assert np.array_equal(later.materialize().images, made.images[9:])
    assert later.identities == faces.identities[3:]
    assert later.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu(faces, made):
    there = faces.render(range(15), "cuda").images.cpu().numpy().astype(int)
    assert (np.abs(there - made.images) > 1).mean() < 1e-3


# --- identity and factors show ---


def test_every_identity_and_view_differs(made):
    flat = made.images.reshape(15, -1).astype(int)
    far = np.abs(flat[:, None] - flat[None]).mean(2)
    assert far[~np.eye(15, dtype=bool)].min() > 3


@pytest.mark.parametrize("name", sorted(Identity.limits()))
def test_each_identity_parameter_shows(name):
    low, high = Identity.limits()[name]
    # Things that must be there to be seen: hair that is red must not be black, a mole has a size, eyes a color.
    base = Identity(mole_size=0.8, second_mole_size=0.8, hair_melanin=0.4, iris_light=0.8, age=0.6, hair_volume=0.8)
    base = dataclasses.replace(
        base, mole_x=0.5, second_mole_x=-0.5, hair_part=0.3, texture=0.3, hairline=-0.5, freckles=0.3, sex=0.4
    )
    people = [dataclasses.replace(base, **{name: v}) for v in (low, high)]
    view = View(pose=Pose(yaw=25, pitch=-15), camera=STILL)
    images = render(people, [view] * 2, (64, 64)).images.int()
    assert (images[0] - images[1]).abs().max() >= 8


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (p, n)
        for p, kind in {
            "pose": Pose,
            "light": Light,
            "expression": Expression,
            "camera": Camera,
            "background": Background,
        }.items()
        for n in kind.limits()
    ],
)
def test_each_factor_shows(part, name):
    kind = {"pose": Pose, "light": Light, "expression": Expression, "camera": Camera, "background": Background}[part]
    low, high = kind.limits()[name]
    middle = getattr(kind(), name)
    if middle is None:  # left out
        middle = high
    other = middle + (0.3 if high - middle > 0.3 * (high - low) else -0.3) * (high - low)
    # Clothes are below an exact crop: step back.
    back = {"camera": Camera(blur=0.0, scale=0.6)} if name.startswith("cloth") else {}
    a, b = (picture(size=(64, 64), **back, **{part: kind(**{name: v})}).images.int() for v in (middle, other))
    assert (a - b).abs().max() >= 8


# --- geometry ---


@pytest.mark.parametrize("size", [(112, 112), (64, 64), (112, 96)])
def test_frontal_landmarks_lie_near_the_template(size):
    people = [sample_identity(1, i) for i in range(8)]
    made = render(people, [View(camera=STILL)] * 8, size)
    unit = size[0] / 112
    goal = np.array(TEMPLATE) * unit + [(size[1] - size[0]) / 2, 0]
    error = made.landmarks.numpy() - goal
    assert np.abs(error).max() < 6 * unit
    assert np.abs(error.mean(0)).max() < 2.5 * unit
    assert np.allclose(template(size).numpy(), goal, atol=1e-4)


def test_landmarks_lie_on_the_mask_and_on_the_surface():
    people = [sample_identity(2, i) for i in range(6)]
    made = render(people, [View(pose=Pose(yaw=y), camera=STILL) for y in (-30, -20, -5, 5, 20, 30)])
    for i in range(6):
        for x, y in made.landmarks[i].round().long().tolist():
            assert made.mask[i, y, x]
            assert 100 < made.depth[i, y, x] < 125  # the camera is 120 cm from the center of the head


def test_nose_is_nearest_in_a_frontal_face():
    made = picture()
    x, y = made.landmarks[0, 2].round().long().tolist()
    near = made.depth[0].argmin()
    assert abs(int(near) // 112 - y) < 9
    assert abs(int(near) % 112 - x) < 3


def test_mask_and_depth_agree_and_leave_background():
    made = picture(pose=Pose(yaw=30))
    assert torch.equal(made.mask, made.depth.isfinite())
    assert 0.3 < made.mask.double().mean() < 0.97
    blue = [picture(pose=Pose(yaw=30), background=Background(blue=v)).images[0].int() for v in (0.1, 0.9)]
    changed = (blue[0] - blue[1]).abs().amax(2) > 0
    assert torch.equal(changed, ~made.mask[0])


def test_alignment_is_the_least_squares_similarity():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 2)) * 5
    p = columns([{"turn_cos": 1.0, "turn_sin": 0.0, "scale": 1.0, "shift_x": 0.0, "shift_y": 0.0}])
    x, y = (torch.tensor(points[None, :, k], dtype=torch.float32) for k in range(2))
    a, c, tx, ty = (float(v) for v in align(p, x, y, (112, 112)))
    truth = SimilarityTransform.from_estimate(points, np.array(TEMPLATE)).params
    assert np.allclose([[a, -c, tx], [c, a, ty]], truth[:2], rtol=1e-4, atol=1e-3)


def test_aligner_errors_move_the_picture_by_pixels():
    still = picture(size=(56, 56)).landmarks[0]
    moved = picture(size=(56, 56), camera=Camera(blur=0.0, shift_x=4.0, shift_y=-2.0)).landmarks[0]
    assert torch.allclose(moved - still, torch.tensor([2.0, -1.0]).expand(5, 2), atol=1e-3)
    large = picture(camera=Camera(blur=0.0, scale=1.1)).landmarks[0]
    spread = [(m - m.mean(0)).norm() for m in (large, picture().landmarks[0])]
    assert spread[0] / spread[1] == pytest.approx(1.1, abs=1e-4)


def test_roll_is_taken_out_by_the_aligner():
    a, b = picture().landmarks, picture(pose=Pose(roll=25)).landmarks
    assert (a - b).abs().max() < 0.05


def test_signs_of_the_pose():
    def nose(pose):
        made = picture(pose=pose).landmarks[0]
        return made[2] - made[:2].mean(0)

    straight = nose(Pose())
    assert nose(Pose(yaw=20))[0] > straight[0] + 2
    assert nose(Pose(pitch=15))[1] < straight[1] - 2


SYMMETRIC = Identity(texture=0.0)


@pytest.mark.parametrize("yaw", [0.0, 25.0, 60.0])
def test_yaw_mirrors(yaw):
    # Skin grain and hair strands differ between the sides, so the comparison is of means and most pixels, not of bits.
    light, back = Light(azimuth=0.0), Background(pattern=0.0)
    left = picture(SYMMETRIC, pose=Pose(yaw=yaw), light=light, background=back)
    right = picture(SYMMETRIC, pose=Pose(yaw=-yaw), light=light, background=back)
    mirrored = right.images[0].flip(1).int()
    # The template itself is not quite symmetric: half a pixel.
    difference = (left.images[0].int() - mirrored).abs().amax(2).double()
    assert difference.median() <= 8
    assert (left.mask[0] != right.mask[0].flip(1)).double().mean() < 0.03
    plain = (left.images[0].int() - right.images[0].int()).abs().amax(2).double()
    assert yaw == 0 or plain.mean() > 2 * difference.mean()


def test_rasterizer_against_a_slow_loop():
    rng = np.random.default_rng(3)
    v, t, size = 40, 60, (20, 24)
    x = torch.tensor(rng.uniform(-4, 28, (2, v)), dtype=torch.float32)
    y = torch.tensor(rng.uniform(-4, 24, (2, v)), dtype=torch.float32)
    near = torch.tensor(rng.uniform(0.1, 1.0, (2, v)), dtype=torch.float32)
    # No corner triple twice: which of two equal triangles is seen does not matter.
    triangles = torch.tensor(np.unique([np.sort(rng.permutation(v)[:3]) for _ in range(t)], axis=0))
    triangles = torch.cat([triangles[::2], triangles[1::2].flip(1)])
    t = len(triangles)
    two_sided = torch.tensor(rng.uniform(size=t) < 0.5)
    seen = rasterize(x, y, near, triangles, two_sided, size)
    depth = torch.zeros(2 * 20 * 24, dtype=torch.float64)
    depth[seen.pixel] = seen.nearness.double()
    truth, owner = np.zeros((2, 20, 24)), np.full((2, 20, 24), -1)
    margin = np.zeros((2, 20, 24))
    for b in range(2):
        for k, corners in enumerate(triangles.tolist()):
            p = np.array([[x[b, i], y[b, i]] for i in corners], dtype=np.float64)
            area = np.linalg.det(p[1:] - p[0])
            if area <= 0 and not two_sided[k]:
                continue
            for row in range(20):
                for column in range(24):
                    w = np.linalg.solve(np.vstack([p.T, np.ones(3)]), [column, row, 1])
                    z = float(w @ near[b, corners].double().numpy())
                    if abs(w.min()) < 1e-3:
                        margin[b, row, column] = 1  # on an edge either answer is right
                    if w.min() >= 0 and z > truth[b, row, column]:
                        truth[b, row, column], owner[b, row, column] = z, k
    clear = margin.reshape(-1) == 0
    assert clear.mean() > 0.8
    assert np.allclose(depth.numpy()[clear], truth.reshape(-1)[clear], atol=1e-4)
    kept = clear[seen.pixel.numpy()]
    assert np.array_equal(seen.triangle.numpy()[kept], owner.reshape(-1)[seen.pixel.numpy()][kept])
    for w in seen.weights:
        assert bool((w >= 0).all())
    assert torch.allclose(sum(seen.weights), torch.ones(len(seen.pixel)), atol=1e-5)


def test_nothing_on_the_screen_is_no_fragment():
    points = torch.tensor([[500.0, 510.0, 505.0]])
    seen = rasterize(points, points, torch.ones(1, 3), torch.tensor([[0, 1, 2]]), torch.tensor([True]), (8, 8))
    assert len(seen.pixel) == 0


# --- light and camera ---


def test_light_brightens_its_side():
    for azimuth, brighter in ((-70.0, 0), (70.0, 1)):
        image = gray(picture(SYMMETRIC, light=Light(azimuth=azimuth, elevation=10.0)))
        cheeks = image[60:80, 25:45].mean(), image[60:80, 67:87].mean()
        assert cheeks[brighter] > 1.3 * cheeks[1 - brighter]


def test_light_from_above_and_below():
    above, below = (gray(picture(light=Light(elevation=e))) for e in (50.0, -50.0))
    forehead, chin = slice(26, 38), slice(98, 108)
    middle = slice(46, 66)
    assert (
        above[forehead, middle].mean() / above[chin, middle].mean()
        > below[forehead, middle].mean() / below[chin, middle].mean() * 1.1
    )


def test_light_behind_leaves_the_ambient_light():
    behind = picture(light=Light(azimuth=180.0, elevation=0.0))
    none = picture(light=Light(intensity=0.0))
    center = (slice(40, 100), slice(45, 67))
    assert (gray(behind)[center] - gray(none)[center]).abs().median() <= 2


def test_more_light_is_never_darker():
    dim, bright = (picture(light=Light(intensity=i)).images.int() for i in (0.3, 0.9))
    assert bool((bright >= dim)[picture().mask].all())


def test_warm_light_is_warm():
    warm, cold = (picture(light=Light(warmth=w)).images[0, 60:80, 40:72].double().mean((0, 1)) for w in (0.8, -0.8))
    assert warm[0] / warm[2] > 1.3 * cold[0] / cold[2]


def test_skin_darkens_with_melanin():
    tones = [float(gray(picture(Identity(melanin=m)))[60:70, 30:40].mean()) for m in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert all(a > b + 10 for a, b in itertools.pairwise(tones))


def test_noise_has_the_asked_deviation_and_no_bias():
    clean = picture().images.double()
    noisy = render(
        [Identity()] * 2, [View(camera=Camera(blur=0.0, noise=5.0), noise_seed=s) for s in (1, 2)]
    ).images.double()
    inner = (clean > 30) & (clean < 225)
    for k in range(2):
        rest = (noisy[k : k + 1] - clean)[inner]
        assert float(rest.std()) == pytest.approx(5.0, abs=0.15)
        assert abs(float(rest.mean())) < 0.1
    both = torch.stack([(noisy[k : k + 1] - clean)[inner] for k in range(2)])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.03


def test_blur_is_a_gaussian_of_that_many_pixels():
    light = torch.zeros(1, 3, 41, 112)
    light[:, :, 20, 56] = 0.5
    flat = {"gain": 1.0, "saturation": 1.0, "contrast": 1.0, "noise": 0.0, "resolution": 1.0, "jpeg": 0.0}
    made = develop(columns([{**flat, "blur": 2.0 * 112 / 41}]), light, torch.zeros(1, dtype=torch.int64))
    # Near black the tone curve is a square root, so squares are light again; contrast turns around 0.45 and is 1 here.
    spot = (made[0, :, :, 0].double() / 255).square()
    offset = torch.arange(41) - 20.0
    spread = float((spot.sum(1) * offset.square()).sum() / spot.sum())
    assert spread**0.5 == pytest.approx(2.0, abs=0.15)


# --- the set ---


def test_it_is_an_image_set(faces, made):
    assert isinstance(faces, ImageSet)
    assert isinstance(made, ArraySet)
    assert len(faces) == 15
    assert faces.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert faces.labels.dtype == np.int64
    assert len(set(faces.identities)) == 5
    assert faces.read(4).shape == (48, 48, 3)
    assert faces.read(4).dtype == np.uint8
    assert len({faces.name(i) for i in range(15)}) == 15
    assert made.name(4) == faces.name(4)
    assert made.identities == faces.identities
    again = pickle.loads(pickle.dumps(faces))
    assert np.array_equal(again.read(4), made.images[4])


def test_digest_tells_sets_apart():
    base = {"identities": 2, "views": 2, "seed": 0, "size": SMALL}
    others = [
        {"identities": 3},
        {"views": 3},
        {"seed": 1},
        {"size": (48, 50)},
        {"first_identity": 1},
        {"variation": Variation(yaw=(0.0, 0.0))},
    ]
    digests = {SyntheticFaces(**{**base, **o}).digest() for o in [{}, *others]}
    assert len(digests) == 7
    assert SyntheticFaces(**base).digest() in digests


def test_raw_pixels_are_a_weak_verifier():
    images = SyntheticFaces(30, 6, seed=9, size=(32, 32)).materialize().images
    x = images.reshape(180, -1).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    score = x @ x.T
    label = np.repeat(np.arange(30), 6)
    same = label[:, None] == label[None]
    upper = np.triu(np.ones_like(same), 1)
    genuine, impostor = np.sort(score[same & upper]), np.sort(score[~same & upper])
    edges = np.concatenate([genuine, impostor])
    miss = np.searchsorted(genuine, edges) / len(genuine)
    false = 1 - np.searchsorted(impostor, edges) / len(impostor)
    assert 1 - (0.5 * (miss + false)).min() < 0.75


# --- what is refused ---


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"identities": 0}, "identities must be a whole number of at least 1, got 0"),
        ({"views": 1.5}, "views must be a whole number of at least 1, got 1.5"),
        ({"views": True}, "views"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"first_identity": -1}, "first_identity"),
        ({"size": (112,)}, "size must be"),
        ({"size": (4, 112)}, "at least 8"),
        ({"size": (64.0, 64.0)}, "whole numbers"),
    ],
)
def test_bad_settings_of_the_set(settings, words):
    with pytest.raises(ConfigError, match=words):
        SyntheticFaces(**{"identities": 2, "views": 2, **settings})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pose(yaw=91.0), r"Pose.yaw must be a number from -90.0 to 90.0, got 91.0"),
        (lambda: Light(intensity=float("nan")), "Light.intensity"),
        (lambda: Expression(smile="wide"), "Expression.smile"),
        (lambda: Identity(melanin=-0.1), "Identity.melanin"),
        (lambda: Variation(yaw=(20.0, -20.0)), "Variation.yaw must be a range"),
        (lambda: Variation(yaw=(-120.0, 0.0)), "within -90.0 to 90.0"),
        (lambda: Variation(noise=3.0), "Variation.noise"),
    ],
)
def test_values_out_of_range(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_render_needs_one_view_per_identity(faces):
    with pytest.raises(ShapeError, match="2 identities and 1 views"):
        render([Identity()] * 2, [View()])
    with pytest.raises(ShapeError, match="at least one"):
        render([], [])
    with pytest.raises(IndexError, match="image 15 of 15"):
        faces.read(15)
    with pytest.raises(ConfigError, match="batch_size"):
        faces.materialize(batch_size=0)


def test_extremes_are_finite_pictures():
    for sign in (0, 1):
        ends = {n: limits[sign] for n, limits in Identity.limits().items()}
        for pose in (Pose(), Pose(yaw=90.0, pitch=60.0, roll=90.0), Pose(yaw=-90.0, pitch=-60.0)):
            made = picture(Identity(**ends), size=SMALL, pose=pose, camera=Camera(distance=30.0, blur=4.0))
            assert bool(made.landmarks.isfinite().all())
            assert bool(made.mask.any())
            assert float(gray(made).std()) > 1
