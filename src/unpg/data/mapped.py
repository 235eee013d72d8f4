"""Files mapped into memory, which others may cut off meanwhile."""

import os
from contextlib import suppress
from pathlib import Path

from unpg.errors import DataError

__all__ = ["require_all_there"]


def require_all_there(path: Path, size: int) -> None:
    """Raise if a file of which ``size`` bytes are mapped has become shorter.

    Touching mapped bytes that a file has no more ends the process, without a word.

    Raises:
        DataError: It has.
    """
    with suppress(OSError):  # a file that is gone by name stays mapped
        now = os.stat(path).st_size
        if now < size:
            raise DataError(f"{path} had {size} bytes when it was opened, now {now}: it was cut off. Restore it.")
