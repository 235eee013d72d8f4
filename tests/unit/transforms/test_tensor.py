import json

import numpy as np
import pytest
import torch
from PIL import Image

from unpg.errors import ConfigError, ShapeError
from unpg.transforms import Preprocessing


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 112, 112, 3), dtype=torch.uint8, generator=torch.manual_seed(0))


def test_without_crop_or_resize_it_is_arithmetic(images):
    got = Preprocessing((112, 112), mean=127.5, std=128.0)(images)
    expected = (images.numpy().astype(np.float64).transpose(0, 3, 1, 2) - 127.5) / 128
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_the_input_is_left_as_it_is_and_the_result_is_channels_last(images):
    before = images.clone()
    got = Preprocessing((112, 112))(images)
    assert torch.equal(images, before)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_crop_takes_the_named_pixels(images):
    got = Preprocessing((112, 96), crop=(0, 8, 112, 96), mean=0.0, std=1.0)(images)
    assert torch.equal(got, images[:, :, 8:104].permute(0, 3, 1, 2).float())


def test_channel_order_comes_before_mean_and_std(images):
    got = Preprocessing((112, 112), channels="bgr", mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))(images)
    red = (images[..., 0].double() - 3) / 6
    blue = (images[..., 2].double() - 1) / 4
    torch.testing.assert_close(got[:, 2].double(), red, atol=1e-5, rtol=0)
    torch.testing.assert_close(got[:, 0].double(), blue, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (50, 50), (160, 160)])
def test_resize_is_pillows_bilinear_with_antialiasing(images, size):
    got = Preprocessing(size, mean=0.0, std=1.0)(images)
    for image, mine in zip(images.numpy(), got.numpy(), strict=True):
        truth = np.stack(
            [
                np.asarray(Image.fromarray(image[..., c].astype(np.float32)).resize(size[::-1], Image.BILINEAR))
                for c in range(3)
            ]
        )
        np.testing.assert_allclose(mine, truth, atol=1e-2)


def test_an_empty_batch_stays_empty():
    assert Preprocessing((64, 64))(torch.zeros(0, 112, 112, 3, dtype=torch.uint8)).shape == (0, 3, 64, 64)


@pytest.mark.parametrize(
    "given",
    [
        Preprocessing((112, 96), crop=(0, 8, 112, 96), channels="bgr", mean=127.5, std=128.0),
        Preprocessing((64, 64), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)),
    ],
)
def test_survives_the_way_through_json(given):
    assert Preprocessing.from_dict(json.loads(json.dumps(given.to_dict()))) == given


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"size": (0, 112)}, "size"),
        ({"size": (112, 112), "crop": (0, -1, 5, 5)}, "crop"),
        ({"size": (112, 112), "crop": (0, 0, 5, 0)}, "crop"),
        ({"size": (112, 112), "channels": "grb"}, "channels"),
        ({"size": (112, 112), "mean": (1.0, 2.0)}, "mean"),
        ({"size": (112, 112), "std": 0.0}, "std"),
        ({"size": (112, 112), "std": (1.0, 1.0, float("nan"))}, "std"),
        ({"size": (112, 112), "std": float("inf")}, "std"),
        ({"size": (112, 112), "std": [1.0, 1.0, 0]}, "std"),
        ({"size": (112, 112), "mean": float("nan")}, "mean"),
        ({"size": (112, 112), "mean": "127.5"}, "mean"),
        ({"size": (112, 112), "mean": 10**400}, "mean"),
        ({"size": (112.0, 112)}, "size"),
        ({"size": "ab"}, "size"),
        ({"size": (112, 112), "crop": (0, 0, 112.0, 112)}, "crop"),
    ],
)
def test_settings_out_of_range_are_named(settings, match):
    with pytest.raises(ConfigError, match=match):
        Preprocessing(**settings)


def test_from_dict_names_unknown_and_missing_settings():
    with pytest.raises(ConfigError, match=r"'cropp'. Did you mean 'crop'"):
        Preprocessing.from_dict({"size": [112, 112], "cropp": None})
    with pytest.raises(ConfigError, match="'size'"):
        Preprocessing.from_dict({"mean": 0.0})


def test_wrong_arrays_are_refused(images):
    with pytest.raises(ShapeError, match="uint8"):
        Preprocessing((112, 112))(images.float())
    with pytest.raises(ShapeError, match="112, 112, 3"):
        Preprocessing((112, 112))(images[0])
    with pytest.raises(ShapeError, match="leaves the image, which is 112 x 112"):
        Preprocessing((112, 96), crop=(0, 17, 112, 96))(images)


def test_a_face_is_never_squeezed_unasked(images):
    with pytest.raises(ShapeError, match=r"112 x 112 would be distorted to 112 x 96 .*Set Preprocessing.crop"):
        Preprocessing((112, 96))(images)
