"""Which model is better, and how sure that is: paired differences on the benchmarks that both were judged on."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unpg.errors import DataError
from unpg.evaluate.bootstrap import Replicates
from unpg.evaluate.comparison import Difference, compare, holm
from unpg.report.recipes import Recipe, recipes, replicates
from unpg.report.run import RunData
from unpg.report.table import Cell, Group, Table, heading

__all__ = ["RunDifference", "difference_tables", "headlines", "run_differences"]


@dataclass(frozen=True)
class RunDifference:
    """A figure of one recipe less that of another; a recipe is a run, or the mean of several training seeds.

    Attributes:
        benchmark: Where.
        first: Name of the recipe that is taken off.
        second: Name of the recipe that it is taken off from.
        difference: Second less first.
        p: Two-sided, after Holm's correction for all differences of the report.
        protocol: Kind of the benchmark.
    """

    benchmark: str
    first: str
    second: str
    difference: Difference
    p: float
    protocol: str = ""

    @property
    def heading(self) -> str:
        """The figure as it heads a row."""
        return heading(self.difference.figure, self.protocol)

    def sentence(self) -> str:
        """In words; it says that one is better only if that holds after the correction, or in every draw there is."""
        said = self.difference.sentence(self.first, self.second, sure=self.sure or self.unresolved)
        if self.unresolved:
            said += f", in every one of {self.difference.replicates:,} draws, too few to be sure"
        return f"{self.benchmark}, {self.heading}: {said} (p = {self.p:.2g} after Holm)"

    @property
    def sure(self) -> bool:
        """The corrected p decides, so that a page with many rows does not find something in noise."""
        return self.p <= 1 - self.difference.confidence + 1e-12

    @property
    def unresolved(self) -> bool:
        """Not sure, though every draw says the same: with more of them it would be."""
        return not self.sure and self.difference.p <= 2 / (self.difference.replicates + 1) + 1e-12


def run_differences(runs: Sequence[RunData]) -> tuple[list[RunDifference], list[str]]:
    """Every pair of recipes, on every benchmark on which both keep replicates.

    Returns:
        The differences, later recipes less earlier ones; and why a benchmark that two share shows none.

    Raises:
        DataError: The scores of a run do not belong to its results.
    """
    found, reasons = list[tuple[str, str, str, Difference]](), dict[str, None]()
    of = recipes(runs)
    for benchmark in dict.fromkeys(b for run in runs for b in run.results):
        judged = [recipe for recipe in of if any(benchmark in run.results for run in recipe.runs)]
        kept = {recipe.name: _kept(recipe, benchmark) for recipe in judged}
        bare = [name for name, replicates in kept.items() if not replicates]
        if len(judged) > 1:
            if bare and len(bare) < len(judged):
                said = f"{benchmark}: {', '.join(bare)} cannot be compared; `unpg evaluate` keeps what that needs"
                reasons[said] = None
            for recipe in judged:
                if 0 < len(kept[recipe.name]) < len(recipe.runs):
                    some = f"{len(kept[recipe.name])} of the {len(recipe.runs)} runs"
                    reasons[f"{benchmark}: of {recipe.name} only {some} can be compared"] = None
        confidences = {
            recipe.name: float(run.results[benchmark].get("intervals", {}).get("confidence", 0.95))
            for recipe in judged
            for run in recipe.runs
            if benchmark in run.results
        }
        for first, second in itertools.combinations([name for name in kept if name not in bare], 2):
            try:
                differences = compare(kept[first], kept[second], confidences[first])
            except DataError as error:
                reasons[f"{benchmark}, {first} and {second}: {error}"] = None
                continue
            found += [(benchmark, first, second, d) for d in differences]
    adjusted = holm([difference.p for *_, difference in found])
    kinds = {b: str(f.get("protocol", "")) for run in runs for b, f in run.results.items()}
    told = [RunDifference(*row, p, kinds[row[0]]) for row, p in zip(found, adjusted, strict=True)]
    return told, list(reasons)


def difference_tables(differences: Sequence[RunDifference], reasons: Sequence[str]) -> Table | None:
    """One group of rows for each benchmark and pair of runs; None if there is nothing to say."""
    if not differences and not reasons:
        return None
    groups: list[Group] = []
    for (benchmark, first, second), rows in itertools.groupby(differences, lambda d: (d.benchmark, d.first, d.second)):
        groups.append((benchmark, f"{second} less {first}", tuple(_row(row) for row in rows)))
    confidence = f"{100 * differences[0].difference.confidence:.4g} %" if differences else ""
    columns = ("Figure", "Points", f"{confidence} interval", "p (Holm)", "Better")
    findings = tuple(headlines(differences))
    return Table("Differences", columns, tuple(groups), tuple(_notes(differences, reasons)), findings=findings)


HEADLINES = ("accuracy", "tar@far=1e-4", "tar@far=1e-3", "rank=1", "tar@far=1e-2", "eer")
"""The figure that a sentence is about is the first of these that there is, else the first of all."""


def headlines(differences: Sequence[RunDifference]) -> Iterator[str]:
    """One sentence for each benchmark and pair of recipes, about the figure that a reader asks for first."""
    for _, rows in itertools.groupby(differences, lambda d: (d.benchmark, d.first, d.second)):
        of = {row.difference.figure: row for row in rows}
        named = next((figure for figure in HEADLINES if figure in of), next(iter(of)))
        yield f"{of[named].sentence()}."


def _row(row: RunDifference) -> tuple[Cell, ...]:
    estimate, low, high = row.difference.points
    better = row.second if row.difference.gain[0] > 0 else row.first
    sign = "+" if row.difference.estimate > 0 and estimate.strip("0.") else ""
    return (
        Cell(row.heading),
        Cell(f"{sign}{estimate}", value=row.difference.estimate, low=row.difference.low, high=row.difference.high),
        Cell(f"{low} to {high}"),
        Cell(f"{row.p:.2g}" if row.p >= 0.001 else "< 0.001", value=row.p),
        Cell(better if row.sure else f"{better}, but too few draws" if row.unresolved else "not told apart"),
    )


def _notes(differences: Sequence[RunDifference], reasons: Sequence[str]) -> Iterator[str]:
    if differences:
        yield (
            "Both models are judged on the same draws, so that what is hard for both cancels. p: two-sided, corrected "
            f"for the {len(differences)} differences shown (Holm). Points: percentage points."
        )
        yield from _seeds(differences)
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


def _seeds(differences: Sequence[RunDifference]) -> Iterator[str]:
    counts = {name: n for d in differences for name, n in zip((d.first, d.second), d.difference.seeds, strict=True)}
    several = {name: n for name, n in counts.items() if n > 1}
    if several:
        said = ", ".join(f"{name} {n}" for name, n in several.items())
        yield (
            f"Means over training seeds ({said}): each draw takes people anew, and deviates as other seeds would "
            "(Student's t), so both chances are in the interval."
        )
    single = [name for name, n in counts.items() if n == 1]
    if not several:
        yield "One training run each: how much another seed would change is not in the interval."
    elif single:
        yield f"One training run only: {', '.join(single)}; what another seed would change is not in the interval."


def _kept(recipe: Recipe, benchmark: str) -> list[Replicates]:
    judged = [replicates(run, benchmark) for run in recipe.runs if benchmark in run.results]
    return [kept for kept in judged if kept is not None]
