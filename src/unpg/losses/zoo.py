"""The named losses, a few lines each, and the modifier that makes any of them unified.

C classes, d dimensions, c cosines, y the own class, s the scale. ``LOSSES`` maps the names of recipes to them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

from unpg.aggregate import (
    Aggregate,
    BinarySum,
    Contrast,
    Mining,
    MultiSimilarity,
    PairHinge,
    PerPositive,
    Softmax,
    SoftmaxSum,
    TripletHinge,
)
from unpg.errors import ConfigError
from unpg.heads import make_head
from unpg.losses.pair_loss import PairLoss
from unpg.losses.sum_loss import SumLoss
from unpg.margins import (
    Additive,
    Angular,
    Annealed,
    Combined,
    Curricular,
    Elastic,
    Euclidean,
    Lifted,
    Magnitude,
    Margin,
    Multiplicative,
    NoMargin,
    Quality,
    SelfPaced,
)
from unpg.margins.angular import Gradient, Tail
from unpg.pairs import BatchPairs, BoxWhisker, ClassPairs, FeaturePairs, Filter, MemoryPairs, Scope, UnifiedPairs
from unpg.registry import Registry
from unpg.similarity import Constant, Scheduled, Weight, as_weight

__all__ = [
    "LOSSES",
    "adaface",
    "arcface",
    "circle",
    "circle_pairs",
    "combined",
    "contrastive",
    "cosface",
    "curricularface",
    "elasticface",
    "infonce",
    "magface",
    "margin_contrastive",
    "margin_triplet",
    "mixface",
    "multi_similarity",
    "normface",
    "npair",
    "snpair",
    "sphereface",
    "sphereface2",
    "sphereface_r",
    "subcenter_arcface",
    "supcon",
    "triplet",
    "uniface",
    "unitsface",
    "unpg",
    "uss",
]

LOSSES: Registry[Callable[..., PairLoss | SumLoss]] = Registry("loss")

Distance = Literal["euclidean", "cosine"]


def _classes(num_classes: int, dim: int, margin: Margin, aggregate: Aggregate, centers: int = 1) -> PairLoss:
    return PairLoss(ClassPairs(make_head(num_classes, dim, centers)), margin, aggregate)


def _distance(name: str) -> Margin:
    if name not in ("euclidean", "cosine"):
        raise ConfigError(f"distance must be euclidean or cosine, got {name!r}.")
    return Euclidean() if name == "euclidean" else NoMargin()


# Softmax over class weights: -log(e^(s p) / (e^(s p) + sum_j e^(s n_j))), p and n_j reshaped by a margin.


@LOSSES.register("normface")
def normface(num_classes: int, dim: int, s: float = 64.0) -> PairLoss:
    """Softmax cross entropy on scaled cosines: ``-log(e^(s c_y) / sum_j e^(s c_j))``.

    Source: Wang et al. 2017, arXiv 1704.06369.
    """
    return _classes(num_classes, dim, NoMargin(), Softmax(s))


@LOSSES.register("cosface")
def cosface(num_classes: int, dim: int, s: float = 64.0, m: float = 0.35) -> PairLoss:
    """NormFace with ``c_y - m`` in place of the positive ``c_y``. The UNPG authors train with m = 0.5.

    Source: Wang et al. 2018, arXiv 1801.09414.
    """
    return _classes(num_classes, dim, Additive(m), Softmax(s))


@LOSSES.register("arcface")
def arcface(
    num_classes: int, dim: int, s: float = 64.0, m: float = 0.5, tail: Tail = "none", gradient: Gradient = "exact"
) -> PairLoss:
    """NormFace with ``cos(theta_y + m)`` in place of the positive ``cos theta_y``; m in radians.

    ``gradient="straight_through"`` is that of arcface_torch, in which the margin has slope one.

    Source: Deng et al. 2019, arXiv 1801.07698.
    """
    return _classes(num_classes, dim, Angular(m, tail, gradient), Softmax(s))


@LOSSES.register("combined")
def combined(
    num_classes: int,
    dim: int,
    s: float = 64.0,
    m1: float = 1.0,
    m2: float = 0.3,
    m3: float = 0.2,
    monotone: bool = True,
    gradient: Gradient = "exact",
) -> PairLoss:
    """NormFace with ``cos(m1 theta_y + m2) - m3`` in place of the positive.

    arcface_torch silently ignores m1 and m2 where m3 > 0; here all three count.

    Source: Deng et al. 2019, arXiv 1801.07698.
    """
    return _classes(num_classes, dim, Combined(m1, m2, m3, monotone, gradient), Softmax(s))


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

    Bounds left at None are the paper's for 512 dimensions, scaled to ``dim`` (:meth:`Magnitude.for_dim`). Every
    positive has its margin; with ``tail="easy"``, as in the authors' code, only one whose cosine is above 0.

    Source: Meng et al. 2021, arXiv 2103.06627.
    """
    margin = Magnitude.for_dim(dim, l_a=l_a, u_a=u_a, l_m=l_m, u_m=u_m, lambda_g=lambda_g, tail=tail)
    return _classes(num_classes, dim, margin, Softmax(s))


