"""``unpg study run recipes/study/tier1.yaml --jobs 2``, then ``diagnose`` and ``summary`` of the same file."""

import argparse
import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich.markup
import rich.table
from rich.console import Console

from unpg.cli.screen import Screen
from unpg.diagnose import DiagnoseOptions
from unpg.errors import ConfigError, did_you_mean
from unpg.study import Plan, Results, Study, read_study, results_path
from unpg.study.budget import POWER, detectable, hours, seed_spread
from unpg.study.diagnoses import diagnose_study, diagnoses_of
from unpg.study.runner import run_study

if TYPE_CHECKING:
    from unpg.report.table import Table

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Parse, then run or sum up."""
    parser = argparse.ArgumentParser(
        prog="unpg study",
        description="Train arms with several seeds, settings chosen on held-out training people, and compare them.",
    )
    verbs = parser.add_subparsers(dest="what", required=True, metavar="run | diagnose | summary")
    running = verbs.add_parser("run", help="make the runs that are not there yet")
    running.add_argument("--jobs", type=int, default=1, help="runs at once (default: 1)")
    running.add_argument(
        "--threads", type=int, help="CPU threads of each run (default: the cores of this machine over --jobs)"
    )
    running.add_argument("--compile", action="store_true", help="compile the networks: faster, needs a C++ compiler")
    running.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="these seeds of the study")
    running.add_argument("--dry-run", action="store_true", help="say what would run and what it costs, and stop")
    looking = verbs.add_parser("diagnose", help="which negatives the losses of finished runs see")
    looking.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    summing = verbs.add_parser("summary", help="tables and figures of what is finished")
    summing.add_argument("--markdown", metavar="FILE", help="write the tables there")
    summing.add_argument("--figures", metavar="DIR", help="write figures there, SVG")
    for one, which in ((running, "these arms, and trials they build on"), (looking, "these arms")):
        one.add_argument("--only", nargs="+", default=[], metavar="ARM", help=which)
        one.add_argument("--out", default="study", help="folder of the runs (default: %(default)s)")
    for one in (running, looking, summing):
        one.add_argument("study", help="YAML file of the study")
        one.add_argument(
            "--results", metavar="FILE", help="JSON lines of results (default: results/<study>.jsonl beside the study)"
        )
    found = parser.parse_args(list(arguments))
    path = Path(found.study)
    study, base = read_study(path)
    results = Results(Path(found.results) if found.results else results_path(path, study.name))
    console = Screen(highlight=False, soft_wrap=True)
    for arm in getattr(found, "only", ()):
        if arm not in study.arms:
            raise ConfigError(f"--only: no arm is called {arm!r}.{did_you_mean(arm, study.arms)}")
    if found.what == "run":
        _run(found, study, base, results, console)
    elif found.what == "diagnose":
        options = DiagnoseOptions(device=found.device)
        diagnose_study(Plan(study, base, results), Path(found.out), console, only=found.only, options=options)
    else:
        _sum_up(found, Plan(study, base, results), console)


def _run(found: argparse.Namespace, study: Study, base: dict[str, object], results: Results, console: Console) -> None:
    for name in ("jobs", "threads"):
        if getattr(found, name) is not None and getattr(found, name) < 1:
            raise ConfigError(f"--{name} must be 1 or more, got {getattr(found, name)}.")
    for seed in found.seeds or ():
        if seed not in study.seeds:
            raise ConfigError(f"--seeds: the study has the seeds {', '.join(map(str, study.seeds))}; got {seed}.")
    _tell_power(Plan(study, base, results), found.only, console)
    if found.seeds:
        study = dataclasses.replace(study, seeds=tuple(dict.fromkeys(found.seeds)))
    plan = Plan(study, base, results)
    _tell_cost(plan, found.only, found.jobs, console)
    if found.dry_run:
        for arm, one in plan.wanted(found.only):
            if one is None:
                console.print(f"waits for trials  {arm}")
            else:
                state = "to run" if results.get(one.digest) is None else "is there"
                console.print(f"{state:16}  {one.name}")
        return
    computed = {"threads": found.threads or max(1, (os.cpu_count() or 1) // found.jobs)}
    if found.compile:  # without it, as the recipes say
        computed["compile"] = True
    run_study(plan, Path(found.out), console, jobs=found.jobs, computed=computed, only=found.only)
    console.print(f"All runs are there: {results.path}. Next: unpg study summary {found.study}")


def _tell_cost(plan: Plan, only: Sequence[str], jobs: int, console: Console) -> None:
    estimate, runs, waiting = hours(plan, only, jobs)
    cost = "nobody knows the hours yet: no result is there, and the study has no images_per_second"
    if estimate is not None:
        cost = f"about {estimate:.1f} hours, {jobs} at once, if each is as fast as known"
    wait = f", {waiting} of them with settings that trials choose" if waiting else ""
    console.print(f"Budget: {runs} runs to make{wait}; {cost}.")


def _tell_power(plan: Plan, only: Sequence[str], console: Console) -> None:
    study = plan.study
    seeds = len(study.seeds)
    compared = study.comparisons
    # Which run an arm has is known from its data: those of other arms may lie on another machine.
    seen = seed_spread([plan.differences(arm, study.primary) for arm in only or study.arms])
    spread = seen or (None if study.spread is None else math.sqrt(2) * study.spread)
    if spread is None or seeds < 2 or not compared:
        console.print("Smallest effect that can be detected: unknown; it needs two seeds, and a spread over seeds.")
        return
    smallest = detectable(spread, seeds, compared, study.intervals.confidence)
    console.print(
        f"Smallest effect that can be detected: {100 * smallest:.2f} points of {study.primary} with {seeds} seeds and "
        f"{compared} comparisons (chance {POWER:.0%}; the difference of a seed's two runs varies by {100 * spread:.2f} "
        f"points, standard deviation, {'from the results' if seen else 'from the study file'})."
    )


def _sum_up(found: argparse.Namespace, plan: Plan, console: Console) -> None:
    # Here, since tables and figures need the extra `report`, and running a study on another machine does not.
    from unpg.report.writers import to_markdown
    from unpg.study.figures import study_figures
    from unpg.study.summary import sum_up, summary_path, write_summary
    from unpg.study.tables import study_tables

    diagnosed = diagnoses_of(plan)
    summary = sum_up(plan, diagnosed)
    tables = study_tables(plan.study, summary)
    for one in tables:
        _show(one, console)
    path = summary_path(plan.results.path)
    write_summary(path, summary)
    console.print(f"Wrote {path}")
    if found.markdown:
        Path(found.markdown).write_text(to_markdown(tables, f"Study {plan.study.name}"), encoding="utf-8")
        console.print(f"Wrote {found.markdown}")
    if found.figures:
        for name, drawing in study_figures(plan.study, summary, plan.curves(), plan.by_epoch(), diagnosed).items():
            picture = Path(found.figures) / f"{plan.study.name}-{name}.svg"
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_text(drawing.svg, encoding="utf-8")
            console.print(f"Wrote {picture}: {drawing.caption}")


def _show(table: "Table", console: Console) -> None:
    shown = rich.table.Table(title=table.title, title_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if table.words or not number else "right")
    for _, _, rows in table.groups:
        for row in rows:
            cells = (f"{cell.text}\n{cell.interval}" if cell.interval else cell.text for cell in row)
            shown.add_row(*map(rich.markup.escape, cells))
    console.print(shown)
    for note in table.notes:
        console.print(note)
