"""Losses over class weights, slowly: one row and one class at a time, straight from the papers' formulas.

Common arguments of every loss: ``features`` (b, d), not normalised; ``labels``, b numbers; ``weights`` (C, d), not
normalised. Everything is meant for float64. The result is the mean over the b rows.

``extra`` are kept batch negatives, cosines shared by all rows, and ``w`` is their weight (UNPG, arXiv 2203.11593). A
softmax loss gains ``w sum exp(scale n)`` in each row's negative sum; a loss of softplus terms gains ``w`` times the
sum of the negative terms of ``extra``. A margin that treats every negative alike (Circle, SphereFace-R v2,
SphereFace2) reshapes ``extra`` too; a margin that depends on the row (CurricularFace) does not.

``straight_through`` gives the value of the margin and the slope of the plain cosine, d out / d cos = 1: what
arcface_torch gets from a margin under ``no_grad`` and what SphereFace-R calls characteristic gradient detachment.

This file shares no code with the package and is the truth that the package is tested against.
"""

import math

import torch
from torch import Tensor

Extra = Tensor | list[float] | tuple[()]


def softplus(z: Tensor) -> Tensor:
    """log(1 + e^z), exact: torch's own becomes the identity above 20, an error of 2e-9."""
    return torch.logaddexp(z, torch.zeros_like(z))


def number(value: Tensor | float) -> float:
    """A plain number, out of autograd: for choices and for weights without gradient."""
    return value.detach().item() if isinstance(value, Tensor) else float(value)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between two vectors."""
    return (a * b).sum() / (a.norm() * b.norm())


def listed(extra: Extra, like: Tensor) -> list[Tensor]:
    """The batch negatives as a list of scalars, with their gradients if they have any."""
    return [n if isinstance(n, Tensor) else like.new_tensor(n) for n in extra]


def softmax_row(positive: Tensor, negatives: list[Tensor], extra: list[Tensor], w: float) -> Tensor:
    """-log( e^p / (e^p + sum e^n + w sum e^extra) ) of logits."""
    terms = list(negatives)
    if w > 0:
        terms += [e + math.log(w) for e in extra]
    if not terms:
        return positive * 0
    return softplus(torch.logsumexp(torch.stack(terms), 0) - positive)


def detach_slope(value: Tensor, c: Tensor) -> Tensor:
    """The value of ``value`` with the gradient of ``c``."""
    return c + (value - c).detach()


def added_angle(c: Tensor, m: float | Tensor, tail: str) -> Tensor:
    """cos(theta + m); where theta + m passes pi: ``none`` as it is, ``linear`` c - m sin m, ``keep`` c."""
    theta = torch.acos(c)
    if tail != "none" and number(theta) + number(m) > math.pi:
        return c - m * math.sin(number(m)) if tail == "linear" else c
    return torch.cos(theta + m)


def psi(c: Tensor, m: float) -> Tensor:
    """(-1)^k cos(m theta) - 2 k for theta in [k pi / m, (k + 1) pi / m]: SphereFace's monotone extension."""
    angle = m * torch.acos(c)
    k = math.floor(number(angle) / math.pi)
    return (-1) ** k * torch.cos(angle) - 2 * k


def sphereface_lambda(step: int, *, base: float = 1000.0, gamma: float = 0.12, power: float = 1.0, least: float = 5.0):
    """lambda = max(least, base (1 + gamma step)^-power), step from 1: the authors' annealing (wy1iu/sphereface)."""
    return max(least, base * (1 + gamma * step) ** -power)


def sphereface(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    m: int = 4,
    lam: float = 5.0,
    straight_through: bool = False,
    extra: Extra = (),
    w: float = 1.0,
) -> Tensor:
    """A-Softmax: logits |x| cos theta_j, and |x| (lambda cos theta_y + psi(theta_y)) / (1 + lambda) for the target.

    SphereFace, Liu et al. 2017, arXiv 1704.08063. The scale is the row's own length, with gradient.
    """
    total = features.new_zeros(())
    for x, y in zip(features, labels, strict=True):
        length = x.norm()
        c = [cosine(x, v) for v in weights]
        target = (lam * c[y] + psi(c[y], m)) / (1 + lam)
        if straight_through:
            target = detach_slope(target, c[y])
        negatives = [length * c[j] for j in range(len(c)) if j != y]
        total = total + softmax_row(length * target, negatives, [length * n for n in listed(extra, x)], w)
    return total / len(labels)


