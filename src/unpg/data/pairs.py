"""Lists of image pairs with an answer each: the protocols of verification benchmarks.

Axes: f files, n pairs.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpg.data.csv_file import csv_rows
from unpg.data.decode import decode, require_size
from unpg.data.image_set import set_digest
from unpg.errors import ConfigError, DataError, did_you_mean

__all__ = [
    "LeftOut",
    "PairCollector",
    "PairImages",
    "PairList",
    "cfp_pairs",
    "csv_pairs",
    "even_folds",
    "flat_pairs",
    "lfw_pairs",
    "read_lines",
]

FOLDS = 10

_FOLD = re.compile("0|[1-9][0-9]{0,3}")

AnyPath = str | PathLike[str]


class LeftOut(NamedTuple):
    """A pair of the protocol that cannot be judged, since a file of it is missing."""

    path_a: str
    path_b: str
    same: bool
    fold: int
    missing: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PairList:
    """Pairs to judge, in the order of the protocol.

    Attributes:
        name: What to call the benchmark.
        files: (f,) paths, each once, in order of first appearance.
        pairs: (n, 2) int64, indices into ``files``.
        same: (n,) bool, True for genuine pairs.
        folds: (n,) int64 from 0; all 0 where the protocol has no folds.
        identities: (f,) who each file shows, None where the protocol does not say.
        left_out: Pairs that touch a missing file. Results must state their number.
        groups: (n,) the group of people of each pair; None where the protocol has no groups.
    """

    name: str
    files: list[str]
    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: NDArray[np.int64]
    identities: list[str | None]
    left_out: list[LeftOut]
    groups: list[str] | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def digest(self) -> str:
        """Over the pairs' files (not where they lie), answers and folds."""
        sha, names = hashlib.sha256(), _relative(self.files)
        for (a, b), same, fold in zip(self.pairs.tolist(), self.same.tolist(), self.folds.tolist(), strict=True):
            sha.update(f"{names[a]}\0{names[b]}\0{same}\0{fold}\n".encode())
        return sha.hexdigest()

    def summary(self) -> str:
        """One line for logs and reports."""
        genuine = int(self.same.sum())
        line = (
            f"{self.name}: {len(self):,} pairs ({genuine:,} genuine, {len(self) - genuine:,} impostor) of "
            f"{len(self.files):,} images in {len(np.unique(self.folds))} folds"
        )
        if not self.left_out:
            return line
        files = {file for pair in self.left_out for file in pair.missing}
        return f"{line}; {len(self.left_out):,} pairs left out, which touch {len(files)} missing files"


class PairImages:
    """The files of a pair list as an image set, so that each is embedded once.

    A file whose identity is unknown counts as an identity of its own, named by its path.
    """

    def __init__(self, pair_list: PairList) -> None:
        names = [who or file for who, file in zip(pair_list.identities, pair_list.files, strict=True)]
        self.identities = list(dict.fromkeys(names))
        number = {name: label for label, name in enumerate(self.identities)}
        self.labels: NDArray[np.int64] = np.array([number[name] for name in names], dtype=np.int64)
        self.files = pair_list.files
        first = decode(self.files[0])
        self.image_size = (first.shape[0], first.shape[1])

    def __len__(self) -> int:
        return len(self.files)

    def read(self, i: int) -> NDArray[np.uint8]:
        """File ``i``, (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read.
            SizeError: It is not of the size of the first file.
        """
        return require_size(decode(self.files[i]), self.image_size, self.files[i], self.files[0])

    def name(self, i: int) -> str:
        """The path of file ``i``."""
        return self.files[i]

    def sources(self) -> Iterable[str]:
        """The files that the images come from."""
        return self.files

    def digest(self) -> str:
        """From file names, labels and file sizes, not from where the files lie."""
        return set_digest(_relative(self.files), self.labels, (os.stat(file).st_size for file in self.files))