@LOSSES.register("adaface")
def adaface(num_classes: int, dim: int, s: float = 64.0, m: float = 0.4, h: float = 0.333) -> PairLoss:
    """``cos(theta_y - m z) - m - m z``, z the feature's length in standard deviations, clipped to [-1, 1].

    Source: Kim et al. 2022, arXiv 2204.00964.
    """
    return _classes(num_classes, dim, Quality(m, h), Softmax(s))


@LOSSES.register("curricularface")
def curricularface(num_classes: int, dim: int, s: float = 64.0, m: float = 0.5, tail: Tail = "linear") -> PairLoss:
    """ArcFace whose hard negatives ``c_j > cos(theta_y + m)`` become ``c_j (t + c_j)``, t a moving average of c_y.

    Source: Huang et al. 2020, arXiv 2004.00288.
    """
    return _classes(num_classes, dim, Curricular(m, tail=tail), Softmax(s))


@LOSSES.register("elasticface")
def elasticface(
    num_classes: int,
    dim: int,
    s: float = 64.0,
    form: Literal["arc", "cos"] = "arc",
    m: float | None = None,
    sigma: float | None = None,
    sort: bool = False,
    seed: int = 0,
) -> PairLoss:
    """ArcFace or CosFace with a margin drawn from N(m, sigma) for each sample; sorted, the hardest get the largest.

    Left at None: m = 0.5 (arc) or 0.35 (cos); sigma = 0.05, or sorted 0.0175 (arc) and 0.025 (cos). The draws go by
    this ``seed``, the step and the sample; the seed of a training run changes the samples of a step, and not this one.

    Source: Boutros et al. 2022, arXiv 2109.09416 (ElasticFace, and sorted ElasticFace+).
    """
    m = (0.5 if form == "arc" else 0.35) if m is None else m
    sigma = (0.05 if not sort else 0.0175 if form == "arc" else 0.025) if sigma is None else sigma
    return _classes(num_classes, dim, Elastic(form, m, sigma, sort, seed=seed), Softmax(s))


@LOSSES.register("subcenter-arcface")
def subcenter_arcface(
    num_classes: int, dim: int, centers: int = 3, s: float = 64.0, m: float = 0.5, tail: Tail = "none"
) -> PairLoss:
    """ArcFace in which a class has K weights, and the cosine with it is that of the nearest.

    Source: Deng et al. 2020, "Sub-center ArcFace: boosting face recognition by large-scale noisy web faces", ECCV.
    """
    return _classes(num_classes, dim, Angular(m, tail), Softmax(s), centers)


@LOSSES.register("sphereface")
def sphereface(num_classes: int, dim: int, m: float = 4.0, anneal: bool = True) -> PairLoss:
    """``|x| p(theta_y)`` against ``|x| c_j``, ``p = (-1)^k cos(m theta) - 2 k``: the feature's length is the scale.

    Annealed, the positive is ``(l c_y + p) / (1 + l)`` with ``l = max(5, 1000 / (1 + 0.12 step))``. The authors' code
    normalises the gradient, and says that the exact one, which is taken here, may want another l.

    Source: Liu et al. 2017, arXiv 1704.08063.
    """
    margin: Margin = Multiplicative(m)
    return _classes(num_classes, dim, Annealed(margin) if anneal else margin, Softmax("norm"))


