"""Losses over the features of a batch, slowly: one pair or triplet at a time, straight from the papers' formulas.

Common arguments of every loss: ``features`` (b, d), not normalised; ``labels``, b numbers. ``c_ij`` is the cosine of
features i and j. Everything is meant for float64. A loss without a single pair to judge is 0.

An *ordered* pair (i, j) is told from (j, i); an *unordered* pair is counted once, i < j.

This file shares no code with the package and is the truth that the package is tested against.
"""

import math

import torch
from torch import Tensor


def softplus(z: Tensor) -> Tensor:
    """log(1 + e^z), exact: torch's own becomes the identity above 20, an error of 2e-9."""
    return torch.logaddexp(z, torch.zeros_like(z))


def number(value: Tensor | float) -> float:
    """A plain number, out of autograd: for choices and for weights without gradient."""
    return value.detach().item() if isinstance(value, Tensor) else float(value)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between two vectors."""
    return (a * b).sum() / (a.norm() * b.norm())


def far(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """``euclidean``: length of the difference of the unit vectors, sqrt(2 - 2 c); ``cosine``: -c."""
    if distance == "euclidean":
        return (a / a.norm() - b / b.norm()).norm()
    if distance == "cosine":
        return -cosine(a, b)
    raise AssertionError(distance)


def lse(terms: list[Tensor]) -> Tensor:
    """Log of the sum of exponentials."""
    return torch.logsumexp(torch.stack(terms), 0)


def mean(terms: list[Tensor], features: Tensor) -> Tensor:
    """Mean of a list; 0, still joined to the features, where there is nothing."""
    return torch.stack(terms).sum() / len(terms) if terms else features.sum() * 0


def positives_of(i: int, labels: list[int]) -> list[int]:
    """The others with the label of i."""
    return [j for j in range(len(labels)) if j != i and labels[j] == labels[i]]


def negatives_of(i: int, labels: list[int]) -> list[int]:
    """Those with another label than i."""
    return [j for j in range(len(labels)) if labels[j] != labels[i]]


def unordered(labels: list[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Positive pairs and negative pairs of the batch, each once."""
    pairs = [(i, j) for i in range(len(labels)) for j in range(i + 1, len(labels))]
    same = [(i, j) for i, j in pairs if labels[i] == labels[j]]
    return same, [(i, j) for i, j in pairs if labels[i] != labels[j]]


def triplet(
    features: Tensor,
    labels: list[int],
    *,
    m: float = 0.2,
    mining: str = "all",
    distance: str = "euclidean",
    average: str | None = None,
) -> Tensor:
    """Mean of relu(d_ap - d_an + m) over triplets (a, p, n) of distances on the unit sphere.

    ``all``: every (a, p, n); by default the mean over triplets whose loss is above 0 (pytorch-metric-learning's
    TripletMarginLoss). ``semihard``: triplets with 0 < d_an - d_ap < m, mean over those (FaceNet, arXiv 1503.03832;
    TripletMarginMiner). ``hard``: per anchor its farthest positive and nearest negative, mean over all anchors that
    have both, zeros included (batch hard, arXiv 1703.07737). ``average``: ``nonzero`` or ``any``, against the default.
    With ``cosine`` the distance is -c.
    """
    average = average or ("nonzero" if mining == "all" else "any")
    b = len(labels)
    d = [[far(features[i], features[j], distance) for j in range(b)] for i in range(b)]
    losses = []
    for a in range(b):
        positives, negatives = positives_of(a, labels), negatives_of(a, labels)
        if mining == "hard":
            if positives and negatives:
                p = max(positives, key=lambda j, a=a: number(d[a][j]))
                n = min(negatives, key=lambda j, a=a: number(d[a][j]))
                losses.append(torch.relu(d[a][p] - d[a][n] + m))
            continue
        for p in positives:
            for n in negatives:
                gap = number(d[a][n]) - number(d[a][p])
                if mining == "all" or 0 < gap < m:
                    losses.append(torch.relu(d[a][p] - d[a][n] + m))
    if average == "nonzero":
        losses = [value for value in losses if number(value) > 0]
    return mean(losses, features)


