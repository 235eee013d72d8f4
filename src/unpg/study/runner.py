"""Make the runs of a study that are not there yet, several at once, each in a process of its own."""

import dataclasses
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console

from unpg.config import for_json
from unpg.errors import DataError, UnpgError
from unpg.evaluate import open_benchmark
from unpg.json_file import read_json_object
from unpg.study.job import JOB, REPLICATES, RESULT, Job
from unpg.study.plan import Plan, Run
from unpg.train import EvaluationConfig, Stopped
from unpg.train.setup import located
from unpg.train.stop import StopRequest

__all__ = ["StudyIncomplete", "finished_folder", "run_study"]

_POLL = 0.2


class StudyIncomplete(UnpgError):
    """Runs of a study failed; the others are done."""

    exit_code = 1


def run_study(
    plan: Plan,
    out: Path,
    console: Console,
    *,
    jobs: int = 1,
    computed: Mapping[str, Any] = MappingProxyType({}),
    only: Collection[str] = (),
) -> None:
    """Train, judge, and append a line to the results for each run that has none.

    Args:
        plan: What is asked for.
        out: Folder for the runs; those that a killed process left there are gone on with.
        console: Where to tell what begins and ends.
        jobs: Runs at once.
        computed: Settings of how each is computed, which its digest does not tell: ``threads``, ``compile``.
        only: As in :meth:`~unpg.study.plan.Plan.wanted`.

    Raises:
        DataError: A test set is not there, said before anything is trained.
        StudyIncomplete: A run failed; names its log. The others were made, but for those that wait for it.
        Stopped: SIGTERM or SIGINT came; the runs in progress have saved their state.
    """
    if any(run is None or (run.trial is None and not plan.results.get(run.digest)) for _, run in plan.wanted(only)):
        for name in plan.study.benchmarks:
            open_benchmark(located(name))
    running: dict[str, tuple[Run, subprocess.Popen[bytes]]] = {}
    failed: dict[str, Path] = {}
    with StopRequest() as stop:
        try:
            while stop.signal is None:
                open_runs = [run for _, run in plan.wanted(only) if run is None or plan.results.get(run.digest) is None]
                coming = {run.digest for run in open_runs if run is not None} - failed.keys()
                for run in open_runs:
                    if run is None or len(running) == jobs or run.digest in running.keys() | failed.keys():
                        continue
                    prefix = plan.prefix(run)
                    if prefix is None or prefix.digest not in coming:
                        said = ", ".join(f"{name} {value}" for name, value in run.changes.items())
                        console.print(f"begins    {run.name}: {said or 'the base'}", markup=False)
                        running[run.digest] = run, _start(run, prefix, plan, out / plan.study.name, computed)
                if not running:
                    break
                while stop.signal is None and all(process.poll() is None for _, process in running.values()):
                    time.sleep(_POLL)
                for digest, (run, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[digest]
                        if process.returncode and stop.signal is None:
                            failed[digest] = _log(out / plan.study.name / run.name)
                            console.print(f"[bold]FAILED[/bold]    {run.name}: {failed[digest]}")
                        elif not process.returncode:
                            told = _record(run, plan, out / plan.study.name)
                            console.print(f"finished  {run.name}: {told}", markup=False)
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.wait()
    if stop.signal is not None:
        raise Stopped(
            f"stopped by {stop.signal.name}; {len(running)} runs have saved their state. The same command goes on.",
            stop.signal,
        )
    lines = [plan.study.line(arm) for arm in only or plan.study.arms]
    barren = dict.fromkeys(arm for line in lines for arm in line if plan.barren(arm))
    reasons = []
    if failed:
        waiting = len(open_runs) - len(failed)
        reasons.append(
            f"{len(failed)} runs failed{f', and {waiting} wait for their trials' if waiting else ''}. See "
            f"{', '.join(map(str, failed.values()))}. The same command tries them again."
        )
    if barren:
        reasons.append(
            f"All trials of {', '.join(barren)} diverged: no settings for it, nor for what is built on it. Change "
            f"{', '.join(f'arms.{arm}.trials' for arm in barren)} in the study's file."
        )
    if reasons:
        raise StudyIncomplete(" ".join(reasons))


def _start(
    run: Run, prefix: Run | None, plan: Plan, out: Path, computed: Mapping[str, Any]
) -> "subprocess.Popen[bytes]":
    folder = out / run.name
    folder.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(run.config, **computed)
    if plan.study.share_prefix and config.unpg is None:
        every = math.ceil(config.epochs / config.checkpoint_epochs)
        config = dataclasses.replace(config, checkpoint=dataclasses.replace(config.checkpoint, keep=every))
    benchmarks: tuple[str, ...] = ()
    if run.trial is None:  # judged by the job: how, is no matter of the training, which another study may share
        benchmarks, config = plan.study.benchmarks, dataclasses.replace(config, evaluation=EvaluationConfig())
    begun = None if prefix is None else finished_folder(prefix, out)
    Job(config, run.digest, benchmarks, plan.study.flip, plan.study.intervals, begun).write(folder)
    with _log(folder).open("ab") as log:
        # A session of its own: Ctrl-C reaches this process alone, which tells the others.
        return subprocess.Popen(
            [sys.executable, "-m", "unpg.study.job", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finished_folder(run: Run, out: Path) -> str | None:
    """The folder of a run that is done, of this study or another one beside it; None if there is none any more."""
    places = [out / run.name, *sorted(out.parent.glob(f"*/*/*-{run.tag}"))]
    return next((str(place) for place in places if (place / "summary.json").exists()), None)


def _record(run: Run, plan: Plan, out: Path) -> str:
    """Append the line of a finished run; what it found, in words."""
    folder = out / run.name
    result = read_json_object(folder / RESULT)
    if result.get("digest") != run.digest:
        raise DataError(f"{folder / RESULT} is of another run than {folder / JOB}. Delete the folder.")
    if (folder / REPLICATES).exists():
        place = plan.results.replicates_path(run.digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / REPLICATES, place)
    about = {"study": plan.study.name, "arm": run.arm, "trial": run.trial, "seed": run.seed}
    plan.results.append({**about, **result, "changes": for_json(run.changes)})
    if result["diverged"]:
        return "diverged"
    figures = plan.study.endpoints
    if run.trial is not None:
        assert plan.study.tuning is not None
        figures = (f"held-out/{plan.study.tuning.figure}",)
    told = {endpoint: result["scores"].get(endpoint.rpartition("/")[0], {}) for endpoint in figures}
    shown = {e: scores.get(e.rpartition("/")[2]) for e, scores in told.items()}
    return ", ".join(f"{e} {100 * v:.2f} %" for e, v in shown.items() if v is not None)


def _log(folder: Path) -> Path:
    return folder / "log.txt"
