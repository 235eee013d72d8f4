"""The pairs that a model gets most wrong: impostors of the highest and genuine pairs of the lowest cosine."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unpg.errors import ConfigError
from unpg.evaluate.allpairs import full_precision, integer_labels, rounded, unit_rows

__all__ = ["NamedPair", "hardest_pairs", "named_pairs"]

NamedPair = tuple[str, str, float, bool]
"""Names of two images, their cosine, and whether they show one person."""

_BLOCK = 1024


def hardest_pairs(
    embeddings: ArrayLike | Tensor, labels: ArrayLike, count: int = 50, *, device: torch.device | str = "cpu"
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """The ``count`` hardest impostor pairs, hardest first, then the ``count`` hardest genuine pairs of a set.

    One pass over the products of the set; of each block only what may be among the hardest is kept.

    Args:
        embeddings: (n, d) real.
        labels: (n,) integer.
        count: Pairs of each kind at most.
        device: Where to multiply.

    Returns:
        Pairs (k, 2) of rows, the smaller first; their cosines (k,); whether they are genuine (k,).

    Raises:
        ConfigError: ``count`` is below 1.
        ShapeError: As :func:`~unpg.evaluate.allpairs.all_pairs`.
        DataError: An embedding is not finite.
    """
    if count < 1:
        raise ConfigError(f"The hardest pairs are 1 or more; got count={count}.")
    x = unit_rows(embeddings).to(device)
    who = integer_labels(labels, len(x)).to(device)
    kept = {same: (x.new_empty(0), who.new_empty(0, 2)) for same in (False, True)}
    with torch.inference_mode(), full_precision():
        for a in range(0, len(x), _BLOCK):
            for c in range(a, len(x), 4 * _BLOCK):
                scores = rounded(x[a : a + _BLOCK] @ x[c : c + 4 * _BLOCK].T)
                rows = torch.arange(a, a + len(scores), device=x.device)
                columns = torch.arange(c, c + scores.shape[1], device=x.device)
                once = columns > rows[:, None]
                mates = who[rows, None] == who[columns]
                for same in (False, True):
                    # Hard means high for impostors and low for genuine pairs: one sign turns one into the other.
                    hard = (-scores if same else scores).masked_fill(~once | (mates != same), -torch.inf).flatten()
                    top = hard.topk(min(count, len(hard)))
                    at = top.indices[top.values > -torch.inf]
                    here = torch.stack([a + at // scores.shape[1], c + at % scores.shape[1]], dim=1)
                    found, places = (torch.cat(both) for both in zip(kept[same], (hard[at], here), strict=True))
                    best = torch.argsort(found, descending=True, stable=True)[:count]
                    kept[same] = found[best], places[best]
    scores = torch.cat([kept[False][0], -kept[True][0]])
    answers = torch.arange(len(scores)) >= len(kept[False][0])
    return torch.cat([kept[False][1], kept[True][1]]).cpu().numpy(), scores.cpu().numpy(), answers.numpy()


def named_pairs(
    names: Sequence[str], pairs: NDArray[np.integer], scores: NDArray[np.floating], same: NDArray[np.bool_]
) -> list[NamedPair]:
    """Pairs (k, 2) of rows as what results keep: the images' names, the cosine, the answer."""
    rows = zip(pairs.tolist(), scores.tolist(), same.tolist(), strict=True)
    return [(names[a], names[b], score, answer) for (a, b), score, answer in rows]
