"""UNPG the way its authors wrote it, as whole matrices: every kept batch negative is appended to every row.

The naive form that ``benchmarks/losses.py`` compares with; ``tests/unit/losses`` holds it against the slow loop.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def arcface_logits(features: Tensor, labels: Tensor, weights: Tensor, s: float, m: float) -> Tensor:
    """(b, C) scaled cosines with the margin on the own class."""
    cosines = F.normalize(features) @ F.normalize(weights).T
    own = cosines.gather(1, labels[:, None])
    turned = torch.cos(torch.acos(own.clamp(-1 + 1e-7, 1 - 1e-7)) + m)
    return s * cosines.scatter(1, labels[:, None], turned)


def kept_negatives(features: Tensor, labels: Tensor, r: float) -> Tensor:
    """(K,) similarities of the batch's negative pairs within the whiskers of their box plot."""
    unit = F.normalize(features)
    upper = torch.ones(len(labels), len(labels), dtype=torch.bool, device=labels.device).triu(diagonal=1)
    values = (unit @ unit.T)[upper & (labels[:, None] != labels)]
    ranked = values.detach().sort().values
    q1, q3 = ranked[int(0.25 * len(ranked))], ranked[int(0.75 * len(ranked))]
    reach = r * (q3 - q1)
    return values[(values >= q1 - reach) & (values <= q3 + reach)]


def naive_unpg_arcface(
    features: Tensor, labels: Tensor, weights: Tensor, *, s: float = 64.0, m: float = 0.5, r: float | None = 1.5
) -> Tensor:
    """Mean cross entropy over rows of C + K logits; without the K where r is None."""
    logits = arcface_logits(features, labels, weights, s, m)
    if r is not None:
        extra = s * kept_negatives(features, labels, r)
        logits = torch.cat([logits, extra.expand(len(labels), -1)], dim=1)
    return F.cross_entropy(logits, labels)
