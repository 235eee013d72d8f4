"""``unpg data {info, check, convert, split, audit} SOURCE``, and ``unpg data synth``."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from unpg.cli import data_synth
from unpg.cli.data_audit import add_options, run_audit
from unpg.data.check import check_set
from unpg.data.convert import FORMS, convert
from unpg.data.inspect import inspect_set
from unpg.data.open_source import open_source
from unpg.data.split import split_to_lists

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Parse and do one of the six."""
    parser = argparse.ArgumentParser(
        prog="unpg data", description="Look at, check, convert, split, audit and render image sets."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    what = "folder of identities, or a .rec, .bin, .csv, .parquet, .tar, LMDB or list (.txt) file"
    for verb, text in (
        ("info", "count images and identities"),
        ("check", "decode every image and list what is wrong; exit status 1 if anything is"),
        ("convert", "copy to RecordIO or a folder, image files byte for byte"),
        ("split", "write two lists that share no identity"),
        ("audit", "with a model, find what is likely wrong with the labels; exit status 1 if anything is"),
    ):
        verbs.add_parser(verb, help=text, description=text).add_argument("source", help=what)
    verbs.choices["convert"].add_argument("--out", required=True, help="folder to write, must not exist")
    verbs.choices["convert"].add_argument("--to", choices=FORMS, default="recordio", help="form (default: recordio)")
    verbs.choices["split"].add_argument("--out", required=True, help="folder for rest.txt and held_out.txt")
    verbs.choices["split"].add_argument("--fraction", type=float, default=0.1, help="share of identities held out")
    verbs.choices["split"].add_argument("--seed", type=int, default=0, help="which ones (default: %(default)s)")
    add_options(verbs.choices["audit"])
    text = "render people who do not exist: K-FACE's grid with its lists, or folders of identities"
    data_synth.add_options(verbs.add_parser("synth", help=text, description=text))
    found = parser.parse_args(list(arguments))
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if found.verb == "synth":
        data_synth.run_synth(found, console)
        return
    image_set = open_source(found.source)
    if found.verb == "info":
        console.print(inspect_set(image_set).text())
    elif found.verb == "split":
        for file, count in split_to_lists(image_set, found.out, fraction=found.fraction, seed=found.seed):
            console.print(f"Wrote {file}: {count:,} identities")
    elif found.verb == "audit":
        run_audit(found, image_set, console)
    else:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(found.verb, total=len(image_set))

            def progress(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            if found.verb == "convert":
                convert(image_set, found.out, found.to, progress=progress)
                findings = []
            else:
                findings = check_set(image_set, progress)
        if found.verb == "convert":
            console.print(f"Wrote {found.out}: {len(image_set):,} images")
            return
        for finding in findings:
            console.print(f"{finding.kind}: {finding.name}: {finding.detail}")
        counts = ", ".join(f"{count:,} {kind}" for kind, count in Counter(f.kind for f in findings).items())
        console.print(f"{len(image_set):,} images; {counts or 'no fault'}")
        if findings:
            sys.exit(1)
