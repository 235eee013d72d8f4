"""Decode every image of a set and list what is wrong with it."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from unpg.data.content import content
from unpg.data.decode import decode
from unpg.data.image_set import ImageSet
from unpg.errors import DataError

__all__ = ["Finding", "check_set"]


class Finding(NamedTuple):
    """An image, and what is wrong with it."""

    kind: str
    """``empty``, ``broken``, ``size``, ``grey`` (its channels are equal) or ``duplicate``."""
    name: str
    detail: str


def check_set(image_set: ImageSet, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Every fault of every image, in order; none for a sound set.

    A duplicate has the same bytes as an earlier image, of the same identity or another. The size that counts as
    right is that of the first readable image.

    Args:
        image_set: The set.
        progress: Called with (images done, all).
    """
    found: list[Finding] = []
    size: tuple[int, int] | None = None
    first: dict[bytes, int] = {}
    for i in range(len(image_set)):
        name = image_set.name(i)
        try:
            data = content(image_set, i)
            if not data:
                found.append(Finding("empty", name, "0 bytes"))
                continue
            image = decode(data, name=name)
        except DataError as error:
            found.append(Finding("broken", name, str(error)))
            continue
        finally:
            if progress:
                progress(i + 1, len(image_set))
        here = (image.shape[0], image.shape[1])
        size = size or here
        if here != size:
            found.append(Finding("size", name, f"{here[0]} x {here[1]}, not {size[0]} x {size[1]} (height x width)"))
        if (image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all():
            found.append(Finding("grey", name, "the three channels are equal"))
        earlier = first.setdefault(hashlib.sha256(data).digest(), i)
        if earlier != i:
            who = image_set.identities[image_set.labels[earlier]]
            same = "the same identity" if image_set.labels[earlier] == image_set.labels[i] else f"identity {who!r}"
            found.append(Finding("duplicate", name, f"same bytes as {image_set.name(earlier)}, of {same}"))
    return found
