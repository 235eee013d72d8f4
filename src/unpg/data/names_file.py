"""The names of identities beside a container that holds numbers only: a JSON list, name k being that of label k.

Beside folders whose names a file system cannot hold it is a JSON object, from the folder to the name. JSON in ASCII
holds every name that Python does, also one that is no UTF-8.
"""

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from unpg.errors import DataError, shown
from unpg.json_file import parse_json

__all__ = [
    "NAMES_FILE",
    "folder_names_bytes",
    "is_utf8",
    "names_bytes",
    "names_for",
    "parse_names",
    "read_folder_names",
    "read_names",
]

NAMES_FILE = "identities.json"

_MOST = 1 << 32  # bytes of a names file
_DIGITS = 19  # of an int64


def is_utf8(name: str) -> bool:
    """Whether a name can stand in a text; a file system's name of other bytes has surrogates in Python."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def names_bytes(names: Sequence[str]) -> bytes:
    """The content of a names file, one name a line."""
    return ("[\n" + ",\n".join(json.dumps(name) for name in names) + "\n]\n").encode("ascii")


def parse_names(data: bytes, source: str) -> list[str]:
    """The names.

    Args:
        data: The content of a names file.
        source: What to call it in errors.

    Raises:
        DataError: It is no list of names, or has one twice or an empty one.
    """
    names = parse_json(data, source, "It should be a list of names. Correct or remove it.")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{source}: expected a JSON list of names, none of them empty, got {shown(names)}.")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{source}: the name {name!r:.100} is given twice. Correct or remove the file.")
        seen.add(name)
    return names


def read_names(file: str | PathLike[str]) -> list[str] | None:
    """The names in ``file``, or None if there is no such file. Raises as :func:`parse_names`."""
    data = _content(file)
    return None if data is None else parse_names(data, str(file))


def folder_names_bytes(names: Mapping[str, str]) -> bytes:
    """The content of a names file beside folders: from a folder to the identity's name, one a line."""
    lines = (f"{json.dumps(folder)}: {json.dumps(name)}" for folder, name in names.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")


def read_folder_names(file: str | PathLike[str]) -> dict[str, str]:
    """From a folder to the identity's name; empty if there is no such file.

    Raises:
        DataError: The file cannot be read, or is no JSON object of names.
    """
    data = _content(file)
    if data is None:
        return {}
    names = parse_json(data, str(file), "It should be an object from folder to name. Correct or remove it.")
    if not isinstance(names, dict) or not all(isinstance(name, str) and name for name in names.values()):
        raise DataError(f"{file}: expected a JSON object from folder to name, none empty, got {shown(names)}.")
    return names


def _content(file: str | PathLike[str]) -> bytes | None:
    path = Path(file)
    try:
        if path.stat().st_size > _MOST:
            raise DataError(f"{file} has {path.stat().st_size:,} bytes; that is no list of names. Remove it.")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error


def names_for(numbers: Sequence[str], names: Sequence[str], source: str) -> list[str]:
    """The names of labels that a container calls by ``numbers``, decimal.

    Raises:
        DataError: A number that ``names`` has not got.
    """
    for number in numbers:
        # Python refuses to read numbers of thousands of digits.
        if not (number.isascii() and number.isdigit() and len(number) <= _DIGITS and int(number) < len(names)):
            raise DataError(
                f"{source} names the labels 0 to {len(names) - 1}, but the set has the label {number!r:.100}. The "
                "file is of another set; correct or remove it."
            )
    return [names[int(number)] for number in numbers]
