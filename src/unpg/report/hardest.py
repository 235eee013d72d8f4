"""The pairs that a model gets most wrong: impostors of the highest and genuine pairs of the lowest score.

Their pictures are put on the page only when somebody asks, since many sets may be looked at by whoever applied for
them and not be handed on; a page is easily handed on.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from unpg.errors import DataError
from unpg.evaluate.results import scores_path
from unpg.report.run import RunData
from unpg.report.table import Cell, Group, Table, number_cell

__all__ = ["HARDEST", "HardPair", "HardPairs", "Picture", "hard_pairs", "hardest_table", "thumbnail"]

HARDEST = 6
"""Pairs of each kind for each benchmark and model."""

THUMBNAIL = 96
"""Pixels of the longer side."""


@dataclass(frozen=True)
class Picture:
    """An image: its name, and a JPEG as base64; empty if it is not shown."""

    name: str
    jpeg: str = ""


@dataclass(frozen=True)
class HardPair:
    """Two images and their cosine."""

    first: Picture
    second: Picture
    score: float


@dataclass(frozen=True)
class HardPairs:
    """The hardest pairs of a model on a benchmark.

    Attributes:
        benchmark: Its name.
        model: Its name.
        false_matches: Impostor pairs, the highest score first.
        false_non_matches: Genuine pairs, the lowest score first.
        unread: Pictures that were asked for and could not be opened.
    """

    benchmark: str
    model: str
    false_matches: tuple[HardPair, ...]
    false_non_matches: tuple[HardPair, ...]
    unread: int = 0


def hard_pairs(runs: Sequence[RunData], *, thumbnails: bool = False) -> list[HardPairs]:
    """Of every benchmark and model whose images are known by name.

    Args:
        runs: The models.
        thumbnails: Open the images. Those that are not there any more, or are no files, are counted and shown by name.
    """
    found = []
    made: dict[str, str] = {}
    for benchmark in dict.fromkeys(b for run in runs for b in run.results):
        for run in runs:
            if benchmark not in run.results:
                continue
            kinds = _named(run, benchmark)
            if kinds is None:
                continue
            pictures = [name for pairs in kinds for a, b, _ in pairs for name in (a, b)]
            if thumbnails:
                made |= {name: thumbnail(name) for name in pictures if name not in made}
            shown = [
                tuple(
                    HardPair(Picture(_short(a), made.get(a, "")), Picture(_short(b), made.get(b, "")), s)
                    for a, b, s in pairs
                )
                for pairs in kinds
            ]
            unread = sum(not made[name] for name in dict.fromkeys(pictures)) if thumbnails else 0
            found.append(HardPairs(benchmark, run.name, shown[0], shown[1], unread))
    return found


def hardest_table(found: Sequence[HardPairs]) -> Table | None:
    """Names and cosines; None if there are no pairs."""
    groups: list[Group] = []
    for one in found:
        rows = []
        for kind, pairs in (("impostor", one.false_matches), ("genuine", one.false_non_matches)):
            rows += [(Cell(kind), Cell(p.first.name), Cell(p.second.name), number_cell(p.score, ".4f")) for p in pairs]
        groups.append((one.benchmark, one.model, tuple(rows)))
    if not groups:
        return None
    note = (
        f"Up to {HARDEST} impostor pairs of the highest cosine (the first to become false matches) and as many genuine "
        "pairs of the lowest (false non-matches)."
    )
    return Table("Hardest pairs", ("Pair", "First image", "Second image", "Cosine"), tuple(groups), (note,), words=True)


def thumbnail(name: str) -> str:
    """The image file ``name`` as a small JPEG, base64; empty if it cannot be opened."""
    try:
        with Image.open(name) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return base64.b64encode(file.getvalue()).decode("ascii")


_Triple = tuple[str, str, float]


def _named(run: RunData, benchmark: str) -> tuple[list[_Triple], list[_Triple]] | None:
    told = run.results[benchmark].get("hardest")
    if told is not None:
        split: dict[bool, list[_Triple]] = {False: [], True: []}
        for a, b, score, same in told:
            split[bool(same)].append((str(a), str(b), float(score)))
        false = sorted(split[False], key=lambda t: -t[2])[:HARDEST]
        return false, sorted(split[True], key=lambda t: t[2])[:HARDEST]
    stem = scores_path(Path(), benchmark).stem
    arrays, names = run.scores.get(stem, {}), run.images.get(stem)
    if names is None or not {"scores", "same", "pairs"} <= arrays.keys():
        return None
    return _listed(arrays, names)


def _listed(arrays: Mapping[str, Any], names: Sequence[str]) -> tuple[list[_Triple], list[_Triple]]:
    scores, same, pairs = arrays["scores"], arrays["same"], arrays["pairs"]
    if len(pairs) and pairs.max() >= len(names):
        raise DataError(
            f"The pairs of a benchmark point to image {int(pairs.max())} and only {len(names)} names are kept. "
            "Run `unpg evaluate` again."
        )
    found = []
    for kind, sign in ((~same, -1.0), (same, 1.0)):
        of = np.flatnonzero(kind)
        hard = of[np.argsort(sign * scores[of], kind="stable")[:HARDEST]]
        found.append([(names[pairs[i, 0]], names[pairs[i, 1]], float(scores[i])) for i in hard])
    return found[0], found[1]


def _short(name: str) -> str:
    """The last two parts: the folders above say where someone keeps the set, which is nobody's business."""
    return "/".join(PurePath(name).parts[-2:])