def sphereface_r(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    version: str = "v2",
    s: float | None = 30.0,
    m: float = 1.5,
    straight_through: bool = True,
    reshape_extra: bool = True,
    extra: Extra = (),
    w: float = 1.0,
) -> Tensor:
    """Softmax of s psi(theta_y) against s eta(theta_j); m is real.

    v0: psi = (-1)^k cos(m theta) - 2 k, eta = cos theta.
    v1: psi = cos(min(m theta, pi)), eta = cos theta.
    v2: psi = cos theta, eta = cos(theta / m).
    ``s=None`` takes the row's length |x| instead (no feature normalisation). The authors scale the mean by lw / s.

    SphereFace Revived, Liu et al. 2022, arXiv 2109.05565.
    """

    def eta(c: Tensor) -> Tensor:
        return torch.cos(torch.acos(c) / m) if version == "v2" else c

    total = features.new_zeros(())
    for x, y in zip(features, labels, strict=True):
        scale = x.norm() if s is None else s
        c = [cosine(x, v) for v in weights]
        shaped = [eta(value) for value in c]
        if version == "v0":
            shaped[y] = psi(c[y], m)
        elif version == "v1":
            angle = m * torch.acos(c[y])
            shaped[y] = torch.cos(angle) if number(angle) < math.pi else c[y] * 0 - 1
        else:
            shaped[y] = c[y]
        more = listed(extra, x)
        more_shaped = [eta(n) if reshape_extra else n for n in more]
        if straight_through:
            shaped = [detach_slope(value, plain) for value, plain in zip(shaped, c, strict=True)]
            more_shaped = [detach_slope(value, plain) for value, plain in zip(more_shaped, more, strict=True)]
        negatives = [scale * shaped[j] for j in range(len(c)) if j != y]
        total = total + softmax_row(scale * shaped[y], negatives, [scale * n for n in more_shaped], w)
    return total / len(labels)


def sphereface2_bias(classes: int, *, r: float = 40.0, m: float = 0.4, t: float = 3.0, lam: float = 0.7) -> float:
    """The bias at which a start with every cosine 0 has the least loss (SphereFace2-C).

    With a = e^(r (g(0) - m)) and d = e^(r (g(0) + m)) this is the root in b of
    lambda / (1 + a e^b) = (1 - lambda) (C - 1) d e^b / (1 + d e^b), found by halving.
    """
    g = 2 * 0.5**t - 1
    low, high = -1000.0, 1000.0
    for _ in range(200):
        b = (low + high) / 2
        pull = math.log(lam) - _log1pexp(r * (g - m) + b)
        push = math.log((1 - lam) * (classes - 1)) - _log1pexp(-(r * (g + m) + b))
        low, high = (b, high) if pull > push else (low, b)
    return (low + high) / 2


