"""``unpg report runs/a runs/b --out report.html``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from unpg.report import load_run, run_differences, write_report

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Parse and write the page."""
    parser = argparse.ArgumentParser(
        prog="unpg report", description="One self-contained HTML page of runs and of models judged without one."
    )
    parser.add_argument("runs", nargs="+", help="run folders, or folders written by unpg evaluate --out")
    parser.add_argument("--names", nargs="+", help="what to call them, in the same order (default: folder names)")
    parser.add_argument("--out", default="report.html", help="the page to write (default: %(default)s)")
    parser.add_argument("--title", default=None, help="its title")
    parser.add_argument("--figures", help="folder in which every figure is also left as an SVG file")
    found = parser.parse_args(list(arguments))
    if found.names and len(found.names) != len(found.runs):
        parser.error(f"--names gives {len(found.names)} names for {len(found.runs)} runs")
    names = found.names or [None] * len(found.runs)
    runs = [load_run(path, name) for path, name in zip(found.runs, names, strict=True)]
    extra = {"title": found.title} if found.title else {}
    write_report(Path(found.out), runs, figures=found.figures, **extra)
    differences, _ = run_differences(runs)
    for difference in differences:
        print(difference.sentence())
    print(f"Wrote {found.out}")
