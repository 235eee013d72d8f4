"""A margin that is drawn anew for every sample."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unpg.errors import ConfigError
from unpg.margins.angular import Tail, add_angle, check_choice
from unpg.margins.base import MARGINS, Margin
from unpg.similarity import Anchors
from unpg.transforms.counter import uniform

__all__ = ["Elastic"]

Form = Literal["arc", "cos"]


@MARGINS.register("elastic")
class Elastic(nn.Module, Margin):
    """ArcFace or CosFace with ``m ~ N(m, sigma)`` for each sample and step: ElasticFace (Boutros et al. 2022,
    arXiv 2109.09416).

    A draw is a hash of the seed, the step and the sample's id, so it does not depend on the order of the batch or on
    what was drawn before. Without sample ids the place in the batch stands in, without steps a counter of calls.

    Args:
        form: ``arc``: ``cos(theta + m)``, m in radians; ``cos``: ``cos theta - m``.
        m: Mean of the margin.
        sigma: Its standard deviation.
        sort: ElasticFace+: the larger draws of the batch go to the samples farther from their class.
        tail: Of ``arc`` beyond pi, see :func:`unpg.margins.angular.add_angle`.
        seed: Of the draws.
    """

    def __init__(
        self,
        form: Form = "arc",
        m: float = 0.5,
        sigma: float = 0.05,
        sort: bool = False,
        tail: Tail = "none",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("Elastic.form", form, Form)
        check_choice("Elastic.tail", tail, Tail)
        if not 0 <= m <= (math.pi if form == "arc" else 2) or not 0 <= sigma < math.inf:
            raise ConfigError(
                f"Elastic needs m in [0, pi] (arc, radians) or [0, 2] (cos), and sigma >= 0; got {m} and {sigma}."
            )
        self.form, self.m, self.sigma, self.sort, self.tail, self.seed = form, m, sigma, sort, tail, seed
        self.calls = 0

    @property
    def sees_batch(self) -> bool:
        """Whether the draws of the batch are sorted."""
        return self.sort

    def for_batch(self, anchors: Anchors, target: Tensor | None) -> Margin:
        """Draw the margins of the batch; in evaluation mode each is ``m``.

        Raises:
            ConfigError: Sorting needs class weights.
        """
        if self.sort and target is None:
            raise ConfigError("Elastic(sort=True) ranks samples by their own class: use it in a loss over ClassPairs.")
        drawn = torch.full_like(anchors.norms, self.m).detach()
        if self.training:
            drawn = drawn + self.sigma * self._normal(anchors).to(drawn.dtype)
            if self.sort and target is not None:
                drawn = self.assign(drawn, target)
        return _Drawn(self.form, drawn, self.tail)

    def _normal(self, anchors: Anchors) -> Tensor:
        """(b, 1) standard normal numbers."""
        ids = anchors.sample_ids
        if ids is None:
            ids = torch.arange(len(anchors), device=anchors.labels.device)
        step = anchors.step
        if step is None:
            step, self.calls = self.calls, self.calls + 1
        # Between two multiples of 2**-24, so that neither end is reached; float32 would round the last one up to it.
        level = uniform(ids, self.seed, step).double() + 2.0**-25
        return math.sqrt(2) * torch.erfinv(2 * level - 1)[:, None]

    @staticmethod
    def assign(drawn: Tensor, target: Tensor) -> Tensor:
        """The draws (b, 1) in such an order that the sample with the smallest target cosine has the largest."""
        rank = target.argsort(dim=0, descending=True, stable=True).argsort(dim=0, stable=True)
        return drawn.sort(dim=0).values.gather(0, rank)

    def get_extra_state(self) -> dict[str, Any]:
        """How often it was called, for the checkpoint."""
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over :meth:`get_extra_state`."""
        self.calls = state["calls"]

    def extra_repr(self) -> str:
        """Settings, for ``repr``."""
        return f"form={self.form!r}, m={self.m}, sigma={self.sigma}, sort={self.sort}"


@dataclass(frozen=True, eq=False)
class _Drawn(Margin):
    form: Form
    m: Tensor  # (b, 1)
    tail: Tail

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        return add_angle(cosine, self.m, self.tail) if self.form == "arc" else cosine - self.m

    def statistics(self, anchors: Anchors) -> dict[str, Tensor]:
        return {"margin/mean": self.m.mean()}