def lfw_pairs(pairs_file: AnyPath, images_root: AnyPath, *, ext: str = "jpg", name: str = "LFW") -> PairList:
    """LFW's list of pairs (Huang et al. 2007, View 2; a list of View 1 counts as one fold).

    The first line is ``<folds> <pairs per half fold>``, or the second number only. Then per fold that many
    genuine pairs ``<name> <i> <j>`` and as many impostor pairs ``<name> <i> <other name> <j>``; image i of a
    name is ``<images_root>/<name>/<name>_<i, 4 digits>.<ext>``.

    Raises:
        DataError: The file does not read like that (with the line), or none of the images is there.
    """
    lines = read_lines(pairs_file)
    header = lines[0].split() if lines else []
    if not 1 <= len(header) <= 2 or not all(map(_is_count, header)):
        first = repr(lines[0]) if lines else "an empty file"
        raise DataError(f"{pairs_file}, line 1: expected '<folds> <pairs per half fold>', got {first}.")
    folds, half = (int(header[0]), int(header[1])) if len(header) == 2 else (1, int(header[0]))
    expected = 1 + 2 * folds * half
    while len(lines) > expected and not lines[-1].strip():
        lines.pop()
    if len(lines) != expected:
        raise DataError(
            f"{pairs_file}, line 1 announces {folds} folds of 2 x {half} pairs, {expected} lines in all, but the "
            f"file has {len(lines)}. Fetch it again."
        )
    root = Path(images_root)
    found = PairCollector(name, pairs_file, images_root)
    for number, line in enumerate(lines[1:], start=2):
        fold, place = divmod(number - 2, 2 * half)
        same = place < half
        cells = line.split()
        whole = [cells[i] for i in ((1, 2) if same else (1, 3))] if len(cells) == (3 if same else 4) else []
        if not whole or not all(map(_is_count, whole)):
            form = "'<name> <i> <j>' (genuine)" if same else "'<name> <i> <other> <j>' (impostor)"
            raise DataError(f"{pairs_file}, line {number}: expected {form}, got {line!r}.")
        who = (cells[0], cells[0]) if same else (cells[0], cells[2])
        a, b = (root / w / f"{w}_{int(i):04d}.{ext}" for w, i in zip(who, whole, strict=True))
        found.add(str(a), str(b), same, fold, who, f"{pairs_file}, line {number}")
    return found.pair_list()


def cfp_pairs(protocol_dir: AnyPath, kind: Literal["FF", "FP"], images_root: AnyPath | None = None) -> PairList:
    """Celebrities in Frontal-Profile (Sengupta et al. 2016): frontal-frontal or frontal-profile pairs.

    ``Pair_list_F.txt`` and ``Pair_list_P.txt`` number the frontal and profile images;
    ``Split/<kind>/<fold>/{same,diff}.txt`` have lines ``<i>,<j>``. In FP, i is a frontal and j a profile image.

    Args:
        protocol_dir: The folder with these files.
        kind: ``"FF"`` or ``"FP"``.
        images_root: The folder with ``<id>/{frontal,profile}/<image>``; ``images`` beside ``protocol_dir`` if
            not given.

    Raises:
        ConfigError: Another ``kind``.
        DataError: A file is missing or does not read like that (with the line), or none of the images is there.
    """
    if kind not in ("FF", "FP"):
        raise ConfigError(f"CFP has the protocols 'FF' and 'FP', got {kind!r}.")
    protocol = Path(protocol_dir)
    root = Path(images_root) if images_root is not None else protocol.parent / "images"
    sides = [_cfp_images(protocol / f"Pair_list_{side}.txt", root) for side in ("F", kind[1])]
    folders = sorted(path for path in (protocol / "Split" / kind).glob("*") if path.is_dir())
    if not folders:
        raise DataError(f"{protocol / 'Split' / kind} has no folds. Expected folders 01 to 10 with same.txt, diff.txt.")
    found = PairCollector(f"CFP-{kind}", protocol / "Split" / kind, root)
    for fold, folder in enumerate(folders):
        for file, same in ((folder / "same.txt", True), (folder / "diff.txt", False)):
            for number, line in enumerate(read_lines(file), start=1):
                if not line.strip():
                    continue
                cells = [cell.strip() for cell in line.split(",")]
                known = len(cells) == 2 and all(c in side for c, side in zip(cells, sides, strict=True))
                if not known:
                    raise DataError(
                        f"{file}, line {number}: expected '<i>,<j>' with numbers from Pair_list_F.txt and "
                        f"Pair_list_{kind[1]}.txt, got {line!r}."
                    )
                a, b = sides[0][cells[0]], sides[1][cells[1]]
                who = (a.parts[-3], b.parts[-3])
                found.add(str(a), str(b), same, fold, who, f"{file}, line {number}")
    return found.pair_list()


