"""RFW by name, and own sets of pairs or identities that name groups of people."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unpg.data.folder import FolderSet
from unpg.data.image_set import ImageSet
from unpg.data.joined import JoinedSet
from unpg.data.pairs import PairList
from unpg.data.rfw import RFW_GROUPS, rfw_bins, rfw_pairs
from unpg.errors import DataError
from unpg.evaluate.benchmark import Benchmark
from unpg.evaluate.group_protocol import GroupBenchmark
from unpg.evaluate.layouts import missing_set
from unpg.evaluate.named_pairs import pair_benchmark
from unpg.evaluate.registry import BENCHMARKS

__all__ = ["grouped_folder", "grouped_pairs"]

MOST_PAIRS = 20_000_000
"""Pairs of a folder of groups, beyond which a list of pairs has to be given: each pair is kept."""


@BENCHMARKS.register("rfw")
def _rfw(root: Path) -> Benchmark:
    """RFW: four groups of people with about 6,000 pairs each (Wang et al. 2019, arXiv 1812.00194)."""
    base = root / "rfw"
    lists = [base / "txts" / group / f"{group}_pairs.txt" for group in RFW_GROUPS]
    if all(file.is_file() for file in lists) and (base / "data").is_dir():
        return _joined("rfw", {group: rfw_pairs(base, group) for group in RFW_GROUPS})
    bins = [base / f"{group}_test.bin" for group in RFW_GROUPS]
    if not all(file.is_file() for file in bins):
        gone = ", ".join(str(f.relative_to(root)) for f in bins if not f.is_file())
        raise missing_set(root, "rfw", "rfw", f"{gone}, or rfw/txts and rfw/data")
    packed = rfw_bins(base)
    return _of_parts("rfw", {g: (b.images, b.pairs, b.same, b.folds, None) for g, b in packed.items()}, 0)


def grouped_pairs(name: str, listed: PairList) -> GroupBenchmark:
    """The benchmark of a pair list with a group for each pair.

    Raises:
        DataError: The list names no groups.
    """
    if listed.groups is None:
        raise DataError(f"{name}: the list names no groups; give it a column 'group'.")
    plain = pair_benchmark(name, listed)
    return GroupBenchmark(
        name,
        plain.images,
        plain.pairs,
        plain.same,
        np.array(listed.groups),
        plain.folds,
        plain.identities,
        plain.left_out,
    )


def grouped_folder(name: str, folder: Path) -> GroupBenchmark:
    """All pairs within each group of ``<folder>/<group>/<identity>/<image>``.

    Raises:
        DataError: Fewer than two groups, or more pairs than are kept in memory.
    """
    groups = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(groups) < 2:
        raise DataError(
            f"{folder} has {len(groups)} groups; expected <folder>/<group>/<identity>/<image>, two or more."
        )
    parts: dict[str, _Part] = {}
    total = 0
    for group in groups:
        images = FolderSet(group)
        total += len(images) * (len(images) - 1) // 2
        if total > MOST_PAIRS:
            raise DataError(
                f"{folder}: its groups have more than {MOST_PAIRS:,} pairs within them, each of which would be kept. "
                "Give a list of pairs with a column 'group' (path_a,path_b,same,group)."
            )
        a, b = np.triu_indices(len(images), 1)
        same = images.labels[a] == images.labels[b]
        parts[group.name] = (images, np.stack([a, b], axis=1), same, None, images.labels)
    return _of_parts(name, parts, 0)


_Part = tuple[ImageSet, "np.ndarray", "np.ndarray", "np.ndarray | None", "np.ndarray | None"]


def _joined(name: str, lists: Mapping[str, PairList]) -> GroupBenchmark:
    parts: dict[str, _Part] = {}
    for group, listed in lists.items():
        plain = pair_benchmark(group, listed)
        parts[group] = (plain.images, plain.pairs, plain.same, plain.folds, plain.identities)
    return _of_parts(name, parts, sum(len(listed.left_out) for listed in lists.values()))


def _of_parts(name: str, parts: Mapping[str, "_Part"], left_out: int) -> GroupBenchmark:
    """Groups with an image set each as one benchmark; people of different groups are different people."""
    images = JoinedSet({group: part[0] for group, part in parts.items()})
    starts = np.cumsum([0, *(len(part[0]) for part in parts.values())])[:-1]
    values = list(parts.values())
    folds = [part[3] for part in values]
    known = all(part[4] is not None for part in values)
    return GroupBenchmark(
        name,
        images,
        np.concatenate([part[1] + start for part, start in zip(values, starts, strict=True)]),
        np.concatenate([part[2] for part in values]),
        np.repeat(list(parts), [len(part[2]) for part in values]),
        None if any(f is None for f in folds) else np.concatenate([f for f in folds if f is not None]),
        images.labels if known else None,
        left_out,
    )
