"""``unpg report runs/a runs/b --out report.html --format html md``."""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unpg.errors import ConfigError
from unpg.report import RunData, load_run, run_differences, write_report, write_tables
from unpg.report.run import settings
from unpg.report.writers import WRITERS

__all__ = ["run"]

_PAGES = (".html", ".htm")
_ENDS = {"html": ".html"} | {form: end for form, (end, _) in WRITERS.items()}


def run(arguments: Sequence[str]) -> None:
    """Parse and write the page."""
    parser = argparse.ArgumentParser(
        prog="unpg report", description="One self-contained HTML page of runs and of models judged without one."
    )
    parser.add_argument("runs", nargs="+", help="run folders, or folders written by unpg evaluate --out")
    parser.add_argument(
        "--names",
        nargs="+",
        help="what to call them, in the same order (default: folder names). One name for several: they are training "
        "seeds of one recipe; runs whose configurations differ in the seed alone are taken for that anyway",
    )
    parser.add_argument(
        "--out",
        default="report.html",
        help="the page to write, .html; tables get its name with their ending (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        nargs="+",
        choices=tuple(_ENDS),
        default=["html"],
        help="what to write: the page, or its tables as Markdown, CSV or LaTeX beside it (default: html)",
    )
    parser.add_argument("--title", default="Face embeddings, judged", help="its title")
    parser.add_argument("--figures", help="folder in which every figure of the page is also left as an SVG file")
    parser.add_argument(
        "--thumbnails",
        action="store_true",
        help="put small pictures of the hardest pairs on the page; mind what the license of the set allows",
    )
    found = parser.parse_args(list(arguments))
    if found.names and len(found.names) != len(found.runs):
        parser.error(f"--names gives {len(found.names)} names for {len(found.runs)} runs")
    if "html" not in found.format and (found.figures or found.thumbnails):
        parser.error("--figures and --thumbnails belong to the page: add html to --format")
    page = Path(found.out)
    ending = page.suffix.lower()
    if "html" in found.format and ending not in _PAGES:
        raise ConfigError(f"--out {found.out}: the page is HTML; let its name end in .html.")
    if ending not in (*_PAGES, *_ENDS.values()):
        page = page.with_name(f"{page.name}.html")  # a dot in a name without an ending stays
    runs = _named(found.runs, found.names)
    written = []
    for form in dict.fromkeys(found.format):
        path = page if form == "html" else page.with_suffix(_ENDS[form])
        if form == "html":
            write_report(path, runs, found.title, figures=found.figures, thumbnails=found.thumbnails)
        else:
            write_tables(path, runs, form, found.title)
        written.append(str(path))
    differences, _ = run_differences(runs)
    for difference in differences:
        print(difference.sentence())
    print(f"Wrote {', '.join(written)}")


def _named(folders: Sequence[str], names: Sequence[str] | None) -> list[RunData]:
    """The runs; those that share a name are told apart by their seed, or by their number."""
    if names is None:
        return [load_run(folder) for folder in folders]
    times, seen = Counter(names), Counter[str]()
    runs = []
    for folder, name in zip(folders, names, strict=True):
        run = load_run(folder, name)
        if times[name] > 1:
            seen[name] += 1
            seed = settings(run).get("seed")
            run = replace(
                run, recipe=name, name=f"{name}, " + (f"seed {seed}" if seed is not None else f"{seen[name]}")
            )
        runs.append(run)
    return runs
