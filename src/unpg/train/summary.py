"""What is left to say when a run is over."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.markup import escape
from rich.table import Table

import unpg
from unpg.train.log import finite

__all__ = ["RunSummary", "environment"]


@dataclass(frozen=True)
class RunSummary:
    """The outcome of a run, as ``summary.json`` holds it.

    Attributes:
        run: Folder of the run.
        identities: Classes trained on.
        images: Images trained on.
        steps: Optimizer steps.
        epochs: Passes over the data.
        seconds: Wall time of this process, evaluation included.
        images_per_second: While training.
        final_loss: Loss of the last step.
        skipped_steps: Steps left out because something was not finite.
        unreadable: Images that were replaced because they could not be read; ``faults.jsonl`` lists them.
        statistics: Statistics of the last step.
        results: Benchmark, metric, value; fractions.
        versions: Of what the run depended on.
        data_digest: Digest of the training set.
    """

    run: str
    identities: int
    images: int
    steps: int
    epochs: int
    seconds: float
    images_per_second: float
    final_loss: float
    skipped_steps: int
    unreadable: int
    statistics: Mapping[str, float]
    results: Mapping[str, Mapping[str, float]]
    versions: Mapping[str, str]
    data_digest: str

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(finite(asdict(self)), indent=1) + "\n", encoding="utf-8")

    def table(self) -> Table:
        """For the screen."""
        title = f"{self.run}: {self.steps:,} steps in {self.seconds:,.0f} s"
        table = Table(title=escape(title), title_justify="left")
        table.add_column("benchmark")
        table.add_column("metric")
        table.add_column("value", justify="right")
        for benchmark, metrics in self.results.items():
            for metric, value in metrics.items():
                table.add_row(escape(benchmark), metric, f"{100 * value:.2f} %")
        return table


def environment() -> dict[str, str]:
    """Versions of what a run's numbers depend on."""
    return {
        "unpg": unpg.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
