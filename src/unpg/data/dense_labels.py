"""Labels from 0 without gaps, for containers that hold any numbers or names.

Axes: n images.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["dense_labels", "number_or_name"]

_NUMBER = re.compile("0|[1-9][0-9]{0,17}")  # so many digits always fit an int64


def number_or_name(text: str) -> int | str:
    """The number that ``text`` is the decimal form of, else ``text``: 01 is a name, and another one than 1."""
    return int(text) if _NUMBER.fullmatch(text) else text


def dense_labels(found: Sequence[int | str]) -> tuple[NDArray[np.int64], list[str]]:
    """Labels (n,) int64 and the name of each.

    Numbers are numbered anew in rising order, whatever the order of the images; names in order of first appearance.
    """
    if all(isinstance(value, int) for value in found):
        number: dict[int | str, int] = {value: i for i, value in enumerate(sorted({int(v) for v in found}))}
    else:
        number = {}
        for value in found:
            number.setdefault(str(value), len(number))
        found = [str(value) for value in found]
    return np.array([number[value] for value in found], dtype=np.int64), [str(value) for value in number]
