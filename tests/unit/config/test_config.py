"""Configurations: every fault is named with its path, and a written one comes back the same."""

import itertools
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from unpg.config import for_json, from_dict, from_yaml, load_yaml, read_yaml, to_dict, write_yaml
from unpg.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ConfigError("rate must be >= 0.")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    maybe: Inner | None = None
    weight: float | Literal["balanced"] = 1.0
    size: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    free: dict[str, Any] = field(default_factory=dict)
    on: bool = False


def test_round_trip_through_a_file(tmp_path):
    config = Outer("x", Inner(1e-3, "b"), Inner(), "balanced", (3, 4), (1.0, math.inf), {"kind": "k", "s": 2}, True)
    write_yaml(tmp_path / "c.yaml", config)
    assert from_dict(Outer, read_yaml(tmp_path / "c.yaml")) == config


def test_numbers_as_people_write_them(tmp_path):
    (tmp_path / "c.yaml").write_text("name: x\ninner: {rate: 1e-3}\nweight: 2\nmany: [1, 5e-4, .inf]\n")
    config = from_dict(Outer, read_yaml(tmp_path / "c.yaml"))
    assert config.inner.rate == 1e-3
    assert config.weight == 2.0
    assert config.many == (1.0, 5e-4, math.inf)


def test_all_faults_at_once():
    values = {
        "inner": {"rat": 1, "kind": "c"},
        "maybe": {"rate": -1.0},
        "weight": "equal",
        "size": [1],
        "many": 3,
        "on": 1,
        "extra": 0,
    }
    with pytest.raises(ConfigError) as caught:
        from_dict(Outer, values)
    lines = str(caught.value).splitlines()
    for expected in [
        "inner.rat: no such setting. Did you mean 'rate'?",
        "inner.kind must be one of a, b; got 'c'",
        "maybe: rate must be >= 0.",
        "weight must be a number or 'balanced'; got 'equal'",
        "size must be a list of a whole number and a whole number, got [1]",
        "many must be",
        "on must be true or false, got 1",
        "extra: no such setting.",
        "name: this setting has no default",
    ]:
        assert any(expected in line for line in lines), expected
    assert len(lines) == 9


def test_booleans_are_no_numbers():
    with pytest.raises(ConfigError, match="inner.rate must be a number, got True"):
        from_dict(Outer, {"name": "x", "inner": {"rate": True}})


def test_none_where_allowed():
    assert from_dict(Outer, {"name": "x", "maybe": None}).maybe is None
    with pytest.raises(ConfigError, match="inner must be a group"):
        from_dict(Outer, {"name": "x", "inner": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "cannot be read as YAML.*line"), ("- 1", "must hold settings"), ("", "must hold settings")],
)
def test_broken_files(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"(?s)c.yaml.*{message}" if "cannot" in message else message):
        read_yaml(tmp_path / "c.yaml")


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "c.yaml")


def test_python_objects_in_yaml_are_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "c.yaml")


def test_to_dict_is_plain():
    assert to_dict(Outer("x", maybe=Inner()))["maybe"] == {"rate": 0.1, "kind": "a"}


def laughs(levels, form="[*{a}, *{a}]"):
    names = [f"n{i}" for i in range(levels + 1)]
    first = "n0: &n0 {k: 1}\n"
    return first + "".join(f"{b}: &{b} {form.format(a=a)}\n" for a, b in itertools.pairwise(names))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (laughs(60), "its aliases stand for more than 100,000 values"),
        (laughs(40, "{{<<: [*{a}, *{a}]}}"), "its aliases stand for more than 100,000 values"),
        ("a: &a [*a]", "line 1: an alias stands for a value that holds it"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("a: 2001-13-45", "month"),
        ("a: !!bool x", "cannot be read as YAML"),
        ("a: !!timestamp x", "cannot be read as YAML"),
        ("a: 0x_", "cannot be read as YAML"),
    ],
)
def test_hostile_yaml_is_refused_at_once(tmp_path, text, said):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"(?s)c\.yaml cannot be read as YAML.*{said}|{said}"):
        read_yaml(tmp_path / "c.yaml")


def test_aliases_of_a_sound_file_are_kept(tmp_path):
    (tmp_path / "c.yaml").write_text("a: &a {k: [1, 2]}\nb: *a\nc: {<<: *a, l: 1e-3}\n")
    assert read_yaml(tmp_path / "c.yaml") == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}, "c": {"k": [1, 2], "l": 1e-3}}


def test_a_value_of_any_size_makes_a_short_message():
    value = ["ha"]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(ConfigError) as caught:
        from_dict(Outer, {"name": value})
    assert len(str(caught.value)) < 400


def test_a_fault_names_the_file(tmp_path):
    (tmp_path / "c.yaml").write_text("name: x\nnaem: y\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: naem: no such setting.*'name'"):
        from_yaml(Outer, tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("name: x\n")
    assert from_yaml(Outer, tmp_path / "c.yaml") == Outer("x")


def test_infinities_are_text_where_json_has_none():
    settings = {"r": math.inf, "deep": [{"low": -math.inf}, 1.5], "name": "x", "none": None}
    assert for_json(settings) == {"r": ".inf", "deep": [{"low": "-.inf"}, 1.5], "name": "x", "none": None}
    json.dumps(for_json(settings), allow_nan=False)


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "b: {a: 1, a: 1}\n", "- a: &x {b: 1}\n- *x\n- {c: 1, c: 2}\n"])
def test_a_setting_that_is_given_twice_is_a_fault(text):
    with pytest.raises(ConfigError, match=r"it.yaml.*line \d: '[ac]' is given twice"):
        load_yaml(text, "it.yaml")


def test_a_merged_setting_may_be_given_again():
    found = load_yaml("base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\n", "it.yaml")
    assert found["mine"] == {"a": 1, "b": 3}


def test_a_number_that_no_float_holds_is_a_fault():
    with pytest.raises(ConfigError, match="rate must be a number below 1e308"):
        from_dict(Inner, {"rate": 10**400})


def test_paths_and_numbers_of_numpy_are_written_as_plain_values(tmp_path):
    path = tmp_path / "c.yaml"
    write_yaml(path, {"root": tmp_path, "rate": np.float64(0.1), "sizes": (np.int64(3), np.float32(0.5))})
    assert read_yaml(path) == {"root": str(tmp_path), "rate": 0.1, "sizes": [3, 0.5]}
