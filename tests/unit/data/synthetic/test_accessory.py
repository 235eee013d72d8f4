"""What is worn changes the pixels that show it, and nothing else."""

import dataclasses

import numpy as np
import pytest
import torch

from unpg.data.synthetic import (
    Accessory,
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
from unpg.errors import ConfigError

STILL = Camera(blur=0.0, scale=0.7)  # no noise and no blur, and a step back so that hats are in the picture
WORN = {
    "glasses": {"glasses": 1.0},
    "sunglasses": {"sunglasses": 1.0},
    "cap": {"hat": 1.0, "style": 0.1},
    "beanie": {"hat": 1.0, "style": 0.5},
    "brimmed hat": {"hat": 1.0, "style": 0.9},
    "mask": {"mask": 1.0},
}


def picture(accessory=None, *, identity=None, size=(112, 112), light=None, **factors):
    view = View(
        accessory=Accessory(**(accessory or {})), light=light or Light(shadow=0.0), **{"camera": STILL, **factors}
    )
    return render([identity or Identity()], [view], size)


def changed(a, b):
    return (a.images[0].int() - b.images[0].int()).abs().amax(2) > 0


def region(made):
    """Rows and columns as multiples of the distance of the eyes, from between the eyes, right and down."""
    eyes = made.landmarks[0, :2].mean(0)
    unit = float((made.landmarks[0, 1] - made.landmarks[0, 0]).norm())
    rows, columns = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    return (columns - eyes[0]) / unit, (rows - eyes[1]) / unit


@pytest.mark.parametrize("name", WORN)
def test_it_is_seen_and_the_landmarks_stay(name):
    for yaw in (-90.0, -40.0, 0.0, 40.0, 90.0):
        bare, worn = picture(pose=Pose(yaw=yaw)), picture(WORN[name], pose=Pose(yaw=yaw))
        assert torch.equal(bare.landmarks, worn.landmarks)
        assert int(changed(bare, worn).sum()) > 60
        assert bool(worn.mask[bare.mask & ~changed(bare, worn)].all()), "what is worn belongs to the person"


@pytest.mark.parametrize("name", ["glasses", "sunglasses"])
@pytest.mark.parametrize("yaw", [0.0, 50.0, -90.0])
def test_glasses_change_only_the_pixels_around_the_eyes(name, yaw):
    bare, worn = picture(pose=Pose(yaw=yaw)), picture(WORN[name], pose=Pose(yaw=yaw))
    where = changed(bare, worn)
    if yaw == 0.0:
        right, down = region(bare)
        assert bool((right[where].abs() < 1.3).all())
        assert bool(((down[where] > -0.45) & (down[where] < 0.5)).all())
        assert bool(where[(right.abs() - 0.5).square() + down.square() < 0.01].float().mean() > 0.3)
    # Glasses lie before the face: nothing goes back, and what comes forward is seen.
    assert bool((worn.depth <= bare.depth).all())
    solid = worn.depth[0] < bare.depth[0]
    assert bool(where[solid].float().mean() > 0.9)


def test_sunglasses_hide_the_eyes_and_glasses_do_not():
    def spread(accessory):
        made = picture(accessory, light=Light(azimuth=20.0, shadow=0.0))
        right, down = region(made)
        eyes = ((right.abs() - 0.5).abs() < 0.17) & (down.abs() < 0.12)
        return float(made.images[0].double().mean(2)[eyes].std())

    bare, clear, dark = spread({}), spread({"glasses": 1.0}), spread({"sunglasses": 1.0})
    assert clear > 0.7 * bare
    assert dark < 0.4 * bare
    both = picture({"glasses": 1.0, "sunglasses": 1.0})
    assert torch.equal(both.images, picture({"sunglasses": 1.0}).images)


@pytest.mark.parametrize("name", ["cap", "beanie", "brimmed hat"])
def test_a_hat_is_above_the_eyes(name):
    bare, worn = picture(), picture(WORN[name])
    right, down = region(bare)
    where = changed(bare, worn)
    # Hair beside the face may be pressed flat; the face itself stays.
    assert not bool(where[(right.abs() < 0.8) & (down > -0.4) & (down < 1.2)].any())
    assert bool(where[(right.abs() < 0.5) & (down < -1.2) & (down > -1.5)].all())


def test_a_mask_covers_nose_and_mouth_and_leaves_the_eyes():
    bare, worn = picture(), picture({"mask": 1.0})
    right, down = region(bare)
    where = changed(bare, worn)
    assert not bool(where[(down < 0.0) & (right.abs() < 0.8)].any())
    # Its edge is close to the skin above and takes a little light from it.
    edge = (down >= 0.0) & (down < 0.15) & (right.abs() < 0.8)
    assert int((worn.images[0].int() - bare.images[0].int()).abs().amax(2)[edge].max()) < 25
    mouth = worn.landmarks[0, 3:].mean(0).round().long().tolist()
    assert bool(where[mouth[1] - 4 : mouth[1] + 5, mouth[0] - 8 : mouth[0] + 9].all())
    # Whatever the mouth does below it, the cloth has no lips: its color is the same along the row of the mouth.
    for expression in (Expression(), Expression(smile=1.0), Expression(mouth_open=0.6)):
        row = picture({"mask": 1.0}, expression=expression, light=Light(intensity=0.0, ambient=0.6)).images[0]
        x, y = mouth
        assert int((row[y, x - 8 : x + 9].int() - row[y, x].int()).abs().max()) < 40
    lifted = worn.depth[0] < bare.depth[0] - 0.2
    assert bool(where[lifted].all())


@pytest.mark.parametrize("color", ["red", "green", "blue"])
@pytest.mark.parametrize("name", ["glasses", "cap", "mask"])
def test_its_color_is_seen_on_it_alone(name, color):
    made = [picture({**WORN[name], color: v}) for v in (0.0, 0.9)]
    where = changed(*made)
    assert int(where.sum()) > 20
    assert not bool((where & ~changed(picture(), made[0]) & ~changed(picture(), made[1])).any())
    assert torch.equal(made[0].depth, made[1].depth)
    channel = ["red", "green", "blue"].index(color)
    gain = made[1].images[0, :, :, channel].int() - made[0].images[0, :, :, channel].int()
    assert int(gain.min()) >= 0


def test_what_is_not_worn_has_no_effect():
    plain = picture()
    for kept in ({"style": 0.9, "red": 0.9}, {"hat": 0.49}, {"glasses": 0.3, "mask": 0.2}):
        assert torch.equal(picture(kept).images, plain.images)


def test_neighbors_in_the_batch_do_not_matter():
    kinds = [{}, *WORN.values(), {"hat": 1.0, "glasses": 1.0, "mask": 1.0}]
    views = [
        View(accessory=Accessory(**kind), pose=Pose(yaw=25.0 * i - 90), light=Light(azimuth=30.0 * i - 90))
        for i, kind in enumerate(kinds)
    ]
    people = [sample_identity(3, i) for i in range(len(views))]
    together = render(people, views, (48, 48))
    backward = render(people[::-1], views[::-1], (48, 48))
    for i in range(len(views)):
        alone = render(people[i : i + 1], views[i : i + 1], (48, 48))
        for a, b, c in zip(together, alone, backward, strict=True):
            assert torch.equal(a[i], b[0])
            assert torch.equal(a[i], c[len(views) - 1 - i])


def test_everybody_can_wear_everything_at_every_pose():
    for sign in (0, 1):
        ends = {n: limits[sign] for n, limits in Identity.limits().items()}
        for yaw, pitch in ((-90.0, 30.0), (0.0, -60.0), (90.0, 60.0)):
            made = picture(
                {"hat": 1.0, "glasses": 1.0, "mask": 1.0, "style": float(sign)},
                identity=Identity(**ends),
                size=(48, 48),
                pose=Pose(yaw=yaw, pitch=pitch, roll=90.0),
                light=Light(azimuth=yaw, elevation=90.0),
            )
            assert bool(made.landmarks.isfinite().all())
            assert not bool(made.depth.isnan().any())
            assert bool(made.mask.any())


def test_a_set_wears_what_its_variation_asks_for():
    nothing = [sample_view(Variation(), 0, 0, v).accessory for v in range(20)]
    assert all(max(a.glasses, a.sunglasses, a.hat, a.mask) == 0.0 for a in nothing)
    half = [sample_view(Variation(hat=(0.0, 1.0)), 0, i, 0).accessory.hat >= 0.5 for i in range(400)]
    assert abs(np.mean(half) - 0.5) < 0.1
    always = SyntheticFaces(1, 3, size=(48, 48), variation=Variation(mask=(1.0, 1.0), accessory_red=(0.6, 0.6)))
    views = [always.parameters(i)[1] for i in range(3)]
    assert {v.accessory.mask for v in views} == {1.0}
    assert {v.accessory.red for v in views} == {0.6}
    # The accessory of a view is one factor of many: the others are the same without it.
    bare = SyntheticFaces(1, 3, size=(48, 48), variation=Variation(accessory_red=(0.6, 0.6)))
    for i in range(3):
        a, b = views[i], bare.parameters(i)[1]
        assert dataclasses.replace(a, accessory=b.accessory) == b


@pytest.mark.parametrize("name", Accessory.limits())
def test_limits(name):
    for value in (-0.01, 1.01, float("nan")):
        with pytest.raises(ConfigError, match=f"Accessory.{name} must be a number from 0.0 to 1.0"):
            Accessory(**{name: value})


def test_ranges_of_accessories_are_checked():
    with pytest.raises(ConfigError, match="Variation.hat must be a range"):
        Variation(hat=(0.0, 2.0))
    with pytest.raises(ConfigError, match="Variation.accessory_blue"):
        Variation(accessory_blue=(0.9, 0.1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu():
    views = [View(accessory=Accessory(**kind), pose=Pose(yaw=30.0)) for kind in WORN.values()]
    there, here = (render([Identity()] * len(views), views, (64, 64), d).images.cpu().int() for d in ("cuda", "cpu"))
    assert ((there - here).abs() > 1).double().mean() < 1e-3
