"""From a study and its results to what is still to run: trials first, then what they choose, with every seed."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unpg.config import from_dict, to_dict
from unpg.data.source import SOURCES
from unpg.errors import DataError
from unpg.evaluate.comparison import LESS_IS_BETTER
from unpg.study.recipe import Study, merged
from unpg.study.results import Results
from unpg.train import EvaluationConfig, TrainConfig
from unpg.train.config import COMPUTED
from unpg.train.setup import located, resolve

__all__ = ["Plan", "Run"]

HELD_OUT = "held-out"


@dataclass(frozen=True)
class Run:
    """A run whose settings are known.

    Attributes:
        arm: Its arm; another one may have the same run.
        trial: Number of the trial, from 0; None for a final run.
        seed: Of the run.
        config: Resolved settings.
        trained: Digest of what is trained: settings, data and seed, not paths.
        digest: The same with how it is judged.
        images: Images that are trained on, those held out not counted.
        changes: Settings in which it departs from the study's base, by their dotted names.
    """

    arm: str
    trial: int | None
    seed: int
    config: TrainConfig
    trained: str
    digest: str
    images: int
    changes: dict[str, Any]

    @property
    def name(self) -> str:
        """In messages and as a folder, with :attr:`tag`."""
        what = f"seed-{self.seed}" if self.trial is None else f"trial-{self.trial}"
        return f"{self.arm}/{what}-{self.tag}"

    @property
    def tag(self) -> str:
        """The beginning of a digest: a final run can be judged anew, a trial is judged where it is trained."""
        return (self.trained if self.trial is None else self.digest)[:8]


class Plan:
    """What a study asks for, given the results that are there.

    Args:
        study: The study.
        base: Settings of its base.
        results: What is finished.

    Raises:
        DataError: Training data, or a model to begin with, are missing.
    """

    def __init__(self, study: Study, base: Mapping[str, Any], results: Results) -> None:
        self.study, self.base, self.results = study, base, results

    def settings(self, arm: str) -> dict[str, Any] | None:
        """The settings of an arm, after its trials and those of the arm that it changes; None while a trial lacks."""
        own = self._before_trials(arm)
        if own is None or not self.study.arms[arm].trials:
            return own
        best = self.chosen(arm)
        return None if best is None else merged(own, self.study.arms[arm].trials[best])

    def chosen(self, arm: str) -> int | None:
        """Number of the trial that the held-out people prefer, the first of equals.

        None without trials, while one lacks, or if all diverged (:meth:`barren`).

        Raises:
            DataError: The held-out people cannot tell the figure that chooses.
        """
        tuning, scores = self.study.tuning, self._scores(arm)
        if tuning is None or not scores or all(map(math.isnan, scores)):
            return None
        sign = -1 if tuning.figure in LESS_IS_BETTER else 1
        ranked = [-math.inf if math.isnan(score) else sign * score for score in scores]
        return ranked.index(max(ranked))

    def barren(self, arm: str) -> bool:
        """Whether all trials of an arm diverged: it has no settings, and never will."""
        scores = self._scores(arm)
        return bool(scores) and all(map(math.isnan, scores))

    def _scores(self, arm: str) -> list[float]:
        """What the held-out people say of each trial, NaN of one that diverged; empty while one lacks."""
        lines = [self._line(run) for run in self.trials(arm)]
        figure = "" if self.study.tuning is None else self.study.tuning.figure
        scores = [self._score(line, figure) for line in lines if line is not None]
        return scores if len(scores) == len(lines) else []

    def trials(self, arm: str) -> list[Run | None]:
        """The trials of an arm; None where the settings that they start from are not chosen yet."""
        tuning, own = self.study.tuning, self._before_trials(arm)
        trials = self.study.arms[arm].trials
        if own is None:
            return [None] * len(trials)
        found: list[Run | None] = []
        for number, changes in enumerate(trials):
            assert tuning is not None
            out = {"hold_out": tuning.hold_out, "hold_out_seed": tuning.hold_out_seed}
            found.append(self._run(arm, number, tuning.seed, merged(own, changes) | out, (HELD_OUT,)))
        return found

    def finals(self, arm: str) -> list[Run | None]:
        """The final runs of an arm, one for each seed; None while its settings are not chosen."""
        settings = self.settings(arm)
        if settings is None:
            return [None] * len(self.study.seeds)
        return [self._run(arm, None, seed, settings, ()) for seed in self.study.seeds]

    def wanted(self, only: Collection[str] = ()) -> Iterator[tuple[str, Run | None]]:
        """Arms and their runs, in the order in which they are made; each run once.

        Args:
            only: Arms whose final runs are wanted, with the trials of the arms that they change; empty wants all.
        """
        arms = only or list(self.study.arms)
        tuned = dict.fromkeys(of for arm in arms for of in reversed(list(self.study.line(arm))))
        seen = set()
        for arm, run in [(a, r) for a in tuned for r in self.trials(a)] + [
            (a, r) for a in arms for r in self.finals(a)
        ]:
            if run is None or run.digest not in seen:
                yield arm, run
            if run is not None:
                seen.add(run.digest)

    def prefix(self, run: Run) -> Run | None:
        """The run without UNPG that is the same until UNPG starts, an epoch from the beginning or later."""
        unpg = run.config.unpg
        if not self.study.share_prefix or unpg is None or unpg.start_epoch < 1 or unpg.memory is not None:
            return None
        without = dataclasses.replace(run.config, unpg=None)
        others = (other for arm in self.study.line(run.arm) for other in (*self.trials(arm), *self.finals(arm)))
        return next((other for other in others if other is not None and other.config == without), None)

    def differences(self, arm: str, endpoint: str) -> list[float]:
        """An endpoint of each seed's run of an arm less that of the arm it changes, where both are there."""
        of = self.study.arms[arm].of
        if of is None:
            return []
        benchmark, _, figure = endpoint.rpartition("/")
        pairs = [
            (self._line(run), self._line(base)) for run, base in zip(self.finals(arm), self.finals(of), strict=True)
        ]
        scores = [
            [line["scores"].get(benchmark, {}).get(figure) for line in pair if line is not None] for pair in pairs
        ]
        return [float(two[0]) - float(two[1]) for two in scores if len(two) == 2 and None not in two]

    def _line(self, run: Run | None) -> dict[str, Any] | None:
        return None if run is None else self.results.get(run.digest)

    def curves(self) -> dict[str, dict[int, dict[str, list[float]]]]:
        """TAR over FAR of each final run that is there, on the benchmark of the primary endpoint, by arm and seed."""
        benchmark = self.study.primary.rpartition("/")[0]
        return {arm: {seed: line["curves"][benchmark] for seed, line in self._finished(arm)} for arm in self.study.arms}

    def by_epoch(self) -> dict[str, list[dict[str, list[float | None]]]]:
        """What the loss said of itself in each epoch of each final run that is there, by arm."""
        return {arm: [line["by_epoch"] for _, line in self._finished(arm)] for arm in self.study.arms}

    def _finished(self, arm: str) -> list[tuple[int, dict[str, Any]]]:
        """Seeds and lines."""
        runs = [(run.seed, self.results.get(run.digest)) for run in self.finals(arm) if run is not None]
        return [(seed, line) for seed, line in runs if line is not None and not line["diverged"]]

    def _before_trials(self, arm: str) -> dict[str, Any] | None:
        of = self.study.arms[arm].of
        settings = self.base if of is None else self.settings(of)
        return None if settings is None else merged(settings, self.study.arms[arm].set)

    def _score(self, line: Mapping[str, Any], figure: str) -> float:
        value = line["scores"].get(HELD_OUT, {}).get(figure)
        if value is None and not line["diverged"]:
            raise DataError(
                f"The held-out people cannot tell {figure}: too few pairs, or no such figure. A trial of "
                f"{line['arm']!r} has {', '.join(line['scores'].get(HELD_OUT, {}))}. Take another tuning.figure."
            )
        return math.nan if value is None else float(value)

    def _run(
        self, arm: str, trial: int | None, seed: int, settings: Mapping[str, Any], benchmarks: tuple[str, ...]
    ) -> Run:
        # Final runs are judged after training, with intervals.
        judged = EvaluationConfig(benchmarks=benchmarks, flip=self.study.flip)
        config = resolve(from_dict(TrainConfig, settings))
        checkpoint = dataclasses.replace(config.checkpoint, best=None)  # nothing is judged while training
        config = dataclasses.replace(config, seed=seed, evaluation=judged, checkpoint=checkpoint)
        data, images = _data(json.dumps(located(config.data), sort_keys=True))
        plain = {name: value for name, value in to_dict(config).items() if name not in COMPUTED | {"evaluation"}}
        plain["streaming"] = config.streaming.products  # the rest of it changes rounding alone
        init = {name: _content(plain["init"].pop(name)) for name in ("checkpoint", "model")}
        if config.init.class_weights != "drawn":  # earlier results do not name it, nor the next one
            init |= plain["init"]
        if config.head.init_std == 0.01:
            del plain["head"]["init_std"]
        plain |= {"data": data, "init": init}
        trained = _digest(plain)
        how = {"flip": self.study.flip, "benchmarks": list(benchmarks)}
        if trial is None:
            how |= {"benchmarks": list(self.study.benchmarks), "intervals": to_dict(self.study.intervals)}
        digest = _digest([trained, how])
        before = _flat(self.base)
        changes = {name: value for name, value in _flat(settings).items() if (name, value) not in before.items()}
        return Run(arm, trial, seed, config, trained, digest, round(images * (1 - config.hold_out)), changes)


@functools.cache
def _data(settings: str) -> tuple[str, int]:
    """Digest and number of images of a training set; looked at once, since it asks for every file."""
    plain = json.loads(settings)
    kind = plain.pop("kind")
    if "on_demand" in SOURCES.settings(kind):
        plain["on_demand"] = True  # the same pixels, not drawn now
    images = SOURCES.build(kind, plain)
    return images.digest(), len(images)


@functools.cache
def _content(path: str | None) -> str | None:
    """Digest of a file, or of a folder's files, to begin with."""
    if path is None:
        return None
    place = Path(located(path))
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    if not files or not place.exists():
        raise DataError(f"init names {path}, which does not exist or is empty.")
    sha = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            sha.update(hashlib.file_digest(handle, "sha256").digest())
    return sha.hexdigest()


def _flat(settings: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(settings, Mapping) or not settings:
        return {path: settings}
    return {k: v for name, part in settings.items() for k, v in _flat(part, f"{path}.{name}" if path else name).items()}


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
