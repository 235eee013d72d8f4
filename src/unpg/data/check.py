"""Decode every image of a set and list what is wrong with it."""

import csv
import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from unpg.data.content import content
from unpg.data.decode import decode
from unpg.data.image_set import ImageSet
from unpg.errors import DataError

__all__ = ["Finding", "check_set", "write_findings"]


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
            found.append(Finding("broken", name, str(error).removeprefix(f"{name} ")))
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


def write_findings(path: str | PathLike[str], findings: Sequence[Finding]) -> None:
    """Write a CSV file with the columns kind, image and detail; an older file is replaced in one step.

    Raises:
        DataError: It cannot be written.
    """
    file = Path(path)
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # A name that is no UTF-8 is carried over byte for byte.
        with open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            table = csv.writer(opened, lineterminator="\n")
            table.writerow(["kind", "image", "detail"])
            table.writerows(findings)
        os.replace(part, file)
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            part.unlink()