def contrastive(
    features: Tensor,
    labels: list[int],
    *,
    pos_margin: float = 0.0,
    neg_margin: float = 1.0,
    distance: str = "euclidean",
) -> Tensor:
    """Mean of relu(d_p - pos_margin) over positive pairs + mean of relu(neg_margin - d_n) over negative pairs.

    Each mean is over the pairs whose loss is above 0; unordered pairs, which is the same as ordered ones. Linear, not
    squared (pytorch-metric-learning's ContrastiveLoss; Hadsell et al. 2006 squares). With ``cosine`` the margins are
    of the cosine: relu(pos_margin - c) and relu(c - neg_margin).
    """
    same, other = unordered(labels)
    attract, repel = [], []
    for i, j in same:
        d = far(features[i], features[j], distance)
        attract.append(torch.relu(d - pos_margin) if distance == "euclidean" else torch.relu(pos_margin + d))
    for i, j in other:
        d = far(features[i], features[j], distance)
        repel.append(torch.relu(neg_margin - d) if distance == "euclidean" else torch.relu(-d - neg_margin))
    attract = [value for value in attract if number(value) > 0]
    repel = [value for value in repel if number(value) > 0]
    return mean(attract, features) + mean(repel, features)


def npair(features: Tensor, labels: list[int], *, s: float = 16.0) -> Tensor:
    """Mean over ordered positive pairs (i, p) of softplus( LSE_{n of i} s c_in - s c_ip ).

    The N-pair form (Sohn 2016, NeurIPS) on the unit sphere, over every positive pair of a batch. A pair whose anchor
    has no negative counts as 0.
    """
    losses = []
    for i in range(len(labels)):
        negatives = [s * cosine(features[i], features[n]) for n in negatives_of(i, labels)]
        for p in positives_of(i, labels):
            own = s * cosine(features[i], features[p])
            losses.append(softplus(lse(negatives) - own) if negatives else own * 0)
    return mean(losses, features)


def npair_sohn(features: Tensor, labels: list[int], *, l2: float = 0.0) -> Tensor:
    """log(1 + sum_{k != l} exp(f_l . g_k - f_l . g_l)), mean over the classes l that have two samples.

    Plain dot products; f_l and g_l are the first two samples of class l in the batch. ``l2`` times the mean squared
    length of the 2 N features is added. Sohn 2016, the multi-class N-pair loss with N classes of two samples.
    """
    chosen = []
    for label in sorted(set(labels)):
        places = [i for i in range(len(labels)) if labels[i] == label]
        if len(places) > 1:
            chosen.append((places[0], places[1]))
    losses = []
    for i, p in chosen:
        own = (features[i] * features[p]).sum()
        others = [(features[i] * features[q]).sum() for _, q in chosen if q != p]
        losses.append(softplus(lse(others) - own) if others else own * 0)
    squares = [(features[i] ** 2).sum() for pair in chosen for i in pair]
    return mean(losses, features) + l2 * mean(squares, features)


def infonce(features: Tensor, labels: list[int], *, temperature: float = 0.07) -> Tensor:
    """Mean over ordered positive pairs (i, p) of -log( e^{c_ip / T} / (e^{c_ip / T} + sum_{n of i} e^{c_in / T}) ).

    NT-Xent with labels (arXiv 1807.03748, 2002.05709), as pytorch-metric-learning's NTXentLoss: the other positives
    of i are not in the denominator. An anchor without negatives counts with 0. The same as ``npair`` with s = 1 / T.
    """
    losses = []
    for i in range(len(labels)):
        negatives = [cosine(features[i], features[n]) / temperature for n in negatives_of(i, labels)]
        for p in positives_of(i, labels):
            own = cosine(features[i], features[p]) / temperature
            losses.append(lse([own, *negatives]) - own)
    return mean(losses, features)


def supcon(features: Tensor, labels: list[int], *, temperature: float = 0.1) -> Tensor:
    """Mean over anchors i with positives of -1 / |P_i| sum_{p in P_i} log( e^{c_ip / T} / sum_{a != i} e^{c_ia / T} ).

    L_out of Supervised Contrastive Learning, Khosla et al. 2020, arXiv 2004.11362.
    """
    losses = []
    for i in range(len(labels)):
        positives = positives_of(i, labels)
        if positives:
            everyone = [cosine(features[i], features[a]) / temperature for a in range(len(labels)) if a != i]
            terms = [cosine(features[i], features[p]) / temperature - lse(everyone) for p in positives]
            losses.append(-torch.stack(terms).sum() / len(positives))
    return mean(losses, features)


