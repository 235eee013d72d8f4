"""``unpg data synth --protocol kface --train T2 --subset 20000 --out twin``."""

import argparse
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unpg.data.kface import KFACE_VIEWS
from unpg.errors import ConfigError

__all__ = ["add_options", "run_synth"]

_SUBSET, _PAIRS = 20_000, 2_000
_SHEETS = (".png", ".jpg", ".jpeg")
_OWN: dict[str, dict[str, Any]] = {  # options that only one protocol has, and what they are if not given
    "kface": {"train": "T1", "subset": None, "pairs": None},
    "plain": {"views": 20, "vary": (), "first_identity": 0},
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--out", help="folder to write, must not exist; goes on with what a stopped run left")
    parser.add_argument("--sheet", metavar="FILE.png", help="also, or only, write a contact sheet: a person per row")
    parser.add_argument(
        "--protocol",
        choices=("kface", "plain"),
        default="kface",
        help="kface: a data root with K-FACE's tree and lists; plain: images/<identity>/ (default: %(default)s)",
    )
    parser.add_argument("--identities", type=int, default=400, help="people; of 400 in kface 30 test (default: 400)")
    parser.add_argument("--train", choices=tuple(KFACE_VIEWS), help="kface: views (default: T1)")
    parser.add_argument(
        "--subset",
        metavar="N",
        help="kface: training images, shared out evenly over people and attributes, or 'all' (of T4 3,862,800); "
        f"default: {_SUBSET:,} where there are more",
    )
    parser.add_argument(
        "--pairs",
        metavar="N",
        help=f"kface: pairs in each of Q1 to Q4 at most, or 'all': 1,000 and 100,000 (default: {_PAIRS:,})",
    )
    parser.add_argument("--views", type=int, help="plain: images of each person (default: 20)")
    parser.add_argument(
        "--vary",
        nargs=3,
        action="append",
        metavar=("FACTOR", "LOW", "HIGH"),
        help="plain: from which range a factor of the views is drawn, such as --vary jpeg 20 80; may be repeated "
        "(docs/data.md lists the factors)",
    )
    parser.add_argument("--first-identity", type=int, help="plain: number of the first person (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the people and their views (default: 0)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(112, 112), metavar=("HEIGHT", "WIDTH"), help="default: 112 112"
    )
    parser.add_argument("--form", choices=("jpg", "png"), default="jpg", help="png keeps every pixel (default: jpg)")
    parser.add_argument("--quality", type=int, default=95, help="of JPEG, 90 to 100 (default: %(default)s)")
    parser.add_argument("--masks", action="store_true", help="write where the person is, too")
    parser.add_argument(
        "--split-identities",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the training identities that are another's person again (false negatives)",
    )
    parser.add_argument(
        "--flipped-labels",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the training images that show another person than their label says",
    )
    parser.add_argument(
        "--twins",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the training identities that are near-twins of another (true hard negatives)",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that render (default: 1)")


def run_synth(found: argparse.Namespace, console: Console) -> None:
    """Write the folder, the sheet, or both; say what was written.

    Raises:
        ConfigError: Neither is asked for, or a setting is out of range.
        DataError: The unfinished folder is of another job.
    """
    # The renderer is only imported where it is used.
    from unpg.data.synthetic import KFaceTwin, Noise, SyntheticFaces, Variation
    from unpg.data.synthetic.write import WriteOptions, contact_sheet, write_faces, write_kface

    if found.out is None and found.sheet is None:
        raise ConfigError("Say where to write: --out FOLDER, --sheet FILE.png, or both.")
    if found.sheet is not None and Path(found.sheet).suffix.lower() not in _SHEETS:
        raise ConfigError(f"--sheet {found.sheet}: a picture is named .png or .jpg.")
    if found.out is not None and Path(found.out).exists():
        raise ConfigError(f"{found.out} exists. Remove it, or name another folder.")
    size = (found.size[0], found.size[1])
    noise = Noise(found.split_identities, found.flipped_labels, found.twins)
    options = WriteOptions(found.form, found.quality, found.masks, found.workers)
    _fill(found)
    subset = _subset(found) if found.protocol == "kface" else None
    images: KFaceTwin | SyntheticFaces
    if found.protocol == "kface":
        images = KFaceTwin(found.identities, found.train, "train", subset, found.seed, size, noise)
    else:
        ranges = Variation.named({name: (_end(name, low), _end(name, high)) for name, low, high in found.vary})
        images = SyntheticFaces(found.identities, found.views, found.seed, size, ranges, found.first_identity, noise)
    if found.sheet is not None:
        Path(found.sheet).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(contact_sheet(images)).save(found.sheet)
        console.print(f"Wrote {found.sheet}")
    if found.out is None:
        return
    columns = (TextColumn("rendering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("synth", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if isinstance(images, SyntheticFaces):
            written = write_faces(images, found.out, options, progress)
        else:
            written = write_kface(
                found.out,
                identities=found.identities,
                train=found.train,
                subset=subset,
                pairs=_number("pairs", found.pairs, _PAIRS),
                seed=found.seed,
                size=size,
                noise=noise,
                options=options,
                progress=progress,
            )
    about = written.manifest
    console.print(f"Wrote {written.folder}: {about['images']:,} images ({about['form']}), digest {about['digest']}")
    if about["protocol"] == "kface":
        train = about["train"]
        part = f"a subset of {train['of']:,}" if train["subset"] else "all"
        console.print(f"train: {train['views']}, {train['images']:,} images ({part}) of {train['identities']:,} people")
        console.print(f"test: {about['test']['images']:,} images of {about['test']['identities']:,} people")
        for name, listed in about["lists"].items():
            part = f"a subset of the authors' {listed['of']:,}" if listed["subset"] else "as many as the authors'"
            console.print(f"{name}: {listed['pairs']:,} pairs, {part}; {listed['genuine']:,} genuine")
    told = about["noise"]
    if noise != Noise():
        console.print(
            f"noise: {told['identities_split']:,} identities show another's person again, {told['identities_twins']:,} "
            f"are near-twins, {told['images_flipped']:,} images show another person than their label says; truth.csv"
        )


def _fill(found: argparse.Namespace) -> None:
    """Give the protocol's own options their defaults; refuse those of the other."""
    for protocol, options in _OWN.items():
        for name, default in options.items():
            if getattr(found, name) is None:
                setattr(found, name, default)
            elif protocol != found.protocol:
                own = ", ".join(f"--{n.replace('_', '-')}" for n in _OWN[found.protocol])
                raise ConfigError(
                    f"--{name.replace('_', '-')} belongs to --protocol {protocol}; {found.protocol} has {own}."
                )


def _subset(found: argparse.Namespace) -> int | None:
    """None for all."""
    from unpg.data.synthetic import KFaceTwin

    whole = KFaceTwin.count(found.identities, found.train)
    if found.subset is None:
        return _SUBSET if whole > _SUBSET else None
    wanted = _number("subset", found.subset, None)
    return None if wanted == whole else wanted


def _end(factor: str, given: str) -> float:
    try:
        return float(given)
    except ValueError:
        raise ConfigError(f"--vary {factor} takes two numbers, the ends of its range, got {given!r}.") from None


def _number(option: str, given: str | None, default: int | None) -> int | None:
    if given is None:
        return default
    if given == "all":
        return None
    try:
        return int(given)
    except ValueError:
        raise ConfigError(f"--{option} is a whole number or 'all', got {given!r}.") from None
