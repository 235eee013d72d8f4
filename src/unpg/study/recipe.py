"""The study file: which arms are trained, how each is tuned, and what is compared at the end."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unpg.config import from_dict, read_yaml
from unpg.errors import ConfigError, did_you_mean
from unpg.evaluate import Bootstrap
from unpg.train import TrainConfig
from unpg.train.setup import resolve

__all__ = ["Arm", "Study", "Tuning", "merged", "read_study"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Tuning:
    """How settings are chosen: on training people who are kept out, never on a test set.

    Args:
        figure: Which decides, over all pairs of the held-out people: eer (the smallest wins), auc, or tar@far=1e-3 and
            so on (the largest).
        hold_out: Share of the training people kept out.
        hold_out_seed: Which people those are.
        seed: Of each trial.
    """

    figure: str = "eer"
    hold_out: float = 0.15
    hold_out_seed: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.hold_out < 1:
            raise ConfigError(f"tuning.hold_out is a share of the training people in (0, 1), got {self.hold_out}.")
        if self.figure not in ("eer", "auc") and not self.figure.startswith("tar@far="):
            raise ConfigError(f"tuning.figure must be eer, auc or tar@far=<FAR>, got {self.figure!r}.")


@dataclass(frozen=True)
class Arm:
    """One recipe that is compared.

    Args:
        label: What tables call it; null takes its name.
        of: The arm that it changes and is compared with: it starts from the settings chosen for that one. Null starts
            from the study's base.
        against: An arm that it is compared with and takes no settings from; of one without ``of``.
        set: What it changes, as in a recipe. Groups are merged; one whose kind changes is replaced.
        trials: Changes to choose from, by the study's tuning; empty takes ``set`` as it is.
    """

    label: str | None = None
    of: str | None = None
    against: str | None = None
    set: dict[str, Any] = field(default_factory=dict)
    trials: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Study:
    """A study, as its file says it.

    Args:
        name: In file names.
        base: Settings of a training run, or the path of a recipe, relative to the study's file. Seed and evaluation
            come from the study instead.
        arms: By name.
        seeds: Each arm is trained with each; seeds make the run, not the people that are held out.
        benchmarks: Test sets of the final runs.
        primary: The endpoint that decides, as <benchmark>/<figure>: lfw-allpairs/tar@far=1e-4.
        secondary: Others that are shown.
        tuning: How settings are chosen; needed by arms with trials.
        flip: Whether the mirror image is embedded too: none, sum or concat.
        intervals: Draws of the bootstrap: replicates, confidence, seed.
        spread: Standard deviation of the primary endpoint between seeds, a fraction, as known before the study.
        images_per_second: Of one training, as known before the study; null waits for the first result.
        share_prefix: Train what runs have in common once: one that differs from another in unpg alone begins with that
            one's last checkpoint before UNPG starts. Runs without UNPG then keep all their checkpoints.
    """

    name: str
    base: str | dict[str, Any]
    arms: dict[str, Arm]
    seeds: tuple[int, ...]
    benchmarks: tuple[str, ...]
    primary: str
    secondary: tuple[str, ...] = ()
    tuning: Tuning | None = None
    flip: Literal["none", "sum", "concat"] = "none"
    intervals: Bootstrap = field(default_factory=Bootstrap)
    spread: float | None = None
    images_per_second: float | None = None
    share_prefix: bool = False

    def __post_init__(self) -> None:
        for what, name in [("name", self.name), *(("arms", name) for name in self.arms)]:
            if not _NAME.fullmatch(name):
                raise ConfigError(f"{what}: {name!r} must be of letters, digits, dots, dashes and underscores.")
        if not self.arms or not self.seeds or not self.benchmarks:
            raise ConfigError("A study needs one entry or more in each of arms, seeds and benchmarks.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds must differ, got {list(self.seeds)}.")
        if self.spread is not None and not 0 < self.spread < math.inf:
            raise ConfigError(f"spread must be a standard deviation > 0, a fraction, got {self.spread}.")
        if self.images_per_second is not None and not 0 < self.images_per_second < math.inf:
            raise ConfigError(f"images_per_second must be > 0, got {self.images_per_second}.")
        for endpoint in self.endpoints:
            benchmark, _, figure = endpoint.rpartition("/")
            if benchmark not in self.benchmarks or not figure:
                raise ConfigError(
                    f"The endpoint {endpoint!r} must be <benchmark>/<figure>, with a benchmark of the study."
                    f"{did_you_mean(benchmark, self.benchmarks)}"
                )
        for name, arm in self.arms.items():
            if arm.trials and self.tuning is None:
                raise ConfigError(f"arms.{name} has trials, but the study has no tuning, which says how to choose.")
            for where, other in (("of", arm.of), ("against", arm.against)):
                if other is not None and other not in self.arms:
                    raise ConfigError(
                        f"arms.{name}.{where}: no arm is called {other!r}.{did_you_mean(other, self.arms)}"
                    )
            if arm.against == name:
                raise ConfigError(f"arms.{name}.against names the arm itself.")
            if arm.of is not None and arm.against is not None:
                raise ConfigError(f"arms.{name} has both of and against: an arm is compared with one other.")
        for name in self.arms:
            self._require_no_circle(name)

    def _require_no_circle(self, name: str) -> None:
        seen = [name]
        while (of := self.arms[seen[-1]].of) is not None:
            if of in seen:
                raise ConfigError(f"arms.{name}.of goes round in a circle: {' -> '.join([*seen, of])}.")
            seen.append(of)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The primary endpoint, then the others."""
        return (self.primary, *(e for e in self.secondary if e != self.primary))

    @property
    def comparisons(self) -> int:
        """Arms that are compared with another one."""
        return sum(self.compared_with(name) is not None for name in self.arms)

    def compared_with(self, arm: str) -> str | None:
        """The arm that one is compared with."""
        return self.arms[arm].of or self.arms[arm].against

    def label(self, arm: str) -> str:
        """What tables call an arm."""
        return self.arms[arm].label or arm

    def line(self, arm: str) -> Iterator[str]:
        """The arm, the one it changes, and so on."""
        at: str | None = arm
        while at is not None:
            yield at
            at = self.arms[at].of