@LOSSES.register("sphereface-r")
def sphereface_r(
    num_classes: int,
    dim: int,
    s: float = 30.0,
    m: float = 1.5,
    version: Literal[0, 1, 2] = 2,
    gradient: Gradient = "straight_through",
) -> PairLoss:
    """SphereFace on scaled cosines: version 0 as there, 1 with ``cos(min(m theta_y, pi))``, 2 with ``cos(theta_j / m)``
    of the others in place of the positive; each with slope one, as its authors train it (and 50 / s times this loss).

    Source: Liu et al. 2022, arXiv 2109.05565 (hard feature normalisation).
    """
    forms: dict[int, Literal["falling", "capped", "others"]] = {0: "falling", 1: "capped", 2: "others"}
    if version not in forms:
        raise ConfigError(f"sphereface_r has the versions 0, 1 and 2; got {version!r}.")
    return _classes(num_classes, dim, Multiplicative(m, forms[version], gradient), Softmax(s))


@LOSSES.register("circle")
def circle(num_classes: int, dim: int, s: float = 256.0, m: float = 0.25) -> PairLoss:
    """``log(1 + sum_j e^(s a_j (c_j - m)) e^(-s a_y (c_y - 1 + m)))``, ``a_j = max(c_j + m, 0)``, ``a_y = max(1 + m -
    c_y, 0)``: Circle loss with class weights.

    Source: Sun et al. 2020, arXiv 2002.10857.
    """
    return _classes(num_classes, dim, SelfPaced(m), Softmax(s))


# Binary terms over class weights, against a learned threshold.


@LOSSES.register("sphereface2")
def sphereface2(
    num_classes: int,
    dim: int,
    s: float = 40.0,
    m: float = 0.4,
    t: float = 3.0,
    balance: float = 0.7,
    gradient: Gradient = "exact",
    weight: float = 1.0,
) -> PairLoss:
    """``(l / s) log(1 + e^(-s (g(c_y) - m) - b)) + ((1 - l) / s) sum_j log(1 + e^(s (g(c_j) + m) + b))`` with ``g(c) =
    2 ((c + 1) / 2)^t - 1``, l the balance, and b learned from where the loss is least if all cosines are 0.

    The whole is multiplied by ``weight``: 50 in the authors' code, 10 in the settings of the paper, with slope one
    (``gradient="straight_through"``). At 1, and a rate and a weight decay made for a softmax loss, b moves slowly.

    Source: Wen et al. 2022, arXiv 2108.01513.
    """
    if not 0 < balance < 1:
        raise ConfigError(f"sphereface2.balance must lie strictly between 0 and 1, got {balance}.")
    if not 0 < weight < math.inf:
        raise ConfigError(f"sphereface2.weight must be a finite number > 0, got {weight}.")
    lift = 2 * 0.5**t - 1
    threshold = _balanced_threshold(s * (lift - m), s * (lift + m), balance / ((1 - balance) * max(num_classes - 1, 1)))
    aggregate = BinarySum(s, threshold, positive=weight * balance / s, negative=weight * (1 - balance) / s)
    return _classes(num_classes, dim, Lifted(t, m, gradient), aggregate)


def _balanced_threshold(positive: float, negative: float, odds: float) -> float:
    """B where ``odds log(1 + e^(b - positive)) + log(1 + e^(negative - b))`` is least: the slopes in e^b balance."""
    # With x = e^(negative - b) and g = e^(positive - negative): g x^2 + (1 - odds) x = odds, solved for log x. Either
    # form of the root adds two numbers of one sign: the other would lose all digits, g being next to nothing.
    if odds == 1:
        return (positive + negative) / 2
    apart = positive - negative
    root = math.sqrt((1 - odds) ** 2 + 4 * odds * math.exp(apart))
    if odds < 1:
        x = 2 * odds / (1 - odds + root)
        return negative - math.log(x) if x > 0 else negative
    return negative - (math.log((odds - 1 + root) / 2) - apart)


@LOSSES.register("uniface")
def uniface(num_classes: int, dim: int, s: float = 64.0, m: float = 0.4, negative: float = 1.0) -> PairLoss:
    """``log(1 + e^(b - s (c_y - m))) + negative sum_j log(1 + e^(s c_j - b))``: unified cross entropy, b learned from
    ``log(10 C)``. The authors clip the norm of the gradient at 10 (``optim.clip_norm``): the negatives' first
    pull is large, and the larger the fewer dimensions there are.

    Source: Zhou et al. 2023, "UniFace: unified cross-entropy loss for deep face recognition", ICCV.
    """
    aggregate = BinarySum(s, math.log(10 * max(num_classes, 1)), negative=negative)
    return _classes(num_classes, dim, Additive(m), aggregate)


