"""What a study will cost, and what it can see: said before it starts."""

import math
import statistics
from collections.abc import Collection, Sequence
from typing import Any

import torch

from unpg.evaluate.intervals import t_quantile
from unpg.study.plan import Plan, Run
from unpg.train.setup import device_of

__all__ = ["POWER", "detectable", "hours", "seed_spread"]

POWER = 0.8
"""The chance of seeing the smallest detectable effect, if it is there."""


def hours(plan: Plan, only: Collection[str] = (), jobs: int = 1) -> tuple[float | None, int, int]:
    """Estimated hours of what is still to run, the number of its runs, and of those whose settings wait for trials.

    A run costs its images times its epochs at the median speed of the results that are there (on this device, if any
    is), start and judging included; else at the study's ``images_per_second``. Runs whose settings are not chosen yet
    count as the mean of the others. None where no speed is known.
    """
    wanted = [run for _, run in plan.wanted(only)]
    known = [run for run in wanted if run is not None and plan.results.get(run.digest) is None]
    waiting = len([run for run in wanted if run is None])
    if not known:
        return 0.0, waiting, waiting
    speed = _speed(list(plan.results.lines.values()), _device(known[0])) or plan.study.images_per_second
    if speed is None:
        return None, len(known) + waiting, waiting
    seconds = [run.images * (run.config.epochs - _shared(plan, run)) / speed for run in known]
    total = sum(seconds) + waiting * statistics.mean(seconds)
    return total / 3600 / jobs, len(known) + waiting, waiting


def _shared(plan: Plan, run: Run) -> int:
    """Epochs that another run has done."""
    return math.floor(run.config.unpg.start_epoch) if run.config.unpg is not None and plan.prefix(run) else 0


def _speed(lines: Sequence[dict[str, Any]], device: str) -> float | None:
    """Images a second over the whole time of a run."""
    whole = [line for line in lines if not line.get("shared_steps") and not line.get("resumed")]
    done = [line for line in whole if not line["diverged"]]
    here = [line for line in done if line["machine"]["device"] == device] or done
    rates = [line["images"] * line["epochs"] / (line["seconds"] + line.get("evaluation_seconds", 0.0)) for line in here]
    return statistics.median(rates) if rates else None


def _device(run: Run) -> str:
    device = device_of(run.config.device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def seed_spread(values: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation between seeds, pooled over arms: the root of the summed squares by their degrees of freedom.

    Args:
        values: Of each arm, a figure of each seed.

    Returns:
        None if no arm has two seeds.
    """
    arms = [arm for arm in values if len(arm) > 1]
    freedom = sum(len(arm) - 1 for arm in arms)
    return math.sqrt(sum((len(arm) - 1) * statistics.variance(arm) for arm in arms) / freedom) if freedom else None


def detectable(spread: float, seeds: int, comparisons: int, confidence: float = 0.95) -> float:
    """The smallest mean difference of two arms over seeds that is found with a chance of :data:`POWER`.

    ``(t(1 - alpha / 2) + t(POWER)) * spread / sqrt(seeds)``, quantiles of Student's t with ``seeds - 1`` degrees of
    freedom, ``alpha = (1 - confidence) / comparisons``: Holm's first step, the strictest. That is the chance of
    training alone; other people on the test set add theirs.

    Args:
        spread: Standard deviation between seeds of the difference of a seed's two runs, a fraction: sqrt(2) times that
            of a run if its seed says nothing about both.
        seeds: Of each arm, two or more.
        comparisons: Arms that are compared with a base.
        confidence: Of the whole family.
    """
    freedom = seeds - 1
    alpha = (1 - confidence) / max(comparisons, 1)
    return (t_quantile(1 - alpha / 2, freedom) + t_quantile(POWER, freedom)) * spread / math.sqrt(seeds)