def read_study(path: Path) -> tuple[Study, dict[str, Any]]:
    """The study of a file, and the settings of its base.

    Every arm and trial is resolved, so that an unknown setting is found before anything is trained.

    Raises:
        ConfigError: The file, an arm or a trial has a fault; names it.
    """
    try:
        study = from_dict(Study, read_yaml(path))
    except ConfigError as error:
        raise ConfigError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    base = study.base if isinstance(study.base, dict) else read_yaml(path.parent / study.base)
    for name, arm in study.arms.items():
        settings = base
        for of in reversed(list(study.line(name))):
            settings = merged(settings, study.arms[of].set)
        for where, changes in [("set", {}), *((f"trials[{i}]", trial) for i, trial in enumerate(arm.trials))]:
            try:
                config = resolve(from_dict(TrainConfig, merged(settings, changes)))
            except ConfigError as error:
                raise ConfigError(f"{path}: arms.{name}.{where}: {error}") from error
            if where != "set" and config.hold_out:
                raise ConfigError(
                    f"{path}: arms.{name}.{where}: hold_out is {config.hold_out}, but trials hold out tuning.hold_out."
                )
    return study, dict(base)


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` with ``changes``: groups are merged, but one whose kind changes is replaced.

    >>> merged({"loss": {"kind": "arcface", "s": 32}, "epochs": 10}, {"loss": {"s": 64}})
    {'loss': {'kind': 'arcface', 's': 64}, 'epochs': 10}
    >>> merged({"loss": {"kind": "arcface", "s": 32}}, {"loss": {"kind": "triplet"}})
    {'loss': {'kind': 'triplet'}}
    """
    found = dict(settings)
    for name, value in changes.items():
        before = found.get(name)
        if (
            isinstance(value, Mapping)
            and isinstance(before, Mapping)
            and value.get("kind") in (None, before.get("kind"))
        ):
            found[name] = merged(before, value)
        else:
            found[name] = value
    return found
