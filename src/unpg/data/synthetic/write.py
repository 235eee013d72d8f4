"""Rendered sets as folders of image files, and K-FACE's twin as a data root with its lists.

A folder grows as ``<out>.partial`` and gets its name when it is whole. Images are written in groups; a note of each
finished group stays, so the same call after a stop does the unfinished groups only.

Axes: n images, k identities.
"""

import csv
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unpg.data.kface import KFACE_VIEWS, KFaceViews, image_stem
from unpg.data.kface_lists import KFACE_LISTS, draw_kface_pairs
from unpg.data.synthetic.faces import RenderedSet, SyntheticFaces, edition
from unpg.data.synthetic.kface import KFaceCells, KFaceTwin, count_test_people
from unpg.data.synthetic.population import Noise, Population
from unpg.data.unfinished import unfinished
from unpg.errors import ConfigError

__all__ = ["WriteOptions", "Written", "contact_sheet", "write_faces", "write_kface"]

Progress = Callable[[int, int], None]

_GROUP = 64
_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
_GROUPS = "groups"  # the folder of notes of finished groups; removed at the end


@dataclass(frozen=True)
class WriteOptions:
    """How images are written.

    Args:
        form: ``"jpg"`` (smaller) or ``"png"``: exactly the pixels that are rendered on demand.
        quality: Of JPEG, 90 to 100, without subsampling of color.
        masks: Whether to write where the person is, as PNG files of 0 and 255.
        workers: Processes that render.

    Raises:
        ConfigError: A setting is out of range.
    """

    form: Literal["jpg", "png"] = "jpg"
    quality: int = 95
    masks: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        if self.form not in ("jpg", "png"):
            raise ConfigError(f"The form of image files must be jpg or png, got {self.form!r}.")
        if not 90 <= self.quality <= 100:
            raise ConfigError(f"The quality of JPEG files must be from 90 to 100, got {self.quality}.")
        if self.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {self.workers}.")


@dataclass(frozen=True)
class Written:
    """What a folder holds: its place, and its manifest."""

    folder: Path
    manifest: dict[str, Any]


