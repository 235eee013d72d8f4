"""numpy arrays from files that anyone may have made: whatever is wrong with one is an error that names it."""

import math
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from unpg.errors import DataError, shown

__all__ = ["read_arrays"]

_MOST_BYTES = 1 << 30


def read_arrays(path: Path, what: str, advice: str) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz``, by name. Sizes are checked before there is room for them; nothing is unpickled.

    Args:
        path: The file.
        what: What it should be, for messages.
        advice: What to do about a broken one.

    Raises:
        DataError: It is damaged, or would unpack to more than 1 GiB.
    """
    try:
        with ZipFile(path) as archive:
            declared = sum(member.file_size for member in archive.infolist())
            if declared > _MOST_BYTES:
                raise DataError(
                    f"{path} would unpack to {declared:,} bytes, more than {_MOST_BYTES:,}. It is not {what}."
                )
            # numpy makes room for what an array's head says before it looks for the numbers.
            for member in archive.infolist():
                with archive.open(member) as file:
                    _check_array(file, member.file_size)
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except DataError:
        raise
    # A broken archive raises as its compression, its checksums, or the text of an array's head.
    except Exception as error:
        raise DataError(f"{path} is not {what}: {shown(error)}. {advice}") from None


def _check_array(file: IO[bytes], size: int) -> None:
    """Raise unless the head of an array declares no more than the ``size`` bytes of its file."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if math.prod(shape) * kind.itemsize > size or min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape} in {size} bytes")
