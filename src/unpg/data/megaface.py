"""MegaFace (Kemelmacher-Shlizerman et al. 2016) with FaceScrub: feature files, lists of the devkit, lists of noise.

A feature file holds one embedding: four int32 (length, 1, 4, 5: OpenCV's rows, columns, bytes of an element and type
of an element, which is float32) and the numbers, little-endian. The devkit finds them by its lists, as
``<folder>/<path of the image><ending>`` with an ending such as ``_r100.bin``.

Axes: n images, d dimensions.
"""

import json
import os
import secrets
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unpg.data.pairs import read_lines
from unpg.errors import DataError, ShapeError

__all__ = [
    "MegaFaceList",
    "is_noise",
    "read_facescrub_noises",
    "read_feature",
    "read_feature_list",
    "read_features",
    "read_megaface_noises",
    "write_feature",
    "write_feature_list",
]

AnyPath = str | PathLike[str]

_HEADER = struct.Struct("<4i")
_FIELDS = ("length", "columns", "bytes of an element", "type of an element")
_EXPECTED = (None, 1, 4, 5)
_LONGEST = 1 << 20  # dimensions; no embedding has more


@dataclass(frozen=True, eq=False)
class MegaFaceList:
    """A list of the devkit.

    Attributes:
        paths: (n,) paths of images inside their folder, as ``Name/Name_1.png`` or ``107/10795@N07/1_0.jpg``.
        people: (n,) who each shows; None in the lists of distractors.
    """

    paths: list[str]
    people: list[str] | None


def read_feature(file: AnyPath, dim: int | None = None) -> NDArray[np.float32]:
    """(d,) float32: the embedding in a feature file.

    Args:
        file: The file.
        dim: How long it must be; any length if not given.

    Raises:
        DataError: It cannot be read, is cut off, has another header, more bytes than the header says, or a number
            that is not finite. Names the byte.
    """
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
    if len(data) < _HEADER.size:
        raise DataError(f"{file} ends at byte {len(data)}, inside its header of {_HEADER.size} bytes. Write it again.")
    header = _HEADER.unpack_from(data)
    for place, (field, value, right) in enumerate(zip(_FIELDS, header, (dim, *_EXPECTED[1:]), strict=True)):
        if (right is not None and value != right) or not 1 <= value <= _LONGEST:
            wanted = f"1 to {_LONGEST:,}" if right is None else right
            raise DataError(
                f"{file}, byte {4 * place}: the {field} is {value}, expected {wanted}. A feature file begins with "
                "(length, 1, 4, 5) as little-endian int32."
            )
    expected = _HEADER.size + 4 * header[0]
    if len(data) != expected:
        fault = "is cut off at" if len(data) < expected else "goes on after"
        raise DataError(
            f"{file} {fault} byte {min(len(data), expected)}: {header[0]} numbers end at byte {expected}, but it has "
            f"{len(data)} bytes. Write it again."
        )
    feature = np.frombuffer(data, dtype="<f4", offset=_HEADER.size).astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(feature))
    if len(wrong):
        at = int(wrong[0])
        raise DataError(f"{file}, byte {_HEADER.size + 4 * at}: number {at} is {feature[at]}, not finite.")
    return feature


def read_features(folder: AnyPath, paths: Sequence[str], ending: str) -> NDArray[np.float32]:
    """(n, d) float32: the embeddings of a list, in its order.

    Args:
        folder: Where the files lie.
        paths: (n,) paths of the list.
        ending: What follows them in the files' names: ``"_r100.bin"``.

    Raises:
        DataError: As :func:`read_feature`; one is of another length than the first; or ``paths`` is empty or leads
            out of the folder.
    """
    if not len(paths):
        raise DataError(f"The list of features in {folder} is empty.")
    first = read_feature(_inside(folder, paths[0], ending))
    features = np.empty((len(paths), len(first)), dtype=np.float32)
    features[0] = first
    for i, path in enumerate(paths[1:], start=1):
        features[i] = read_feature(_inside(folder, path, ending), len(first))
    return features


def write_feature(file: AnyPath, feature: ArrayLike) -> None:
    """Write a feature file for the devkit; an older file is replaced in one step.

    Args:
        file: The file; its folder is made.
        feature: (d,) numbers.

    Raises:
        ShapeError: Not one-dimensional, or empty.
    """
    vector = np.asarray(feature, dtype="<f4")
    if vector.ndim != 1 or not 1 <= len(vector) <= _LONGEST:
        raise ShapeError(f"A feature file holds (d,) numbers, d from 1 to {_LONGEST:,}, got shape {vector.shape}.")
    _write(Path(file), _HEADER.pack(len(vector), 1, 4, 5) + vector.tobytes())


