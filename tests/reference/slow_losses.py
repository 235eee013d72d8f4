"""The losses, slowly: Python loops straight from the formulas, in the authors' form.

Every kept batch negative is appended to every row, and the loss is softmax cross entropy. This file shares no code
with the package and is the truth that the package is tested against.
"""

import math

import torch
from torch import Tensor


def cosine_matrix(a: Tensor, b: Tensor) -> Tensor:
    return (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T


def positive_logit(kind: str, cosine: Tensor, norm: Tensor, settings: dict) -> Tensor:
    if kind == "normface":
        return cosine
    if kind == "cosface":
        return cosine - settings["m"]
    if kind == "arcface":
        return torch.cos(torch.acos(cosine) + settings["m"])
    if kind == "magface":
        a = norm.clamp(settings["l_a"], settings["u_a"])
        span = (settings["u_m"] - settings["l_m"]) / (settings["u_a"] - settings["l_a"])
        return torch.cos(torch.acos(cosine) + settings["l_m"] + span * (a - settings["l_a"]))
    raise AssertionError(kind)


def penalty(kind: str, norm: Tensor, settings: dict) -> Tensor:
    if kind != "magface":
        return norm * 0
    a = norm.clamp(settings["l_a"], settings["u_a"])
    return settings["lambda_g"] * (a / settings["u_a"] ** 2 + 1 / a)


def fences(values: list[float], r: float) -> tuple[float, float]:
    ranked = sorted(values)
    n = len(ranked)
    if math.isinf(r) or n < 4:
        return -math.inf, math.inf
    q1, q3 = ranked[int(0.25 * n)], ranked[int(0.75 * n)]
    return q1 - r * (q3 - q1), q3 + r * (q3 - q1)


def batch_negatives(similarity: Tensor, labels: list[int], r: float, anchor: int | None) -> Tensor:
    """Kept negatives, (K,): of all unordered pairs of the batch (anchor None), or of one anchor's row."""
    b = len(labels)
    if anchor is None:
        places = [(i, j) for i in range(b) for j in range(i + 1, b) if labels[i] != labels[j]]
    else:
        places = [(anchor, j) for j in range(b) if labels[anchor] != labels[j]]
    table = similarity.tolist()
    low, high = fences([table[i][j] for i, j in places], r)
    kept = [(i, j) for i, j in places if low <= table[i][j] <= high]
    return similarity[[i for i, _ in kept], [j for _, j in kept]]


def classification_loss(
    kind: str,
    features: Tensor,
    labels: list[int],
    weights: Tensor,
    *,
    s: float,
    settings: dict,
    r: float | None = None,
    scope: str = "batch",
    weight: float | str = 1.0,
) -> Tensor:
    """Mean loss; ``r=None`` means the base loss without batch negatives."""
    cosines = cosine_matrix(features, weights)
    norms = features.norm(dim=1)
    similarity = cosine_matrix(features, features)
    nothing = features.new_zeros(0)
    shared = batch_negatives(similarity, labels, r, None) if r is not None and scope == "batch" else nothing
    total = features.new_zeros(())
    for i, y in enumerate(labels):
        own = shared
        if r is not None and scope == "anchor":
            own = batch_negatives(similarity, labels, r, i)
        w = weight
        if weight == "balanced":
            w = (len(weights) - 1) / len(own) if len(own) else 1.0
        own_logit = s * positive_logit(kind, cosines[i, y], norms[i], settings)
        others = s * torch.cat([cosines[i, :y], cosines[i, y + 1 :]])
        extra = s * own + math.log(w) if w > 0 else nothing
        row = torch.cat([own_logit[None], others, extra])
        total = total + torch.logsumexp(row, 0) - row[0] + penalty(kind, norms[i], settings)
    return total / len(labels)
