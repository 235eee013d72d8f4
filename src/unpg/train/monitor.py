"""Watches a run for collapse and for a start of UNPG that comes too early, and says what to try."""

import math
from collections.abc import Mapping

__all__ = ["CollapseMonitor", "early_start"]

_TOO_EARLY = 0.01


class CollapseMonitor:
    """Notices an embedding whose features all point one way.

    A fresh network maps all faces to nearly the same direction, so nothing is said before the first epoch is over.
    After that, images of different people should be nearly orthogonal on average; a mean pairwise cosine above
    ``limit`` over ``patience`` observations in a row is a collapse, and is reported once until it recovers.

    Args:
        limit: Mean pairwise cosine of a batch that is too much.
        patience: Observations in a row.

    Attributes:
        seen: Observations in a row so far.
    """

    def __init__(self, limit: float = 0.5, patience: int = 3) -> None:
        self.limit = limit
        self.patience = patience
        self.seen = 0

    def look(self, epoch: float, statistics: Mapping[str, float]) -> str | None:
        """Take the statistics of a step after ``epoch`` epochs; the warning, if there is one to give."""
        cosine = statistics.get("cosine/pairwise", math.nan)
        if epoch < 1 or not cosine > self.limit:
            self.seen = 0
            return None
        self.seen += 1
        if self.seen != self.patience:
            return None
        rank = statistics.get("effective_rank", math.nan)
        text = (
            f"The embedding is collapsing: after {epoch:.1f} epochs two random features of a batch have a mean cosine "
            f"of {cosine:.2f} (effective rank {rank:.0f})."
        )
        share = statistics.get("share/batch")
        if share is not None and share > statistics.get("share/classes", 0.0):
            return text + (
                f" The batch negatives take {share:.0%} of the denominator, the classes "
                f"{statistics.get('share/classes', 0.0):.0%}: class weights are hardly pushed apart. Try "
                f"unpg.weight: balanced, a later unpg.start_epoch, or a smaller loss.s."
            )
        return text + " Try a smaller optim.lr, a longer optim.warmup_epochs, or another loss.s."


def early_start(before: Mapping[str, float], now: Mapping[str, float]) -> str | None:
    """What to say if UNPG has begun between two looks at a run, over a network that hardly knows its own people.

    Where the positives had less than 1 % of the base's denominator when UNPG (w = 1) began, it cost EER in all pairs
    of runs that were looked at; above 5 % it was about level with photographs (docs/reproduction.md, "What a network
    must know first"). Nothing is said of UNPG from the first step, which nothing came before.

    Args:
        before: Statistics of the last step that was logged; none at the start of a run.
        now: Those of this step.
    """
    share = before.get("share/target", math.nan)
    begun = now.get("share/batch", 0) > 0 and not before.get("share/batch", 0)
    if not begun or not share < _TOO_EARLY:
        return None
    return (
        f"UNPG begins while the positives have {share:.2%} of the denominator: the network hardly knows its own people "
        f"yet, and where that was below {_TOO_EARLY:.0%} UNPG has cost accuracy. Set a later unpg.start_epoch, when "
        f"share/target, which is logged, has passed 5 %, or hold the batch to a part with unpg.weight: share."
    )
