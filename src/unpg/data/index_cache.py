"""Indices of big containers, kept in the user's cache folder: binary arrays that are mapped, with their checksums.

An index is found by a key made of the container's path, sizes and times, so that a changed file has another one.
"""

import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Index", "cache_folder", "file_state", "index_key", "load_index", "save_index"]


class Index(NamedTuple):
    """What was found out about a container."""

    arrays: Mapping[str, NDArray[Any]]
    """Plain arrays by name; read-only maps of files where they come from the cache."""
    about: Mapping[str, Any]
    """The rest, as JSON takes it."""


def cache_folder(kind: str = "recordio") -> Path:
    """Where indices of a ``kind`` are kept: ``$XDG_CACHE_HOME/unpg/<kind>``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "unpg" / kind


def file_state(file: int | str | PathLike[str]) -> tuple[int, int] | None:
    """Size in bytes and time of the last change in nanoseconds of a path or an open file; None if it is not there."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):  # a name from a list need be no path at all
        return None
    return status.st_size, status.st_mtime_ns


def index_key(files: Iterable[str | PathLike[str]], *settings: object) -> str:
    """The key of an index of ``files``: by path, size in bytes and time of the last change, and by ``settings``.

    A file that is not there is part of the key too: one that comes later makes another.
    """
    parts = [settings, *((os.path.realpath(file), file_state(file)) for file in files)]
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def load_index(kind: str, key: str, *, check: bool) -> Index | None:
    """The index from the cache, or None if it is not there or broken.

    Args:
        kind: As in :func:`cache_folder`.
        key: As :func:`index_key` made it.
        check: Compare the checksums of the arrays, which reads them whole.
    """
    folder = cache_folder(kind) / key
    try:
        text = (folder / "meta.json").read_text(encoding="utf-8")
        sums, about = json.loads(text)
        if set(sums) == {""} or sums.pop("") != _sum(about):
            return None
        arrays: dict[str, NDArray[Any]] = {}
        for name, (kind_of, shape, crc) in sums.items():
            array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            if array.dtype.str != kind_of or list(array.shape) != shape or (check and zlib.crc32(array.data) != crc):
                return None
            arrays[name] = np.asarray(array)
        return Index(arrays, about)
    # A cache is a convenience: whatever is wrong with it, it is built again. numpy raises nearly anything on a broken
    # head, the errors of Python's own parser too.
    except Exception:
        return None


def save_index(kind: str, key: str, index: Index) -> Index | None:
    """Keep ``index``; it comes back mapped from the cache, or None if it could not be kept."""
    folder = cache_folder(kind) / key
    temporary = folder.with_name(f"{key}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        sums: dict[str, Any] = {"": _sum(index.about)}
        for name, array in index.arrays.items():
            array = np.ascontiguousarray(array)
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            sums[name] = array.dtype.str, array.shape, zlib.crc32(array.data)
        (temporary / "meta.json").write_text(json.dumps([sums, index.about]), encoding="utf-8")
        try:
            os.rename(temporary, folder)
        except OSError:
            if load_index(kind, key, check=True) is not None:  # another process was quicker
                raise
            shutil.rmtree(folder, ignore_errors=True)  # a broken one
            os.rename(temporary, folder)
    except OSError:  # read-only, full, or another process was quicker
        shutil.rmtree(temporary, ignore_errors=True)
        return load_index(kind, key, check=True)
    return load_index(kind, key, check=False)


def _sum(about: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())
