"""Templates: many images of one subject as one vector (IJB-B, IJB-C).

Images are pooled within each medium (a photograph, or all frames of one video), media into the template. The field does
this in three ways; each is a preset with its source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.allpairs import full_precision, rounded
from unpg.evaluate.threads import in_threads

__all__ = ["POOLINGS", "Pooling", "Templates", "pool", "template_scores"]

Lengths = Literal["keep", "one", "detector"]


@dataclass(frozen=True)
class Pooling:
    """How images become a template.

    Args:
        lengths: What each image's vector weighs: ``keep`` its own length, ``one`` the same for all, ``detector`` its
            length times the detector's score.
        unit_media: Whether each medium's mean is scaled to length one before media are added.
    """

    lengths: Lengths = "keep"
    unit_media: bool = False

    def __post_init__(self) -> None:
        if self.lengths not in get_args(Lengths):
            raise ConfigError(f"Pooling.lengths must be one of {', '.join(get_args(Lengths))}; got {self.lengths!r}.")


POOLINGS: Mapping[str, Pooling] = {
    "insightface": Pooling("detector"),
    "unpg-authors": Pooling("keep"),
    "magface": Pooling("keep", unit_media=True),
}
"""The ways of insightface's ``eval_ijbc.py`` (with flip fusion done at embedding: mirror images added), of the UNPG
authors, and of MagFace's ``eval_ijb.py``."""


_MANY_PARTNERS = 64  # on average, from which on a product of its own for each template pays


@dataclass(frozen=True, eq=False)
class Templates:
    """Pooled vectors.

    Attributes:
        ids: (t,) int64, rising.
        vectors: (t, d) float32 of length one; zero where everything cancelled.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]

    def rows(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Rows of the templates with these ids.

        Raises:
            DataError: A template does not exist; the message names the first.
        """
        wanted = np.asarray(ids)
        at = np.searchsorted(self.ids, wanted).clip(max=len(self.ids) - 1)
        lacking = np.flatnonzero(self.ids[at] != wanted)
        if len(lacking):
            raise DataError(
                f"{len(lacking):,} of {len(wanted):,} templates asked for have no image; the first is template "
                f"{wanted[lacking[0]]}. Check that the media list and the pair list are of one protocol."
            )
        return at


def pool(
    vectors: ArrayLike | Tensor,
    templates: ArrayLike,
    media: ArrayLike,
    pooling: Pooling | str = "unpg-authors",
    *,
    detector_scores: ArrayLike | None = None,
    block: int = 65536,
) -> Templates:
    """Pool image vectors: the mean within each (template, medium), the sum over media, length one.

    Memory beyond the vectors: one float32 vector for each medium, one for each template, and a block.

    Args:
        vectors: (n, d) real, as the network gave them.
        templates: (n,) integer, the template of each image.
        media: (n,) integer, the medium of each; numbers may repeat across templates.
        pooling: A preset's name or a :class:`Pooling`.
        detector_scores: (n,) real, for ``lengths="detector"``.
        block: Images at a time.

    Raises:
        ConfigError: The preset is unknown, or needs detector scores that are not there.
        ShapeError: The columns do not fit each other.
        DataError: There is no image, or a vector or score is not finite.
    """
    if isinstance(pooling, str):
        if pooling not in POOLINGS:
            raise ConfigError(f"No pooling is called {pooling!r}. Known: {', '.join(POOLINGS)}.")
        pooling = POOLINGS[pooling]
    x = vectors if isinstance(vectors, Tensor) else torch.from_numpy(np.asarray(vectors))
    template, medium = np.asarray(templates), np.asarray(media)
    if x.ndim != 2 or template.shape != (len(x),) or medium.shape != (len(x),):
        raise ShapeError(
            f"Pooling takes vectors (n, d) with a template and a medium for each; got {tuple(x.shape)}, "
            f"{template.shape} and {medium.shape}."
        )
    if not len(x):
        raise DataError("There are no images to pool.")
    weights = _weights(pooling, detector_scores, len(x))
    ids, at = np.unique(template, return_inverse=True)
    # One key for (template, medium): media are numbered within the whole list first.
    _, of_medium = np.unique(medium, return_inverse=True)
    keys, group, sizes = np.unique(
        at.astype(np.int64) * (int(of_medium.max()) + 1) + of_medium, return_inverse=True, return_counts=True
    )
    owner = torch.from_numpy(keys // (int(of_medium.max()) + 1))
    means = torch.zeros(len(keys), x.shape[1])
    groups = torch.from_numpy(group)
    for start in range(0, len(x), block):
        part = x[start : start + block].to(torch.float32)
        bad = (~torch.isfinite(part).all(dim=1)).nonzero().flatten()
        if len(bad):
            raise DataError(f"Vector {start + int(bad[0])} holds NaN or infinity: the model diverged.")
        if pooling.lengths == "one":
            part = torch.nn.functional.normalize(part)
        if weights is not None:
            part = part * weights[start : start + block, None]
        means.index_add_(0, groups[start : start + block], part)
    means /= torch.from_numpy(sizes)[:, None]
    if pooling.unit_media:
        means = torch.nn.functional.normalize(means)
    sums = torch.zeros(len(ids), x.shape[1]).index_add_(0, owner, means)
    return Templates(ids.astype(np.int64), torch.nn.functional.normalize(sums).numpy())


def _weights(pooling: Pooling, scores: ArrayLike | None, n: int) -> Tensor | None:
    if pooling.lengths != "detector":
        return None
    if scores is None:
        raise ConfigError('Pooling(lengths="detector") needs detector_scores, one for each image.')
    weights = torch.from_numpy(np.asarray(scores, dtype=np.float32))
    if weights.shape != (n,):
        raise ShapeError(
            f"detector_scores must have one entry for each of the {n:,} images; got {tuple(weights.shape)}."
        )
    if not torch.isfinite(weights).all():
        raise DataError("A detector score is not finite.")
    return weights


def template_scores(
    templates: Templates, first: ArrayLike, second: ArrayLike, *, block: int = 65536
) -> NDArray[np.float32]:
    """Cosines (p,) of pairs of template ids, as multiples of the resolution at which ties are ties.

    Where a template has many partners, they are multiplied with it at once; ``block`` pairs at a time otherwise.
    """
    a, b = (torch.from_numpy(templates.rows(ids)) for ids in (first, second))
    if a.shape != b.shape:
        raise ShapeError(f"Pairs need two templates each; got {len(a):,} first and {len(b):,} second ones.")
    x, scores = torch.from_numpy(templates.vectors), torch.empty(len(a))
    with torch.inference_mode(), full_precision():
        order = torch.argsort(a, stable=True)
        partners, found = b[order], torch.empty(len(a))
        counts = torch.bincount(a, minlength=len(x))
        starts = (counts.cumsum(dim=0) - counts).tolist()
        many = len(a) >= _MANY_PARTNERS * int((counts > 0).sum())
        jobs = iter(
            list(zip(starts, counts.tolist(), strict=True)) if many else [(s, block) for s in range(0, len(a), block)]
        )

        @torch.inference_mode()
        def multiply() -> None:
            for start, count in jobs:
                part = slice(start, start + count)
                if many and count:
                    torch.mv(x[partners[part]], x[a[order[start]]], out=found[part])
                elif not many:
                    found[part] = (x[a[order[part]]] * x[partners[part]]).sum(dim=1)

        in_threads(multiply, x.device)
        scores[order] = rounded(found)
    return scores.numpy()
