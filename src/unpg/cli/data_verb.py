"""``unpg data {info, check, convert, split, audit} SOURCE``, and ``unpg data synth``."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from unpg.cli import data_audit, data_convert, data_synth
from unpg.cli.screen import Screen
from unpg.data.check import check_set, write_findings
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
    what = (
        "folder of identities; .rec, .parquet, .tar, LMDB or labels.csv, or their folder; .bin, .csv or list (.txt); "
        "or a .yaml with what a recipe has under data"
    )
    for verb, text in (
        ("info", "count images and identities, estimate the time of an epoch"),
        ("check", "decode every image and list what is wrong; exit status 1 if anything is"),
        ("convert", "copy to another form, image files byte for byte; the same command goes on after a stop"),
        ("split", "write two lists that share no identity"),
        ("audit", "with a model, find what is likely wrong with the labels; exit status 1 if anything is"),
    ):
        verbs.add_parser(verb, help=text, description=text).add_argument("source", help=what)
    verbs.choices["info"].add_argument(
        "--workers", type=int, default=1, help="processes that will decode, for the estimate (default: %(default)s)"
    )
    verbs.choices["check"].add_argument("--out", help="write the list to this CSV file: kind, image, detail")
    data_convert.add_options(verbs.choices["convert"])
    verbs.choices["split"].add_argument("--out", required=True, help="folder for rest.txt and held_out.txt")
    verbs.choices["split"].add_argument(
        "--fraction", type=float, default=0.1, help="share of identities held out (default: 0.1)"
    )
    verbs.choices["split"].add_argument("--seed", type=int, default=0, help="which ones (default: %(default)s)")
    data_audit.add_options(verbs.choices["audit"])
    text = "render people who do not exist: K-FACE's grid with its lists, or folders of identities"
    data_synth.add_options(verbs.add_parser("synth", help=text, description=text))
    found = parser.parse_args(list(arguments))
    console = Screen(highlight=False, soft_wrap=True, markup=False)
    if found.verb == "synth":
        data_synth.run_synth(found, console)
        return
    if found.verb == "convert":
        data_convert.run_convert(found, console)
        return
    image_set = open_source(found.source)
    if found.verb == "info":
        console.print(inspect_set(image_set, found.workers).text())
    elif found.verb == "split":
        for file, count in split_to_lists(image_set, found.out, fraction=found.fraction, seed=found.seed):
            console.print(f"Wrote {file}: {count:,} identities")
    elif found.verb == "audit":
        data_audit.run_audit(found, image_set, console)
    else:
        with data_convert.bar() as bar:
            task = bar.add_task("check", total=len(image_set))
            findings = check_set(image_set, lambda done, total: bar.update(task, completed=done, total=total))
        if found.out:  # first: the screen may be closed
            write_findings(found.out, findings)
        for finding in findings:
            console.print(f"{finding.kind}: {finding.name}: {finding.detail}")
        counts = ", ".join(f"{count:,} {kind}" for kind, count in Counter(f.kind for f in findings).items())
        console.print(f"{len(image_set):,} images; {counts or 'no fault'}")
        if found.out:
            console.print(f"Wrote {found.out}")
        if findings:
            sys.exit(1)
