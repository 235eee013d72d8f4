"""Configurations: every fault is named with its path, and a written one comes back the same."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from unpg.config import from_dict, read_yaml, to_dict, write_yaml
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
