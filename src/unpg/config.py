"""Settings: nested frozen dataclasses, from and to plain dictionaries and YAML, with every fault named.

The command line has its own parser on top; this module needs nothing but PyYAML, so a saved configuration can be
read on any machine.
"""

import dataclasses
import math
import numbers
import os
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from unpg.errors import ConfigError, UnpgError, did_you_mean, shown

__all__ = ["for_json", "from_dict", "from_yaml", "load_yaml", "parse_yaml", "read_yaml", "to_dict", "write_yaml"]

T = TypeVar("T")

_MOST_NODES = 100_000
"""Values in a YAML file, aliases written out; a resolved run has some hundreds."""
_DEEPEST = 50
"""Levels of a YAML file, aliases written out; a resolved run has some six."""
_MOST_BYTES = 1 << 20
"""Of a YAML file; a resolved run has some thousands."""


def from_dict(kind: type[T], values: Mapping[str, Any], *, path: str = "") -> T:
    """Build the dataclass ``kind`` from plain values, checking names and types.

    Args:
        kind: A dataclass; its fields may be dataclasses, numbers, strings, tuples, dictionaries, literals, unions.
        values: As read from YAML: lists stand for tuples.
        path: Where in the configuration ``values`` lies, for messages: ``train.optim``.

    Raises:
        ConfigError: All faults at once: unknown names (with the nearest known one), missing ones, wrong types, and
            what the dataclasses themselves refuse.
    """
    faults: list[str] = []
    built = _build(kind, values, path, faults)
    if faults:
        raise ConfigError("\n".join(faults))
    return typing.cast(T, built)


def _build(kind: Any, values: Any, path: str, faults: list[str]) -> Any:
    if not isinstance(values, Mapping):
        faults.append(f"{path or kind.__name__} must be a group of settings, got {values!r}.")
        return None
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    before = len(faults)
    taken: dict[str, Any] = {}
    for name, value in values.items():
        here = f"{path}.{name}" if path else str(name)
        if name not in fields:
            faults.append(f"{here}: no such setting.{did_you_mean(str(name), fields)}")
        else:
            taken[name] = _fit(hints[name], value, here, faults)
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in values and not optional:
            faults.append(f"{path + '.' if path else ''}{name}: this setting has no default; give it.")
    if len(faults) > before:
        return None
    try:
        return kind(**taken)
    except UnpgError as error:
        faults.append(f"{path}: {error}" if path else str(error))
        return None