def read_feature_list(file: AnyPath) -> MegaFaceList:
    """A list of the devkit: JSON of the form ``{"path": [...], "id": [...]}``, without ``id`` for distractors.

    Raises:
        DataError: It is no such JSON (with line and column where it is none at all), a path is given twice, or the
            counts differ.
    """
    try:
        found: Any = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{file}, line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except (OSError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DataError(f"The list {file} cannot be read: {error}.") from error
    if not isinstance(found, dict) or "path" not in found:
        raise DataError(f'{file}: expected {{"path": [...], "id": [...]}}, got a {type(found).__name__} without path.')
    paths = _texts(found["path"], file, "path")
    people = _texts(found["id"], file, "id") if "id" in found else None
    if not paths:
        raise DataError(f"{file} lists no image.")
    if people is not None and len(people) != len(paths):
        raise DataError(f"{file} has {len(paths)} paths and {len(people)} ids; expected one id per path.")
    seen: dict[str, int] = {}
    for i, path in enumerate(paths):
        if seen.setdefault(path, i) != i:
            raise DataError(f"{file}: path {i} is {path!r}, as path {seen[path]}. Each image must be listed once.")
    return MegaFaceList(paths, people)


def write_feature_list(file: AnyPath, paths: Sequence[str], people: Sequence[str] | None = None) -> None:
    """Write a list that the devkit reads.

    Raises:
        DataError: One id per path is needed.
    """
    if people is not None and len(people) != len(paths):
        raise DataError(f"{file}: {len(people)} ids for {len(paths)} paths; give one per path.")
    parts = {"path": list(paths)} if people is None else {"path": list(paths), "id": list(people)}
    _write(Path(file), json.dumps(parts).encode())


def read_facescrub_noises(file: AnyPath) -> list[str]:
    """The ``facescrub_noises.txt`` of insightface: file names as ``Name_1.png``; ``#`` begins a comment.

    Raises:
        DataError: It cannot be read, a line has a folder or tab in it (with its number), or nothing is listed.
    """
    names = []
    for number, line in _noise_lines(file):
        if "/" in line or "\t" in line:
            raise DataError(f"{file}, line {number}: expected the file name of an image of FaceScrub, got {line!r}.")
        names.append(line)
    return _some(names, file)


def read_megaface_noises(file: AnyPath) -> list[str]:
    """The ``megaface_noises.txt`` of insightface: ``<path>`` or ``<number> <tab> <path>``; ``#`` begins a comment.

    A path is ``<folder>/<folder>/<file>``, as in the devkit's lists.

    Raises:
        DataError: It cannot be read, a line does not read like that (with its number), or nothing is listed.
    """
    paths = []
    for number, line in _noise_lines(file):
        path = line.split("\t")[-1].strip()
        if line.count("\t") > 1 or path.count("/") != 2 or not all(path.split("/")):
            raise DataError(f"{file}, line {number}: expected '<folder>/<folder>/<image>', got {line!r}.")
        paths.append(path)
    return _some(paths, file)


def is_noise(paths: Sequence[str], noises: Iterable[str]) -> NDArray[np.bool_]:
    """(n,) whether each path of a list is in a noise list, whole or by its file name alone."""
    known = set(noises)
    return np.array([p in known or p.rpartition("/")[2] in known for p in paths], dtype=np.bool_)


def _inside(folder: AnyPath, path: str, ending: str) -> Path:
    if path.startswith("/") or ".." in path.split("/"):
        raise DataError(f"The path {path!r} of the list leads out of {folder}.")
    return Path(folder) / f"{path}{ending}"


def _texts(value: Any, file: AnyPath, key: str) -> list[str]:
    if not isinstance(value, list):
        raise DataError(f"{file}: {key} must be a list, got a {type(value).__name__}.")
    for i, text in enumerate(value):
        if not isinstance(text, str) or not text:
            raise DataError(f"{file}: {key} {i} must be a text, got {text!r:.80}.")
    return value


def _noise_lines(file: AnyPath) -> list[tuple[int, str]]:
    lines = ((number, line.strip()) for number, line in enumerate(read_lines(file), start=1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _some(names: list[str], file: AnyPath) -> list[str]:
    if not names:
        raise DataError(f"{file} lists no noise. Give the list, or leave it out.")
    return names


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