def flat_pairs(file: AnyPath, images_root: AnyPath, *, name: str) -> PairList:
    """The lists of CALFW and CPLFW: two lines ``<image> <number>`` a pair, ``<person>_<4 digits>.<ext>`` an image.

    The number is 0 for impostors, else the fold (1 to 10) of a genuine pair. Of impostor pairs the list does not say
    the fold; in order of the list they are cut into as many even runs as there are folds of genuine pairs.

    Raises:
        DataError: A line does not read like that (with its number), or none of the images is there.

    Source: Zheng et al. 2017, "Cross-age LFW", arXiv 1708.08197; Zheng and Deng 2018, "Cross-pose LFW".
    """
    rows = [(number, line.split()) for number, line in enumerate(read_lines(file), start=1) if line.strip()]
    for number, cells in rows:
        person = cells[0].rpartition("_")[0]
        if len(cells) != 2 or not _FOLD.fullmatch(cells[1]) or not person or "/" in cells[0] or "\\" in cells[0]:
            raise DataError(f"{file}, line {number}: expected '<person>_<number>.<ending> <0 or fold>', got {cells!r}.")
    if len(rows) % 2:
        raise DataError(f"{file} has {len(rows)} lines; a pair is two. Fetch it again.")
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    for (number, a), (_, b) in pairs:
        if a[1] != b[1]:
            raise DataError(f"{file}, line {number + 1}: the two images of a pair have the numbers {a[1]} and {b[1]}.")
    genuine = sorted({int(a[1]) for (_, a), _ in pairs} - {0})
    impostors = sum(a[1] == "0" for (_, a), _ in pairs)
    runs = iter((np.arange(impostors) * max(len(genuine), 1) // max(impostors, 1)).tolist())
    root, found = Path(images_root), PairCollector(name, file, images_root)
    for (number, a), (_, b) in pairs:
        same = a[1] != "0"
        fold = genuine.index(int(a[1])) if same else next(runs)
        who = (a[0].rpartition("_")[0], b[0].rpartition("_")[0])
        found.add(str(root / a[0]), str(root / b[0]), same, fold, who, f"{file}, line {number}")
    return found.pair_list()


def csv_pairs(file: AnyPath, root: AnyPath | None = None, *, name: str | None = None) -> PairList:
    """A table with commas and a header: ``path_a,path_b,same[,fold][,identity_a,identity_b][,group]``.

    ``same`` is 1 or 0 (or true, false); ``fold`` any whole number, numbered anew from 0 in rising order; ``group`` the
    group of people that both belong to.

    Args:
        file: The table, UTF-8.
        root: What relative paths are relative to; the folder of ``file`` if not given.
        name: What to call the benchmark; the file's name if not given.

    Raises:
        DataError: The table does not read like that (with the line), or none of the images is there.
    """
    base = Path(root) if root is not None else Path(file).parent
    rows = csv_rows(file)
    header = [cell.strip() for cell in next(rows, (1, []))[1]]
    needed, optional = ("path_a", "path_b", "same"), ("fold", "identity_a", "identity_b", "group")
    for column in header:
        if column not in needed + optional:
            hint = did_you_mean(column, needed + optional)
            raise DataError(f"{file}, line 1: no column of a pair list is called {column!r}.{hint}")
    lacking = [column for column in needed if column not in header]
    if lacking or len(set(header)) != len(header) or ("identity_a" in header) != ("identity_b" in header):
        raise DataError(
            f"{file}, line 1: expected the columns {', '.join(needed)}, each once, and maybe fold, group, or "
            f"identity_a with identity_b; got {', '.join(header) or 'none'}."
        )
    found = PairCollector(name or Path(file).stem, file, base)
    for number, cells in rows:
        where = f"{file}, line {number}"
        if len(cells) != len(header):
            raise DataError(f"{where}: expected {len(header)} values, got {len(cells)}.")
        row = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
        same = {"1": True, "true": True, "0": False, "false": False}.get(row["same"].lower())
        if same is None:
            raise DataError(f"{where}: same must be 1, 0, true or false, got {row['same']!r}.")
        try:
            fold = int(row.get("fold", "0"))
        except ValueError as error:
            raise DataError(f"{where}: fold must be a whole number, got {row['fold']!r}.") from error
        who = (row.get("identity_a") or None, row.get("identity_b") or None)
        if not row["path_a"] or not row["path_b"]:
            raise DataError(f"{where}: a path is empty.")
        group = row.get("group")
        if group == "":
            raise DataError(f"{where}: group is empty. Name the group, or leave the pair out.")
        found.add(str(base / row["path_a"]), str(base / row["path_b"]), same, fold, who, where, group)
    return found.pair_list()


class PairCollector:
    """Gathers the pairs of a protocol; those that touch a missing file go apart.

    Args:
        name: What to call the benchmark.
        source: The list, for messages.
        root: Where images are sought, for messages.
    """

    def __init__(self, name: str, source: AnyPath, root: AnyPath) -> None:
        self.name, self.source, self.root = name, source, root
        self.number: dict[str, int | None] = {}  # None: the file is missing
        self.identities: list[str | None] = []
        self.rows: list[tuple[int, int, bool, int]] = []
        self.left_out: list[LeftOut] = []
        self.groups: list[str] = []

    def add(
        self,
        a: str,
        b: str,
        same: bool,
        fold: int,
        who: tuple[str | None, str | None],
        where: str,
        group: str | None = None,
    ) -> None:
        """Take the pair of the files ``a`` and ``b``, which show ``who``; ``where`` is its line, for messages.

        Either all pairs have a ``group`` or none has.

        Raises:
            DataError: The answer or the people are at odds with each other or with an earlier line.
        """
        if None not in who and same != (who[0] == who[1]):
            kind = "genuine" if same else "impostor"
            raise DataError(f"{where}: a pair that is said to be {kind} shows {who[0]!r} and {who[1]!r}.")
        numbers = [self._number(path, identity, where) for path, identity in zip((a, b), who, strict=True)]
        missing = tuple(dict.fromkeys(p for p, n in zip((a, b), numbers, strict=True) if n is None))
        if missing:
            self.left_out.append(LeftOut(a, b, same, fold, missing))
        else:
            self.rows.append((numbers[0] or 0, numbers[1] or 0, same, fold))
            if group is not None:
                self.groups.append(group)

    def _number(self, path: str, identity: str | None, where: str) -> int | None:
        if path not in self.number:
            exists = os.path.isfile(path)  # no error about a name that no file can have
            self.number[path] = len(self.identities) if exists else None
            if exists:
                self.identities.append(identity)
        number = self.number[path]
        if number is not None and self.identities[number] != identity:
            raise DataError(f"{where}: {path} shows {identity!r}, but {self.identities[number]!r} in an earlier line.")
        return number

    def pair_list(self) -> PairList:
        """All pairs so far.

        Raises:
            DataError: There is no pair, or none with both files.
        """
        if not self.rows:
            if not self.left_out:
                raise DataError(f"{self.name}: the list has no pairs: {self.source}.")
            raise DataError(
                f"{self.name}: none of its {len(self.left_out)} pairs has both files; "
                f"{self.left_out[0].missing[0]} is the first missing. Images are sought in {self.root}."
            )
        a, b, same, folds = zip(*self.rows, strict=True)
        _, dense = np.unique(np.array([*folds, *(p.fold for p in self.left_out)]), return_inverse=True)
        left = [p._replace(fold=int(f)) for p, f in zip(self.left_out, dense[len(folds) :], strict=True)]
        return PairList(
            name=self.name,
            files=[path for path, number in self.number.items() if number is not None],
            pairs=np.array([a, b], dtype=np.int64).T.copy(),
            same=np.array(same, dtype=np.bool_),
            folds=dense[: len(folds)].astype(np.int64),
            identities=self.identities,
            left_out=left,
            groups=self.groups or None,
        )


def _cfp_images(file: Path, root: Path) -> dict[str, Path]:
    """Number (as written) -> image, from lines like ``1 ../Data/Images/001/frontal/01.jpg``."""
    images: dict[str, Path] = {}
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        cells = line.split()
        inside = Path(cells[-1]).parts[-3:]
        if len(cells) != 2 or not cells[0].isdecimal() or len(inside) != 3 or ".." in inside:
            raise DataError(f"{file}, line {number}: expected '<number> .../<id>/<pose>/<image>', got {line!r}.")
        if cells[0] in images:
            raise DataError(f"{file}, line {number}: the number {cells[0]} is given twice.")
        images[cells[0]] = root.joinpath(*inside)
    return images


def _is_count(cell: str) -> bool:
    return cell.isdecimal() and len(cell) < 10


def _relative(files: list[str]) -> list[str]:
    """The files' names inside the folder that holds them all, with forward slashes."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    return [Path(os.path.relpath(file, folder)).as_posix() for file in files]


def even_folds(n: int) -> NDArray[np.int64]:
    """(n,) int64: ten runs of neighbors as even as can be (the first ones have one more); all 0 if n < 10."""
    sizes = [n // FOLDS + (fold < n % FOLDS) for fold in range(FOLDS)] if n >= FOLDS else [n]
    return np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)


def read_lines(file: AnyPath) -> list[str]:
    """The lines of a pair list, UTF-8; a name may hold what Unicode calls a line separator.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with Path(file).open(encoding="utf-8-sig") as handle:
            return [line.removesuffix("\n") for line in handle]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list {file} cannot be read: {error}.") from error
