"""``unpg data audit SET --model runs/name --out folder``."""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from unpg.audit import (
    Audit,
    KnownMatch,
    Limits,
    Side,
    Threshold,
    audit,
    judge_known,
    read_known,
    require_resolved,
    save_audit,
    threshold_at,
)
from unpg.cli.model_option import open_model, presets
from unpg.data import ImageSet
from unpg.data.open_source import open_source
from unpg.embed import FLIPS, Model, cached_embed, default_cache, weights_digest
from unpg.embed.memory import keep_freed_memory
from unpg.errors import ConfigError, DataError
from unpg.evaluate.allpairs import count_pairs
from unpg.train.setup import device_of

__all__ = ["add_options", "run_audit"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options besides the source."""
    parser.add_argument("--model", required=True, help="model file, run folder, or with --import-as weights of others")
    parser.add_argument("--import-as", metavar="FORM", help=f"read weights of others: {presets()}")
    parser.add_argument("--out", required=True, help="folder for the CSV files and audit.html, which holds thumbnails")
    parser.add_argument("--against", metavar="SET", help="look for identities and pictures shared with this set")
    parser.add_argument(
        "--calibrate",
        metavar="SET",
        help="set whose pairs of different identities set the thresholds (default: that of --against, else the set "
        "itself)",
    )
    one = parser.add_mutually_exclusive_group()
    one.add_argument(
        "--fmr", type=float, default=1e-6, help="share of those pairs that may count as one person (default: 1e-6)"
    )
    one.add_argument("--threshold", type=float, help="the cosine itself from which on two are one person")
    two = parser.add_mutually_exclusive_group()
    two.add_argument(
        "--far-fmr",
        type=float,
        default=1e-2,
        help="an image is far from its identity if this share of those pairs is as alike (default: 1e-2)",
    )
    two.add_argument("--far", type=float, help="the cosine itself below which an image is far from its identity")
    parser.add_argument(
        "--near", type=float, default=0.8, help="cosine from which on pixels are compared (default: 0.8)"
    )
    parser.add_argument(
        "--picture", type=float, default=0.97, help="correlation of pixels of one picture (default: 0.97)"
    )
    parser.add_argument(
        "--known",
        metavar="FILE",
        help="identities known to be one person, `<identity> <tab> <identity> [<tab> <group>]` below a header: what "
        "share is found is printed, and known.csv has each",
    )
    parser.add_argument("--show", type=int, default=200, help="findings of a kind on the page (default: %(default)s)")
    parser.add_argument("--flip", choices=FLIPS, default="none", help="fusion with the mirror image (default: none)")
    parser.add_argument("--batch-size", type=int, default=32, help="images at once (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="threads that decode images (default: 1)")
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ... (default: %(default)s)"
    )
    parser.add_argument("--cache", help=f"folder of embeddings that are kept (default: {default_cache()})")


def run_audit(found: argparse.Namespace, image_set: ImageSet, console: Console) -> None:
    """Embed, calibrate, compare, write and say what was found; exit status 1 if anything was.

    Raises:
        ConfigError: A setting out of range, or the report extra is missing.
        DataError: A set that cannot be read or cannot resolve the FMR.
    """
    try:
        from unpg.report.audit_page import write_audit_page  # an extra, and asked for before the work starts
    except ImportError as error:
        raise ConfigError("The page of an audit needs the report extra: pip install 'unpg[report]'.") from error
    known = None if found.known is None else read_known(found.known)
    found.device = str(device_of(found.device))
    if found.device == "cpu":
        keep_freed_memory()
    calibrating = found.against or found.source
    if found.calibrate is not None and (found.threshold is None or found.far is None):
        calibrating = found.calibrate
    named = (name for name in (found.against, calibrating) if name not in (None, found.source))
    sets = {found.source: image_set} | {name: open_source(name) for name in named}
    _require_pairs(found, calibrating, sets[calibrating])
    model = open_model(found.model, found.import_as)
    Path(found.out).mkdir(parents=True, exist_ok=True)  # before the work, which would be lost
    with Progress(console=Console(stderr=True), transient=True) as bar:
        sides = {name: _embedded(name, images, model, found, bar) for name, images in sets.items()}
        side, against = sides[found.source], None if found.against is None else sides[found.against]
        match, far = _thresholds(found, sides[calibrating])
        limits = Limits(match, far, found.near, found.picture)
        tell = _Bars(bar)
        result = audit(side, limits, against, device=found.device, progress=tell)
        judged = None if known is None else judge_known(result, known, found.known)
        about = {"model": {"path": str(found.model), "weights": weights_digest(model.backbone), "flip": found.flip}}
        save_audit(found.out, result, judged, about)
        told = f"{found.model} ({model.kind}; flip: {found.flip})"
        write_audit_page(Path(found.out) / "audit.html", result, model=told, most=found.show)
    _say(result, judged, console)
    console.print(f"Wrote {found.out}")
    if result.findings:
        sys.exit(1)


class _Bars:
    """A bar for each thing that is done."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = int(self._bar.add_task(escape(what), total=total))
        self._bar.update(self._tasks[what], completed=done)  # type: ignore[arg-type]


def _require_pairs(found: argparse.Namespace, name: str, images: ImageSet) -> None:
    """Raise at once, and not after embedding, if the set has too few pairs for the FMRs."""
    sizes = np.bincount(images.labels)
    strangers = (len(images) ** 2 - int((sizes**2).sum())) // 2
    for given, fmr in ((found.threshold, found.fmr), (found.far, found.far_fmr)):
        if given is None:
            require_resolved(strangers, fmr, name)


def _embedded(source: str, images: ImageSet, model: Model, found: argparse.Namespace, bar: Progress) -> Side:
    tell = _Bars(bar)
    embeddings = cached_embed(
        found.cache or default_cache(),
        model,
        images,
        flip=found.flip,
        batch_size=found.batch_size,
        device=found.device,
        workers=found.workers,
        progress=lambda done, total: tell(f"embedding {source}", done, total),
        on_error="skip",
    )
    return Side(source, images, embeddings)


def _thresholds(found: argparse.Namespace, source: Side) -> tuple[Threshold, Threshold]:
    if found.threshold is not None and found.far is not None:
        return Threshold(found.threshold), Threshold(found.far)
    if not len(source):
        raise DataError(f"{source.name} has no readable image, so no threshold can be set from it.")
    counts = count_pairs(source.units, source.labels, device=found.device)
    match = Threshold(found.threshold) if found.threshold is not None else threshold_at(counts, found.fmr, source.name)
    far = Threshold(found.far) if found.far is not None else threshold_at(counts, found.far_fmr, source.name)
    return match, far


def _say(found: Audit, known: list[KnownMatch] | None, console: Console) -> None:
    for side in (found.side, found.against):
        if side is not None:
            gone = len(side.embeddings.unreadable)
            more = f"; {gone:,} could not be read (see unpg data check)" if gone else ""
            console.print(f"{side.name}: {len(side):,} images of {len(side.identities):,} identities{more}")
    console.print(f"One person from {found.limits.match.text()}.")
    console.print(f"Far from its identity below {found.limits.far.text()}.")
    verdicts = Counter(finding.verdict for finding in found.label_noise)
    where = Counter(finding.where for finding in found.duplicates)
    console.print(
        f"{len(found.label_noise):,} likely wrong labels ({verdicts['another']:,} near another identity, "
        f"{verdicts['nobody']:,} near nobody)"
    )
    console.print(f"{len(found.split):,} pairs of identities that look like one person")
    duplicates = f"{where['identity']:,} within an identity, {where['set']:,} in two"
    if found.against is not None:
        duplicates += f", {where['against']:,} in both sets"
    console.print(f"{len(found.duplicates):,} pairs of images that are one picture ({duplicates})")
    if found.against is not None:
        console.print(f"{len(found.shared):,} pairs of identities shared with {found.against.name}")
    if known is not None:
        _say_known(known, console)


def _say_known(known: list[KnownMatch], console: Console) -> None:
    for group in dict.fromkeys(match.group for match in known):
        of = [match for match in known if match.group == group]
        hits = sum(match.found for match in of)
        name = f" ({group})" if group else ""
        console.print(f"Of {len(of):,} known matches{name}, {hits:,} were found: {100 * hits / len(of):.1f} %")
    for match in known:
        if not match.found:
            name = f", {match.group}" if match.group else ""
            console.print(
                f"missed: {match.identity_a} and {match.identity_b}{name}: centers {match.similarity:.3f}, best pair "
                f"of images {match.best_similarity:.3f}"
            )
