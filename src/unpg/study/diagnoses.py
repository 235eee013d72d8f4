"""Which negatives the losses of a study see at the end: its final runs diagnosed over their training sets.

``<study>.diagnosis.json`` beside the results holds, by digest of the run, the figures of ``unpg diagnose`` and
histograms in bins of 1/64: some 10 kB a run. The models are needed once, and not for tables and figures.
"""

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from unpg.config import from_dict
from unpg.diagnose import DiagnoseOptions, diagnose_run
from unpg.errors import ConfigError, DataError
from unpg.evaluate import FilterQuality, SetDiagnosis
from unpg.json_file import read_json_object
from unpg.study.plan import Plan
from unpg.study.runner import finished_folder

__all__ = ["DRAWN", "EDGES", "Diagnosed", "diagnose_study", "diagnoses_of", "diagnoses_path", "read_diagnoses"]

DRAWN = "filtered"
"""What UNPG would draw: the union with the filter and weight of the run, or with r = 1.5 if it has none. Without class
weights the batch alone.
"""

EDGES = np.linspace(-1.0, 1.0, 129)
"""Of the histograms."""

_AGAIN = "Delete it, and run `unpg study diagnose` again."
_SAMPLES = ("CLPG", "MLPG", DRAWN)


@dataclass(frozen=True)
class Diagnosed:
    """A final run over its training set.

    Attributes:
        similarities: Robust inf S^p and sup S^n, overlap and P(p <= n); see :class:`unpg.evaluate.wdfs.Wdfs`.
        samples: By name of what is sampled (``CLPG``, ``MLPG``, :data:`DRAWN`, other filters), its figures; see
            docs/how-to/diagnose.md. Where whom the images show is known (rendered people), those of the filter too:
            ``cut`` (share of the batch negatives), ``precision``, ``recall`` and ``twins_kept``, as far as there is
            any; see :class:`~unpg.evaluate.sampling.FilterQuality`.
        histograms: Pairs in each bin of :data:`EDGES`: ``negatives`` (all of them), and those three samples.
    """

    similarities: dict[str, float]
    samples: dict[str, dict[str, float]]
    histograms: dict[str, tuple[float, ...]]


def diagnose_study(
    plan: Plan, out: Path, console: Console, *, only: Collection[str] = (), options: DiagnoseOptions | None = None
) -> None:
    """Diagnose the finished final runs whose folders are there, and that have not been diagnosed.

    Args:
        plan: The study and its results.
        out: Folder of the runs, as it was given to :func:`~unpg.study.runner.run_study`.
        console: Where to tell what is done.
        only: These arms; empty means all.
        options: How much is looked at.

    Raises:
        DataError: The data are missing, or the file of diagnoses is damaged.
    """
    path = diagnoses_path(plan.results.path)
    known, everywhere = read_diagnoses(path), _all_diagnoses(plan)
    there = 0
    for arm in only or plan.study.arms:
        for run in plan.finals(arm):
            line = None if run is None else plan.results.get(run.digest)
            if run is None or line is None or line["diverged"]:
                continue
            if run.digest in known.keys() | everywhere.keys():
                there += 1
                continue
            folder = finished_folder(run, out / plan.study.name)
            if folder is None:
                console.print(f"left out  {run.name}: no folder of it is in {out}", markup=False)
                continue
            known[run.digest] = _kept(diagnose_run(Path(folder), options=options)[0])
            _write(path, known)
            density = {name: one["tail_density"] for name, one in known[run.digest].samples.items() if name in _SAMPLES}
            said = ", ".join(f"{name} {value:.2f}" for name, value in density.items())
            console.print(f"diagnosed {run.name}: tail density {said}", markup=False)
            there += 1
    console.print(f"There are diagnoses of {there} final runs.", markup=False)


def diagnoses_path(results: Path) -> Path:
    """Where they lie: ``<study>.diagnosis.json`` beside the results."""
    return results.with_suffix(".diagnosis.json")


def diagnoses_of(plan: Plan) -> dict[str, list[Diagnosed]]:
    """Of each arm, the final runs that have been diagnosed.

    Raises:
        DataError: A file of diagnoses is damaged.
    """
    known = _all_diagnoses(plan)
    finals = {arm: [run.digest for run in plan.finals(arm) if run is not None] for arm in plan.study.arms}
    return {arm: [known[digest] for digest in runs if digest in known] for arm, runs in finals.items()}


def _all_diagnoses(plan: Plan) -> dict[str, Diagnosed]:
    """Those of this study and of others beside it, of which it may have runs."""
    own = diagnoses_path(plan.results.path)
    found: dict[str, Diagnosed] = {}
    for path in [*sorted(own.parent.glob("*.diagnosis.json")), own]:
        found |= read_diagnoses(path)
    return found


def read_diagnoses(path: Path) -> dict[str, Diagnosed]:
    """Those that are there, by digest of the run; none without the file.

    Raises:
        DataError: The file is no object of diagnoses, or an entry lacks something.
    """
    if not path.exists():
        return {}
    found = {}
    for digest, plain in read_json_object(path, _AGAIN).items():
        try:
            one = found[digest] = from_dict(Diagnosed, plain)
        except ConfigError as error:
            raise DataError(f"{path}, {digest}: {error} {_AGAIN}") from None
        sizes = {name: len(counts) for name, counts in one.histograms.items()}
        if "negatives" not in sizes or any(size != len(EDGES) - 1 for size in sizes.values()):
            raise DataError(
                f"{path}, {digest}: histograms must have negatives, and {len(EDGES) - 1} counts each; got {sizes}. "
                f"{_AGAIN}"
            )
    return found


def _kept(found: SetDiagnosis) -> Diagnosed:
    plain = found.to_dict()
    assert found.sampling is not None
    own = found.sampling.drawn
    names = {name: name for name in plain["histograms"]["samples"]}
    names[next(name for name in (f"UNPG, {own}", f"MLPG, {own}") if name in names)] = DRAWN
    figures = ("wasserstein", "kolmogorov_smirnov", "reach", "tail_coverage", "tail_coverage_step", "tail_density")
    samples = {
        names[sample["name"]]: {figure: _short(sample[figure]) for figure in (*figures, "class_share")}
        for sample in plain["samples"]
    }
    for sample, _ in found.samples:
        samples[names[sample.name]] |= _quality(sample.quality)
    shown = {names[sample.name]: sample.similarities for sample, _ in found.samples if names[sample.name] in _SAMPLES}
    wdfs = found.wdfs
    similarities = {
        "robust_inf_positive": wdfs.robust_inf,
        "robust_sup_negative": wdfs.robust_sup,
        "overlap": wdfs.overlap,
        "violation": wdfs.violation,
    }
    return Diagnosed(
        {name: _short(value) for name, value in similarities.items()},
        samples,
        {
            name: tuple(_short(count) for count in drawn.histogram(EDGES).tolist())
            for name, drawn in {"negatives": wdfs.negatives, **shown}.items()
        },
    )


def _quality(of: FilterQuality | None) -> dict[str, float]:
    if of is None or not of.offered:
        return {}
    shares = {"cut": of.cut / of.offered, "precision": of.precision, "recall": of.recall, "twins_kept": of.twins_kept}
    return {name: _short(share) for name, share in shares.items() if share is not None}


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _write(path: Path, known: dict[str, Diagnosed]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"{json.dumps(digest)}: {json.dumps(vars(one))}" for digest, one in known.items())
    partial = path.with_name(path.name + ".partial")
    partial.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    os.replace(partial, path)