def _fit(hint: Any, value: Any, path: str, faults: list[str]) -> Any:
    """``value`` as the type ``hint``, or a fault."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, path, faults)
    if origin in (Union, types.UnionType):
        return _fit_union(arguments, value, path, faults)
    if origin is Literal:
        if value in arguments and not isinstance(value, bool):
            return value
        faults.append(f"{path} must be one of {', '.join(map(str, arguments))}; got {shown(value)}.")
        return None
    if origin is tuple and isinstance(value, list | tuple):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_fit(arguments[0], v, f"{path}[{i}]", faults) for i, v in enumerate(value))
        if len(arguments) == len(value):
            pairs = zip(arguments, value, strict=True)
            return tuple(_fit(a, v, f"{path}[{i}]", faults) for i, (a, v) in enumerate(pairs))
    if origin is dict and isinstance(value, Mapping):
        return {str(k): _fit(arguments[1], v, f"{path}.{k}", faults) for k, v in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # a whole number of more than 308 digits
            faults.append(f"{path} must be {_say(hint)} below 1e308, got {shown(value)}.")
            return None
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (str, bool) and isinstance(value, hint):
        return value
    if hint is type(None) and value is None:
        return None
    faults.append(f"{path} must be {_say(hint)}, got {shown(value)}.")
    return None


def _fit_union(options: tuple[Any, ...], value: Any, path: str, faults: list[str]) -> Any:
    if value is None and type(None) in options:
        return None
    solid = [o for o in options if o is not type(None)]
    tried: list[str] = []
    for option in solid:
        mine: list[str] = []
        fitted = _fit(option, value, path, mine)
        if not mine:
            return fitted
        tried += mine
    if len(solid) == 1:
        faults += tried
    else:
        faults.append(f"{path} must be {' or '.join(map(_say, options))}; got {shown(value)}.")
    return None


def _say(hint: Any) -> str:
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    if hint in plain:
        return plain[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        return "a list of " + " and ".join(_say(a) for a in arguments if a is not Ellipsis)
    if origin is dict:
        return "a group of settings"
    return getattr(hint, "__name__", str(hint))


def to_dict(config: Any) -> Any:
    """Plain values that YAML and JSON can hold: the inverse of :func:`from_dict`. Paths become text, and numpy's
    numbers Python's.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}
    if isinstance(config, Mapping):
        return {str(k): to_dict(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(v) for v in config]
    if isinstance(config, os.PathLike):
        return os.fspath(config)
    return config.item() if isinstance(config, numbers.Number) and hasattr(config, "item") else config


def for_json(settings: Any) -> Any:
    """Plain settings with infinities, which JSON does not know, as YAML writes them: an ``r`` of ``.inf`` is text."""
    if isinstance(settings, Mapping):
        return {name: for_json(value) for name, value in settings.items()}
    if isinstance(settings, list):
        return [for_json(value) for value in settings]
    if isinstance(settings, float) and math.isinf(settings):
        return ".inf" if settings > 0 else "-.inf"
    return settings


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; people mean the number. An alias may not make a small file a large value, and of a
    setting that is given twice neither value is what everybody would expect.
    """

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            values, levels = _spelled_out(node, {})
            if values > _MOST_NODES:
                raise yaml.YAMLError(f"its aliases stand for more than {_MOST_NODES:,} values")
            if levels > _DEEPEST:
                raise yaml.YAMLError(f"it is nested too deeply, {levels} levels; {_DEEPEST} are allowed")
        return node


def _spelled_out(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node is when each alias is written out, and in how many levels."""
    if id(node) in known:
        if not known[id(node)][0]:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: an alias stands for a value that holds it")
        return known[id(node)]
    known[id(node)] = 0, 0  # while it is being counted
    below = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        names: set[tuple[str, str]] = set()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode):
                if (name.tag, name.value) in names:
                    raise yaml.YAMLError(f"line {name.start_mark.line + 1}: {shown(name.value)} is given twice")
                names.add((name.tag, name.value))
        below = [part for pair in node.value for part in pair]
    parts = [_spelled_out(part, known) for part in below]
    known[id(node)] = 1 + sum(values for values, _ in parts), 1 + max((levels for _, levels in parts), default=0)
    return known[id(node)]


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: The file is missing, has more than 1 MiB, is not YAML (line and column are named), or holds no
            mapping.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size:,} bytes; settings have {_MOST_BYTES:,} at most.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping that ``text`` says; ``where`` names it in messages.

    Raises:
        ConfigError: As :func:`load_yaml`, or it holds no mapping.
    """
    found = load_yaml(text, where)
    if not isinstance(found, dict):
        raise ConfigError(f"{where} must hold settings as `name: value`, got {type(found).__name__}.")
    return found


def load_yaml(text: str, where: str) -> Any:
    """The plain value that ``text`` says; ``where`` names it in messages.

    Raises:
        ConfigError: It is not YAML (line and column are named), is nested too deeply, has a tag of no plain value, a
            setting twice, or aliases that make it far larger than it is.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise ConfigError(f"{where} cannot be read as YAML: it is nested too deeply.") from None
    # A tag or form that promises a number or date and holds another thing raises nearly anything.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"{where} cannot be read as YAML: {str(error)[:1000] or type(error).__name__}") from None


def from_yaml(kind: type[T], path: Path) -> T:
    """The dataclass ``kind`` from the YAML file ``path``.

    Raises:
        ConfigError: As :func:`read_yaml` and :func:`from_dict`; names the file.
    """
    values = read_yaml(path)
    try:
        return from_dict(kind, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def write_yaml(path: Path, config: Any) -> None:
    """Write a configuration so that :func:`read_yaml` and :func:`from_dict` give it back; whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
    partial.replace(path)
