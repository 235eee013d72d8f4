"""A margin that turns from easy to hard negatives as training goes on."""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from unpg.errors import ConfigError
from unpg.margins.angular import Tail, add_angle, check_choice
from unpg.margins.base import MARGINS, Margin
from unpg.margins.running import RunningMoments
from unpg.similarity import Anchors, HardenedNegative, Reshape

__all__ = ["Curricular"]


@MARGINS.register("curricular")
class Curricular(nn.Module, Margin):
    """``cos(theta + m)`` on the positive, and ``c (t + c)`` in place of a class negative c that is above it:
    CurricularFace (Huang et al. 2020, arXiv 2004.00288).

    t is a moving average of the mean target cosine, 0 to begin with: hard negatives count less than they are while the
    network is young (t + c < 1), and more when it is good. t and the choice of hard negatives carry no gradient.
    Negatives of the batch (UNPG) belong to all anchors, have no target of their own, and stay as they are.

    Args:
        m: The margin in radians, in [0, pi].
        momentum: Weight of the new batch in t.
        tail: Beyond pi, see :func:`unpg.margins.angular.add_angle`; the authors go on linearly.
    """

    def __init__(self, m: float = 0.5, momentum: float = 0.01, tail: Tail = "linear") -> None:
        super().__init__()
        if not 0 <= m <= math.pi or not 0 < momentum <= 1:
            raise ConfigError(
                f"Curricular needs m in [0, pi] (radians) and momentum in (0, 1], got {m} and {momentum}."
            )
        check_choice("Curricular.tail", tail, Tail)
        self.m, self.tail = m, tail
        self.targets = RunningMoments(momentum, mean=0.0)

    @property
    def sees_batch(self) -> bool:
        """True: the average takes the batch in before its margin is formed."""
        return True

    def for_batch(self, anchors: Anchors, target: Tensor | None) -> Margin:
        """Update t (in training), then each anchor's threshold.

        Raises:
            ConfigError: The loss has no class weights.
        """
        if target is None:
            raise ConfigError("Curricular compares with each anchor's own class: use it in a loss over ClassPairs.")
        if self.training:
            self.targets.see(target.squeeze(1), anchors.step)
        threshold = add_angle(target, self.m, "none")
        return _CurricularOfBatch(self.m, self.tail, threshold, self.targets.mean.to(target.dtype, copy=True))

    def extra_repr(self) -> str:
        """Settings, for ``repr``."""
        return f"m={self.m}, tail={self.tail!r}"


@dataclass(frozen=True, eq=False)
class _CurricularOfBatch(Margin):
    m: float
    tail: Tail
    threshold: Tensor  # (b, 1)
    t: Tensor

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        return add_angle(cosine, self.m, self.tail)

    def class_negative(self) -> Reshape:
        return HardenedNegative(self.threshold, self.t)

    def statistics(self, anchors: Anchors) -> dict[str, Tensor]:
        return {"curriculum/t": self.t}
