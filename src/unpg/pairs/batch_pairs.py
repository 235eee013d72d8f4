"""MLPG: pairs of the features of a batch."""

from dataclasses import dataclass
from typing import Literal, get_args

from unpg.errors import ConfigError
from unpg.pairs.noise import Filter, KeepAll
from unpg.similarity import (
    Anchors,
    DifferentLabel,
    EachPairOnce,
    Kernel,
    Negatives,
    Pairs,
    SameLabel,
    SimilaritySet,
)

__all__ = ["BatchPairs", "Scope", "check_scope"]

Scope = Literal["batch", "anchor"]


def check_scope(owner: str, scope: str) -> None:
    """Raise :class:`ConfigError` unless ``scope`` is a known one."""
    if scope not in get_args(Scope):
        raise ConfigError(f"{owner}.scope must be one of {', '.join(get_args(Scope))}; got {scope!r}.")


@dataclass(frozen=True)
class BatchPairs:
    """Metric-learning-based pair generation: each feature with the others of its batch.

    Args:
        scope: Whose negatives an anchor sees. ``batch``: those of the whole batch, each unordered pair once, one set
            shared by all anchors (the UNPG authors). ``anchor``: its own row. These are different losses.
        keep: Which negatives to believe.
        positives: Likewise for the positives: ``batch`` makes one set of all, each unordered pair once.
        kernel: How reductions of a shared set are computed, see :class:`SimilaritySet`.
    """

    scope: Scope = "batch"
    keep: Filter = KeepAll()
    positives: Scope = "anchor"
    kernel: Kernel = "auto"

    def __post_init__(self) -> None:
        check_scope("BatchPairs", self.scope)
        if self.positives not in get_args(Scope):
            raise ConfigError(f"BatchPairs.positives must be one of {', '.join(get_args(Scope))}.")

    def __call__(self, anchors: Anchors) -> Pairs:
        """The pairs of a batch; only equality of labels matters."""
        same, different = SameLabel(anchors.labels), DifferentLabel(anchors.labels)

        def pairs(rule: SameLabel | DifferentLabel, scope: Scope) -> SimilaritySet:
            if scope == "anchor":
                return SimilaritySet(anchors.unit, anchors.unit, rule, world=anchors.world)
            once = EachPairOnce(rule, len(anchors))
            return SimilaritySet(anchors.unit, anchors.unit, once, shared=True, kernel=self.kernel, world=anchors.world)

        return Pairs(
            positives=pairs(same, self.positives),
            negatives=(Negatives("batch", self.keep(pairs(different, self.scope))),),
        )
