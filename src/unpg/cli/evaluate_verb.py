"""``unpg evaluate runs/name --benchmark lfw cfp-fp --flip sum --out results``."""

import argparse
import dataclasses
import inspect
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from unpg.cli.model_option import open_model, presets
from unpg.cli.result_table import BEST_THRESHOLD, show_results
from unpg.cli.screen import Screen
from unpg.data import ImageSet
from unpg.distributed import World
from unpg.embed import FLIPS, Model, SharedEmbeddings, default_cache, weights_digest
from unpg.embed.memory import keep_freed_memory
from unpg.errors import ConfigError, DataError, did_you_mean
from unpg.evaluate import (
    BASELINES,
    BENCHMARKS,
    LAYOUTS,
    MODEL_BASELINES,
    OWN_DATA,
    POOLINGS,
    AllPairsBenchmark,
    AllPairsResult,
    Benchmark,
    BlufrBenchmark,
    Bootstrap,
    DistractorBenchmark,
    EmbedFunction,
    GroupBenchmark,
    GroupedResult,
    IdentificationResult,
    PairResult,
    Result,
    SearchBenchmark,
    TemplateBenchmark,
    TemplateResult,
    ThresholdRule,
    chosen_threshold,
    judge_megaface_features,
    open_benchmark,
    parse_threshold_rule,
    save_results,
)
from unpg.evaluate.layouts import layout_text, set_of
from unpg.evaluate.results import check_folder
from unpg.evaluate.transfer import THRESHOLD_RULES
from unpg.evaluate.verification import FOLD_RULES
from unpg.train.setup import device_of
from unpg.train.summary import environment

__all__ = ["run"]

SHOWN_HARDEST = 50
"""The hardest pairs of each kind that all-pairs results name."""

_Judged = PairResult | AllPairsResult | TemplateResult


def run(arguments: Sequence[str]) -> None:
    """Parse, embed, judge, print and save. Of several processes (torchrun) each embeds a part; the first one prints."""
    found = _parser().parse_args(list(arguments))
    with World.joined(device=device_of(found.device).type) as world:
        found.device = str(device_of(found.device, world))
        _run(found, world)


def _run(found: argparse.Namespace, world: World) -> None:
    console = Screen(quiet=not world.first, markup=False)  # names of files may look like it
    if found.list or found.layout:
        _tell(found, console)
        return
    settings = None
    if found.intervals == "bootstrap":
        settings = Bootstrap(found.replicates, found.confidence, found.seed)
    if found.features and found.benchmark and found.model is None:
        _judge_features(found, settings, console)
        return
    if found.features:
        raise ConfigError("--features takes the place of a model; give one of them, and --benchmark megaface.")
    if found.model is None or not found.benchmark:
        raise ConfigError("unpg evaluate needs a model and --benchmark; --list shows the benchmarks.")
    if found.device == "cpu":
        keep_freed_memory()
    rule = parse_threshold_rule(found.threshold_from) if found.threshold_from else None
    wanted = _baselines(found.baselines)
    model = open_model(found.model, found.import_as)
    name = found.name or Path(found.model).stem
    if name in wanted:
        raise ConfigError(f"The model and a baseline are both called {name}: give the model another --name.")
    benchmarks = [_prepared(open_benchmark(b, found.data), found, settings) for b in dict.fromkeys(found.benchmark)]
    source = None
    if rule is not None:
        source = next((b for b in benchmarks if b.name == rule.benchmark), None)
        source = source or _prepared(open_benchmark(rule.benchmark, found.data), found, None)
        _require_rule_for(rule, source)
    digest = weights_digest(model.backbone)
    if found.out:  # before the work, which would be lost
        Path(found.out).mkdir(parents=True, exist_ok=True)
        judged = [benchmark.name for benchmark in benchmarks]
        check_folder(found.out, judged, weights_digest=digest, flip=found.flip)
        for label in wanted:
            check_folder(Path(found.out) / label, judged)
    judge = _Judge(found, settings, rule, source, console, world)
    # Baselines embed after the model, and each of them every set once.
    embeds: dict[str, EmbedFunction] = {name: judge.embedder(model)}
    for label in wanted:
        made = MODEL_BASELINES[label](model, judge.embedder) if label in MODEL_BASELINES else BASELINES[label]
        embeds[label] = _once(made)
    rows = {label: judge.all(label, embed, benchmarks) for label, embed in embeds.items()}
    if found.out and world.first:
        for label, results in rows.items():
            folder = Path(found.out) if label == name else Path(found.out) / label
            flipped = label == name or label in MODEL_BASELINES
            own = {"weights_digest": digest} if label == name else {}
            save_results(
                folder,
                results,
                model=label,
                flip=found.flip if flipped else "none",
                versions=environment(),
                data_digests={benchmark.name: benchmark.images.digest() for benchmark in benchmarks},
                **own,
            )
    for i in range(len(benchmarks)):
        show_results({label: results[i] for label, results in rows.items()}, found.folds, console)
    for note in dict.fromkeys(judge.notes):
        console.print(note, highlight=False)
    if found.out:
        console.print(f"Wrote {found.out}")


