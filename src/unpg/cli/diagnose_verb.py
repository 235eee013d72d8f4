"""``unpg diagnose runs/name --benchmark lfw``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from unpg.cli.model_option import open_model, presets
from unpg.cli.screen import Screen
from unpg.data.open_source import open_source
from unpg.diagnose import DiagnoseOptions, diagnose_model, diagnose_run
from unpg.errors import ConfigError
from unpg.evaluate import SetDiagnosis, load_diagnosis, open_benchmark, save_diagnosis
from unpg.evaluate.results import scores_path
from unpg.report.figures import write_text
from unpg.report.mismatch import mismatches

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Parse, diagnose, print, and write figures and pictures."""
    parser = argparse.ArgumentParser(
        prog="unpg diagnose",
        description="How far an embedding is from inf S^p > sup S^n, and which negatives its loss sees of all that "
        "there are. A run folder is diagnosed over its training set, with its class weights, and over test sets; a "
        "model alone over test sets.",
    )
    parser.add_argument("model", help="run folder, model file, or with --import-as weights of others")
    parser.add_argument("--import-as", metavar="FORM", help=f"read weights of others: {presets()}")
    parser.add_argument("--benchmark", nargs="+", default=[], help="test sets, as unpg evaluate takes them")
    parser.add_argument("--data", help="a labelled set as test set: folder of identities, .rec, .csv, .parquet or list")
    parser.add_argument("--batches", type=int, default=64, help="sample so many at most (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, help="images in each (default: the run's, else 256)")
    parser.add_argument(
        "--images", type=int, default=20_000, help="of a larger set, draw so many images (default: %(default)s)"
    )
    parser.add_argument(
        "--flip-labels",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="change this share of the labels on purpose, and see how much of that noise each filter finds",
    )
    parser.add_argument(
        "--truth",
        metavar="FILE",
        help="truth.csv of `unpg data synth`: whom the images of the training set, or of --data, really show",
    )
    parser.add_argument("--seed", type=int, default=0, help="of images, batches and labels drawn (default: 0)")
    parser.add_argument("--out", help="folder for diagnosis.json and the pictures (default: the run folder)")
    parser.add_argument("--workers", type=int, default=1, help="threads that decode images (default: %(default)s)")
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ... (default: %(default)s)"
    )
    found = parser.parse_args(list(arguments))
    console = Screen(highlight=False, markup=False)  # names of files may look like it
    if found.out:
        Path(found.out).mkdir(parents=True, exist_ok=True)  # before the work, which would be lost
    with Progress(console=console, transient=True) as progress:
        sets, is_run = _diagnosed(found, progress)
    for one in sets:
        _show(one, console)
    out = found.out or (found.model if is_run else None)
    if out is None:
        console.print("Nothing was written: give --out for the figures and the pictures.")
        return
    name = Path(found.model).resolve().stem
    save_diagnosis(out, sets, model=name, seed=found.seed, flip_labels=found.flip_labels)
    for one, drawing in zip(sets, mismatches(load_diagnosis(out), name), strict=True):
        picture = Path(out) / f"diagnosis-{scores_path(Path(), one.name).stem}.svg"
        write_text(picture, drawing.svg)
        console.print(f"Wrote {picture}", markup=False)
    console.print(f"Wrote {Path(out) / 'diagnosis.json'}; `unpg report` shows it.", markup=False)


def _diagnosed(found: argparse.Namespace, progress: Progress) -> tuple[list[SetDiagnosis], bool]:
    tasks = {}

    def tell(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = progress.add_task(escape(f"embedding {name}"), total=total)
        progress.update(tasks[name], completed=done)

    options = DiagnoseOptions(
        batches=found.batches,
        batch_size=found.batch_size,
        images=found.images,
        flip_labels=found.flip_labels,
        truth=None if found.truth is None else Path(found.truth),
        seed=found.seed,
        device=found.device,
        workers=found.workers,
        progress=tell,
    )
    data = {found.data: open_source(found.data)} if found.data else {}
    if found.import_as is None and (Path(found.model) / "config.yaml").is_file():
        if data:
            raise ConfigError("A run knows its training set; give another labelled set as --benchmark FOLDER.")
        return diagnose_run(Path(found.model), found.benchmark, options), True
    model = open_model(found.model, found.import_as)
    return diagnose_model(model, [open_benchmark(name) for name in found.benchmark], data, options), False


def _show(one: SetDiagnosis, console: Console) -> None:
    wdfs = one.wdfs
    p, n = wdfs.positives, wdfs.negatives
    people = f" of {one.identities:,} people" if one.identities else ""
    console.print(Text.assemble("\n", (one.name, "bold"), f": {one.images:,} images{people}"))
    if one.unreadable:
        console.print(f"{one.unreadable:,} images left out: they cannot be read.")
    if one.flipped:
        console.print(f"{one.flipped:,} labels are wrong on purpose; S^p and S^n go by the true ones.")
    table = Table()
    for heading in ("", "pairs", "smallest", "0.1 %", "median", "99.9 %", "largest"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, seen in (("S^p, one person", p), ("S^n, two people", n)):
        cells = (seen.minimum, *(seen.quantile(q) for q in (0.001, 0.5, 0.999)), seen.maximum)
        table.add_row(name, f"{int(seen.total):,}", *(f"{cell:.3f}" for cell in cells))
    console.print(table)
    relative = "" if wdfs.relative_gap is None else f" ({wdfs.relative_gap:.2f} times the distance of their means)"
    console.print(
        f"inf S^p - sup S^n: {wdfs.gap:.3f}, robust (0.1 % and 99.9 %) {wdfs.robust_gap:.3f}{relative}; above zero is "
        f"well-discriminative.\n"
        f"Violations: {100 * wdfs.genuine_below / p.total:.2f} % of S^p do not exceed sup S^n, "
        f"{100 * wdfs.impostor_above / n.total:.2f} % of S^n reach inf S^p; P(p <= n) = {100 * wdfs.violation:.3f} %. "
        f"Overlap {100 * wdfs.overlap:.2f} %."
    )
    if one.samples:
        _show_samples(one, console)


def _show_samples(one: SetDiagnosis, console: Console) -> None:
    sampling = one.sampling
    assert sampling is not None
    noisy = any(sample.quality is not None for sample, _ in one.samples)
    weighted = any(sample.kind == "unified" for sample, _ in one.samples)
    table = Table(title=f"negatives seen in {len(sampling.batches)} batches, against S^n", title_justify="left")
    headings = ["sample", "W1", "KS", "reach", "tail in\nreach, %", "by one\nbatch, %", "tail\ndensity"]
    headings += ["classes'\nshare, %"] if weighted else []
    headings += ["pairs\ncut, %", "precision\nof cut, %", "recall of\nnoise, %"] if noisy else []
    twins = any(sample.quality is not None and sample.quality.twins for sample, _ in one.samples)
    headings += ["twins\nkept, %"] if twins else []
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "sample" else "right")
    for sample, seen in one.samples:
        cells = [f"{seen.wasserstein:.4f}", f"{seen.kolmogorov_smirnov:.3f}", f"{seen.reach:.3f}"]
        cells += [f"{100 * seen.tail_coverage:.1f}", f"{100 * seen.tail_coverage_step:.1f}", f"{seen.tail_density:.2f}"]
        cells += [f"{100 * sample.class_share:.1f}"] if weighted else []
        if noisy:
            quality = sample.quality
            cells += (
                [f"{100 * quality.cut / quality.offered:.2f}", _percent(quality.precision), _percent(quality.recall)]
                if quality is not None
                else ["", "", ""]
            )
            cells += ["" if quality is None else _percent(quality.twins_kept)] if twins else []
        table.add_row(sample.name, *cells)
    console.print(table)
    console.print(
        "W1: Wasserstein distance to S^n in cosine; KS: Kolmogorov-Smirnov distance. Tail: the hardest 0.1 % of S^n; "
        "its density is how often the sample draws from there, 1 being right."
    )
    if weighted:
        counted = "as much as all classes" if sampling.balanced else "once"
        times = "" if sampling.batch_weight == 1 else f" times {sampling.batch_weight:g}"
        console.print(
            f"UNPG: each similarity with a class once per anchor; those of the batch count {counted} per anchor{times}."
        )


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f}"
