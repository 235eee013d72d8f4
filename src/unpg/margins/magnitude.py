"""The magnitude-aware angular margin."""

import math
from dataclasses import dataclass

from torch import Tensor

from unpg.errors import ConfigError
from unpg.margins.angular import Tail, add_angle, check_choice
from unpg.margins.base import MARGINS, Margin
from unpg.similarity import Anchors

__all__ = ["Magnitude"]

_PAPER_DIM = 512


@MARGINS.register("magnitude")
@dataclass(frozen=True)
class Magnitude(Margin):
    """``cos(theta + m(a))`` with a margin that grows with the feature's length: MagFace (Meng et al. 2021,
    arXiv 2103.06627).

    With ``a`` the length clamped to [l_a, u_a]: ``m(a) = l_m + (u_m - l_m) (a - l_a) / (u_a - l_a)``, and each
    anchor's loss gains ``lambda_g g(a)``, ``g(a) = a / u_a^2 + 1 / a``, which draws lengths towards u_a. The length
    carries gradient in both, and none where it is clamped.

    Args:
        l_a: Lower bound on the length. Lengths grow with the root of the embedding size, and the defaults are those
            of 512 dimensions; see :meth:`for_dim`.
        u_a: Upper bound on the length.
        l_m: The margin at the lower bound, radians.
        u_m: The margin at the upper bound, radians.
        lambda_g: Weight of the regulariser.
        tail: Beyond pi, see :func:`unpg.margins.angular.add_angle`.
    """

    l_a: float = 10.0
    u_a: float = 110.0
    l_m: float = 0.45
    u_m: float = 0.8
    lambda_g: float = 35.0
    tail: Tail = "none"

    def __post_init__(self) -> None:
        if not 0 < self.l_a < self.u_a:
            raise ConfigError(f"Magnitude needs 0 < l_a < u_a, got l_a={self.l_a}, u_a={self.u_a}.")
        if not 0 <= self.l_m <= self.u_m <= math.pi:
            raise ConfigError(f"Magnitude needs 0 <= l_m <= u_m <= pi (radians), got l_m={self.l_m}, u_m={self.u_m}.")
        if not self.lambda_g >= 0:
            raise ConfigError(f"Magnitude.lambda_g must be >= 0, got {self.lambda_g}.")
        check_choice("Magnitude.tail", self.tail, Tail)

    @classmethod
    def for_dim(
        cls,
        dim: int,
        *,
        l_a: float | None = None,
        u_a: float | None = None,
        l_m: float = 0.45,
        u_m: float = 0.8,
        lambda_g: float | None = None,
        tail: Tail = "none",
    ) -> "Magnitude":
        """The paper's setting carried over to ``dim`` dimensions; what is given stays as given.

        Bounds scale with ``sqrt(dim / 512)``. So does ``lambda_g``, because g has the unit of one over a length.
        """
        scale = math.sqrt(dim / _PAPER_DIM)
        return cls(
            l_a=cls.l_a * scale if l_a is None else l_a,
            u_a=cls.u_a * scale if u_a is None else u_a,
            l_m=l_m,
            u_m=u_m,
            lambda_g=cls.lambda_g * scale if lambda_g is None else lambda_g,
            tail=tail,
        )

    def margin(self, norms: Tensor) -> Tensor:
        """m(a) in radians of each length, same shape."""
        slope = (self.u_m - self.l_m) / (self.u_a - self.l_a)
        return self.l_m + slope * (norms.clamp(self.l_a, self.u_a) - self.l_a)

    def positive(self, cosine: Tensor, anchors: Anchors) -> Tensor:
        """(b, k) cosines of angles widened by each anchor's own margin."""
        return add_angle(cosine, self.margin(anchors.norms), self.tail)

    def penalty(self, anchors: Anchors) -> Tensor:
        """``lambda_g g(a)`` of each anchor, (b,)."""
        a = anchors.norms.squeeze(1).clamp(self.l_a, self.u_a)
        return self.lambda_g * (a / self.u_a**2 + 1 / a)

    def statistics(self, anchors: Anchors) -> dict[str, Tensor]:
        """Mean length, mean margin, and the share of lengths outside the bounds (those feel no regulariser)."""
        norms = anchors.norms.detach()
        return {
            "norm/mean": norms.mean(),
            "norm/clamped": ((norms < self.l_a) | (norms > self.u_a)).to(norms.dtype).mean(),
            "margin/mean": self.margin(norms).mean(),
        }
