"""K-FACE (Choi et al. 2021): 400 people under every combination of accessory, light, expression and camera.

An image lies at ``<id>/S001/L1/E01/C1.jpg``: accessory 1 to 6, light 1 to 30, expression 1 to 3, camera 1 to 20.
Which of them a set takes is said as MixFace and UNPG say it: ``s1~4 l1~3,8~9 e1~2 c1~13``. Thirty people, named in
a list, are for testing; the rest train. People are ordered by name, in each process and run the same: the authors'
order comes from a Python set and changes from process to process, so a resumed run gives people other labels.

Axes: n images, p people, v views.
"""

import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unpg.data.decode import decode, first_size, require_size
from unpg.data.exclude import read_identity_list
from unpg.data.folder import file_size
from unpg.data.image_set import set_digest
from unpg.data.pairs import PairCollector, PairList, read_lines
from unpg.errors import ConfigError, DataError, did_you_mean

__all__ = ["KFACE_VIEWS", "KFaceSet", "KFaceViews", "image_stem", "kface_pairs"]

AnyPath = str | PathLike[str]

KFACE_VIEWS = {
    "T1": "s1 l1 e1 c4~10",
    "T2": "s1~2 l1~2,8,12,16,19,22,25,28 e1 c4~10",
    "T3": "s1~4 l1~3,8~9,12~13,16~17,19~20,22~23,25~26,28~29 e1~2 c1~13",
    "T4": "s1~6 l1~6,8~30 e1~3 c1~20",
}
"""The training sets of UNPG (arXiv 2203.11593), from MixFace's configurations (arXiv 2111.01717). Light 7 is in none.

UNPG's README prints cameras 4 to 13 for T3; with its 654,160 images only 1 to 13 agrees.
"""

_AXES = (("s", "accessory", 6), ("l", "light", 30), ("e", "expression", 3), ("c", "camera", 20))
_IMAGE = re.compile(r"([^/\s]+)/S(\d{3})/L(\d{1,2})/E(\d{2})/C(\d{1,2})\.(\w+)", re.ASCII)


@dataclass(frozen=True)
class KFaceViews:
    """Accessories, lights, expressions and cameras, of which a set has every combination.

    Args:
        accessories: Of 1 to 6, in rising order; so the others.
        lights: Of 1 to 30.
        expressions: Of 1 to 3.
        cameras: Of 1 to 20.
    """

    accessories: tuple[int, ...]
    lights: tuple[int, ...]
    expressions: tuple[int, ...]
    cameras: tuple[int, ...]

    def __post_init__(self) -> None:
        for (letter, noun, most), values in zip(_AXES, self._axes(), strict=True):
            if not values or list(values) != sorted({v for v in values if 1 <= v <= most}):
                raise ConfigError(
                    f"K-FACE views: {noun} ({letter}) must be distinct numbers from 1 to {most} in rising order, got "
                    f"{', '.join(map(str, values)) or 'none'}."
                )

    @classmethod
    def parse(cls, text: str) -> "KFaceViews":
        """From a name of :data:`KFACE_VIEWS`, or four words like ``s1~4 l1~3,8~9 e1~2 c1~13``, in any order.

        Raises:
            ConfigError: It does not read like that. Names the word.
        """
        words = KFACE_VIEWS.get(text, text).split()
        if [word[0] for word in sorted(words)] != ["c", "e", "l", "s"]:
            raise ConfigError(
                f"K-FACE views {text!r}: expected one word each of s (accessories), l (lights), e (expressions) and c "
                f"(cameras), such as 's1~4 l1~3,8~9 e1~2 c1~13', or a name.{did_you_mean(text, KFACE_VIEWS)}"
            )
        found = {word[0]: _numbers(word) for word in words}
        return cls(*(found[letter] for letter, *_ in _AXES))

    def __len__(self) -> int:
        """Images of each person."""
        return int(np.prod([len(axis) for axis in self._axes()]))

    def at(self, view: int) -> tuple[int, int, int, int]:
        """Accessory, light, expression and camera of combination ``view``; the camera changes fastest."""
        places = np.unravel_index(view, [len(axis) for axis in self._axes()])
        s, i, e, c = (axis[int(place)] for axis, place in zip(self._axes(), places, strict=True))
        return s, i, e, c

    def varied(self) -> tuple[bool, bool, bool, bool]:
        """Which of accessory, light, expression and camera have more than one value."""
        s, i, e, c = (len(axis) > 1 for axis in self._axes())
        return s, i, e, c

    def folders(self) -> list[str]:
        """``S001/L1/E01``, for every combination, in order."""
        return [f"S{s:03d}/L{i}/E{e:02d}" for s, i, e in itertools.product(*self._axes()[:3])]

    def _axes(self) -> tuple[tuple[int, ...], ...]:
        return self.accessories, self.lights, self.expressions, self.cameras