def _require_rule_for(rule: ThresholdRule, source: Benchmark) -> None:
    """Refuse a rule that the set has no use for, before anything is embedded."""
    if isinstance(source, GroupBenchmark):
        raise ConfigError(f"--threshold-from: {rule.benchmark} has groups; name a set that has none.")
    if isinstance(source, SearchBenchmark | BlufrBenchmark | DistractorBenchmark):
        rule.require_searches()
    else:
        rule.require_pairs()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unpg evaluate", description="Judge a model on benchmarks.")
    parser.add_argument("model", nargs="?", help="model file, run folder, or with --import-as weights of others")
    parser.add_argument("--import-as", metavar="FORM", help=f"read weights of others: {presets()}")
    parser.add_argument("--benchmark", nargs="+", metavar="SET", help=f"{', '.join(BENCHMARKS)}, {OWN_DATA}")
    parser.add_argument("--list", action="store_true", help="say what each benchmark is, and stop")
    parser.add_argument("--layout", metavar="SET", help="show where a set is expected and where one gets it, and stop")
    parser.add_argument("--data", help="data root (default: $UNPG_DATA, else ../shared/data)")
    parser.add_argument(
        "--features",
        nargs=3,
        metavar=("FACESCRUB", "MEGAFACE", "ENDING"),
        help="instead of a model: folders of the MegaFace devkit's feature files and the ending of their names, as "
        "_r100.bin; for megaface and megaface-refined",
    )
    parser.add_argument("--flip", choices=FLIPS, default="none", help="fusion with the mirror image (default: none)")
    parser.add_argument(
        "--pooling",
        choices=tuple(POOLINGS),
        default="unpg-authors",
        help="how images of IJB become templates (default: %(default)s)",
    )
    parser.add_argument(
        "--folds",
        choices=(*FOLD_RULES, BEST_THRESHOLD),
        default="exact",
        help="rule of the accuracy that is printed; all are saved (default: exact)",
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        metavar="NAME",
        help=f"judge trivial embeddings too, all or those named: {', '.join([*BASELINES, *MODEL_BASELINES])}",
    )
    parser.add_argument(
        "--threshold-from",
        metavar="SET:RULE",
        help=f"print the errors at a threshold chosen on another set, as lfw:far=1e-3 or ijbc-1n:fpir=0.01@G1; rules: "
        f"{', '.join(THRESHOLD_RULES)}",
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
    parser.add_argument("--workers", type=int, default=1, help="threads that decode images (default: %(default)s)")
    parser.add_argument(
        "--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ... (default: %(default)s)"
    )
    parser.add_argument(
        "--cache",
        default=str(default_cache()),
        help="folder in which embeddings are kept, or 'none' (default: %(default)s)",
    )
    return parser


def _tell(found: argparse.Namespace, console: Console) -> None:
    if found.list:
        for name in BENCHMARKS:
            console.print(
                f"{name:16} {(inspect.getdoc(BENCHMARKS[name]) or '').splitlines()[0]}", highlight=False, soft_wrap=True
            )
    if found.layout:
        set_name = set_of(found.layout)
        if set_name is None:
            raise DataError(f"No set is called {found.layout!r}.{did_you_mean(found.layout, LAYOUTS)}")
        console.print(layout_text(set_name), highlight=False, soft_wrap=True)


def _judge_features(found: argparse.Namespace, settings: Bootstrap | None, console: Console) -> None:
    label = found.name or "features"
    if found.out:
        check_folder(found.out, found.benchmark, weights_digest=None, flip=None)
    facescrub, megaface, ending = found.features
    results = [judge_megaface_features(name, facescrub, megaface, ending, found.data) for name in found.benchmark]
    if settings is not None:
        results = [result.with_intervals(settings) for result in results]
    if found.out:
        save_results(found.out, results, model=label)
    for result in results:
        show_results({label: result}, found.folds, console)
    if found.out:
        console.print(f"Wrote {found.out}")


def _baselines(named: list[str] | None) -> list[str]:
    if named is None:
        return []
    known = [*BASELINES, *MODEL_BASELINES]
    for name in named:
        if name not in known:
            raise ConfigError(f"No baseline is called {name!r}.{did_you_mean(name, known)}")
    return named or known


def _once(embed: EmbedFunction) -> EmbedFunction:
    """The same function, which goes over each image set once."""
    known: dict[int, tuple[ImageSet, tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}

    def embedded(images: ImageSet) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if id(images) not in known:
            known[id(images)] = (images, embed(images))  # held, so that no other set gets its number
        return known[id(images)][1]

    return embedded


def _prepared(benchmark: Benchmark, found: argparse.Namespace, settings: Bootstrap | None) -> Benchmark:
    """The benchmark with what this call asks of it."""
    if isinstance(benchmark, AllPairsBenchmark):
        return dataclasses.replace(benchmark, evidence=settings is not None, hardest=SHOWN_HARDEST, device=found.device)
    if isinstance(benchmark, BlufrBenchmark):
        return dataclasses.replace(benchmark, evidence=settings is not None)
    if isinstance(benchmark, TemplateBenchmark | SearchBenchmark):
        return dataclasses.replace(benchmark, pooling=found.pooling)
    return benchmark


class _Judge:
    """Embeds and judges, one model or baseline after the other."""

    def __init__(
        self,
        found: argparse.Namespace,
        settings: Bootstrap | None,
        rule: ThresholdRule | None,
        source: Benchmark | None,
        console: Console,
        world: World,
    ) -> None:
        self.found, self.settings, self.rule, self.source, self.console = found, settings, rule, source, console
        self.world = world
        self.notes: list[str] = []

    def embedder(self, model: Model) -> EmbedFunction:
        """What embeds an image set with ``model``, each image once."""
        found = self.found
        shared = SharedEmbeddings(
            model,
            None if found.cache == "none" else found.cache,
            flip=found.flip,
            batch_size=found.batch_size,
            device=found.device,
            workers=found.workers,
            world=self.world,
        )

        def embedded(images: ImageSet) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            with Progress(console=self.console, transient=True) as progress:
                task = progress.add_task("embedding", total=len(images))
                embeddings = shared(images, lambda done, total: progress.update(task, completed=done, total=total))
            return embeddings.vectors, embeddings.norms

        return embedded

    def all(self, label: str, embed: EmbedFunction, benchmarks: Sequence[Benchmark]) -> list[Result]:
        """The results of one model on every benchmark."""
        # The largest set first: smaller ones are often parts of it, and then cost nothing.
        for benchmark in sorted(benchmarks, key=lambda b: -len(b.images)) if len(benchmarks) > 1 else ():
            embed(benchmark.images)
        source = self.source.run(embed) if self.source is not None else None
        threshold = self._threshold(label, source)
        return [
            self._one(benchmark, embed, threshold, source if benchmark is self.source else None)
            for benchmark in benchmarks
        ]

    def _threshold(self, label: str, result: Result | None) -> float | None:
        if self.rule is None or result is None:
            return None
        try:
            if isinstance(result, IdentificationResult):
                return result.threshold(self.rule)
            assert isinstance(result, _Judged)  # _require_rule_for
            return chosen_threshold(result.operating_points(), self.rule)
        except DataError as error:
            self.notes.append(f"{label}: {error}")
            return None

    def _one(
        self, benchmark: Benchmark, embed: EmbedFunction, threshold: float | None, judged: Result | None
    ) -> Result:
        own = self.rule is not None and benchmark.name == self.rule.benchmark
        # Of one benchmark, the other galleries meet the threshold of one of them as strangers.
        gallery = self.rule.gallery if self.rule is not None and own else ""
        foreign = threshold is not None and (not own or bool(gallery))
        if foreign and isinstance(benchmark, GroupBenchmark):
            benchmark = dataclasses.replace(benchmark, threshold=threshold, chosen=str(self.rule))
        result = benchmark.run(embed) if judged is None else judged
        began = time.perf_counter()
        with self.console.status(Text(f"drawing identities of {benchmark.name}")):
            if foreign and threshold is not None:
                if isinstance(result, _Judged):
                    result = result.with_threshold(threshold, str(self.rule), self.settings)
                elif isinstance(result, IdentificationResult) and [*result.per_gallery] != [gallery]:
                    result = result.with_threshold(threshold, str(self.rule), self.settings, without=gallery)
            if self.settings is not None and isinstance(result, _Judged | GroupedResult | IdentificationResult):
                result = result.with_intervals(self.settings)
        if self.settings is not None:
            took = time.perf_counter() - began
            self.console.print(f"{benchmark.name}: intervals took {took:.1f} s", highlight=False, markup=False)
        return result