@LOSSES.register("uss")
def uss(num_classes: int, dim: int, s: float = 64.0, m: float = 0.1) -> PairLoss:
    """UniFace with the latest feature of each class in place of class weights: unified threshold between samples.

    The threshold b is learned from a batch's ``mean log sum_j e^(s c_j)``, as the authors' is: the first one to which
    every class has left a feature (theirs waits an epoch for them). From ``log(10 C)``, where :func:`uniface` begins, a
    sum over many faces that are more alike than that throws it far beyond all of them, and nothing is left that keeps
    people apart. The norm of the gradient is clipped as for :func:`uniface`.

    Source: Li et al. 2023, arXiv 2311.02523, and its authors' code.
    """
    return PairLoss(FeaturePairs(num_classes, dim), Additive(m), BinarySum(s, None))


@LOSSES.register("unitsface")
def unitsface(
    num_classes: int, dim: int, s: float = 64.0, m: float = 0.4, m_samples: float = 0.1, start: int | None = None
) -> SumLoss:
    """CosFace plus :func:`uss`, which takes part from step ``start`` on; None: once every class has left a feature.

    The authors wait an epoch for that. From the first step it collapsed where it was tried (docs/reproduction.md,
    "Rivals").

    Source: Li et al. 2023, arXiv 2311.02523.
    """
    parts = {"cosface": cosface(num_classes, dim, s, m), "uss": uss(num_classes, dim, s, m_samples)}
    return SumLoss(parts, starts={"uss": start})


# Pairs of the batch. These have no weights; batches need several images of each identity.


@LOSSES.register("triplet")
def triplet(m: float = 0.2, mining: Mining = "all", distance: Distance = "euclidean") -> PairLoss:
    """``max(d(a, p) - d(a, n) + m, 0)``; d the distance of unit features, or ``cosine``: minus their cosine.

    ``all``: the mean over triplets that cost something; ``semihard``, ``hard``: see :class:`TripletHinge`.

    Source: Schroff et al. 2015, arXiv 1503.03832 (with squared distances); Hermans et al. 2017, arXiv 1703.07737.
    """
    return PairLoss(BatchPairs("anchor"), _distance(distance), TripletHinge(m, mining))


@LOSSES.register("contrastive")
def contrastive(
    pos_margin: float | None = None, neg_margin: float | None = None, distance: Distance = "euclidean"
) -> PairLoss:
    """``mean max(d - pos_margin, 0)`` over positive and ``mean max(neg_margin - d, 0)`` over negative pairs, each over
    those that cost something. With ``distance="cosine"``: ``max(pos_margin - c, 0)`` and ``max(c - neg_margin, 0)``.

    Margins left at None are 0 and 1 in distance, 1 and 0 in cosine.

    Source: Hadsell et al. 2006, "Dimensionality reduction by learning an invariant mapping", which squares the terms.
    """
    margin = _distance(distance)
    if distance == "euclidean":
        hinge = PairHinge(above=-(pos_margin or 0.0), below=-(1.0 if neg_margin is None else neg_margin))
    else:
        hinge = PairHinge(above=1.0 if pos_margin is None else pos_margin, below=neg_margin or 0.0)
    return PairLoss(BatchPairs("anchor"), margin, hinge)


@LOSSES.register("npair")
def npair(s: float = 16.0) -> PairLoss:
    """``log(1 + sum_n e^(s (s_n - s_p)))`` of each positive pair, n over the negatives of its anchor; cosines.

    Source: Sohn 2016, "Improved deep metric learning with multi-class N-pair loss objective", on inner products with
    one negative of each class; in this form it is the rival of MixFace (arXiv 2111.01717).
    """
    return PairLoss(BatchPairs("anchor"), NoMargin(), PerPositive(s))


