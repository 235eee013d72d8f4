"""The report's page: which tables and figures, in which order, with which captions."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from unpg.errors import ConfigError, DataError
from unpg.report.differences import difference_tables, run_differences
from unpg.report.discard import discard_drawings, discard_table
from unpg.report.figures import Drawing, own_ids, similarity_histograms, write_text
from unpg.report.groups import group_bars
from unpg.report.hardest import hard_pairs, hardest_table
from unpg.report.judged import cmc_curves, verification_curves
from unpg.report.mismatch import mismatches
from unpg.report.recipes import recipes, seed_table
from unpg.report.run import SIMILARITY_SETS, RunData
from unpg.report.table import Table
from unpg.report.tables import differing_settings, result_tables, run_facts, threshold_tables
from unpg.report.training import training_curves
from unpg.report.wdfs import quantile_bars, sampling_table, wdfs_table
from unpg.report.writers import WRITERS

__all__ = ["report_tables", "write_report", "write_tables"]


def write_report(
    out: str | os.PathLike[str],
    runs: Sequence[RunData],
    title: str = "Face embeddings, judged",
    *,
    figures: str | os.PathLike[str] | None = None,
    thumbnails: bool = False,
) -> Path:
    """Write one HTML page about ``runs`` to ``out``; it needs no other file and no network.

    Args:
        out: The page.
        runs: What it is about.
        title: Of the page.
        figures: A folder in which every figure is also left as an SVG file, by its number on the page.
        thumbnails: Put small pictures of the hardest pairs on the page. Mind what the license of the set allows.

    Raises:
        DataError: There are no runs, two have one name, or none has anything to show.
    """
    _check(runs)
    sections = {
        "curves": verification_curves(runs),
        "searches": cmc_curves(runs),
        "groups": group_bars(runs),
        "quality": discard_drawings(runs),
        "wdfs": quantile_bars(runs),
        "similarities": _similarities(runs),
        "training": training_curves(runs),
    }
    number = 0
    numbered: dict[str, list[tuple[int, Drawing]]] = {}
    for section, drawings in sections.items():
        numbered[section] = []
        for drawing in drawings:
            number += 1
            own = Drawing(own_ids(drawing.svg, f"f{number}-"), drawing.caption)
            numbered[section].append((number, own))
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template("page.html.j2").render(
        title=title,
        runs=runs,
        css=(here / "page.css").read_text(encoding="utf-8"),
        tables=_sections(runs),
        figures=numbered,
        recipes=recipes(runs),
        hardest=hard_pairs(runs, thumbnails=thumbnails),
        thumbnails=thumbnails,
        missing=[run.name for run in runs if run.steps and not run.similarities and not run.diagnosis],
    )
    if figures is not None:
        Path(figures).mkdir(parents=True, exist_ok=True)
        for n, drawing in (entry for section in numbered.values() for entry in section):
            write_text(Path(figures) / f"figure-{n:02d}.svg", drawing.svg)
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def write_tables(
    out: str | os.PathLike[str], runs: Sequence[RunData], form: str, title: str = "Face embeddings, judged"
) -> Path:
    """Write the tables of the report alone.

    Args:
        out: The file.
        runs: What they are about.
        form: ``"md"``, ``"csv"`` or ``"latex"``; see :mod:`unpg.report.writers`.
        title: Of all.

    Raises:
        ConfigError: Nobody writes this format.
        DataError: As :func:`write_report`.
    """
    if form not in WRITERS:
        raise ConfigError(f"Tables are written as {', '.join(WRITERS)}; got {form!r}.")
    _check(runs)
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, WRITERS[form][1](report_tables(runs), title))
    return path


def report_tables(runs: Sequence[RunData]) -> list[Table]:
    """All tables of the report, in its order."""
    return [table for tables in _sections(runs).values() for table in tables]


def _sections(runs: Sequence[RunData]) -> dict[str, list[Table]]:
    maybe: Mapping[str, Sequence[Table | None]] = {
        "results": [*result_tables(runs), *threshold_tables(runs)],
        "seeds": [seed_table(runs)],
        "differences": [difference_tables(*run_differences(runs))],
        "quality": [discard_table(runs)],
        "wdfs": [wdfs_table(runs), sampling_table(runs)],
        "hardest": [hardest_table(hard_pairs(runs))],
        "configuration": [differing_settings(runs), run_facts(runs)],
    }
    return {section: [table for table in tables if table is not None] for section, tables in maybe.items()}


def _check(runs: Sequence[RunData]) -> None:
    names = [run.name for run in runs]
    if not runs:
        raise DataError("A report needs one run or more; give the run folders.")
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"Two models of the report are called {double!r}. Name them apart: --names on the command line, "
            f"load_run(folder, name=...) in Python."
        )
    bare = [
        run.name for run in runs if not run.results and not run.steps and not run.similarities and not run.diagnosis
    ]
    if len(bare) == len(runs):
        raise DataError(
            f"There is nothing to show for {', '.join(bare)}: no results, no logged steps. Let training log a step "
            "(see metrics.jsonl), or run `unpg evaluate`."
        )


def _similarities(runs: Sequence[RunData]) -> list[Drawing]:
    drawings = []
    for run in runs:
        if run.diagnosis is not None:  # shows the same from the whole set, and more
            drawings += mismatches(run.diagnosis, run.name)
            continue
        if run.similarities is None:
            continue
        counts = run.similarities["counts"]
        if not any(sum(counts.get(name, ())) for name in SIMILARITY_SETS):
            continue
        of = f" ({run.similarities['benchmark']})" if run.similarities.get("benchmark") else ""
        batches = run.similarities.get("batches")
        said = f"{run.name}: similarities that the loss compares"
        said += f" in {batches:,} training batches" if isinstance(batches, int) else ""
        said += f", and the pairs that the evaluation set{of} judges."
        offered = sum(counts.get("batch_negatives", ()))
        if run.similarities.get("unified", offered > 0):
            said += _kept(counts)
        else:
            said += " This loss takes no negatives from the batch"
            said += "; those drawn are what it leaves unused." if offered else "."
        drawings.append(similarity_histograms(run.similarities, said, log=False))
        tail = (
            f"{run.name}: the same on a logarithmic scale. The right end of the impostor curve makes the false "
            "accepts; see which negatives reach that far."
        )
        drawings.append(similarity_histograms(run.similarities, tail, log=True))
    return drawings


def _kept(counts: Any) -> str:
    offered, kept = (sum(counts.get(name, ())) for name in ("batch_negatives", "batch_negatives_kept"))
    return f" The filter keeps {100 * kept / offered:.1f} % of the batch negatives." if offered and kept else ""
