"""The lists of IJB-B and IJB-C (Whitelam et al. 2017; Maze et al. 2018), as insightface, MagFace and UNPG use them.

A *template* is a set of images of one person; a *medium* is a photograph or a video, whose frames count as one. Of
the set called ``ijbc``, in one folder:

- ``ijbc_face_tid_mid.txt``: ``<image> <template> <medium>``, 469,375 lines (IJB-B: 227,630);
- ``ijbc_template_pair_label.txt``: ``<template> <template> <0 or 1>``, 15,658,489 lines (IJB-B: 8,010,270);
- ``ijbc_name_5pts_score.txt``: ``<image> <x1> <y1> ... <x5> <y5> <score>``, in the order of the first;
- ``img.list`` (MagFace, UNPG): a path per line, in the order of the first;
- ``ijbc_1N_gallery_G1.csv``, ``.._G2.csv`` (IJB-B: ``S1``, ``S2``), ``ijbc_1N_probe_mixed.csv``: tables with a
  header, template and subject.

Axes: n images, t templates, p pairs, g templates of a gallery or of the probes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unpg.data.csv_file import csv_rows
from unpg.data.text_table import BLOCK, count_lines, text_blocks, whole_numbers
from unpg.errors import DataError

__all__ = [
    "FacePoints",
    "IJBMeta",
    "TemplateImages",
    "TemplatePairs",
    "TemplateSubjects",
    "read_face_points",
    "read_ijb",
    "read_image_list",
    "read_template_images",
    "read_template_pairs",
    "read_template_subjects",
]

AnyPath = str | PathLike[str]

_LONGEST = 40  # characters of a decimal number


@dataclass(frozen=True, eq=False)
class TemplateImages:
    """Which template and medium each image belongs to.

    Attributes:
        images: (n,) file names, in the order of the list: that of features, too.
        template_ids: (t,) int64, the templates' numbers in the list, rising.
        templates: (n,) int64, index into ``template_ids``.
        media: (n,) int64, the media's numbers in the list. Frames of one medium within one template are averaged.
    """

    images: list[str]
    template_ids: NDArray[np.int64]
    templates: NDArray[np.int64]
    media: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TemplatePairs:
    """Pairs of templates to compare.

    Attributes:
        pairs: (p, 2) int32, index into the templates.
        same: (p,) bool.
    """

    pairs: NDArray[np.int32]
    same: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FacePoints:
    """What the detector said of each image.

    Attributes:
        images: (n,) file names.
        landmarks: (n, 5, 2) float32, (x, y) in pixels: eyes, nose, corners of the mouth.
        scores: (n,) float32, the detector's confidence.
    """

    images: list[str]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TemplateSubjects:
    """A gallery or the probes of the 1:N protocol, each template once, in order of first appearance.

    Attributes:
        templates: (g,) int64, index into the templates.
        subjects: (g,) int64, whom each shows.
    """

    templates: NDArray[np.int64]
    subjects: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class IJBMeta:
    """All lists of a set, checked against each other.

    Attributes:
        name: ``"ijbb"`` or ``"ijbc"``.
        faces: Images, templates and media.
        pairs: The 1:1 protocol.
        points: Landmarks and scores in the order of the images, None if the file is not there.
        paths: (n,) paths of ``img.list``, None if the file is not there.
        galleries: The galleries of the 1:N protocol by name (``"G1"``, ``"S1"``, ...); none if not there.
        probes: The probes of the 1:N protocol.
    """

    name: str
    faces: TemplateImages
    pairs: TemplatePairs
    points: FacePoints | None
    paths: list[str] | None
    galleries: Mapping[str, TemplateSubjects]
    probes: TemplateSubjects | None

    def summary(self) -> str:
        """One line for logs and reports."""
        genuine = int(self.pairs.same.sum())
        line = (
            f"{self.name}: {len(self.faces.images):,} images in {len(self.faces.template_ids):,} templates; "
            f"{genuine:,} genuine and {len(self.pairs.same) - genuine:,} impostor pairs"
        )
        if self.probes is None:
            return line
        sizes = ", ".join(f"{name} {len(g.templates):,}" for name, g in self.galleries.items())
        return f"{line}; galleries {sizes}; {len(self.probes.templates):,} probes"


def read_ijb(folder: AnyPath, name: str) -> IJBMeta:
    """All lists of a set.

    Args:
        folder: The folder with the lists, or the one around its ``meta``.
        name: What the files' names begin with: ``"ijbb"`` or ``"ijbc"``.

    Raises:
        DataError: A list of the 1:1 protocol is missing, the 1:N protocol is there in part, a line does not read
            (with its number), or two lists are at odds (with the line).
    """
    base = Path(folder)
    if (base / "meta").is_dir():
        base = base / "meta"
    needed = [base / f"{name}_face_tid_mid.txt", base / f"{name}_template_pair_label.txt"]
    gone = [file.name for file in needed if not file.is_file()]
    if gone:
        raise DataError(
            f"{base} lacks {', '.join(gone)}. Expected {needed[0].name}, {needed[1].name} and, as they are to be had, "
            f"{name}_name_5pts_score.txt, img.list, {name}_1N_gallery_*.csv and {name}_1N_probe_mixed.csv."
        )
    faces = read_template_images(needed[0])
    pairs = read_template_pairs(needed[1], faces.template_ids)
    points = paths = None
    file = base / f"{name}_name_5pts_score.txt"
    if file.is_file():
        points = read_face_points(file)
        _same_images(faces.images, points.images, needed[0], file)
    file = base / "img.list"
    if file.is_file():
        paths = read_image_list(file)
        _same_images(_last_parts(faces.images), _last_parts(paths), needed[0], file)
    galleries = {
        file.stem.rpartition("_")[2]: read_template_subjects(file, faces.template_ids)
        for file in sorted(base.glob(f"{name}_1N_gallery_*.csv"))
    }
    file = base / f"{name}_1N_probe_mixed.csv"
    if bool(galleries) != file.is_file():
        raise DataError(f"{base} has the 1:N protocol in part: it needs {name}_1N_gallery_*.csv and {file.name}.")
    probes = read_template_subjects(file, faces.template_ids) if galleries else None
    return IJBMeta(name, faces, pairs, points, paths, galleries, probes)


def read_template_images(file: AnyPath, *, block: int = BLOCK) -> TemplateImages:
    """``<image> <template> <medium>`` per line.

    Raises:
        DataError: A line does not read like that (with its number), or there is none.
    """
    images: list[str] = []
    numbers = [np.zeros((0, 2), dtype=np.int64)]
    for part in text_blocks(file, 3, "'<image> <template> <medium>'", block=block):
        numbers.append(whole_numbers(part, slice(1, 3)))
        images += part.column(0)
    if not images:
        raise DataError(f"{file} lists no image.")
    both = np.concatenate(numbers)
    ids, templates = np.unique(both[:, 0], return_inverse=True)
    return TemplateImages(images, ids, templates.reshape(-1).astype(np.int64), both[:, 1].copy())


def read_template_pairs(file: AnyPath, template_ids: NDArray[np.int64], *, block: int = BLOCK) -> TemplatePairs:
    """``<template> <template> <0 or 1>`` per line.

    Args:
        file: The list.
        template_ids: (t,) the templates' numbers, rising.
        block: Bytes to parse at a time.

    Raises:
        DataError: A line does not read like that or names a template without images (with its number), or there is
            none.
    """
    most = count_lines(file, block=block)
    pairs, same = np.empty((most, 2), dtype=np.int32), np.empty(most, dtype=np.bool_)
    index = _index(template_ids)
    n = 0
    for part in text_blocks(file, 3, "'<template> <template> <0 or 1>'", block=block):
        values = whole_numbers(part)
        wrong = np.flatnonzero(values[:, 2] > 1)
        if len(wrong):
            raise part.error(int(wrong[0]), f"expected the answer 0 or 1, got {values[wrong[0], 2]}")
        places = index(values[:, :2])
        if (places < 0).any():
            row, at = (int(place) for place in np.argwhere(places < 0)[0])
            raise part.error(row, f"the template {values[row, at]} has no image")
        end = n + len(values)
        pairs[n:end], same[n:end] = places, values[:, 2] == 1
        n = end
    if not n:
        raise DataError(f"{file} lists no pair.")
    return TemplatePairs(pairs[:n], same[:n])


def read_face_points(file: AnyPath, *, block: int = BLOCK) -> FacePoints:
    """``<image> <x1> <y1> ... <x5> <y5> <score>`` per line.

    Raises:
        DataError: A line does not read like that (with its number), or there is none.
    """
    images: list[str] = []
    numbers = [np.zeros((0, 11), dtype=np.float32)]
    for part in text_blocks(file, 12, "'<image> <x1> <y1> ... <x5> <y5> <score>'", block=block):
        images += part.column(0)
        cells = part.data.split()
        del cells[::12]
        # One long cell would make each as long in numpy's array of texts.
        long = np.flatnonzero((part.ends - part.starts)[:, 1:].reshape(-1) > _LONGEST)
        values, wrong = (np.zeros(0), int(long[0])) if len(long) else _floats(cells)
        if wrong is not None:
            raise part.error(wrong // 11, f"expected a number, got {cells[wrong][:80]!r}")
        numbers.append(values.reshape(-1, 11).astype(np.float32))
    if not images:
        raise DataError(f"{file} lists no image.")
    found = np.concatenate(numbers)
    return FacePoints(images, found[:, :10].reshape(-1, 5, 2).copy(), found[:, 10].copy())


def read_image_list(file: AnyPath, *, block: int = BLOCK) -> list[str]:
    """The first cell of each line: MagFace's and UNPG's ``img.list``.

    Raises:
        DataError: It cannot be read, or lists nothing.
    """
    paths: list[str] = []
    for part in text_blocks(file, None, "'<path>'", block=block):
        for start, end in zip(part.starts[:, 0].tolist(), part.ends[:, 0].tolist(), strict=True):
            paths.append(part.data[start:end].decode("utf-8", "surrogateescape"))
    if not paths:
        raise DataError(f"{file} lists no image.")
    return paths


def read_template_subjects(file: AnyPath, template_ids: NDArray[np.int64]) -> TemplateSubjects:
    """A table with commas and a header: template and subject, as columns of such names, else the first two.

    A template may have several rows, one per image.

    Args:
        file: The table.
        template_ids: (t,) the templates' numbers, rising.

    Raises:
        DataError: A row does not read like that, names a template without images, or says another subject of a
            template than an earlier one (with its line); or there is no row.
    """
    rows = csv_rows(file)
    found: dict[int, tuple[int, int]] = {}
    at = _subject_columns([cell.strip().lower() for cell in next(rows, (1, []))[1]], file)
    for line, cells in rows:
        texts = [cells[i].strip() for i in at if i < len(cells)]
        if len(texts) != 2 or not all(text.isascii() and text.isdigit() and len(text) < 19 for text in texts):
            raise DataError(
                f"{file}, line {line}: expected '<template>,<subject>' in numbers, got {','.join(cells)[:200]!r}."
            )
        template, subject = int(texts[0]), int(texts[1])
        earlier = found.setdefault(template, (subject, line))
        if earlier[0] != subject:
            raise DataError(
                f"{file}, line {line}: template {template} shows subject {subject}, but {earlier[0]} in line "
                f"{earlier[1]}."
            )
    if not found:
        raise DataError(f"{file} lists no template.")
    places = _index(template_ids)(np.array(list(found), dtype=np.int64))
    wrong = np.flatnonzero(places < 0)
    if len(wrong):
        gone, (_, line) = list(found.items())[int(wrong[0])]
        raise DataError(f"{file}, line {line}: the template {gone} has no image.")
    return TemplateSubjects(places.astype(np.int64), np.array([s for s, _ in found.values()], dtype=np.int64))


def _subject_columns(header: list[str], file: AnyPath) -> tuple[int, int]:
    if len(header) < 2 or all(cell.isdigit() for cell in header[:2]):
        raise DataError(
            f"{file}, line 1: expected a header such as 'TEMPLATE_ID,SUBJECT_ID', got {','.join(header)!r}."
        )
    named = [[i for i, cell in enumerate(header) if word in cell] for word in ("template", "subject")]
    return (named[0][0], named[1][0]) if all(len(places) == 1 for places in named) else (0, 1)


def _index(ids: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], NDArray[np.int32]]:
    """From numbers to their places in the rising ``ids``, -1 for those that are not there."""
    last = int(ids[-1]) if len(ids) else -1
    if last >= 1 << 26:  # sparse: no table

        def search(numbers: NDArray[np.int64]) -> NDArray[np.int32]:
            places = np.minimum(np.searchsorted(ids, numbers), len(ids) - 1)
            return np.where(ids[places] == numbers, places, -1).astype(np.int32)

        return search
    table = np.full(last + 2, -1, dtype=np.int32)
    table[ids] = np.arange(len(ids), dtype=np.int32)
    return lambda numbers: table[np.minimum(numbers, last + 1)]


def _floats(cells: list[bytes]) -> tuple[NDArray[np.float64], int | None]:
    """The numbers, and the place of the first cell that is no finite one."""
    try:
        values = np.array(cells).astype(np.float64) if cells else np.zeros(0)
    except ValueError:
        values = np.array([_float(cell) for cell in cells])
    wrong = np.flatnonzero(~np.isfinite(values))
    return values, int(wrong[0]) if len(wrong) else None


def _float(cell: bytes) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _last_parts(paths: list[str]) -> list[str]:
    return [path.rpartition("/")[2] for path in paths]


def _same_images(images: list[str], others: list[str], file: Path, other: Path) -> None:
    if images == others:
        return
    at = next((i for i, (a, b) in enumerate(zip(images, others, strict=False)) if a != b), None)
    if at is None:
        raise DataError(f"{file} lists {len(images):,} images, but {other} {len(others):,}; they must be the same.")
    raise DataError(
        f"{other}: image {at + 1} is {others[at]!r}, but {images[at]!r} in {file}; both must list the same images in "
        "the same order."
    )
