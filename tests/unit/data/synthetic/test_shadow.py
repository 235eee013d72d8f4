"""Cast shadows: they darken, on the side that the light does not see, and depend on nothing but head and light."""

import math

import numpy as np
import pytest
import torch

from unpg.data.synthetic import Accessory, Camera, Identity, Light, Pose, View, render, sample_identity
from unpg.data.synthetic.measures import measures
from unpg.data.synthetic.parameters import PerPixel, columns
from unpg.data.synthetic.shadow import cast, lit

STILL = Camera(blur=0.0)


def pair(shadow=1.0, identity=None, **factors):
    """The same picture without and with shadows, gray levels."""
    light = factors.pop("light", {})
    views = [View(camera=STILL, light=Light(**{**light, "shadow": s}), **factors) for s in (0.0, shadow)]
    return render([identity or Identity()] * 2, views).images.int()


@pytest.mark.parametrize("azimuth", [-120.0, -50.0, 0.0, 50.0, 180.0])
def test_shadows_darken_only(azimuth):
    person = sample_identity(5, 3)
    for elevation in (-40.0, 10.0, 80.0):
        bare, shaded = pair(identity=person, light={"azimuth": azimuth, "elevation": elevation})
        assert bool((shaded <= bare).all())


def test_stronger_shadows_are_darker():
    weak, strong = (pair(s, light={"azimuth": 60.0, "elevation": 30.0})[1].double().mean() for s in (0.3, 1.0))
    assert weak > strong + 0.3


def test_the_nose_shades_the_side_away_from_the_light():
    for azimuth, dark in ((-55.0, 1), (55.0, 0)):
        bare, shaded = pair(light={"azimuth": azimuth, "elevation": 15.0})
        lost = (bare - shaded).double().mean(2)[62:82]
        sides = [float(lost[:, 36:54].mean()), float(lost[:, 58:76].mean())]
        assert sides[dark] > 4.0
        assert sides[dark] > 4.0 * sides[1 - dark]


def test_light_from_the_camera_casts_no_shadow_on_the_face():
    bare, shaded = pair(light={"azimuth": 0.0, "elevation": 0.0})
    assert ((bare - shaded).amax(2)[40:100, 40:72] > 6).double().mean() < 0.02


def test_a_brim_shades_the_brow_and_its_shadow_falls_with_the_sun():
    def shaded_to(elevation):
        light = {"azimuth": 0.0, "elevation": elevation}
        worn = pair(light=light, accessory=Accessory(hat=1.0, style=0.1))
        bare = pair(light=light)
        lost = ((worn[0] - worn[1]).double() - (bare[0] - bare[1]).double()).mean(2)[:, 30:82].mean(1)
        return int((lost > 10).nonzero().max())

    low, high = shaded_to(25.0), shaded_to(50.0)
    assert low > 30
    assert high > low + 8


def test_shadows_turn_with_head_and_light_together():
    # The head and its light turned alike about the vertical: the shadow on the face is the same in the light's frame.
    still = measures(Identity(), View(light=Light(azimuth=40.0, elevation=0.0)))
    turned = measures(Identity(), View(light=Light(azimuth=70.0, elevation=0.0), pose=Pose(yaw=30.0)))
    for axis in ("across", "along", "toward"):
        for c in "xyz":
            assert still[f"{axis}_{c}"] == pytest.approx(turned[f"{axis}_{c}"], abs=1e-12)


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (35, -20, 50), (-90, 60, -90)])
@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (120, 30), (0, 90), (20, -90)])
def test_the_axes_of_the_light_are_a_rotation(yaw, pitch, roll, azimuth, elevation):
    view = View(pose=Pose(yaw=yaw, pitch=pitch, roll=roll), light=Light(azimuth=azimuth, elevation=elevation))
    p = measures(Identity(), view)
    axes = np.array([[p[f"{name}_{c}"] for c in "xyz"] for name in ("across", "along", "toward")])
    assert np.allclose(axes @ axes.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(axes) == pytest.approx(1.0)


def test_a_plate_shades_what_is_behind_it_and_nothing_beside_or_before():
    # The light is at z = infinity; a plate of 8 x 8 cm hangs at z = 5.
    p = columns([measures(Identity(), View(light=Light(azimuth=0.0, elevation=0.0)))])
    points = [torch.tensor([[a]]).expand(1, 1) for a in (0.0,)]
    x = torch.tensor([[-4.0, 4.0, 4.0, -4.0]])
    y = torch.tensor([[4.0, 4.0, -4.0, -4.0]])
    points = [x, y, torch.full((1, 4), 5.0)]
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
    maps = cast(p, points, triangles, torch.tensor([True, True]))
    places = torch.tensor([[0.0, 0.0, 0.0], [3.0, -3.0, -5.0], [6.0, 0.0, 0.0], [0.0, -7.0, 3.0], [0.0, 0.0, 6.0]])
    picture = torch.zeros(5, dtype=torch.int64)
    share = lit(PerPixel(p, picture), maps, picture, list(places.t()), torch.ones(5))
    assert share.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    # The plate does not shade itself, however steep the light is to it.
    own = torch.tensor([[1.0, 1.0, 5.0]])
    for facing in (1.0, math.cos(math.radians(60.0))):
        assert float(lit(PerPixel(p, picture[:1]), maps, picture[:1], list(own.t()), torch.tensor([facing]))) == 1.0