@LOSSES.register("infonce")
def infonce(temperature: float = 0.07) -> PairLoss:
    """``-log(e^(p / T) / (e^(p / T) + sum_n e^(n / T)))`` of each positive pair: InfoNCE, NT-Xent.

    Source: van den Oord et al. 2018, arXiv 1807.03748; Chen et al. 2020, arXiv 2002.05709.
    """
    if not 0 < temperature < math.inf:
        raise ConfigError(f"infonce.temperature must be a finite number > 0, got {temperature}.")
    return PairLoss(BatchPairs("anchor"), NoMargin(), PerPositive(1 / temperature))


@LOSSES.register("snpair")
def snpair(s: float | None = 64.0) -> PairLoss:
    """N-pair whose positive pairs (each once) all share all negative pairs of the batch (each once).

    Source: Jung et al. 2021, arXiv 2111.01717.
    """
    return PairLoss(BatchPairs("batch", positives="batch"), NoMargin(), PerPositive(s))


@LOSSES.register("supcon")
def supcon(temperature: float = 0.1) -> PairLoss:
    """``mean_p -log(e^(p / T) / sum_a e^(a / T))`` of each anchor, a over all others: supervised contrastive, L_out.

    The authors' codes multiply it by T, or by T / 0.07.

    Source: Khosla et al. 2020, arXiv 2004.11362.
    """
    if not 0 < temperature < math.inf:
        raise ConfigError(f"supcon.temperature must be a finite number > 0, got {temperature}.")
    return PairLoss(BatchPairs("anchor"), NoMargin(), Contrast(1 / temperature))


@LOSSES.register("multi-similarity")
def multi_similarity(
    alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float | None = 0.1
) -> PairLoss:
    """Positives and negatives on scales of their own, mined against each other; see :class:`MultiSimilarity`. The
    authors' code has beta = 40.

    Source: Wang et al. 2019, arXiv 1904.06627.
    """
    return PairLoss(BatchPairs("anchor"), NoMargin(), MultiSimilarity(alpha, beta, base, epsilon))


@LOSSES.register("circle-pairs")
def circle_pairs(s: float = 256.0, m: float = 0.25) -> PairLoss:
    """Circle loss over all positive and all negative pairs of the batch, each once, in one term.

    Source: Sun et al. 2020, arXiv 2002.10857.
    """
    return PairLoss(BatchPairs("batch", positives="batch"), SelfPaced(m), Softmax(s))


# Sums.


@LOSSES.register("mixface")
def mixface(num_classes: int, dim: int, m: float = 0.5, epsilon: float = 1e-22) -> SumLoss:
    """ArcFace plus SN-pair, with scales from one tolerance: ``s = (ln(C - 1) + q) / cos m`` and ``ln |S^n| + q``, ``q =
    ln((1 - epsilon) / epsilon)``.

    Source: Jung et al. 2021, arXiv 2111.01717.
    """
    pairs = PairLoss(BatchPairs("batch", positives="batch"), NoMargin(), PerPositive(None, epsilon))
    s = (math.log(max(num_classes - 1, 1)) + math.log((1 - epsilon) / epsilon)) / math.cos(m)
    return SumLoss({"arcface": arcface(num_classes, dim, s, m, "linear"), "snpair": pairs})


def _margin_loss(name: str, num_classes: int, dim: int, s: float, m: float) -> PairLoss:
    if name not in ("arcface", "cosface"):
        raise ConfigError(f"base must be arcface or cosface, got {name!r}.")
    return (arcface if name == "arcface" else cosface)(num_classes, dim, s, m)


@LOSSES.register("margin-triplet")
def margin_triplet(
    num_classes: int,
    dim: int,
    base: Literal["arcface", "cosface"] = "arcface",
    s: float = 64.0,
    m: float = 0.5,
    m_triplet: float = 0.5,
    weight: float = 1.0,
) -> SumLoss:
    """A margin loss plus :func:`triplet` over all triplets: what the UNPG paper compares with.

    Source: Jung et al. 2022, arXiv 2203.11593.
    """
    parts = {"margin": _margin_loss(base, num_classes, dim, s, m), "triplet": triplet(m_triplet)}
    return SumLoss(parts, weights={"triplet": weight})


