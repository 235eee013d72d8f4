"""What can go wrong, in the user's terms.

Every message names the setting or the file, says what is allowed, what came, and what to do next.
A failed ``assert`` in this package is always our own mistake, never the user's.
"""

import difflib
import reprlib
from collections.abc import Iterable

__all__ = ["ConfigError", "DataError", "ShapeError", "UnpgError", "did_you_mean", "shown"]


class UnpgError(ValueError):
    """Base of all errors that a user can cause and mend.

    Attributes:
        exit_code: With which the command line ends.
    """

    exit_code = 2


class ConfigError(UnpgError):
    """A setting that is unknown, out of range, or at odds with another."""


class DataError(UnpgError):
    """A file, label or record that is missing, broken, or not what was declared."""


class ShapeError(UnpgError):
    """An array whose shape or type does not fit."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown ``name``: the nearest known one, and all of them.

    >>> did_you_mean("arcfase", ["arcface", "cosface"])
    " Did you mean 'arcface'? Known: arcface, cosface."
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(names) or '(none)'}."


def shown(value: object, most: int = 200) -> str:
    """``repr(value)`` for a message, of ``most`` characters at most.

    A value from a file can be a list of a billion elements in a hundred bytes, or a number whose digits Python will not
    write; neither is spelled out.

    >>> shown(["a", {"b": 1}])
    "['a', {'b': 1}]"
    """
    form = reprlib.Repr()
    form.maxlevel, form.maxstring, form.maxother, form.maxlong = 3, most, most, 40
    try:
        text = form.repr(value)
    except ValueError:  # a number of thousands of digits
        text = f"a {type(value).__name__} too long to be shown"
    return text if len(text) <= most else f"{text[: most - 3]}..."
