"""Racial Faces in-the-Wild (Wang et al. 2019, arXiv 1812.00194): four groups of people, about 6,000 pairs each.

It comes as four ``.bin`` files of aligned crops, ``African_test.bin`` and so on, or as images and lists::

    data/<group>/<person>/<person>_0001.jpg
    txts/<group>/<group>_pairs.txt

The groups are as their authors made and named them.
"""

from os import PathLike
from pathlib import Path

from unpg.data.bins import BinPairs
from unpg.data.pairs import PairCollector, PairList, even_folds, read_lines
from unpg.errors import ConfigError, DataError, did_you_mean

__all__ = ["RFW_GROUPS", "rfw_bins", "rfw_pairs"]

AnyPath = str | PathLike[str]

RFW_GROUPS = ("African", "Asian", "Caucasian", "Indian")


def rfw_bins(folder: AnyPath) -> dict[str, BinPairs]:
    """The four groups from ``<group>_test.bin``, in the order of :data:`RFW_GROUPS`.

    Raises:
        DataError: A file is missing, or as :func:`unpg.data.bins.read_bin`.
    """
    files = {group: Path(folder) / f"{group}_test.bin" for group in RFW_GROUPS}
    gone = [file.name for file in files.values() if not file.is_file()]
    if gone:
        raise DataError(f"{folder} lacks {', '.join(gone)}. RFW has one such file for each of its four groups.")
    return {group: BinPairs(file) for group, file in files.items()}


def rfw_pairs(folder: AnyPath, group: str, *, images: AnyPath | None = None, ext: str = "jpg") -> PairList:
    """The pairs of a group: lines ``<person> <i> <j>`` (genuine) and ``<person> <i> <other> <j>``, with tabs.

    The list names no folds; as with ``.bin`` files they are ten runs of neighbors.

    Args:
        folder: The folder with ``txts`` and ``data``.
        group: One of :data:`RFW_GROUPS`.
        images: The folder with ``<group>/<person>/<image>``; ``data`` in ``folder`` if not given.
        ext: Ending of the image files.

    Raises:
        ConfigError: Another group.
        DataError: A line does not read like that (with its number), or none of the images is there.
    """
    if group not in RFW_GROUPS:
        raise ConfigError(f"RFW has no group {group!r}.{did_you_mean(group, RFW_GROUPS)}")
    file = Path(folder) / "txts" / group / f"{group}_pairs.txt"
    root = Path(images if images is not None else Path(folder) / "data") / group
    lines = [(number, line.split()) for number, line in enumerate(read_lines(file), start=1) if line.strip()]
    found = PairCollector(f"RFW {group}", file, root)
    for (number, cells), fold in zip(lines, even_folds(len(lines)).tolist(), strict=True):
        whole = cells if len(cells) in (3, 4) else [""] * 3
        people = (whole[0], whole[0] if len(whole) == 3 else whole[2])
        which = (whole[1], whole[-1])
        sound = all(i.isascii() and i.isdigit() and len(i) < 9 for i in which)
        if not sound or not all(_is_name(person) for person in people):
            raise DataError(
                f"{file}, line {number}: expected '<person> <i> <j>' (genuine) or '<person> <i> <other> <j>' "
                f"(impostor), got {' '.join(cells)[:200]!r}."
            )
        a, b = (str(root / p / f"{p}_{int(i):04d}.{ext}") for p, i in zip(people, which, strict=True))
        found.add(a, b, len(cells) == 3, fold, people, f"{file}, line {number}")
    return found.pair_list()


def _is_name(person: str) -> bool:
    return "/" not in person and "\\" not in person and person not in (".", "..")
