"""A margin that adapts to image quality, as the feature's length shows it."""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from unpg.errors import ConfigError
from unpg.margins.angular import add_angle
from unpg.margins.base import MARGINS, Margin
from unpg.margins.running import RunningMoments
from unpg.similarity import Anchors

__all__ = ["Quality"]

_SHORTEST, _LONGEST = 1e-3, 100.0
_EPSILON = 1e-3


@MARGINS.register("quality")
class Quality(nn.Module, Margin):
    """``cos(theta + g_angle) - g_add`` with ``g_angle = -m z`` and ``g_add = m + m z``: AdaFace (Kim et al. 2022,
    arXiv 2204.00964).

    ``z = clip(h (|x| - mean) / (std + 0.001), -1, 1)`` says how good an image is, against moving averages of the mean
    and the standard deviation of feature lengths (clipped to [0.001, 100], float32, detached, updated once a step by
    the batch before its margin is formed). Good images (z = 1) feel a margin against the angle, poor ones ArcFace's.

    Args:
        m: The margin, in (0, 1.5].
        h: How many standard deviations reach the full margin: 1 / h.
        momentum: Weight of the new batch in the averages.
    """

    def __init__(self, m: float = 0.4, h: float = 0.333, momentum: float = 0.01) -> None:
        super().__init__()
        if not 0 < m <= 1.5:
            raise ConfigError(f"Quality.m must be in (0, 1.5] (radians and a difference of cosines), got {m}.")
        if not 0 < h < math.inf or not 0 < momentum <= 1:
            raise ConfigError(f"Quality needs h > 0 and momentum in (0, 1], got {h} and {momentum}.")
        self.m, self.h = m, h
        self.lengths = RunningMoments(momentum, mean=20.0, std=100.0)

    @property
    def sees_batch(self) -> bool:
        """True: the averages take the batch in before its margin is formed."""
        return True

    def for_batch(self, anchors: Anchors, target: Tensor | None) -> Margin:
        """Update the averages (in training), then the margin of each anchor."""
        lengths = anchors.norms.detach().clamp(_SHORTEST, _LONGEST)
        if self.training:
            self.lengths.see(lengths.squeeze(1), anchors.step)
        spread = self.lengths.std + _EPSILON
        quality = (self.h * (lengths - self.lengths.mean) / spread).clamp(-1, 1).to(anchors.norms.dtype)
        return _QualityOfBatch(self.m, quality, self.lengths)

    def extra_repr(self) -> str:
        """Settings, for ``repr``."""
        return f"m={self.m}, h={self.h}"


@dataclass(frozen=True, eq=False)
class _QualityOfBatch(Margin):
    m: float
    quality: Tensor  # (b, 1)
    lengths: RunningMoments

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        return add_angle(cosine, -self.m * self.quality, "clamp") - (self.m + self.m * self.quality)

    def statistics(self, anchors: Anchors) -> dict[str, Tensor]:
        return {
            "norm/mean": anchors.norms.detach().mean(),
            "norm/running_mean": self.lengths.mean.clone(),
            "norm/running_std": self.lengths.std.clone(),
            "quality/mean": self.quality.mean(),
            "quality/clipped": (self.quality.abs() >= 1).to(self.quality.dtype).mean(),
        }
