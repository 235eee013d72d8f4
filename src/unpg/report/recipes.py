"""Runs that differ in their training seed alone: one recipe, whose figures have a mean and a spread over seeds."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unpg.errors import DataError
from unpg.evaluate.bootstrap import Replicates
from unpg.evaluate.comparison import SeedMean, seed_means
from unpg.evaluate.results import scores_path, stored_replicates
from unpg.report.run import RunData, settings
from unpg.report.table import Cell, Group, Table, heading, is_ratio, number_cell, rate_cell
from unpg.train.config import COMPUTED

__all__ = ["Look", "Recipe", "looks", "recipes", "replicates", "seed_table"]

_SAME_FIGURES = COMPUTED | {"seed", "max_bad_steps", "evaluation"}
"""Settings, and groups of them, that make no other recipe: the seed, and what changes neither weights nor figures."""


@dataclass(frozen=True)
class Recipe:
    """Runs of one configuration.

    Attributes:
        name: Of its only run, or what the names of its runs have in common.
        runs: One for each training seed.
    """

    name: str
    runs: tuple[RunData, ...]

    @property
    def label(self) -> str:
        """The name, and how many runs there are if several."""
        return self.name if len(self.runs) == 1 else f"{self.name} ({len(self.runs)} seeds)"


@dataclass(frozen=True)
class Look:
    """How a run is drawn: runs of one recipe look alike and share an entry of the legend."""

    style: int
    label: str


def recipes(runs: Sequence[RunData]) -> list[Recipe]:
    """The runs by recipe, in the order of their first run.

    Runs belong together if somebody says so (``RunData.recipe``), or if their configurations are the same but for the
    seed, and their seeds differ.

    Raises:
        DataError: Runs that are said to be seeds of one recipe have the same seed, or other settings.
    """
    found: dict[str, list[RunData]] = {}
    for number, run in enumerate(runs):
        found.setdefault(_key(run, number), []).append(run)
    parts: list[tuple[str, list[RunData]]] = []
    for members in found.values():
        told = members[0].recipe
        if told:
            _check(told, members)
        seeds = [settings(run).get("seed") for run in members]
        if told or len(set(seeds)) == len(seeds):
            parts.append((told, members))
        else:  # the same run twice is no second seed
            parts += [("", [run]) for run in members]
    taken = Counter([told for told, _ in parts if told] + [m[0].name for _, m in parts if len(m) == 1])
    named = []
    for told, members in parts:
        name = told or (members[0].name if len(members) == 1 else _shared_name(members))
        if not told and len(members) > 1:
            taken[name] += 1
            name = f"{name}, recipe {taken[name]}" if taken[name] > 1 else name
        named.append(Recipe(name, tuple(members)))
    return named


def looks(runs: Sequence[RunData]) -> dict[str, Look]:
    """By the name of each run, how it is drawn."""
    return {run.name: Look(n, recipe.label) for n, recipe in enumerate(recipes(runs)) for run in recipe.runs}


def replicates(run: RunData, benchmark: str) -> Replicates | None:
    """The replicates of a run on a benchmark; None if it keeps none.

    Raises:
        DataError: The scores of the run do not belong to its results.
    """
    return stored_replicates(run.results[benchmark], run.scores.get(scores_path(Path(), benchmark).stem, {}))


def seed_table(runs: Sequence[RunData]) -> Table | None:
    """Mean and spread over seeds, one column for each recipe; None if none has several runs."""
    of = recipes(runs)
    if all(len(recipe.runs) == 1 for recipe in of):
        return None
    groups: list[Group] = []
    notes: dict[str, None] = {}
    for benchmark in dict.fromkeys(b for run in runs for b in run.results):
        columns = [_means(recipe, benchmark, notes) for recipe in of]
        figures = list(dict.fromkeys(figure for column in columns for figure in column))
        kind = next(str(run.results[benchmark].get("protocol", "")) for run in runs if benchmark in run.results)
        rows = tuple((Cell(heading(f, kind)), *(column.get(f, Cell("")) for column in columns)) for f in figures)
        if rows:
            groups.append((benchmark, "", rows))
    said = (
        "Rates in per cent: mean ± standard deviation between training seeds. The interval is of the mean: in each "
        "draw people are drawn anew, and other seeds deviate by Student's t with s − 1 degrees of freedom for s seeds. "
        "With one seed the chance of training is not in it.",
        *notes,
    )
    return Table("Means over training seeds", ("Figure", *(r.label for r in of)), tuple(groups), said)


def _means(recipe: Recipe, benchmark: str, notes: dict[str, None]) -> dict[str, Cell]:
    judged = [run for run in recipe.runs if benchmark in run.results]
    if not judged:
        return {}
    if len(judged) < len(recipe.runs):
        notes[f"{benchmark}: only {len(judged)} of the {len(recipe.runs)} runs of {recipe.name} were judged."] = None
    of = [run.results[benchmark].get("metrics", {}) for run in judged]
    shared = [name for name in of[0] if name != "accuracy_std" and all(m.get(name) is not None for m in of)]
    found = {}
    drawn = _drawn(judged, recipe, benchmark, notes)
    for name in shared:
        values = [float(m[name]) for m in of]
        mean = sum(values) / len(values)
        spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0
        interval = None if name not in drawn else _ends(drawn[name], [run.results[benchmark] for run in judged])
        found[name] = number_cell(mean, ".2f", "×") if is_ratio(name) else rate_cell(mean, interval, spread=spread)
    return found


def _ends(mean: SeedMean, of: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    found = mean.interval
    if found.method != "rule of three":
        return {"low": found.low, "high": found.high}
    # No run saw an error (or a success), so each has the rule's bound too; a group's from the group's people, which
    # are fewer than those of all pairs that seed_means() goes by.
    own = [figures["intervals"]["figures"][mean.figure] for figures in of]
    return {
        "low": min(found.low, *(ends["low"] for ends in own)),
        "high": max(found.high, *(ends["high"] for ends in own)),
    }


def _drawn(judged: Sequence[RunData], recipe: Recipe, benchmark: str, notes: dict[str, None]) -> dict[str, SeedMean]:
    kept = [r for run in judged if (r := replicates(run, benchmark)) is not None]
    if len(kept) < len(judged):
        return {}
    told: Mapping[str, Any] = judged[0].results[benchmark]["intervals"]
    try:
        means = seed_means(kept, float(told["effective_units"]), float(told["confidence"]))
    except DataError as error:
        notes[f"{benchmark}, {recipe.name}: {error}"] = None
        return {}
    return {mean.figure: mean for mean in means}


def _key(run: RunData, number: int) -> str:
    if run.recipe:
        return f"told {run.recipe}"
    found = settings(run)
    if not found:
        return f"run {number}"
    return json.dumps({k: v for k, v in found.items() if _counts(k)}, sort_keys=True, default=str)


def _counts(name: str) -> bool:
    """Whether a setting, by its dotted name, makes another recipe."""
    return name == "evaluation.flip" or name.partition(".")[0] not in _SAME_FIGURES


def _check(told: str, members: Sequence[RunData]) -> None:
    known = [(run, settings(run)) for run in members if run.config.strip()]
    seeds = Counter(str(found.get("seed")) for _, found in known)
    twice = [seed for seed, times in seeds.items() if times > 1]
    if twice:
        raise DataError(
            f"Two runs of {told!r} have the seed {twice[0]}: the same run twice is no second seed. Name them apart."
        )
    for run, found in known[1:]:
        first = known[0][1]
        other = [key for key in {**first, **found} if _counts(key) and first.get(key, "") != found.get(key, "")]
        if other:
            raise DataError(
                f"{known[0][0].folder} and {run.folder} were given the one name {told!r}, as seeds of one recipe, but "
                f"differ in {', '.join(other[:4])}. Name them apart with --names."
            )


def _shared_name(members: Sequence[RunData]) -> str:
    names = [run.name for run in members]
    start = names[0]
    while not all(name.startswith(start) for name in names):
        start = start[:-1]
    if any(name[len(start) : len(start) + 1].isdigit() for name in names):
        start = start.rstrip("0123456789")  # of 10 and 11 the 1 is no part of the name
    return re.sub(r"[\s_.,#=-]+((seed|s)[\s_.#=-]*)?$", "", start) or f"{names[0]} and others"
