"""MLPG: pairs of the features of a batch."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from unpg.errors import ConfigError
from unpg.pairs.noise import Filter, KeepAll
from unpg.similarity import DifferentLabel, EachPairOnce, Negatives, Pairs, SameLabel, SimilaritySet

__all__ = ["BatchPairs", "Scope"]

Scope = Literal["batch", "anchor"]


@dataclass(frozen=True)
class BatchPairs:
    """Metric-learning-based pair generation: each feature with the others of its batch.

    Args:
        scope: Whose negatives an anchor sees. ``batch``: those of the whole batch, each unordered pair once, one set
            shared by all anchors (the UNPG authors). ``anchor``: its own row. These are different losses.
        keep: Which negatives to believe.
    """

    scope: Scope = "batch"
    keep: Filter = KeepAll()

    def __post_init__(self) -> None:
        if self.scope not in get_args(Scope):
            raise ConfigError(f"BatchPairs.scope must be one of {', '.join(get_args(Scope))}; got {self.scope!r}.")

    def __call__(self, features: Tensor, labels: Tensor) -> Pairs:
        """Pairs of (b, d) unit features with (b,) labels; only equality of labels matters."""
        rule = DifferentLabel(labels)
        if self.scope == "batch":
            negatives = SimilaritySet(features, features, EachPairOnce(rule, len(labels)), shared=True)
        else:
            negatives = SimilaritySet(features, features, rule)
        return Pairs(
            positives=SimilaritySet(features, features, SameLabel(labels)),
            negatives=(Negatives("batch", self.keep(negatives)),),
        )
