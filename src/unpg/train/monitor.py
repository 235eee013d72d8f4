"""Watches a run for collapse, and says what to try."""

import math
from collections.abc import Mapping

__all__ = ["CollapseMonitor"]


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
