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

from unpg.errors import ConfigError, DataError, ShapeError, did_you_mean
from unpg.evaluate.allpairs import count_cosines, fine_cosines, full_precision, rounded
from unpg.evaluate.curves import Roc
from unpg.evaluate.threads import in_threads

__all__ = [
    "POOLINGS",
    "Pooling",
    "Templates",
    "named_pooling",
    "pool",
    "roc_of_cosines",
    "row_scores",
    "template_scores",
]

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
    "equal": Pooling("one"),
}
"""The ways of insightface's ``eval_ijbc.py`` (with flip fusion done at embedding: mirror images added), of the UNPG
authors, and of MagFace's ``eval_ijb.py``; ``equal``: every image of a medium weighs the same."""


_DENSE = 64  # products of the whole block for each pair that is wanted, up to which making them all pays
_BLOCK = 1 << 22  # cosines of a block, 16 MiB


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
        if not len(wanted):
            return np.zeros(0, np.int64)
        low, high = int(self.ids[0]), int(self.ids[-1])
        if high - low < 8 * len(self.ids) + (1 << 16):  # nearly dense: a table is faster than a search
            table = np.zeros(high - low + 1, dtype=np.int64)
            table[self.ids - low] = np.arange(len(self.ids))
            at = table[wanted.clip(low, high) - low]
        else:
            at = np.searchsorted(self.ids, wanted).clip(max=len(self.ids) - 1)
        lacking = np.flatnonzero(self.ids[at] != wanted)
        if len(lacking):
            raise DataError(
                f"{len(lacking):,} of {len(wanted):,} templates asked for have no image; the first is template "
                f"{wanted[lacking[0]]}. Check that the media list and the pair list are of one protocol."
            )
        found: NDArray[np.int64] = at.astype(np.int64)
        return found


def named_pooling(pooling: Pooling | str) -> Pooling:
    """A pooling, or the preset of that name.

    Raises:
        ConfigError: There is none.
    """
    if isinstance(pooling, Pooling):
        return pooling
    if pooling not in POOLINGS:
        raise ConfigError(f"No pooling is called {pooling!r}.{did_you_mean(pooling, POOLINGS)}")
    return POOLINGS[pooling]


def pool(
    vectors: ArrayLike | Tensor,
    templates: ArrayLike,
    media: ArrayLike,
    pooling: Pooling | str = "unpg-authors",
    *,
    lengths: ArrayLike | None = None,
    detector_scores: ArrayLike | None = None,
) -> Templates:
    """Pool image vectors: the mean within each (template, medium), the sum over media, length one.

    Both sums are one weighted sum over the images of a template, so each vector is read once, unless each medium's mean
    must be scaled in between. Memory beyond the vectors: one float32 vector for each template (with ``unit_media`` for
    each medium too).

    Args:
        vectors: (n, d) real, as the network gave them, or of length one with ``lengths``.
        templates: (n,) integer, the template of each image.
        media: (n,) integer, the medium of each; numbers may repeat across templates.
        pooling: A preset's name or a :class:`Pooling`.
        lengths: (n,) real, what each vector is to be multiplied with to be as the network gave it.
        detector_scores: (n,) real, for ``lengths="detector"`` of the pooling.

    Raises:
        ConfigError: The preset is unknown, or needs detector scores that are not there.
        ShapeError: The columns do not fit each other.
        DataError: There is no image, or a vector, length or score is not finite.
    """
    way = named_pooling(pooling)
    x = (vectors if isinstance(vectors, Tensor) else torch.from_numpy(np.asarray(vectors))).to(torch.float32)
    template, medium = np.asarray(templates), np.asarray(media)
    if x.ndim != 2 or template.shape != (len(x),) or medium.shape != (len(x),):
        raise ShapeError(
            f"Pooling takes vectors (n, d) with a template and a medium for each; got {tuple(x.shape)}, "
            f"{template.shape} and {medium.shape}."
        )
    if not len(x):
        raise DataError("There are no images to pool.")
    weights = _weights(way, x, lengths, detector_scores)
    # In this order the images of a medium are neighbors, and so are the media of a template.
    order = np.lexsort((medium, template))
    ranked, ranked_media = template[order], medium[order]
    starts = np.flatnonzero(np.append(True, (ranked[1:] != ranked[:-1]) | (ranked_media[1:] != ranked_media[:-1])))
    sizes = np.diff(np.append(starts, len(x)))
    weights = np.divide(weights[order], np.repeat(sizes, sizes), dtype=np.float32)
    firsts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    if way.unit_media:
        means = torch.nn.functional.normalize(_sums(x, order, starts, weights))
        of_media = np.arange(len(starts))
        sums = _sums(means, of_media, np.searchsorted(starts, firsts), np.ones(len(starts), np.float32))
    else:
        sums = _sums(x, order, firsts, weights)
    if not torch.isfinite(sums).all():
        bad = (~torch.isfinite(x).all(dim=1)).nonzero().flatten()
        where = f"Vector {int(bad[0])} holds NaN or infinity" if len(bad) else "The sums of a template overflow float32"
        raise DataError(f"{where}: the model diverged.")
    return Templates(ranked[firsts].astype(np.int64), torch.nn.functional.normalize(sums).numpy())


def _sums(x: Tensor, rows: NDArray[np.int64], starts: NDArray[np.int64], weights: NDArray[np.float32]) -> Tensor:
    """(k, d): of the ``rows`` from each start to the next, the sum of ``weights`` times vectors."""
    return torch.nn.functional.embedding_bag(
        torch.from_numpy(rows),
        x,
        torch.from_numpy(starts),
        mode="sum",
        per_sample_weights=torch.from_numpy(weights),
    )


