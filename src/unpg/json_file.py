"""JSON from files that anyone may have made: whatever is wrong with one is an error that names it."""

import json
from pathlib import Path
from typing import Any

from unpg.errors import DataError

__all__ = ["parse_json", "read_json_object"]


def parse_json(text: str | bytes, where: str, advice: str = "") -> Any:
    """The value that ``text`` says.

    Args:
        text: JSON; bytes are UTF-8.
        where: The file, and the line if it has lines of JSON, for messages.
        advice: What to do about a broken file.

    Raises:
        DataError: It is no JSON (with line and column), is nested too deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}. {advice}".rstrip()
        ) from None
    # UnicodeDecodeError is a ValueError, and so is what Python says to a number that is too long.
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON that can be read: {error}. {advice}".rstrip()) from None


def read_json_object(path: Path, advice: str = "") -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: The file, UTF-8.
        advice: What to do about a broken one.

    Raises:
        FileNotFoundError: There is no such file; callers know what should have written it.
        DataError: It cannot be read, or holds anything else.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    found = parse_json(text, str(path), advice)
    if not isinstance(found, dict):
        raise DataError(f"{path} must hold a JSON object; got {type(found).__name__}. {advice}".rstrip())
    return found