class KFaceSet:
    """Images of K-FACE, person by person, and of each person view by view.

    Opening lists every folder of the tree once, so that a missing image is known before training; T4 of the whole
    set has 193,140 folders. An image's path is made when it is asked for: 3.86 million images take 46 MB.

    Args:
        root: The folder with one folder per person.
        views: What :meth:`KFaceViews.parse` takes: ``"T1"`` to ``"T4"``, or words.
        test_ids: File with the names of the test people, one a line (see
            :func:`unpg.data.exclude.read_identity_list`).
        part: ``"train"``: all others, by name; ``"test"``: those of the list, in its order.
        ext: Ending of the image files.
        allow_missing: Leave out images that are not there, and count them; else they are an error.

    Attributes:
        labels: (n,) int64.
        identities: The name of each label.
        missing: Images that the views name and that are not there.
        image_size: (height, width) of the first readable image; :meth:`read` refuses others.

    Raises:
        ConfigError: The views or the part are unknown.
        DataError: A test person has no folder, fewer than two people are left, or images are missing (with the
            first path).
    """

    def __init__(
        self,
        root: AnyPath,
        views: str | KFaceViews,
        test_ids: AnyPath,
        *,
        part: Literal["train", "test"] = "train",
        ext: str = "jpg",
        allow_missing: bool = False,
    ) -> None:
        if part not in ("train", "test"):
            raise ConfigError(f"The part of K-FACE must be 'train' or 'test', got {part!r}.")
        self.root, self.ext = Path(root), ext.lstrip(".")
        self.views = views if isinstance(views, KFaceViews) else KFaceViews.parse(views)
        people = _people(self.root, test_ids, part)
        there = np.stack([self._present(person) for person in people])
        self.missing = int(there.size - there.sum())
        if self.missing and not allow_missing:
            at, view = (int(i) for i in np.argwhere(~there)[0])
            raise DataError(
                f"{self.root} lacks {self.missing:,} of {there.size:,} images; the first is "
                f"{self._path(people[at], view)}. Complete the tree, narrow the views, or set allow_missing."
            )
        kept = np.flatnonzero(there.any(axis=1))
        if len(kept) < 2:
            raise DataError(
                f"{self.root} has {len(kept)} people of the {part} part with images; a set needs two or more."
            )
        self.identities = [people[i] for i in kept]
        labels, codes = np.nonzero(there[kept])
        self.labels: NDArray[np.int64] = labels.astype(np.int64)
        self._codes = codes.astype(np.int32)
        self.image_size, self._like = first_size(len(self), lambda i: decode(self.name(i)), self.name, self.root)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """The path of image ``i``."""
        return str(self.root / self._inside(i))

    def content(self, i: int) -> bytes:
        """Its file, untouched.

        Raises:
            DataError: It cannot be read.
        """
        try:
            return Path(self.name(i)).read_bytes()
        except (OSError, ValueError) as error:  # a name from a list need be no path at all
            raise DataError(f"{self.name(i)} cannot be read: {error}.") from error

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read.
            SizeError: It is not of the size of the set's first readable image.
        """
        return require_size(decode(self.name(i)), self.image_size, self.name(i), self._like)

    def sources(self) -> Iterable[str]:
        """The files that the images come from."""
        return map(self.name, range(len(self)))

    def digest(self) -> str:
        """From paths inside the root, labels and file sizes. Asks the file system for the size of every file."""
        names = (self._inside(i) for i in range(len(self)))
        return set_digest(names, self.labels, (file_size(self.name(i)) for i in range(len(self))))

    def _inside(self, i: int) -> str:
        return self._path(self.identities[self.labels[i]], int(self._codes[i]))

    def _path(self, person: str, view: int) -> str:
        return f"{image_stem(person, self.views.at(view))}.{self.ext}"

    def _present(self, person: str) -> NDArray[np.bool_]:
        """(v,) whether each view of a person is there."""
        names = [f"C{camera}.{self.ext}" for camera in self.views.cameras]
        found: list[bool] = []
        for folder in self.views.folders():
            try:
                here = set(os.listdir(self.root / person / folder))
            except OSError:
                here = set()
            found += [name in here for name in names]
        return np.array(found, dtype=np.bool_)


def kface_pairs(file: AnyPath, root: AnyPath, *, condition: str | None = None, name: str | None = None) -> PairList:
    """A pair list of K-FACE, such as Q1 to Q4: lines ``<path> <path> <0 or 1>``.

    The list may also name people and cameras only, ``<id> C17 <id> C5 <0 or 1>``; ``condition`` then says the rest.
    There are no folds.

    Args:
        file: The list.
        root: The folder with one folder per person.
        condition: One accessory, light and expression, ``"s1 l1 e1"``, for lists without them.
        name: What to call the benchmark; the file's name if not given.

    Raises:
        ConfigError: ``condition`` does not read like that, or does not go with the list.
        DataError: A line does not read like that (with its number), says that one person is two or the reverse,
            or none of the images is there.
    """
    views = None if condition is None else _one(condition)
    found = PairCollector(name or Path(file).stem, file, root)
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        where, cells = f"{file}, line {number}", line.split()
        short = len(cells) == 5
        if short and views is None:
            raise ConfigError(f"{where} names people and cameras only; say the condition, such as 's1 l1 e1'.")
        if not short and views is not None:
            raise ConfigError(f"{where} names whole paths; leave the condition away.")
        paths = [f"{cells[i]}/{views}/{cells[i + 1]}.jpg" for i in (0, 2)] if short else cells[:2]
        people = [_person(path) for path in paths]
        if len(cells) not in (3, 5) or cells[-1] not in ("0", "1") or None in people:
            form = "<id> C<camera> <id> C<camera>" if short else "<id>/S001/L1/E01/C1.jpg <the same>"
            raise DataError(f"{where}: expected '{form} <0 or 1>', got {line[:200]!r}.")
        a, b = (str(Path(root) / path) for path in paths)
        found.add(a, b, cells[-1] == "1", 0, (people[0], people[1]), where)
    return found.pair_list()


def image_stem(person: str, cell: tuple[int, int, int, int]) -> str:
    """``<person>/S001/L1/E01/C1``, from accessory, light, expression and camera."""
    s, i, e, c = cell
    return f"{person}/S{s:03d}/L{i}/E{e:02d}/C{c}"


def _numbers(word: str) -> tuple[int, ...]:
    """``l1~3,8`` -> (1, 2, 3, 8)."""
    numbers: list[int] = []
    for piece in word[1:].split(","):
        ends = re.fullmatch(r"([0-9]{1,2})(?:~([0-9]{1,2}))?", piece)
        if ends is None:
            raise ConfigError(f"K-FACE views: {word!r} must be like {word[0]}1~3,8; {piece!r} is no number or range.")
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if last < first:
            raise ConfigError(f"K-FACE views: the range {piece!r} in {word!r} runs backwards.")
        numbers += range(first, last + 1)
    return tuple(numbers)


def _one(condition: str) -> str:
    """The folder of a condition of one accessory, light and expression."""
    folders = KFaceViews.parse(f"{condition} c1").folders()
    if len(folders) != 1:
        raise ConfigError(
            f"The condition {condition!r} must be one accessory, light and expression, such as 's1 l1 e1'."
        )
    return folders[0]


def _person(path: str) -> str | None:
    """Whose image it is, or None if the path is not of K-FACE's grammar."""
    found = _IMAGE.fullmatch(path)
    if found is None or found[1] in (".", ".."):
        return None
    inside = all(1 <= int(found[place]) <= most for place, (*_, most) in enumerate(_AXES, start=2))
    return found[1] if inside else None


def _people(root: Path, test_ids: AnyPath, part: str) -> list[str]:
    try:
        with os.scandir(root) as entries:
            folders = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"The K-FACE root {root} cannot be listed: {error.strerror or error}. Expected <id>/S001/L1/E01/C1.jpg."
        ) from error
    test = read_identity_list(test_ids)
    gone = sorted(set(test) - set(folders))
    if gone:
        raise DataError(
            f"{test_ids}: {len(gone)} of {len(test)} test people have no folder in {root}; the first is {gone[0]!r}. "
            "Give the list of this tree."
        )
    listed = set(test)
    found = test if part == "test" else [name for name in folders if name not in listed]
    if not found:
        raise DataError(f"{root} has nobody for the {part} part: {len(folders)} folders, {len(test)} test people.")
    return found
