"""``unpg demo --out demo``."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from unpg.cli.screen import Screen
from unpg.demo import demo

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Parse and run the demo."""
    parser = argparse.ArgumentParser(
        prog="unpg demo",
        description="Train CosFace and CosFace + UNPG on rendered faces, judge both on other people beside raw pixels "
        "and the untrained network, and write a page. A few minutes on two cores.",
    )
    parser.add_argument("--out", default="demo", help="folder to write, must be empty (default: %(default)s)")
    parser.add_argument("--data", help="root of real faces: judge on LFW too")
    parser.add_argument("--identities", type=int, default=160, help="rendered people (default: %(default)s)")
    parser.add_argument("--views", type=int, default=12, help="images of each (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the data (default: %(default)s)")
    found = parser.parse_args(list(arguments))
    console = Screen()
    began = time.perf_counter()
    size = {"identities": found.identities, "views": found.views, "epochs": found.epochs}
    demo(Path(found.out), console, data=found.data, **size)
    console.print(f"{time.perf_counter() - began:.0f} seconds.")
