"""Registries: unknown names and settings are met with the nearest known one."""

from collections.abc import Sequence

import numpy as np
import pytest

from unpg.errors import ConfigError, did_you_mean
from unpg.registry import Registry


def registry():
    parts = Registry("thing")

    @parts.register("box")
    def box(given: int, width: int, height: float | None = 2, text: str | None = None, free: Sequence[int] = ()):
        return given, width, height

    return parts


def test_build_and_list():
    parts = registry()
    assert parts.build("box", {"width": 3}, given=1) == (1, 3, 2)
    assert parts.build("box", {"width": np.int64(3), "height": None, "free": 1}, given=1) == (1, 3, None)
    assert parts.build("box", {"width": 3, "height": np.float32(0.5), "text": "a"}, given=1) == (1, 3, 0.5)
    assert list(parts) == ["box"]
    assert "box" in parts


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("bax", {"width": 1}, "No thing is called 'bax'. Did you mean 'box'"),
        ("box", {"width": 1, "heigth": 2}, "no setting 'heigth'. Did you mean 'height'"),
        ("box", {"width": "3"}, "thing.width of 'box' must be a whole number, got '3'"),
        ("box", {"width": 1.5}, "thing.width of 'box' must be a whole number, got 1.5"),
        ("box", {"width": True}, "thing.width of 'box' must be a whole number, got True"),
        ("box", {"width": None}, "thing.width of 'box' must be a whole number, got None"),
        ("box", {"width": 1, "height": "a"}, "thing.height of 'box' must be a number or null, got 'a'"),
        (["box"], {"width": 1}, r"No thing is called \['box'\]"),
        ("box", {}, "needs the setting.s. width"),
        ("box", {"width": 1, "given": 2}, "thing.given is not set by hand"),
    ],
)
def test_errors(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        registry().build(name, settings, given=1)


def test_a_name_is_given_once():
    parts = registry()
    with pytest.raises(ConfigError, match="is taken"):
        parts.register("box")(lambda: None)


def test_did_you_mean_without_a_near_name():
    assert did_you_mean("zzz", ["a", "b"]) == " Known: a, b."
    assert did_you_mean("zzz", []) == " Known: (none)."


def test_no_setting_may_be_called_as_parts_are():
    with pytest.raises(ConfigError, match="setting called kind"):
        Registry("thing").register("box")(lambda kind: kind)


def test_given_values_that_a_part_does_not_take_are_left_out():
    parts = Registry("thing")
    parts.register("plain")(lambda width: width)
    assert parts.build("plain", {"width": 3}, given=1) == 3
