"""The named losses, a few lines each, and the modifier that makes any of them unified."""

from collections.abc import Callable
from typing import Literal

from unpg.aggregate import Softmax
from unpg.errors import ConfigError
from unpg.heads import FullHead
from unpg.losses.pair_loss import PairLoss
from unpg.margins import Additive, Angular, Magnitude, Margin, NoMargin
from unpg.margins.angular import Tail
from unpg.pairs import BatchPairs, BoxWhisker, ClassPairs, Filter, Scope, UnifiedPairs
from unpg.registry import Registry
from unpg.similarity import Weight, as_weight

__all__ = ["LOSSES", "arcface", "cosface", "magface", "normface", "unpg"]

LOSSES: Registry[Callable[..., PairLoss]] = Registry("loss")


def _classification(num_classes: int, dim: int, s: float, margin: Margin) -> PairLoss:
    return PairLoss(ClassPairs(FullHead(num_classes, dim)), margin, Softmax(s))


@LOSSES.register("normface")
def normface(num_classes: int, dim: int, s: float = 64.0) -> PairLoss:
    """Softmax cross entropy on scaled cosines: ``-log(e^(s c_y) / sum_j e^(s c_j))``.

    Source: Wang et al. 2017, arXiv 1704.06369.
    """
    return _classification(num_classes, dim, s, NoMargin())


@LOSSES.register("cosface")
def cosface(num_classes: int, dim: int, s: float = 64.0, m: float = 0.35) -> PairLoss:
    """NormFace with ``c_y - m`` in place of the positive ``c_y``. The UNPG authors train with m = 0.5.

    Source: Wang et al. 2018, arXiv 1801.09414.
    """
    return _classification(num_classes, dim, s, Additive(m))


@LOSSES.register("arcface")
def arcface(num_classes: int, dim: int, s: float = 64.0, m: float = 0.5, tail: Tail = "none") -> PairLoss:
    """NormFace with ``cos(theta_y + m)`` in place of the positive ``cos theta_y``; m in radians.

    Source: Deng et al. 2019, arXiv 1801.07698.
    """
    return _classification(num_classes, dim, s, Angular(m, tail))


@LOSSES.register("magface")
def magface(
    num_classes: int,
    dim: int,
    s: float = 64.0,
    l_a: float | None = None,
    u_a: float | None = None,
    l_m: float = 0.45,
    u_m: float = 0.8,
    lambda_g: float | None = None,
    tail: Tail = "none",
) -> PairLoss:
    """ArcFace with a margin that grows with the feature's length, which a regulariser draws up.

    Bounds left at None are the paper's for 512 dimensions, scaled to ``dim`` (:meth:`Magnitude.for_dim`).

    Source: Meng et al. 2021, arXiv 2103.06627.
    """
    margin = Magnitude.for_dim(dim, l_a=l_a, u_a=u_a, l_m=l_m, u_m=u_m, lambda_g=lambda_g, tail=tail)
    return _classification(num_classes, dim, s, margin)


def unpg(
    base: PairLoss,
    r: float = 1.5,
    scope: Scope = "batch",
    weight: "Weight | float | Literal['balanced']" = 1.0,
    keep: Filter | None = None,
) -> PairLoss:
    """Any classification loss, with the believable negatives of the mini-batch in its denominator.

    ``-log(e^(s p) / (e^(s p) + sum_classes e^(s n) + w sum_batch e^(s n)))``, the sum over the batch without the
    outliers of its box plot. The class weights stay those of ``base``.

    Args:
        base: A loss over :class:`ClassPairs`.
        r: Whisker length; inf keeps every pair.
        scope: ``batch`` (the authors): all anchors share the batch's negatives; ``anchor``: each its own row.
        weight: w, a number (1 is the paper, 0 is ``base`` exactly), ``"balanced"``, or a rule of
            :mod:`unpg.similarity.weight`, such as a schedule.
        keep: Another filter of :mod:`unpg.pairs.noise` in place of ``BoxWhisker(r)``; r then has no part.

    Source: Jung et al. 2022, arXiv 2203.11593.
    """
    if not isinstance(base.pairs, ClassPairs):
        raise ConfigError(
            f"unpg() adds batch negatives to a loss over ClassPairs (arcface, cosface, ...); this one is over "
            f"{type(base.pairs).__name__}."
        )
    extra = BatchPairs(scope, BoxWhisker(r) if keep is None else keep)
    return PairLoss(UnifiedPairs(base.pairs, extra, as_weight(weight)), base.margin, base.aggregate)
