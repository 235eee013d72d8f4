"""The batch as a loss sees it: features split into direction and length, and what else is known of each."""

from dataclasses import dataclass

from torch import Tensor

from unpg.distributed import ALONE, World
from unpg.similarity.normalize import normalize

__all__ = ["Anchors"]


@dataclass(frozen=True, eq=False)
class Anchors:
    """The features of a batch.

    Attributes:
        features: (b, d), in float32 or float64.
        unit: (b, d), their directions; zero where a feature is zero.
        norms: (b, 1), their lengths.
        labels: (b,), int64.
        sample_ids: (b,) int64, which image each comes from, or None if the caller does not say.
        step: Optimizer steps done so far, or None if the caller does not say.
        world: The processes that all have this batch and share the work on its sets.
    """

    features: Tensor
    unit: Tensor
    norms: Tensor
    labels: Tensor
    sample_ids: Tensor | None = None
    step: int | None = None
    world: World = ALONE

    @classmethod
    def of(
        cls,
        features: Tensor,
        labels: Tensor,
        *,
        sample_ids: Tensor | None = None,
        step: int | None = None,
        world: World = ALONE,
    ) -> "Anchors":
        """Split (b, d) features of any floating type; half precision is widened to float32, labels to int64."""
        unit, norms = normalize(features)
        return cls(features.to(unit.dtype), unit, norms, labels.long(), sample_ids, step, world)

    def __len__(self) -> int:
        return len(self.labels)
