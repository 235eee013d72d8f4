"""``unpg evaluate runs/name --benchmark lfw cfp-fp --flip sum --out results``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from unpg.cli.model_option import open_model, presets
from unpg.data import ImageSet
from unpg.embed import FLIPS, Model
from unpg.embed.memory import keep_freed_memory
from unpg.evaluate import BASELINES, Benchmark, EmbedFunction, Result, embedder, open_benchmark, save_results
from unpg.evaluate.verification import FOLD_RULES

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Parse, embed, judge, print and save."""
    parser = argparse.ArgumentParser(prog="unpg evaluate", description="Judge a model on benchmarks.")
    parser.add_argument("model", help="model file, run folder, or with --import-as weights of others")
    parser.add_argument("--import-as", metavar="FORM", help=f"read weights of others: {presets()}")
    parser.add_argument(
        "--benchmark",
        nargs="+",
        required=True,
        help="lfw, cfp-ff, cfp-fp, lfw-allpairs, cfp-allpairs, a CSV of pairs (path_a,path_b,same[,fold]), or a folder "
        "of identities (all pairs)",
    )
    parser.add_argument("--data", help="data root (default: $UNPG_DATA, else ../shared/data)")
    parser.add_argument("--flip", choices=FLIPS, default="none", help="fusion with the mirror image (default: none)")
    parser.add_argument(
        "--folds",
        choices=FOLD_RULES,
        default="exact",
        help="rule of the accuracy that is printed; all are saved (default: exact)",
    )
    parser.add_argument(
        "--baselines", action="store_true", help=f"judge trivial embeddings too: {', '.join(BASELINES)}"
    )
    parser.add_argument("--out", help="folder for results.json and the scores (default: only print)")
    parser.add_argument("--name", help="what to call the model (default: the file's or folder's name)")
    parser.add_argument("--batch-size", type=int, default=32, help="images at once (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="threads that decode images")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    found = parser.parse_args(list(arguments))
    console = Console()
    if found.device == "cpu":
        keep_freed_memory()
    model = open_model(found.model, found.import_as)
    name = found.name or Path(found.model).stem
    benchmarks = [open_benchmark(b, found.data) for b in found.benchmark]
    rows = {name: [b.run(_embedder(model, found, b, console)) for b in benchmarks]}
    if found.baselines:
        rows |= {label: [b.run(BASELINES[label]) for b in benchmarks] for label in BASELINES}
    for i in range(len(benchmarks)):
        console.print(_table({label: results[i] for label, results in rows.items()}, found.folds))
    if found.out:
        for label, results in rows.items():
            folder = Path(found.out) if label == name else Path(found.out) / label
            save_results(folder, results, model=label, flip=found.flip if label == name else "none")
        console.print(f"Wrote {found.out}")


def _embedder(model: Model, found: argparse.Namespace, benchmark: Benchmark, console: Console) -> EmbedFunction:
    def embedded(images: ImageSet) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(f"embedding {benchmark.name}", total=len(images))
            return embedder(
                model,
                flip=found.flip,
                batch_size=found.batch_size,
                device=found.device,
                workers=found.workers,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )(images)

    return embedded


def _table(results: dict[str, Result], folds: str) -> Table:
    first = next(iter(results.values())).to_dict()
    counts = f"{first['genuine']:,} genuine, {first['impostor']:,} impostor pairs"
    if first.get("left_out"):
        counts += f"; {first['left_out']} pairs left out: an image is missing"
    table = Table(title=f"{first['benchmark']}: {counts}", title_justify="left")
    table.add_column("model")
    metrics = [m for m in ("accuracy", "eer", "auc") if m != "accuracy" or first.get("accuracy")]
    for metric in metrics:
        table.add_column(f"accuracy ({folds})" if metric == "accuracy" else metric.upper(), justify="right")
    for point in first["tar_at_far"]:
        table.add_column(f"TAR@FAR={point['target']:g}", justify="right")
    marked = refused = False
    for label, result in results.items():
        told = result.to_dict()
        cells = []
        for metric in metrics:
            if metric == "accuracy":
                fold = told["accuracy"][folds]
                cells.append(f"{100 * fold['mean']:.2f} ± {100 * fold['std']:.2f}")
            else:
                cells.append(f"{100 * told[metric]:.2f}")
        for point in told["tar_at_far"]:
            value, reliable = point["value"], point["reliable"]
            refused |= value is None
            marked |= value is not None and not reliable
            cells.append("refused" if value is None else f"{100 * value:.2f}{'' if reliable else ' *'}")
        table.add_row(label, *cells)
    notes = []
    if refused:
        notes.append("refused: less than one false accept is expected at this FAR")
    if marked:
        notes.append("*: fewer than thirty false accepts are expected")
    table.caption = "percent" + "".join(f"; {note}" for note in notes)
    table.caption_justify = "left"
    return table