def multi_similarity(
    features: Tensor,
    labels: list[int],
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    mining: bool = False,
    epsilon: float = 0.1,
) -> Tensor:
    """1 / b sum_i [ log(1 + sum_p e^{-alpha (c_ip - base)}) / alpha + log(1 + sum_n e^{beta (c_in - base)}) / beta ].

    ``mining`` keeps positives with c_ip - epsilon < max_n c_in and negatives with c_in + epsilon > min_p c_ip; a row
    that lacks either kind then keeps nothing. A row without any counts as 0 among the b.

    Multi-Similarity loss, Wang et al. 2019, arXiv 1904.06627.
    """
    losses = []
    for i in range(len(labels)):
        c_p = [cosine(features[i], features[j]) for j in positives_of(i, labels)]
        c_n = [cosine(features[i], features[j]) for j in negatives_of(i, labels)]
        if mining:
            if not c_p or not c_n:
                c_p, c_n = [], []
            else:
                highest, lowest = max(number(c) for c in c_n), min(number(c) for c in c_p)
                c_p = [c for c in c_p if number(c) - epsilon < highest]
                c_n = [c for c in c_n if number(c) + epsilon > lowest]
        row = features.sum() * 0
        if c_p:
            row = row + softplus(lse([-alpha * (c - base) for c in c_p])) / alpha
        if c_n:
            row = row + softplus(lse([beta * (c - base) for c in c_n])) / beta
        losses.append(row)
    return mean(losses, features)


def circle_positive(c: Tensor, gamma: float, m: float) -> Tensor:
    """-gamma relu(1 + m - c) (c - (1 - m)), the weight without gradient."""
    return -gamma * max(1 + m - number(c), 0.0) * (c - (1 - m))


def circle_negative(c: Tensor, gamma: float, m: float) -> Tensor:
    """gamma relu(c + m) (c - m), the weight without gradient."""
    return gamma * max(number(c) + m, 0.0) * (c - m)


def circle_pairs(features: Tensor, labels: list[int], *, gamma: float = 256.0, m: float = 0.25) -> Tensor:
    """softplus( LSE over all negative pairs + LSE over all positive pairs ): one term for the batch, pairs once.

    Circle loss with pair labels, Sun et al. 2020, arXiv 2002.10857, as its public re-implementation
    (TinyZeaMays/CircleLoss) and ``log[1 + sum_n sum_p]`` have it.
    """
    same, other = unordered(labels)
    if not same or not other:
        return features.sum() * 0
    up = lse([circle_positive(cosine(features[i], features[j]), gamma, m) for i, j in same])
    down = lse([circle_negative(cosine(features[i], features[j]), gamma, m) for i, j in other])
    return softplus(up + down)


def circle_anchors(features: Tensor, labels: list[int], *, gamma: float = 80.0, m: float = 0.4) -> Tensor:
    """The same term per anchor over its own positives and negatives, mean over anchors whose loss is above 0.

    As pytorch-metric-learning's CircleLoss. arXiv 2002.10857.
    """
    losses = []
    for i in range(len(labels)):
        positives, negatives = positives_of(i, labels), negatives_of(i, labels)
        if positives and negatives:
            up = lse([circle_positive(cosine(features[i], features[p]), gamma, m) for p in positives])
            down = lse([circle_negative(cosine(features[i], features[n]), gamma, m) for n in negatives])
            losses.append(softplus(up + down))
    return mean([value for value in losses if number(value) > 0], features)


def snpair(features: Tensor, labels: list[int], *, s: float = 64.0) -> Tensor:
    """Mean over unordered positive pairs p of softplus( LSE over ALL unordered negative pairs of s n - s p ).

    The similarity N-pair loss of MixFace, Jung et al. 2021, arXiv 2111.01717. Counting negatives twice would raise
    the LSE by log 2, so the order matters.
    """
    same, other = unordered(labels)
    if not same or not other:
        return features.sum() * 0
    down = lse([s * cosine(features[i], features[j]) for i, j in other])
    return mean([softplus(down - s * cosine(features[i], features[j])) for i, j in same], features)


def mixface_scales(classes: int, negatives: int, *, m: float = 0.5, eps: float = 1e-22) -> tuple[float, float]:
    """s1 = (log(C - 1) + log((1 - eps) / eps)) / cos m; s2 = log(number of negative pairs) + log((1 - eps) / eps)."""
    odds = math.log(1 - eps) - math.log(eps)
    return (math.log(classes - 1) + odds) / math.cos(m), math.log(negatives) + odds


def mixface(
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    m: float = 0.5,
    eps: float = 1e-22,
    tail: str = "linear",
) -> Tensor:
    """ArcFace at scale s1 + SN-pair at scale s2, simply added; s2 follows the batch's number of negative pairs.

    Where theta + m passes pi: ``linear`` (the authors) c - m sin m, ``none`` cos(theta + m).

    MixFace, Jung et al. 2021, arXiv 2111.01717.
    """
    _, other = unordered(labels)
    s1, s2 = mixface_scales(len(weights), max(len(other), 1), m=m, eps=eps)
    losses = []
    for x, y in zip(features, labels, strict=True):
        c = [cosine(x, v) for v in weights]
        theta = torch.acos(c[y])
        beyond = tail == "linear" and number(theta) + m > math.pi
        c[y] = c[y] - m * math.sin(m) if beyond else torch.cos(theta + m)
        losses.append(lse([s1 * value for value in c]) - s1 * c[y])
    return mean(losses, features) + snpair(features, labels, s=s2)


