"""Names for parts: one registry per axis (backbones, losses, datasets, ...).

A new part is one file and one ``@REGISTRY.register("name")``; nobody edits an ``if/elif``. Settings that a part
does not take are an error that says which it does take.
"""

import inspect
import numbers
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar, Union, cast, get_args, get_origin

from unpg.errors import ConfigError, did_you_mean, shown

__all__ = ["Registry"]

T = TypeVar("T", bound=Callable[..., Any])
Part = TypeVar("Part", bound=Callable[..., Any])

_PLAIN: dict[Any, tuple[type, str]] = {
    float: (numbers.Real, "a number"),
    int: (numbers.Integral, "a whole number"),
    str: (str, "text"),
    bool: (bool, "true or false"),
    type(None): (type(None), "null"),
}
"""Types of settings that are checked: what a value must be, and what that is called."""


class Registry(Generic[T]):
    """A mapping from names to the callables (classes or functions) that build a part.

    Args:
        axis: What the names stand for, singular, for messages: "backbone", "loss".
    """

    def __init__(self, axis: str) -> None:
        self.axis = axis
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Part], Part]:
        """Decorator: make the part known as ``name``. A name is given once.

        Raises:
            ConfigError: The name is taken by another part; or the part has a setting called ``kind``, which in a recipe
                is the part's own name.
        """

        def keep(part: Part) -> Part:
            if self._parts.get(name, part) is not part:
                raise ConfigError(f"The {self.axis} name {name!r} is taken by {self._parts[name]!r}; choose another.")
            if "kind" in inspect.signature(part).parameters:
                raise ConfigError(f"The {self.axis} {name!r} has a setting called kind, the name of parts; rename it.")
            self._parts[name] = cast(T, part)
            return part

        return keep

    def __getitem__(self, name: str) -> T:
        """The part called ``name``; a :class:`ConfigError` with the nearest name if there is none."""
        if not isinstance(name, str) or name not in self._parts:
            raise ConfigError(f"No {self.axis} is called {shown(name)}.{did_you_mean(str(name), self._parts)}")
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

    def settings(self, name: str) -> dict[str, inspect.Parameter]:
        """The settings that the part ``name`` takes, by name."""
        parameters = inspect.signature(self[name]).parameters.values()
        return {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}

    def check(self, name: str, settings: Mapping[str, Any], *, given: Mapping[str, Any] | None = None) -> None:
        """Raise :class:`ConfigError` unless ``settings`` (with those ``given`` by the caller) fit the part.

        Of the types of settings, numbers, text, truth values and None are checked; parts check the rest.
        """
        known = self.settings(name)
        given = given or {}
        free = [k for k in known if k not in given]
        for key in settings:
            if key in given:
                raise ConfigError(f"{self.axis}.{key} is not set by hand: it follows from the data and other settings.")
            if key not in known:
                raise ConfigError(f"The {self.axis} {name!r} has no setting {key!r}.{did_you_mean(key, free)}")
            if not _fits(known[key].annotation, settings[key]):
                said = _say(known[key].annotation)
                raise ConfigError(f"{self.axis}.{key} of {name!r} must be {said}, got {shown(settings[key])}.")
        lacking = [k for k in free if known[k].default is inspect.Parameter.empty and k not in settings]
        if lacking:
            raise ConfigError(f"The {self.axis} {name!r} needs the setting(s) {', '.join(lacking)}.")

    def build(self, name: str, settings: Mapping[str, Any] | None = None, **given: Any) -> Any:
        """Build the part ``name`` from a user's ``settings``, and those of the values ``given`` that it takes."""
        settings = settings or {}
        self.check(name, settings, given=given)
        taken = self.settings(name)
        return self[name](**{k: v for k, v in given.items() if k in taken}, **settings)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a type that is in :data:`_PLAIN`; of any other type it may be."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(option, value) for option in get_args(hint))
    if hint not in _PLAIN:
        return True
    return isinstance(value, _PLAIN[hint][0]) and (hint is bool or not isinstance(value, bool))


def _say(hint: Any) -> str:
    options = get_args(hint) or (hint,)
    return " or ".join(_PLAIN[option][1] if option in _PLAIN else str(option) for option in options)
