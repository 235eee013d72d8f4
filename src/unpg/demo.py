"""The main job in small: train with and without UNPG on rendered faces, judge on other people, write a page."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from unpg.errors import ConfigError
from unpg.evaluate import BASELINES, Result, embedder, open_benchmark, save_results
from unpg.report import load_run, write_report
from unpg.train import EvaluationConfig, OptimConfig, SamplerConfig, TrainConfig, UnpgConfig, prepare, train
from unpg.transforms.tensor import Preprocessing

__all__ = ["demo", "demo_config"]

_COLUMNS = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "eer": "EER",
    "tar@far=1e-2": "TAR at FAR 1e-2",
    "tar@far=1e-3": "TAR at FAR 1e-3",
}


def demo_config(*, unified: bool, identities: int = 160, views: int = 12, epochs: int = 12) -> TrainConfig:
    """CosFace, plain or unified, on rendered people of whom a quarter are only judged."""
    return TrainConfig(
        data={"kind": "synthetic", "identities": identities, "views": views, "size": [64, 64]},
        loss={"kind": "cosface", "s": 24.0, "m": 0.2},
        backbone={"kind": "small_iresnet", "dim": 128, "widths": [8, 16, 32, 64]},
        preprocessing=Preprocessing(size=(64, 64)),
        # Few classes and many batch pairs: the weight balances the two sets, once the classes are spread.
        unpg=UnpgConfig(weight="balanced", start_epoch=epochs / 2) if unified else None,
        epochs=epochs,
        hold_out=0.25,
        sampler=SamplerConfig(batch_size=96),
        optim=OptimConfig(lr=0.05, warmup_epochs=1),
        channels_last=True,
        evaluation=EvaluationConfig(benchmarks=("held-out",), every_epochs=epochs / 4),
    )


def demo(out: Path, console: Console, *, data: str | None = None, **size: int) -> Path:
    """Train CosFace and CosFace + UNPG; judge both, raw pixels and the untrained network on people they never saw.

    Args:
        out: Folder for the runs, the results and the page.
        console: Where to show the table as it falls.
        data: With the root of real faces (docs/data.md), LFW is judged too.
        size: Of :func:`demo_config`: ``identities``, ``views``, ``epochs``.

    Returns:
        The page, ``out/report.html``.

    Raises:
        ConfigError: ``out`` already holds something.
        DataError: ``data`` is given and holds no LFW.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty. Remove it, or choose another folder with --out.")
    out.mkdir(parents=True, exist_ok=True)  # before the work, which would be lost
    extra = [open_benchmark("lfw", data)] if data is not None else []
    console.print("Rendering faces ...")
    config = demo_config(unified=False, **size)
    setup = prepare(config)
    benchmarks = [*setup.benchmarks, *extra]
    table = {
        "grey pixels": [benchmark.run(BASELINES["grey-pixels"]) for benchmark in benchmarks],
        "untrained network": [benchmark.run(embedder(setup.model)) for benchmark in benchmarks],
    }
    for name, results in table.items():
        save_results(out / name.replace(" ", "-"), results, model=name)
    console.print(_table(table, f"{len(setup.benchmarks[0].images)} images of people who are not trained on"))
    for name, unified in {"CosFace": False, "CosFace + UNPG": True}.items():
        run = out / name.lower().replace(" + ", "-")
        console.print(f"\n[bold]{name}[/bold]")
        trained = train(demo_config(unified=unified, **size), run, console=console)
        results = list(trained.judged) + [b.run(embedder(trained.model)) for b in extra]
        save_results(run, results, model=name)
        table[name] = results
        console.print(_table(table, "the table so far"))
    page = write_report(
        out / "report.html",
        [load_run(out / name.lower().replace(" + ", "-").replace(" ", "-"), name) for name in table],
        title="CosFace with and without UNPG, on rendered faces",
    )
    console.print(f"\nOpen {page} in a browser.")
    return page


def _table(rows: dict[str, list[Result]], title: str) -> Table:
    table = Table(title=title, title_justify="left", caption="percent; EER: less is better")
    table.add_column("")
    for result in next(iter(rows.values())):
        for metric in _metrics(result):
            table.add_column(f"{result.benchmark}\n{_COLUMNS[metric]}", justify="right")
    for name, results in rows.items():
        values = [result.metrics().get(metric) for result in results for metric in _metrics(result)]
        table.add_row(name, *("refused" if value is None else f"{100 * value:.1f}" for value in values))
    return table


def _metrics(result: Result) -> list[str]:
    """Of a list of pairs, as LFW, the accuracy; its 3,000 impostors cannot resolve much else."""
    return ["accuracy"] if result.protocol == "pairs" else [m for m in _COLUMNS if m != "accuracy"]