def uss(
    features: Tensor,
    labels: list[int],
    memory: Tensor,
    *,
    bias: float | Tensor,
    s: float = 64.0,
    m: float = 0.1,
    clamp: bool = False,
) -> Tensor:
    """softplus(-(s (c_iy - m) - b)) + sum_{j != y} softplus(s c_ij - b), mean over i.

    ``memory`` (C, d) holds the latest feature of every class, from earlier batches and without gradient; c_ij is the
    cosine with entry j. ``clamp``: the authors' code clips both logits to [-s, s].

    USS of UniTSFace, Li et al. 2023, arXiv 2311.02523; UniTSFace adds CosFace(m = 0.4) to it, both with weight 1.
    """
    classes = list(range(len(memory)))
    return uss_bank(features, labels, memory.detach(), classes, bias=bias, s=s, m=m, clamp=clamp)


def uss_bank(
    features: Tensor,
    labels: list[int],
    bank: Tensor,
    bank_labels: list[int],
    *,
    bias: float | Tensor,
    s: float = 64.0,
    m: float = 0.1,
    clamp: bool = False,
    ids: list[int] | None = None,
    bank_ids: list[int] | None = None,
) -> Tensor:
    """USS against any bank: sum over equal labels of the positive term + sum over others of the negative, mean over i.

    Entries with the id of i itself are left out. ``uss_bank(x, y, x, y, ids=range(b), bank_ids=range(b))`` is the
    in-batch form, over ordered pairs, with gradient on both sides. arXiv 2311.02523.
    """

    def bounded(z: Tensor) -> Tensor:
        return z.clamp(-s, s) if clamp else z

    total = features.sum() * 0
    for i in range(len(labels)):
        for j in range(len(bank_labels)):
            if ids is not None and bank_ids is not None and ids[i] == bank_ids[j]:
                continue
            c = cosine(features[i], bank[j])
            if labels[i] == bank_labels[j]:
                total = total + softplus(-bounded(s * (c - m) - bias))
            else:
                total = total + softplus(bounded(s * c - bias))
    return total / len(labels)


def uss_bias(features: Tensor, labels: list[int], memory: Tensor, *, s: float = 64.0) -> float:
    """The authors' first bias: mean_i LSE_{j != y_i} s c_ij over the memory, set when USS starts (bias <= 0)."""
    rows = []
    for x, y in zip(features, labels, strict=True):
        rows.append(lse([s * cosine(x, memory[j]) for j in range(len(memory)) if j != y]))
    return number(torch.stack(rows).sum()) / len(rows)


def uss_memory(memory: Tensor, features: Tensor, labels: list[int]) -> Tensor:
    """The memory after a batch: each class's entry is the batch's last feature of it, as it is, not normalised."""
    memory = memory.clone()
    for x, y in zip(features, labels, strict=True):
        memory[y] = x.detach()
    return memory


def queue_after(batches: list[list[int]], size: int) -> list[int]:
    """Sample ids that a first-in first-out queue of ``size`` holds after these batches of ids, oldest first."""
    held: list[int] = []
    for batch in batches:
        for sample in batch:
            held.append(sample)
            if len(held) > size:
                held.pop(0)
    return held


def memory_negatives(
    labels: list[int], ids: list[int], queue_labels: list[int], queue_ids: list[int]
) -> list[tuple[int, int]]:
    """Pairs (i, m) of a sample and a queue entry that differ in label and in sample id (XBM, arXiv 1912.06798)."""
    places = [(i, m) for i in range(len(labels)) for m in range(len(queue_labels))]
    return [(i, m) for i, m in places if labels[i] != queue_labels[m] and ids[i] != queue_ids[m]]


def memory_positives(
    labels: list[int], ids: list[int], queue_labels: list[int], queue_ids: list[int]
) -> list[tuple[int, int]]:
    """Pairs (i, m) of a sample and a queue entry with one label and different sample ids."""
    places = [(i, m) for i in range(len(labels)) for m in range(len(queue_labels))]
    return [(i, m) for i, m in places if labels[i] == queue_labels[m] and ids[i] != queue_ids[m]]
