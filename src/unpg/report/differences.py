"""Which model is better, and how sure that is: paired differences on the benchmarks that both were judged on."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unpg.errors import DataError
from unpg.evaluate.bootstrap import Replicates
from unpg.evaluate.comparison import Difference, compare, holm
from unpg.evaluate.results import scores_path, stored_replicates
from unpg.report.run import RunData
from unpg.report.tables import Cell, Table, heading

__all__ = ["RunDifference", "difference_tables", "run_differences"]


@dataclass(frozen=True)
class RunDifference:
    """A figure of one run less that of another.

    Attributes:
        benchmark: Where.
        first: Name of the run that is taken off.
        second: Name of the run that it is taken off from.
        difference: Second less first.
        p: Two-sided, after Holm's correction for all differences of the report.
    """

    benchmark: str
    first: str
    second: str
    difference: Difference
    p: float

    def sentence(self) -> str:
        """In words."""
        said = self.difference.sentence(self.first, self.second)
        return f"{self.benchmark}, {heading(self.difference.figure)}: {said} (p = {self.p:.2g} after Holm)"


def run_differences(runs: Sequence[RunData]) -> tuple[list[RunDifference], list[str]]:
    """Every pair of runs, on every benchmark on which both keep replicates.

    Returns:
        The differences, later runs less earlier ones; and why a benchmark that two runs share shows none.

    Raises:
        DataError: The scores of a run do not belong to its results.
    """
    found, reasons = list[tuple[str, str, str, Difference]](), dict[str, None]()
    for benchmark in dict.fromkeys(b for run in runs for b in run.results):
        judged = [run for run in runs if benchmark in run.results]
        kept = {run.name: _replicates(run, benchmark) for run in judged}
        bare = [name for name, replicates in kept.items() if replicates is None]
        if len(judged) > 1 and bare and len(bare) < len(judged):
            reasons[f"{benchmark}: {', '.join(bare)} cannot be compared; `unpg evaluate` keeps what that needs"] = None
        for first, second in itertools.combinations([name for name in kept if name not in bare], 2):
            a, b = kept[first], kept[second]
            assert a is not None
            assert b is not None
            confidence = float(judged[0].results[benchmark].get("intervals", {}).get("confidence", 0.95))
            try:
                found += [(benchmark, first, second, d) for d in compare(a, b, confidence)]
            except DataError as error:
                reasons[f"{benchmark}, {first} and {second}: {error}"] = None
    adjusted = holm([difference.p for *_, difference in found])
    return [RunDifference(*row, p) for row, p in zip(found, adjusted, strict=True)], list(reasons)


def difference_tables(differences: Sequence[RunDifference], reasons: Sequence[str]) -> Table | None:
    """One group of rows for each benchmark and pair of runs; None if there is nothing to say."""
    if not differences and not reasons:
        return None
    groups = []
    for (benchmark, first, second), rows in itertools.groupby(differences, lambda d: (d.benchmark, d.first, d.second)):
        groups.append((benchmark, f"{second} less {first}", tuple(_row(row) for row in rows)))
    confidence = f"{100 * differences[0].difference.confidence:.4g} %" if differences else ""
    columns = ("Figure", "Points", f"{confidence} interval", "p (Holm)", "Better")
    return Table("Differences", columns, tuple(groups), tuple(_notes(differences, reasons)))


def _row(row: RunDifference) -> tuple[Cell, ...]:
    estimate, low, high = row.difference.points
    # The decision is Holm's, so that a page with many rows does not find something in noise.
    sure = row.p <= 1 - row.difference.confidence + 1e-12
    better = row.second if row.difference.gain[0] > 0 else row.first
    sign = "+" if row.difference.estimate > 0 and estimate.strip("0.") else ""
    return (
        Cell(heading(row.difference.figure)),
        Cell(f"{sign}{estimate}"),
        Cell(f"{low} to {high}"),
        Cell(f"{row.p:.2g}" if row.p >= 0.001 else "< 0.001"),
        Cell(better if sure else "not told apart"),
    )


def _notes(differences: Sequence[RunDifference], reasons: Sequence[str]) -> Iterator[str]:
    if differences:
        yield (
            "Both models are judged on the same draws, so that what is hard for both cancels. p: two-sided, corrected "
            f"for the {len(differences)} differences shown (Holm). One training run each: how much another seed would "
            "change is not in the interval."
        )
        alpha = 1 - differences[0].difference.confidence
        draws = min(row.difference.replicates for row in differences)
        # The smallest p that so many draws can give, after the correction of the first of so many questions.
        if 2 * len(differences) / (draws + 1) > alpha:
            yield (
                f"{draws:,} draws are too few to find any of {len(differences)} differences sure: judge again with "
                f"--replicates {math.ceil(round(2 * len(differences) / alpha, 6))} or more, or show fewer runs."
            )
    for reason in reasons:
        yield reason if reason.endswith(".") else f"{reason}."


def _replicates(run: RunData, benchmark: str) -> Replicates | None:
    return stored_replicates(run.results[benchmark], run.scores.get(scores_path(Path(), benchmark).stem, {}))
