"""What a way of sampling negatives sees of all negatives that there are.

A loss never meets S^n, only a sample: similarities of features with class weights (CLPG), with the features of a batch
(MLPG), or both, the batch's filtered (UNPG). Here these samples are drawn as training draws them, by the same classes
(:mod:`unpg.pairs`), and held against all negatives of the set.

Axes: n images, d embedding size, b images of a batch, C classes, K centers of each.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.allpairs import count_cosines, fine_cosines, full_precision
from unpg.evaluate.distribution import Distribution
from unpg.evaluate.wdfs import TAIL
from unpg.pairs import BatchPairs, Filter, KeepAll, Scope
from unpg.similarity import Anchors, ClassSet, SimilaritySet

__all__ = ["ClassWeights", "FilterQuality", "Sample", "View", "sample_negatives", "view"]

_ENTRIES = 2**24
"""Cosines with class weights that exist at once, at most (64 MiB)."""


@dataclass(frozen=True, eq=False)
class ClassWeights:
    """(C * K, d) class weights as they are, the K centers of a class one after the other."""

    vectors: Tensor
    centers: int = 1


@dataclass(frozen=True)
class FilterQuality:
    """A filter held against planted noise: a batch negative is noise if both images really are of one identity.

    Attributes:
        offered: Batch negatives before the filter.
        cut: Those that it left out.
        noise: Offered ones that are noise.
        noise_cut: Noise that it left out.
        twins: Offered ones of a person and a near-twin: hard, and no noise.
        twins_cut: Those of them that it left out.
    """

    offered: int
    cut: int
    noise: int
    noise_cut: int
    twins: int = 0
    twins_cut: int = 0

    @property
    def precision(self) -> float | None:
        """Share of what is cut that is noise; None where nothing is cut."""
        return self.noise_cut / self.cut if self.cut else None

    @property
    def recall(self) -> float | None:
        """Share of the noise that is cut; None where there is none."""
        return self.noise_cut / self.noise if self.noise else None

    @property
    def twins_kept(self) -> float | None:
        """Share of the pairs of near-twins that is kept; None where there is none."""
        return 1 - self.twins_cut / self.twins if self.twins else None

    def to_dict(self) -> dict[str, Any]:
        """Counts and shares, fit for JSON."""
        shares = {"precision": self.precision, "recall": self.recall, "twins_kept": self.twins_kept}
        return dataclasses.asdict(self) | shares


@dataclass(frozen=True, eq=False)
class Sample:
    """The negatives that one way of sampling shows over some batches.

    Attributes:
        name: ``CLPG``, ``MLPG`` or ``UNPG``, and the filter.
        kind: ``classes``, ``batch`` or ``unified``.
        similarities: What is seen. Each similarity counts once for each anchor that sees it, times the weight of its
            set.
        reach: The largest similarity of each batch; -inf where a batch shows none.
        kept: Batch pairs left by the filter, over all batches (``scope="anchor"`` takes each from both sides); 0 for
            CLPG.
        class_share: Part of the similarities that are with class weights, in [0, 1].
        quality: The filter against planted noise; None without noise or without batch pairs.
    """

    name: str
    kind: str
    similarities: Distribution
    reach: NDArray[np.float64]
    kept: int
    class_share: float
    quality: FilterQuality | None = None


@dataclass(frozen=True)
class View:
    """How well a sample sees the truth, all negatives of the set.

    Attributes:
        wasserstein: Wasserstein-1 distance to the truth, in units of cosine.
        kolmogorov_smirnov: Largest difference of the distribution functions.
        reach: Largest similarity of the sample.
        tail_coverage: Of the hardest 0.1 % of all negatives, the share within reach (<= the sample's largest).
        tail_coverage_step: The same for the reach of a single batch, mean over batches: what one step of training sees.
        tail_density: How often the sample draws from the range of the hardest 0.1 %, as a multiple of how often all
            negatives lie there. 1 is right; 0: they are never seen; above 1: seen more often than they are.
    """

    wasserstein: float
    kolmogorov_smirnov: float
    reach: float
    tail_coverage: float
    tail_coverage_step: float
    tail_density: float


def view(sample: Sample, truth: Distribution) -> View:
    """Hold a sample against all negatives."""
    seen = sample.similarities
    wanted, start = truth.largest(TAIL)
    out_of_reach = np.minimum(truth.count_above(np.append(sample.reach, seen.maximum)), wanted)
    covered = 1 - out_of_reach / wanted
    density = (float(d.count_at_least(start)) / d.total for d in (seen, truth))
    return View(
        wasserstein=seen.wasserstein(truth),
        kolmogorov_smirnov=seen.kolmogorov_smirnov(truth),
        reach=seen.maximum,
        tail_coverage=float(covered[-1]),
        tail_coverage_step=float(covered[:-1].mean()),
        tail_density=next(density) / next(density),
    )


def sample_negatives(
    unit: Tensor,
    labels: ArrayLike,
    batches: Sequence[NDArray[np.int64]],
    filters: Mapping[str, Filter],
    *,
    weights: ClassWeights | None = None,
    scope: Scope = "batch",
    batch_weight: float = 1.0,
    balanced: bool = False,
    clean: ArrayLike | None = None,
    twin_of: ArrayLike | None = None,
    device: torch.device | str = "cpu",
) -> list[Sample]:
    """Draw negatives as training does, over some batches.

    The union of UNPG is that of the paper's softmax: one sum per anchor, in which each similarity stands once. An
    anchor of a batch of b with K kept pairs thus has C - 1 similarities with classes and, with ``scope="batch"``, all K
    of the batch: b (C - 1) and b K over the batch, though only K are different. With ``scope="anchor"`` it has those of
    its own row. The batch's count ``batch_weight`` times as much, like the loss's ``weight``; ``balanced`` first makes
    all batch similarities together count as much as all those with classes.

    Memory, beyond the embeddings: 16 MB for each filter, 64 MB of cosines with class weights at a time, and the
    b x b cosines of a batch.

    Args:
        unit: (n, d) float32 rows of length 1 (or zero).
        labels: (n,) integers as training has them; with ``weights`` the class of each.
        batches: (b,) indices of the images of each batch.
        filters: By name; each makes a sample of its own.
        weights: Class weights; without them there are MLPG samples only.
        scope: Whose batch negatives an anchor sees, see :class:`~unpg.pairs.BatchPairs`.
        batch_weight: w > 0; with ``balanced`` the rho of :class:`~unpg.similarity.Balanced`.
        balanced: Whether both sets count alike, whatever their sizes.
        clean: (n,) the true labels, where those of training are wrong on purpose.
        twin_of: (n,) with ``clean``, the true label whose near-twin is shown, or -1.
        device: Where to multiply.

    Returns:
        With class weights: ``CLPG``, ``MLPG`` (unfiltered), and ``UNPG, <filter>`` for each filter. Without: ``MLPG``
        and ``MLPG, <filter>``, but for a filter that keeps all.

    Raises:
        ConfigError: ``batch_weight`` is not above zero.
        ShapeError: The arrays do not fit each other.
        DataError: No batch has two identities, or a label has no class weight.
    """
    if not 0 < batch_weight < float("inf"):
        raise ConfigError(f"The weight of the batch negatives must be a finite number > 0, got {batch_weight}.")
    given = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    true = None if clean is None else torch.as_tensor(np.asarray(clean, dtype=np.int64))
    if true is not None:
        model = torch.full_like(true, -1) if twin_of is None else torch.as_tensor(np.asarray(twin_of, dtype=np.int64))
        if model.shape != true.shape:
            raise ShapeError(f"twin_of must have one entry per true label ({len(true)}), got {tuple(model.shape)}.")
        true = torch.stack([true, model], 1)
    if given.shape != unit.shape[:1] or (true is not None and true.shape[:1] != given.shape):
        raise ShapeError(f"labels must have one entry per embedding ({len(unit)}); got shape {tuple(given.shape)}.")
    _check_classes(given, unit, weights)
    classes = _Tally(device)
    tallies = {name: _Tally(device) for name in filters}
    everything = _Tally(device)
    with torch.inference_mode(), full_precision():
        for batch in batches:
            place = torch.as_tensor(batch)
            anchors = Anchors.of(unit[place].to(device), given[place].to(device))
            really = None if true is None else true[place].to(device)
            if weights is not None:
                classes.add_classes(anchors, weights)
            offered = BatchPairs(scope)(anchors).negatives[0].similarities
            assert isinstance(offered, SimilaritySet)
            everything.add_batch(offered, len(batch), really)
            for name, keep in filters.items():
                tallies[name].add_batch(keep(offered), len(batch), really)
    if not everything.pairs:
        raise DataError(
            f"None of {len(batches)} batches holds images of two identities, so there are no batch negatives. Use "
            "larger batches, or a set with more people."
        )
    noisy = true is not None
    samples = [everything.sample("MLPG", "batch", noisy)]
    if weights is None:
        some = {name: tally for name, tally in tallies.items() if tally.pairs and filters[name] != KeepAll()}
        return samples + [tally.sample(f"MLPG, {name}", "batch", noisy) for name, tally in some.items()]
    unions = [_union(f"UNPG, {name}", classes, t, batch_weight, balanced, noisy) for name, t in tallies.items()]
    return [classes.sample("CLPG", "classes", noisy=False), *samples, *unions]


@dataclass(eq=False)
class _Tally:
    """Similarities counted over batches."""

    device: torch.device | str
    counts: Tensor = field(init=False)
    reach: list[float] = field(default_factory=list)
    pairs: int = 0
    offered: int = 0
    noise: int = 0
    noise_cut: int = 0
    twins: int = 0
    twins_cut: int = 0

    def __post_init__(self) -> None:
        self.counts = torch.zeros(len(fine_cosines()), dtype=torch.int64, device=self.device)

    def add_batch(self, similarities: SimilaritySet, anchors: int, clean: Tensor | None) -> None:
        """Count the negatives of a batch; ``clean``: (b, 2) the true labels, and those whose near-twins they are."""
        values, kept = similarities.dense()
        _, offered = similarities.dense_offered()
        self._count(values[kept], anchors if similarities.shared else 1)
        self.reach.append(_largest(values[kept]))
        self.offered += int(offered.sum())
        if clean is not None:
            true, model = clean.T
            noise = offered & (true[:, None] == true).view_as(offered)
            self.noise += int(noise.sum())
            self.noise_cut += int((noise & ~kept).sum())
            twins = offered & ((true[:, None] == model) | (model[:, None] == true)).view_as(offered)
            self.twins += int(twins.sum())
            self.twins_cut += int((twins & ~kept).sum())

    def add_classes(self, anchors: Anchors, weights: ClassWeights) -> None:
        """Count the cosines of a batch with all classes but the own, some rows at a time."""
        vectors = weights.vectors.to(anchors.unit.device)
        reach = [-float("inf")]
        for rows in torch.arange(len(anchors)).split(max(1, _ENTRIES // len(vectors))):
            classes = ClassSet(anchors.unit[rows], vectors, anchors.labels[rows], centers=weights.centers)
            cosines, negative = classes.dense()
            self._count(cosines[negative], 1)
            reach.append(_largest(cosines[negative]))
        self.reach.append(max(reach))

    def _count(self, cosines: Tensor, times: int) -> None:
        self.counts.add_(count_cosines(cosines), alpha=times)
        self.pairs += len(cosines)

    def sample(self, name: str, kind: str, noisy: bool) -> Sample:
        """All that was counted, as a sample of its own."""
        seen = Distribution.of_counts(fine_cosines(), self.counts.cpu().numpy())
        of_classes = kind == "classes"
        quality = self.quality() if noisy else None
        return Sample(
            name, kind, seen, np.array(self.reach), 0 if of_classes else self.pairs, float(of_classes), quality
        )

    def quality(self) -> FilterQuality:
        """What the filter did to planted noise."""
        cut = self.offered - self.pairs
        return FilterQuality(self.offered, cut, self.noise, self.noise_cut, self.twins, self.twins_cut)


def _largest(cosines: Tensor) -> float:
    return float(cosines.max()) if len(cosines) else -float("inf")


def _union(name: str, classes: _Tally, batch: _Tally, weight: float, balanced: bool, noisy: bool) -> Sample:
    """Both sets, each similarity once per anchor, those of the batch ``weight`` times."""
    of_classes, of_batch = float(classes.counts.sum()), float(batch.counts.sum())
    if balanced and of_batch:
        weight *= of_classes / of_batch
    counts = classes.counts + weight * batch.counts.double()
    return Sample(
        name,
        "unified",
        Distribution.of_counts(fine_cosines(), counts.cpu().numpy()),
        np.maximum(classes.reach, batch.reach),
        batch.pairs,
        of_classes / (of_classes + weight * of_batch),
        batch.quality() if noisy else None,
    )


def _check_classes(labels: Tensor, unit: Tensor, weights: ClassWeights | None) -> None:
    if weights is None:
        return
    if weights.vectors.ndim != 2 or weights.vectors.shape[1] != unit.shape[1]:
        raise ShapeError(
            f"Class weights must be (classes, {unit.shape[1]}), the embedding size; got {tuple(weights.vectors.shape)}."
        )
    classes = len(weights.vectors) // weights.centers
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"Labels go from {int(labels.min())} to {int(labels.max())}, but there are {classes} class weights: these "
            "are the weights of another set."
        )