def _weights(pooling: Pooling, x: Tensor, lengths: ArrayLike | None, detector: ArrayLike | None) -> NDArray[np.float32]:
    """What each vector is multiplied with (n,)."""
    if pooling.lengths == "one":
        return np.asarray((1 / x.norm(dim=1).clamp(min=1e-12)).numpy(), dtype=np.float32)
    found = np.ones(len(x), np.float32) if lengths is None else _column("lengths", lengths, len(x)).copy()
    if pooling.lengths == "detector":
        if detector is None:
            raise ConfigError('Pooling(lengths="detector") needs detector_scores, one for each image.')
        np.multiply(found, _column("detector_scores", detector, len(x)), out=found)
    return found


def _column(what: str, values: ArrayLike, n: int) -> NDArray[np.float32]:
    column = np.asarray(values, dtype=np.float32)
    if column.shape != (n,):
        raise ShapeError(f"{what} must have one entry for each of the {n:,} images; got {column.shape}.")
    if not np.isfinite(column).all():
        raise DataError(f"Entry {int(np.flatnonzero(~np.isfinite(column))[0])} of {what} is not finite.")
    return column


def template_scores(templates: Templates, first: ArrayLike, second: ArrayLike) -> NDArray[np.float32]:
    """Cosines (p,) of pairs of template ids; see :func:`row_scores`."""
    a, b = (templates.rows(ids) for ids in (first, second))
    if a.shape != b.shape:
        raise ShapeError(f"Pairs need two templates each; got {len(a):,} first and {len(b):,} second ones.")
    return row_scores(templates.vectors, np.stack([a, b], axis=1))


def row_scores(vectors: NDArray[np.float32], pairs: NDArray[np.integer]) -> NDArray[np.float32]:
    """Cosines (p,) of pairs (p, 2) of rows of ``vectors`` (t, d), as multiples of the resolution of ties.

    Where pairs are many beside the rows that they join (IJB-C: a quarter of all gallery and probe templates), blocks of
    the product of all first with all second rows are made and read from; where they are few, the rows of each pair are
    multiplied. Both are float32 sums of d products.
    """
    if not len(pairs):
        return np.zeros(0, np.float32)
    x = torch.from_numpy(vectors)
    # The longer side is the columns, so that a block is few rows and all of them are used soon.
    sides = [pairs[:, 0], pairs[:, 1]]
    used = [np.flatnonzero(np.bincount(side, minlength=len(x))) for side in sides]
    if len(used[0]) > len(used[1]):
        sides, used = sides[::-1], used[::-1]
    with full_precision():
        if len(used[0]) * len(used[1]) <= _DENSE * len(pairs):
            found = _from_products(x, sides, used)
        else:
            found = _pair_by_pair(x, sides)
        return rounded(found).numpy()


def roc_of_cosines(
    scores: NDArray[np.float32], same: NDArray[np.bool_]
) -> tuple[Roc, NDArray[np.int64], NDArray[np.int64]]:
    """The curve of scores (p,) that are multiples of the resolution of ties: counted, not sorted, and exact.

    Also how many genuine and how many impostor pairs have each of :func:`~unpg.evaluate.allpairs.fine_cosines`.

    Raises:
        DataError: There is no genuine or no impostor pair.
    """
    everyone = count_cosines(torch.from_numpy(scores)).numpy()
    genuine = count_cosines(torch.from_numpy(scores[same])).numpy()
    return Roc.from_counts(fine_cosines(), genuine, everyone - genuine), genuine, everyone - genuine


def _from_products(x: Tensor, sides: list[NDArray[np.integer]], used: list[NDArray[np.int64]]) -> Tensor:
    place = np.zeros(len(x), dtype=np.int64)
    place[used[0]] = np.arange(len(used[0]))
    rows = place[sides[0]]
    place[used[1]] = np.arange(len(used[1]))
    columns = torch.from_numpy(place[sides[1]])
    height = max(_BLOCK // len(used[1]), len(used[0]) // 60_000 + 1, 16)
    block = (rows // height).astype(np.uint16)
    # Sixteen bits are sorted by counting, in two passes.
    order = np.argsort(block, kind="stable")
    ends = np.cumsum(np.bincount(block, minlength=-(-len(used[0]) // height)))
    ordered = torch.from_numpy(order)
    flat = torch.from_numpy(rows % height) * len(used[1]) + columns
    first, second = x[torch.from_numpy(used[0])], x[torch.from_numpy(used[1])]
    found = torch.empty(len(rows))
    jobs = iter(enumerate(ends.tolist()))

    @torch.inference_mode()
    def multiply() -> None:
        product = torch.empty(height, len(second))
        for number, end in jobs:
            members = ordered[int(ends[number - 1]) if number else 0 : end]
            here = first[number * height : (number + 1) * height]
            torch.mm(here, second.T, out=product[: len(here)])
            found[members] = product.view(-1)[flat[members]]

    in_threads(multiply, x.device)
    return found


def _pair_by_pair(x: Tensor, sides: list[NDArray[np.integer]], block: int = 4096) -> Tensor:
    a, b = (torch.from_numpy(side.astype(np.int64)) for side in sides)
    found = torch.empty(len(a))
    jobs = iter(range(0, len(a), block))

    @torch.inference_mode()
    def multiply() -> None:
        for start in jobs:
            part = slice(start, start + block)
            found[part] = (x[a[part]] * x[b[part]]).sum(dim=1)

    in_threads(multiply, x.device)
    return found
