"""Losses added up."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unpg.distributed import ALONE, World
from unpg.errors import ConfigError
from unpg.losses.pair_loss import LossOutput, PairLoss
from unpg.pairs import FeaturePairs

__all__ = ["SumLoss"]


class SumLoss(nn.Module):
    """Several losses of the same features, each with its weight: a margin loss and a triplet loss, say.

    Args:
        losses: The losses by name. The first gives its statistics as they are, the others under their names.
        weights: What each is multiplied with; 1 for one that is not named.
        starts: Optimizer steps before a loss takes part, 0 for one that is not named; None: until a loss over
            :class:`FeaturePairs` has a feature of every class.
    """

    def __init__(
        self,
        losses: Mapping[str, PairLoss],
        weights: Mapping[str, float] | None = None,
        starts: Mapping[str, int | None] | None = None,
    ) -> None:
        super().__init__()
        weights, starts = dict(weights or {}), dict(starts or {})
        unknown = [name for name in (*weights, *starts) if name not in losses]
        if unknown or not losses:
            raise ConfigError(f"SumLoss adds {', '.join(losses) or 'nothing'}; there is no {', '.join(unknown)}.")
        for name in losses:
            if not 0 <= weights.get(name, 1.0) < float("inf") or (starts.get(name) or 0) < 0:
                raise ConfigError(f"SumLoss needs finite weights >= 0 and starts >= 0; see {name}.")
        self.losses = nn.ModuleDict(losses)
        self.weights = {name: float(weights.get(name, 1.0)) for name in losses}
        self.starts = {name: starts.get(name, 0) for name in losses}

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        step: int | None = None,
        sample_ids: Tensor | None = None,
        world: World = ALONE,
    ) -> LossOutput:
        """The weighted sum, with the arguments of :meth:`PairLoss.forward`.

        Raises:
            ConfigError: A loss starts late and the caller does not say which step it is.
        """
        if step is None and any(self.starts.values()):
            raise ConfigError("A loss of the sum starts late: call it with step=<optimizer steps done so far>.")
        total: Tensor | None = None
        per_anchor: Tensor | None = None
        statistics: dict[str, Tensor] = {}
        for place, (name, loss) in enumerate(self.losses.items()):
            waits = self._waits(name, step)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not waits):
                # A loss that waits still sees the batch: its memory fills.
                out: LossOutput = loss(features, labels, step=step, sample_ids=sample_ids, world=world)
            weight = 0.0 if waits else self.weights[name]
            total = weight * out.loss if total is None else total + weight * out.loss
            per_anchor = weight * out.per_anchor if per_anchor is None else per_anchor + weight * out.per_anchor
            statistics |= out.statistics if place == 0 else {f"{name}/{k}": v for k, v in out.statistics.items()}
            statistics[f"loss/{name}"] = out.loss.detach()
        assert total is not None
        assert per_anchor is not None
        return LossOutput(total, per_anchor, statistics)

    def _waits(self, name: str, step: int | None) -> bool:
        start, pairs = self.starts[name], self.losses[name].pairs
        if start is None:
            return isinstance(pairs, FeaturePairs) and not pairs.complete
        return step is not None and step < start

    def extra_repr(self) -> str:
        """Weights and starts, for ``repr``."""
        late = {name: start for name, start in self.starts.items() if start != 0}
        return f"weights={self.weights}" + (f", starts={late}" if late else "")