def write_faces(
    faces: SyntheticFaces,
    out: str | os.PathLike[str],
    options: WriteOptions | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write ``<out>/images/<identity>/view0000.jpg``, and beside ``images`` what is known of it.

    ``landmarks.csv`` (five points of each image), ``truth.csv`` (whose person each image shows), ``identities.csv``,
    ``masks/`` if asked for, ``manifest.json`` and ``manifest.sha256``.

    Args:
        faces: The set.
        out: A folder that does not exist yet.
        options: Form, quality, masks, workers.
        progress: Called with (images done, all).

    Raises:
        ConfigError: ``out`` exists.
        DataError: ``<out>.partial`` is of another job, or another process is at it.
    """
    about = {
        "what": "Rendered faces: nobody is real.",
        "protocol": "plain",
        "identities": len(faces.identities),
        "views": faces.views,
        "first_identity": faces.population.first_identity,
        "variation": asdict(faces.variation),
    }
    return _write(Path(out), "", {"train": faces}, about, {}, options or WriteOptions(), progress)


def write_kface(
    out: str | os.PathLike[str],
    *,
    identities: int = 400,
    train: str = "T1",
    subset: int | None = None,
    pairs: int | None = None,
    seed: int = 0,
    size: tuple[int, int] = (112, 112),
    noise: Noise | None = None,
    options: WriteOptions | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write a data root with K-FACE's twin in it: ``<out>/kface/images/<id>/S001/L1/E01/C1.jpg``.

    Beside ``images``: the lists ``kface.Q1.txt`` to ``kface.Q4.txt`` by the authors' rule, ``test_ids.txt``, and what
    :func:`write_faces` writes. Of the test people the images of the lists are written, of the others those of
    ``train``. So ``unpg evaluate --data <out> --benchmark kface-q1`` works.

    Args:
        out: A folder that does not exist yet.
        identities: Number of people; 30 of 400 are for testing.
        train: ``"T1"`` to ``"T4"``.
        subset: Training images, see :class:`~unpg.data.synthetic.kface.KFaceTwin`; None writes all.
        pairs: At most so many pairs in each list; None takes the authors' numbers, 1,000 in Q1 and 100,000.
        seed: Of people, views, subset and lists.
        size: (height, width) in pixels.
        noise: Faults of the training part.
        options: Form, quality, masks, workers.
        progress: Called with (images done, all).

    Raises:
        ConfigError: ``out`` exists, or a setting is out of range.
        DataError: ``<out>.partial`` is of another job, or another process is at it.
    """
    options = options or WriteOptions()
    if train not in KFACE_VIEWS:
        raise ConfigError(f"The training set of K-FACE must be one of {', '.join(KFACE_VIEWS)}, got {train!r}.")
    if pairs is not None and (pairs < 2 or pairs % 2):
        raise ConfigError(f"A list of pairs is half genuine: pairs must be even and at least 2, got {pairs}.")
    training = KFaceTwin(identities, train, "train", subset, seed, size, noise)
    people = Population(count_test_people(identities), seed)
    lists, counts = {}, {}
    used: set[tuple[int, tuple[int, int, int, int]]] = set()
    for name, (views, full) in KFACE_LISTS.items():
        wanted = full if pairs is None else min(full, pairs)
        lists[name], cells, same = _listed(KFaceViews.parse(views), people, wanted, seed, options.form)
        used |= cells
        found = len(lists[name])
        counts[name] = {"pairs": found, "genuine": same, "of": full, "subset": found < full}
    shown = sorted(used)
    testing = KFaceCells(
        people, np.array([k for k, _ in shown], dtype=np.int64), np.array([cell for _, cell in shown]), size
    )
    about = {
        "what": "Rendered faces in the grid of K-FACE: nobody is real, and no image is of K-FACE.",
        "protocol": "kface",
        "identities": identities,
        "train": {
            "views": train,
            "identities": len(training.identities),
            "images": len(training),
            "of": training.whole,
            "subset": len(training) < training.whole,
        },
        "test": {"identities": len(people), "images": len(testing)},
        "lists": counts,
    }
    texts = {f"kface.{name}.txt": "".join(f"{line}\n" for line in lines) for name, lines in lists.items()}
    texts["test_ids.txt"] = "".join(f"{name}\n" for name in people.names)
    return _write(Path(out), "kface", {"train": training, "test": testing}, about, texts, options, progress)


def contact_sheet(images: RenderedSet, people: int = 8, views: int = 10) -> NDArray[np.uint8]:
    """A row for each of the first people, a column for each of their images, at even steps: (h, w, 3) uint8 RGB.

    Raises:
        ConfigError: Fewer than one of either.
    """
    if people < 1 or views < 1:
        raise ConfigError(f"A sheet has one person and one view or more, got {people} and {views}.")
    height, width = images.size
    rows = min(people, len(images.identities))
    views = min(views, int(np.bincount(images.labels)[:rows].max()))
    sheet = np.full((rows * height, views * width, 3), 255, np.uint8)
    for k in range(rows):
        own = np.flatnonzero(images.labels == k)
        chosen = own[np.linspace(0, len(own) - 1, min(views, len(own))).round().astype(int)]
        for column, image in enumerate(images.read_many(chosen)):
            sheet[k * height : (k + 1) * height, column * width : (column + 1) * width] = image
    return sheet


def _listed(
    views: KFaceViews, people: Population, wanted: int, seed: int, form: str
) -> tuple[list[str], set[tuple[int, tuple[int, int, int, int]]], int]:
    """The lines of a list, the (person, cell) of its images, and its number of genuine pairs."""
    lines, cells = [], set()
    drawn = draw_kface_pairs(views, len(people), wanted, seed)
    for one in drawn:
        ends = [(one.person_a, views.at(one.view_a)), (one.person_b, views.at(one.view_b))]
        cells.update(ends)
        a, b = (f"{image_stem(people.names[k], cell)}.{form}" for k, cell in ends)
        lines.append(f"{a} {b} {int(one.same)}")
    return lines, cells, sum(one.same for one in drawn)


def _write(
    out: Path,
    inside: str,
    parts: dict[str, RenderedSet],
    about: dict[str, Any],
    texts: dict[str, str],
    options: WriteOptions,
    progress: Progress | None,
) -> Written:
    """Write ``parts`` into ``<out>/<inside>``, with ``texts`` by file name beside their images."""
    digests = {name: part.digest() for name, part in parts.items()}
    kept = {name: value for name, value in asdict(options).items() if name != "workers"}
    job = {"digests": digests, "about": about, "texts": _sha(json.dumps(texts)), "options": kept}
    with unfinished(out, job) as partial:
        folder = partial / inside
        notes = partial / _GROUPS
        notes.mkdir(exist_ok=True)
        work = [(name, start) for name, part in parts.items() for start in range(0, len(part), _GROUP)]
        total, done = sum(map(len, parts.values())), 0
        for name, start in _done(work, parts, folder, notes, options):
            done += min(_GROUP, len(parts[name]) - start)
            if progress:
                progress(done, total)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        first = next(iter(parts.values()))
        manifest = {
            **about,
            "seed": first.population.seed,
            "size": list(first.size),
            "renderer_edition": edition(),
            "images": total,
            "form": "png" if options.form == "png" else f"jpg, quality {options.quality}, 4:4:4",
            "noise": _noise_counts(parts["train"]),
            "set_digests": digests,
        }
        _gather(folder, notes, work, options)
        _write_identities(folder / "identities.csv", parts)
        manifest["digest"] = _sha((folder / "manifest.sha256").read_text(encoding="utf-8"))
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(out / _GROUPS)
    return Written(out, manifest)


def _noise_counts(part: RenderedSet) -> dict[str, Any]:
    who = part.population
    return {
        **asdict(who.noise),
        "identities_split": int((who.first != np.arange(len(who))).sum()),
        "identities_twins": int((who.twin_of >= 0).sum()),
        "images_flipped": int((part.true_labels != who.first[part.labels]).sum()),
    }


def _done(
    work: list[tuple[str, int]], parts: dict[str, RenderedSet], folder: Path, notes: Path, options: WriteOptions
) -> Iterator[tuple[str, int]]:
    """Do what has no note yet; gives each group when it is finished, in order."""
    # A kill between the note and the disk's own cache is the disk's affair; a kill of the program is ours.
    finished = {job for job in work if _note(notes, *job).exists()}
    left = [job for job in work if job not in finished]
    yield from (job for job in work if job in finished)
    if options.workers == 1 or len(left) < 2:
        for job in left:
            _render_group(parts, folder, notes, options, job)
            yield job
        return
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    with ProcessPoolExecutor(
        min(options.workers, len(left)), context, initializer=_start_worker, initargs=(parts, folder, notes, options)
    ) as pool:
        try:
            yield from pool.map(_work, left, chunksize=1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_worker: dict[str, Any] = {}  # what a worker process was started with


def _start_worker(*given: Any) -> None:
    _worker.update(zip(("parts", "folder", "notes", "options"), given, strict=True))
    torch.set_num_threads(1)


def _work(job: tuple[str, int]) -> tuple[str, int]:
    _render_group(**_worker, job=job)
    return job


def _note(notes: Path, name: str, start: int) -> Path:
    return notes / f"{name}-{start:08d}.csv"


def _render_group(
    parts: dict[str, RenderedSet], folder: Path, notes: Path, options: WriteOptions, job: tuple[str, int]
) -> None:
    name, start = job
    part = parts[name]
    indices = range(start, min(start + _GROUP, len(part)))
    made = part.render(indices)
    note = _note(notes, name, start)
    part_of_note = note.with_suffix(".part")
    with open(part_of_note, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        for row, i in enumerate(indices):
            inside = f"{part.stem(i)}.{options.form}"
            path = folder / "images" / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            _save(made.images[row].numpy(), path, options)
            mask = ""
            if options.masks:
                masked = folder / "masks" / f"{part.stem(i)}.png"
                masked.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(made.mask[row].numpy()).save(masked)
                mask = hashlib.sha256(masked.read_bytes()).hexdigest()
            points = [f"{v:.3f}" for v in made.landmarks[row].flatten().tolist()]
            shows = part.identities[part.true_labels[i]]
            sha = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.writerow([inside, sha, mask, part.identities[part.labels[i]], shows, *points])
    os.replace(part_of_note, note)


def _save(image: NDArray[np.uint8], path: Path, options: WriteOptions) -> None:
    if options.form == "png":
        Image.fromarray(image).save(path, compress_level=4)
    else:
        Image.fromarray(image).save(path, quality=options.quality, subsampling=0)


def _gather(folder: Path, notes: Path, work: list[tuple[str, int]], options: WriteOptions) -> None:
    """The notes of all groups become the tables of the whole."""
    header = ["path", *(f"{point}_{axis}" for point in _POINTS for axis in "xy")]
    with (
        open(folder / "landmarks.csv", "w", encoding="utf-8", newline="") as marks,
        open(folder / "truth.csv", "w", encoding="utf-8", newline="") as truth,
        open(folder / "manifest.sha256", "w", encoding="utf-8") as sums,
    ):
        points, whom = csv.writer(marks), csv.writer(truth)
        points.writerow(header)
        whom.writerow(["path", "identity", "shows"])
        for job in work:
            with open(_note(notes, *job), encoding="utf-8", newline="") as file:
                for inside, sha, mask, identity, shows, *numbers in csv.reader(file):
                    points.writerow([inside, *numbers])
                    whom.writerow([inside, identity, shows])
                    sums.write(f"{sha}  images/{inside}\n")
                    if mask:
                        sums.write(f"{mask}  masks/{inside.removesuffix(options.form)}png\n")


def _write_identities(path: Path, parts: dict[str, RenderedSet]) -> None:
    """Each identity with its part, the identity whose person it shows again, and the one whose near-twin it is."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["identity", "part", "person_of", "twin_of"])
        for name, part in parts.items():
            who = part.population
            for k, identity in enumerate(who.names):
                again = "" if who.first[k] == k else who.names[who.first[k]]
                rows.writerow([identity, name, again, who.names[who.twin_of[k]] if who.twin_of[k] >= 0 else ""])


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