def _log1pexp(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def sphereface2(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    bias: float | Tensor,
    r: float = 40.0,
    m: float = 0.4,
    t: float = 3.0,
    lam: float = 0.7,
    kind: str = "C",
    straight_through: bool = False,
    extra: Extra = (),
    w: float = 1.0,
) -> Tensor:
    """lambda / r softplus(-(r p + b)) + (1 - lambda) / r sum_{j != y} softplus(r n_j + b).

    With g(z) = 2 ((z + 1) / 2)^t - 1. Kind C (the paper's own): p = g(cos theta_y) - m, n = g(cos theta_j) + m.
    A: p = g(cos(min(theta_y + m, pi))); M: p = g(cos(min(m theta_y, pi))); both with n = g(cos theta_j).
    The bias is *added* to the logits: the threshold on g is -b / r. The authors multiply by lw, 50 or 10.

    SphereFace2, Wen et al. 2022, arXiv 2108.01513.
    """

    def g(z: Tensor) -> Tensor:
        return 2 * ((z + 1) / 2) ** t - 1

    def negative(c: Tensor) -> Tensor:
        value = g(c) + m if kind == "C" else g(c)
        return softplus(r * (detach_slope(value, c) if straight_through else value) + bias)

    def positive(c: Tensor) -> Tensor:
        if kind == "C":
            value = g(c) - m
        else:
            angle = torch.acos(c) + m if kind == "A" else torch.acos(c) * m
            value = g(torch.cos(angle)) if number(angle) < math.pi else g(c * 0 - 1)
        return softplus(-(r * (detach_slope(value, c) if straight_through else value) + bias))

    total = features.new_zeros(())
    for x, y in zip(features, labels, strict=True):
        c = [cosine(x, v) for v in weights]
        total = total + lam / r * positive(c[y])
        for j in range(len(c)):
            if j != y:
                total = total + (1 - lam) / r * negative(c[j])
        for n in listed(extra, x):
            total = total + w * (1 - lam) / r * negative(n)
    return total / len(labels)


def combined(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    s: float = 64.0,
    m1: float = 1.0,
    m2: float = 0.3,
    m3: float = 0.2,
    tail: str = "none",
    straight_through: bool = False,
    extra: Extra = (),
    w: float = 1.0,
) -> Tensor:
    """Softmax of s (cos(m1 theta_y + m2) - m3) against s cos theta_j.

    ArcFace's united form, Deng et al. 2019, arXiv 1801.07698; (1, m, 0) is ArcFace, (1, 0, m) CosFace. ``tail`` other
    than ``none`` needs m1 = 1.
    """
    total = features.new_zeros(())
    for x, y in zip(features, labels, strict=True):
        c = [cosine(x, v) for v in weights]
        if m1 == 1:
            target = added_angle(c[y], m2, tail) - m3
        else:
            assert tail == "none"
            target = torch.cos(m1 * torch.acos(c[y]) + m2) - m3
        if straight_through:
            target = detach_slope(target, c[y])
        negatives = [s * c[j] for j in range(len(c)) if j != y]
        total = total + softmax_row(s * target, negatives, [s * n for n in listed(extra, x)], w)
    return total / len(labels)


def adaface_statistics(
    history: list[Tensor], *, alpha: float = 0.01, mean: float = 20.0, std: float = 100.0
) -> tuple[float, float]:
    """Mean and deviation of the lengths after every batch of ``history`` ((b, d) features each) has been seen.

    Lengths are clipped to [0.001, 100]; the deviation divides by b - 1; new = alpha batch + (1 - alpha) old. A batch is
    judged by the numbers that already contain it. AdaFace, Kim et al. 2022, arXiv 2204.00964.
    """
    for batch in history:
        lengths = [min(max(number(x.norm()), 0.001), 100.0) for x in batch]
        average = sum(lengths) / len(lengths)
        spread = math.sqrt(sum((a - average) ** 2 for a in lengths) / (len(lengths) - 1))
        mean = alpha * average + (1 - alpha) * mean
        std = alpha * spread + (1 - alpha) * std
    return mean, std


def adaface(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    mean: float,
    std: float,
    s: float = 64.0,
    m: float = 0.4,
    h: float = 0.333,
    eps: float = 1e-3,
    clamp_cosines: bool = False,
    extra: Extra = (),
    w: float = 1.0,
) -> Tensor:
    """Softmax of s (cos(theta_y - m q) - m - m q) against s cos theta_j, q = clip(h (a - mean) / (std + eps), -1, 1).

    ``a`` is the length clipped to [0.001, 100], without gradient; ``mean`` and ``std`` are those after the update with
    this batch. The widened angle is clipped to [eps, pi - eps], where it has no gradient. ``clamp_cosines``: the
    authors' code also clips every class cosine to [-1 + eps, 1 - eps].

    AdaFace, Kim et al. 2022, arXiv 2204.00964.
    """
    total = features.new_zeros(())
    for x, y in zip(features, labels, strict=True):
        c = [cosine(x, v) for v in weights]
        if clamp_cosines:
            c = [value.clamp(-1 + eps, 1 - eps) for value in c]
        length = min(max(number(x.norm()), 0.001), 100.0)
        q = min(max(h * (length - mean) / (std + eps), -1.0), 1.0)
        angle = torch.acos(c[y]) - m * q
        if number(angle) < eps:
            turned = c[y] * 0 + math.cos(eps)
        elif number(angle) > math.pi - eps:
            turned = c[y] * 0 + math.cos(math.pi - eps)
        else:
            turned = torch.cos(angle)
        target = turned - (m + m * q)
        negatives = [s * c[j] for j in range(len(c)) if j != y]
        total = total + softmax_row(s * target, negatives, [s * n for n in listed(extra, x)], w)
    return total / len(labels)


def curricularface_t(
    features: Tensor, labels: list[int], weights: Tensor, *, t: float = 0.0, alpha: float = 0.01
) -> float:
    """t after this batch: alpha mean_i cos theta_{y_i} + (1 - alpha) t; starts at 0. arXiv 2004.00288."""
    cosines = [number(cosine(x, weights[y])) for x, y in zip(features, labels, strict=True)]
    return alpha * sum(cosines) / len(cosines) + (1 - alpha) * t


def curricularface(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    t: float,
    s: float = 64.0,
    m: float = 0.5,
    tail: str = "linear",
    extra: Extra = (),
    w: float = 1.0,
) -> Tensor:
    """ArcFace whose hard class negatives, cos theta_j > cos(theta_y + m), become cos theta_j (t + cos theta_j).

    ``t`` is the one after the update with this batch. Hardness is judged by cos(theta_y + m) without the tail. Both
    factors carry gradient, the choice does not. ``extra`` is not reshaped.

    CurricularFace, Huang et al. 2020, arXiv 2004.00288.
    """
    total = features.new_zeros(())
    for x, y in zip(features, labels, strict=True):
        c = [cosine(x, v) for v in weights]
        bar = math.cos(math.acos(number(c[y])) + m)
        negatives = []
        for j in range(len(c)):
            if j != y:
                hard = number(c[j]) > bar
                negatives.append(s * (c[j] * (t + c[j]) if hard else c[j]))
        target = added_angle(c[y], m, tail)
        total = total + softmax_row(s * target, negatives, [s * n for n in listed(extra, x)], w)
    return total / len(labels)


def elasticface_sorted(margins: list[float], cosines: list[float], *, as_released: bool = False) -> list[float]:
    """ElasticFace+: the drawn margins dealt out so that the lowest target cosine gets the largest margin.

    ``as_released`` follows the published code, which writes sorted[order[i]] to row i where order[k] is the row of the
    k-th highest cosine: the inverse of the permutation that the paper describes. arXiv 2109.09416.
    """
    ascending = sorted(margins)
    order = sorted(range(len(cosines)), key=lambda i: -cosines[i])
    dealt = [0.0] * len(margins)
    for k, i in enumerate(order):
        if as_released:
            dealt[k] = ascending[i]
        else:
            dealt[i] = ascending[k]
    return dealt


def elasticface(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    margins: list[float],
    kind: str = "arc",
    s: float = 64.0,
    extra: Extra = (),
    w: float = 1.0,
) -> Tensor:
    """ArcFace or CosFace with a margin of its own for each row: cos(theta_y + m_i), or cos theta_y - m_i.

    The margins are normal draws of mean 0.5 (arc) or 0.35 (cos) and deviation 0.05. ElasticFace, Boutros et al. 2022,
    arXiv 2109.09416.
    """
    total = features.new_zeros(())
    for x, y, m in zip(features, labels, margins, strict=True):
        c = [cosine(x, v) for v in weights]
        target = torch.cos(torch.acos(c[y]) + m) if kind == "arc" else c[y] - m
        negatives = [s * c[j] for j in range(len(c)) if j != y]
        total = total + softmax_row(s * target, negatives, [s * n for n in listed(extra, x)], w)
    return total / len(labels)


def subcenter_arcface(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    s: float = 64.0,
    m: float = 0.5,
    tail: str = "none",
    extra: Extra = (),
    w: float = 1.0,
) -> Tensor:
    """ArcFace over the best of K centres: cos theta_j = max_k cos(x, W_jk), target and others alike; weights (C, K, d).

    Sub-center ArcFace, Deng et al. 2020 (ECCV); the centre that is not chosen has no gradient. K = 3 in the paper.
    """
    total = features.new_zeros(())
    for x, y in zip(features, labels, strict=True):
        c = []
        for centres in weights:
            values = [cosine(x, v) for v in centres]
            c.append(max(values, key=number))
        negatives = [s * c[j] for j in range(len(c)) if j != y]
        target = added_angle(c[y], m, tail)
        total = total + softmax_row(s * target, negatives, [s * n for n in listed(extra, x)], w)
    return total / len(labels)


def uniface_bias(classes: int, *, rate: float = 1.0) -> float:
    """log(10 C rate), the authors' start of the bias; ``rate`` is the share of classes sampled."""
    return math.log(10 * classes * rate)


def uniface(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    bias: float | Tensor,
    s: float = 64.0,
    m: float = 0.4,
    lam: float = 1.0,
    clamp: bool = False,
    extra: Extra = (),
    w: float = 1.0,
) -> Tensor:
    """Unified cross entropy: softplus(-(s (cos theta_y - m) - b)) + lambda sum_{j != y} softplus(s cos theta_j - b).

    One learned b for all classes, *subtracted*, so b / s is the threshold. ``clamp``: the authors' code clips both
    logits to [-s, s], where they lose their gradient.

    UniFace, Zhou et al. 2023 (ICCV).
    """

    def bounded(z: Tensor) -> Tensor:
        return z.clamp(-s, s) if clamp else z

    total = features.new_zeros(())
    for x, y in zip(features, labels, strict=True):
        c = [cosine(x, v) for v in weights]
        total = total + softplus(-bounded(s * (c[y] - m) - bias))
        for j in range(len(c)):
            if j != y:
                total = total + lam * softplus(bounded(s * c[j] - bias))
        for n in listed(extra, x):
            total = total + w * lam * softplus(bounded(s * n - bias))
    return total / len(labels)


def circle_class(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    gamma: float = 256.0,
    m: float = 0.25,
    extra: Extra = (),
    w: float = 1.0,
) -> Tensor:
    """softplus( LSE_{j != y} gamma a_n (c_j - m) - gamma a_p (c_y - (1 - m)) ), one term per row.

    a_n = relu(c_j + m) and a_p = relu(1 + m - c_y), both without gradient. ``extra`` is reshaped as the negatives.

    Circle loss with class labels, Sun et al. 2020, arXiv 2002.10857.
    """

    def negative(c: Tensor) -> Tensor:
        return gamma * max(number(c) + m, 0.0) * (c - m)

    total = features.new_zeros(())
    for x, y in zip(features, labels, strict=True):
        c = [cosine(x, v) for v in weights]
        target = gamma * max(1 + m - number(c[y]), 0.0) * (c[y] - (1 - m))
        negatives = [negative(c[j]) for j in range(len(c)) if j != y]
        total = total + softmax_row(target, negatives, [negative(n) for n in listed(extra, x)], w)
    return total / len(labels)


def broadface_compensated(feature: Tensor, old_weight: Tensor, new_weight: Tensor) -> Tensor:
    """e* = e + |e| / |W_old| (W_new - W_old), W the row of the feature's own class. BroadFace, arXiv 2008.06674."""
    return feature + feature.norm() / old_weight.norm() * (new_weight - old_weight)


def broadface(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    queue: list[tuple[Tensor, int, Tensor]],
    s: float = 64.0,
    m: float = 0.5,
    tail: str = "linear",
    compensate: bool = True,
) -> Tensor:
    """ArcFace(batch; W held) + ArcFace(queue and batch, features held; W), each a mean over its own rows.

    ``queue`` holds (feature, label, the class's weight row when it was stored), without the present batch. The first
    term trains the encoder, the second the classifier. BroadFace, Kim et al. 2020, arXiv 2008.06674.
    """
    held = weights.detach()
    rows, names = [], []
    for feature, label, old in queue:
        rows.append(broadface_compensated(feature, old, held[label]) if compensate else feature)
        names.append(label)
    rows += [x.detach() for x in features]
    names += list(labels)
    setting = {"s": s, "m1": 1.0, "m2": m, "m3": 0.0, "tail": tail}
    return combined(features, labels, held, **setting) + combined(torch.stack(rows).detach(), names, weights, **setting)