@LOSSES.register("margin-contrastive")
def margin_contrastive(
    num_classes: int,
    dim: int,
    base: Literal["arcface", "cosface"] = "arcface",
    s: float = 64.0,
    m: float = 0.5,
    weight: float = 1.0,
) -> SumLoss:
    """A margin loss plus :func:`contrastive`: what the UNPG paper compares with.

    Source: Jung et al. 2022, arXiv 2203.11593.
    """
    parts = {"margin": _margin_loss(base, num_classes, dim, s, m), "contrastive": contrastive()}
    return SumLoss(parts, weights={"contrastive": weight})


def unpg(
    base: PairLoss,
    r: float = 1.5,
    scope: Scope = "batch",
    weight: "Weight | float | Literal['balanced']" = 1.0,
    keep: Filter | None = None,
    memory: MemoryPairs | None = None,
    memory_weight: "Weight | float | Literal['balanced'] | None" = None,
    join: Literal["union", "sum"] = "union",
) -> PairLoss:
    """Any classification loss, with the believable negatives of the mini-batch in its denominator.

    ``-log(e^(s p) / (e^(s p) + sum_classes e^(s n) + w sum_batch e^(s n)))``, the sum over the batch without the
    outliers of its box plot. The class weights, and whatever else learns, stay those of ``base``. What it means over
    each base is a table in docs/theory.md: in short, sums of binary terms get a further sum, margins on negatives
    reshape the batch's as well where they depend on nothing but the similarity.

    Args:
        base: A loss over :class:`ClassPairs`.
        r: Whisker length; inf keeps every pair.
        scope: ``batch`` (the authors): all anchors share the batch's negatives; ``anchor``: each its own row.
        weight: w, a number (1 is the paper, 0 is ``base`` exactly), ``"balanced"``, or a rule of
            :mod:`unpg.similarity.weight`, such as a schedule.
        keep: Another filter of :mod:`unpg.pairs.noise` in place of ``BoxWhisker(r)``; r then has no part.
        memory: Negatives from earlier batches too.
        memory_weight: How much those count; None is ``weight``.
        join: ``union`` (the paper): one denominator; ``sum``: a softmax loss for each set, that of the batch times w
            added to ``base``, for comparison (:class:`~unpg.aggregate.SoftmaxSum`).

    Source: Jung et al. 2022, arXiv 2203.11593.
    """
    if not isinstance(base, PairLoss) or not isinstance(base.pairs, ClassPairs):
        raise ConfigError(
            f"unpg() adds batch negatives to one loss over ClassPairs (arcface, cosface, ...); this is "
            f"{_described(base)}. A sum is unified in Python: its margin loss alone, then SumLoss of "
            f"unpg(arcface(...)) and the other losses."
        )
    per_row = isinstance(base.aggregate, Softmax) and base.aggregate.scale == "norm"
    if per_row and (scope == "batch" or (memory is not None and memory.scope == "batch")):
        raise ConfigError(
            "This loss scales each row by the length of its own feature, so its anchors cannot share one set of "
            'negatives. Use scope="anchor": each anchor then sees the negatives of its own row.'
        )
    if join not in ("union", "sum"):
        raise ConfigError(f"join must be one of union, sum; got {join!r}.")
    filtered = BoxWhisker(r) if keep is None else keep
    extra = BatchPairs(scope, filtered, kernel=base.pairs.streaming.kernel)
    rule = as_weight(weight)
    later = rule if memory_weight is None else as_weight(memory_weight)
    aggregate = base.aggregate if join == "union" else _separate(base.aggregate, (rule, later))
    return PairLoss(UnifiedPairs(base.pairs, extra, rule, memory, later), base.margin, aggregate)


def _separate(aggregate: Aggregate, weights: Sequence[Weight]) -> SoftmaxSum:
    if not isinstance(aggregate, Softmax):
        raise ConfigError(
            f'join="sum" adds a second softmax loss to one; this base is a {type(aggregate).__name__}, which unpg() '
            f"adds a sum to as it is (docs/theory.md)."
        )
    for weight in weights:
        number = weight.then if isinstance(weight, Scheduled) else weight
        if not isinstance(number, Constant):
            raise ConfigError(
                f'With join="sum" a weight is a factor of a loss: give a number, or a schedule of one, not {number}, '
                f"which is about sums in one denominator."
            )
    return SoftmaxSum(aggregate.scale)


def _described(loss: nn.Module) -> str:
    return f"one over {type(loss.pairs).__name__}" if isinstance(loss, PairLoss) else type(loss).__name__
