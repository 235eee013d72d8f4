"""``unpg evaluate runs/name --benchmark lfw cfp-fp --flip sum --out results``."""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from unpg.evaluate import (
    BASELINES,
    AllPairsBenchmark,
    AllPairsResult,
    Benchmark,
    Bootstrap,
    EmbedFunction,
    PairResult,
    Result,
    embedder,
    open_benchmark,
    save_results,
)
from unpg.evaluate.curves import target_name
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
        help="lfw, cfp-ff, cfp-fp, lfw-allpairs, cfp-allpairs, a CSV of pairs (path_a,path_b,same[,fold]), a .bin "
        "file of pairs, or a folder of identities (all pairs)",
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
    parser.add_argument(
        "--intervals",
        choices=("bootstrap", "none"),
        default="bootstrap",
        help="interval of each figure, by drawing identities; needed for paired differences (default: bootstrap)",
    )
    parser.add_argument(
        "--replicates", type=int, default=Bootstrap.replicates, help="draws of the bootstrap (default: %(default)s)"
    )
    parser.add_argument(
        "--confidence", type=float, default=Bootstrap.confidence, help="of the intervals (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=Bootstrap.seed,
        help="of the bootstrap; models that are to be compared need the same (default: %(default)s)",
    )
    parser.add_argument("--out", help="folder for results.json and the scores (default: only print)")
    parser.add_argument("--name", help="what to call the model (default: the file's or folder's name)")
    parser.add_argument("--batch-size", type=int, default=32, help="images at once (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="threads that decode images")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    found = parser.parse_args(list(arguments))
    console = Console()
    settings = None
    if found.intervals == "bootstrap":
        settings = Bootstrap(found.replicates, found.confidence, found.seed)
    if found.device == "cpu":
        keep_freed_memory()
    model = open_model(found.model, found.import_as)
    name = found.name or Path(found.model).stem
    benchmarks = [open_benchmark(b, found.data) for b in found.benchmark]
    if settings is not None:
        benchmarks = [_with_evidence(b) for b in benchmarks]
    rows = {name: [_judged(b, _embedder(model, found, b, console), settings, console) for b in benchmarks]}
    if found.baselines:
        rows |= {label: [_judged(b, BASELINES[label], settings, console) for b in benchmarks] for label in BASELINES}
    for i in range(len(benchmarks)):
        _show({label: results[i] for label, results in rows.items()}, found.folds, console)
    if found.out:
        for label, results in rows.items():
            folder = Path(found.out) if label == name else Path(found.out) / label
            save_results(folder, results, model=label, flip=found.flip if label == name else "none")
        console.print(f"Wrote {found.out}")


def _with_evidence(benchmark: Benchmark) -> Benchmark:
    return dataclasses.replace(benchmark, evidence=True) if isinstance(benchmark, AllPairsBenchmark) else benchmark


def _judged(benchmark: Benchmark, embed: EmbedFunction, settings: Bootstrap | None, console: Console) -> Result:
    result = benchmark.run(embed)
    if settings is None or not isinstance(result, PairResult | AllPairsResult):
        return result
    began = time.perf_counter()
    with console.status(f"drawing identities of {benchmark.name}"):
        result = result.with_intervals(settings)
    console.print(f"{benchmark.name}: intervals took {time.perf_counter() - began:.1f} s", highlight=False)
    return result


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


def _show(results: dict[str, Result], folds: str, console: Console) -> None:
    told = {label: result.to_dict() for label, result in results.items()}
    first = next(iter(told.values()))
    counts = f"{first['genuine']:,} genuine, {first['impostor']:,} impostor pairs"
    if first.get("left_out"):
        counts += f"; {first['left_out']} pairs left out: an image is missing"
    table = Table()
    table.add_column("percent")
    for label in told:
        table.add_column(label, justify="right")
    if first.get("accuracy"):
        rates = [found["accuracy"][folds] for found in told.values()]
        metric = "accuracy" if folds == "exact" else f"accuracy_{folds.replace('-', '_')}"
        table.add_row(
            f"accuracy ({folds})",
            *(
                f"{100 * r['mean']:.2f} ± {100 * r['std']:.2f}{_interval(found, metric)}"
                for r, found in zip(rates, told.values(), strict=True)
            ),
        )
    for metric in ("auc", "eer"):
        cells = [f"{100 * found[metric]:.2f}{_interval(found, metric)}" for found in told.values()]
        table.add_row(metric.upper(), *cells)
    notes = {note for found in told.values() for note in _notes(found)}
    for i, point in enumerate(first["tar_at_far"]):
        cells = []
        for found in told.values():
            value, reliable = found["tar_at_far"][i]["value"], found["tar_at_far"][i]["reliable"]
            mark = "" if reliable else " *"
            interval = _interval(found, f"tar@far={target_name(point['target'])}")
            cells.append("refused" if value is None else f"{100 * value:.2f}{mark}{interval}")
            if value is None:
                notes.add("refused: less than one false accept is expected at this FAR")
            elif not reliable:
                notes.add("*: fewer than thirty false accepts are expected at this FAR")
        table.add_row(f"TAR at FAR {point['target']:g}", *cells)
    console.print(f"\n[bold]{first['benchmark']}[/bold]: {counts}", highlight=False)
    console.print(table)
    for note in sorted(notes):
        console.print(note, highlight=False)


def _interval(found: dict[str, Any], metric: str) -> str:
    interval = found.get("intervals", {}).get("figures", {}).get(metric)
    if interval is None or interval["low"] is None:
        return ""
    return f" [{100 * interval['low']:.2f}, {100 * interval['high']:.2f}]"


def _notes(found: dict[str, Any]) -> list[str]:
    intervals = found.get("intervals")
    if intervals is None:
        return []
    if intervals["refused"]:
        return [intervals["refused"]]
    said = f"{100 * intervals['confidence']:.4g} % intervals: {intervals['method']}, {intervals['replicates']:,} draws"
    return [said, *intervals["notes"]]
