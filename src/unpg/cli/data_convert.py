"""``unpg data convert SOURCE --to FORM``."""

import argparse
import re
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unpg.data.convert import FORMS, convert, convert_pairs
from unpg.data.open_source import open_source
from unpg.data.pairs import PairList, cfp_pairs, csv_pairs, lfw_pairs
from unpg.errors import ConfigError

__all__ = ["add_options", "bar", "run_convert"]

_CFP = re.compile(r"(.+):(FF|FP)")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``convert``."""
    parser.add_argument("--out", required=True, help="folder to write (with --to bin: file), must not exist")
    parser.add_argument("--to", choices=[*FORMS, "bin"], default="recordio", help="form (default: %(default)s)")
    parser.add_argument(
        "--pairs",
        help="with --to bin: LFW's pairs.txt, a .csv of path_a,path_b,same[,fold], or CFP's protocol folder with :FF "
        "or :FP; SOURCE is then the folder that its paths are relative to",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes that encode images that are no files, as rendered ones (default: %(default)s)",
    )
    parser.add_argument(
        "--shard-images",
        type=int,
        default=10_000,
        help="most images in a webdataset shard or Parquet part (default: %(default)s)",
    )


def bar() -> Progress:
    """A progress bar on the error stream, with the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def run_convert(found: argparse.Namespace, console: Console) -> None:
    """Convert, and say what is not as it was.

    Raises:
        ConfigError: ``--pairs`` without ``--to bin`` or the other way round, or an output inside the set.
    """
    if (found.to == "bin") != (found.pairs is not None):
        raise ConfigError("A .bin file is made of pairs: --to bin and --pairs go together.")
    source, out = Path(found.source), Path(found.out)
    if found.to != "bin" and source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(
            f"--out {out} lies in {source}, and would become a part of that set. Name a folder beside it."
        )
    with bar() as progress:
        task = progress.add_task("convert", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if found.to == "bin":
            listed = _pair_list(found.pairs, found.source)
            notes = convert_pairs(listed, found.out, advance)
            line = f"Wrote {found.out}: {listed.summary()}"
        else:
            made = convert(
                open_source(found.source),
                found.out,
                found.to,
                workers=found.workers,
                shard_images=found.shard_images,
                progress=advance,
            )
            notes = made.notes
            before = f", {made.resumed:,} of them before this call" if made.resumed else ""
            line = f"Wrote {made.path}: {made.images:,} images{before}"
    console.print("\n".join([line, *notes]))


def _pair_list(pairs: str, root: str) -> PairList:
    cfp = _CFP.fullmatch(pairs)
    if cfp:
        return cfp_pairs(cfp[1], "FF" if cfp[2] == "FF" else "FP", root)
    if pairs.endswith(".csv"):
        return csv_pairs(pairs, root)
    if pairs.endswith(".txt"):
        return lfw_pairs(pairs, root)
    raise ConfigError(
        f"--pairs {pairs}: expected LFW's pairs.txt, a .csv, or CFP's protocol folder with :FF or :FP at the end."
    )
