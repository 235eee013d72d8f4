"""Verification of templates (IJB-B and IJB-C, 1:1): images are pooled into templates, pairs of templates are judged."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.data.image_set import ImageSet
from unpg.errors import ConfigError
from unpg.evaluate.allpairs import coarse_counts, histogram_edges
from unpg.evaluate.benchmark import EmbedFunction, embedded
from unpg.evaluate.bootstrap import Bootstrap, Intervals, Replicates, bootstrap
from unpg.evaluate.curves import Roc, TarAtFar
from unpg.evaluate.evidence import list_evidence
from unpg.evaluate.results import kept_replicates, named_tars, resolved_targets, told_intervals, told_threshold
from unpg.evaluate.templates import Pooling, Templates, named_pooling, pool, roc_of_cosines, row_scores
from unpg.evaluate.transfer import AtThreshold, judge_at

__all__ = [
    "TEMPLATE_TARGETS",
    "TemplateBenchmark",
    "TemplateImages",
    "TemplateResult",
    "pool_templates",
    "template_people",
]

TEMPLATE_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""FARs reported for pairs of templates."""


@dataclass(frozen=True, eq=False)
class TemplateResult:
    """Result over pairs of templates.

    Attributes:
        benchmark: Its name.
        images: Number of images.
        templates: Number of templates.
        genuine: Genuine pairs of templates.
        impostor: Impostor pairs of templates.
        pooling: How images became templates: ``preset``, ``lengths``, ``unit_media``.
        auc: Area under the ROC.
        eer: Equal error rate.
        tar_at_far: One per target.
        edges: (b + 1,) edges of the histogram bins.
        genuine_counts: (b,) genuine pairs per bin.
        impostor_counts: (b,) impostor pairs per bin.
        roc: Every operating point.
        scores: (p,) float32 cosines of the pairs.
        same: (p,) bool.
        people: (p, 2) int, who each template of a pair shows; see :func:`template_people`.
        intervals: Of the figures; None if nobody asked.
        replicates: What they were cut from.
        at_threshold: Rates at a threshold from another set; None if nobody asked.
    """

    benchmark: str
    images: int
    templates: int
    genuine: int
    impostor: int
    pooling: dict[str, Any]
    auc: float
    eer: float
    tar_at_far: tuple[TarAtFar, ...]
    edges: NDArray[np.float64] = field(repr=False)
    genuine_counts: NDArray[np.int64] = field(repr=False)
    impostor_counts: NDArray[np.int64] = field(repr=False)
    roc: Roc = field(repr=False)
    scores: NDArray[np.float32] = field(repr=False)
    same: NDArray[np.bool_] = field(repr=False)
    people: NDArray[np.integer] = field(repr=False)
    intervals: Intervals | None = None
    replicates: Replicates | None = field(default=None, repr=False)
    at_threshold: AtThreshold | None = None
    protocol: str = "templates"

    def metrics(self) -> dict[str, float]:
        """``auc``, ``eer``, ``tar@far=1e-3`` ...; fractions."""
        return {"auc": self.auc, "eer": self.eer} | named_tars(self.tar_at_far)

    def operating_points(self) -> Roc:
        """The curve of the pairs."""
        return self.roc

    def with_threshold(self, threshold: float, chosen: str, settings: Bootstrap | None = None) -> "TemplateResult":
        """The same with error rates at a threshold from elsewhere; with ``settings`` they have intervals."""
        evidence = None if settings is None else list_evidence(self.scores, self.same, self.people)
        rates = judge_at(self.roc, threshold, chosen, evidence=evidence, settings=settings)
        return replace(self, at_threshold=rates)

    def with_intervals(self, settings: Bootstrap) -> "TemplateResult":
        """The same with an interval for each figure, by drawing people."""
        evidence = list_evidence(self.scores, self.same, self.people)
        intervals, replicates = bootstrap(evidence, self.metrics(), resolved_targets(self.tar_at_far), settings)
        return replace(self, intervals=intervals, replicates=replicates)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the histograms, fit for JSON."""
        return (
            {
                "benchmark": self.benchmark,
                "protocol": self.protocol,
                "images": self.images,
                "templates": self.templates,
                "genuine": self.genuine,
                "impostor": self.impostor,
                "pooling": self.pooling,
                "auc": self.auc,
                "eer": self.eer,
                "tar_at_far": [point.to_dict() for point in self.tar_at_far],
                "metrics": self.metrics(),
            }
            | told_threshold(self.at_threshold)
            | told_intervals(self.intervals)
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``genuine`` (b,), ``impostor`` (b,) int64, ``edges`` (b + 1,) float64; with intervals ``replicates``."""
        counts = {"genuine": self.genuine_counts, "impostor": self.impostor_counts, "edges": self.edges}
        return counts | kept_replicates(self.replicates)


@dataclass(frozen=True, eq=False)
class TemplateImages:
    """Which images make which template.

    Attributes:
        templates: (n,) int, the template of each image, from 0 without gaps.
        media: (n,) int, the medium of each image.
        detector_scores: (n,) the detector's confidence, which some poolings weigh images with; None if not known.
    """

    templates: NDArray[np.integer]
    media: NDArray[np.integer]
    detector_scores: NDArray[np.floating] | None = None


def pool_templates(
    name: str, images: ImageSet, embed: EmbedFunction, pooled: TemplateImages, pooling: Pooling | str
) -> Templates:
    """Embed the images of a benchmark and pool them.

    Raises:
        ConfigError: The pooling is unknown, or needs the detector's scores, which are not known.
    """
    way = named_pooling(pooling)
    if way.lengths == "detector" and pooled.detector_scores is None:
        raise ConfigError(
            f"{name}: the pooling {pooling!r} weighs images by the detector's score, and the list of scores "
            "(*_name_5pts_score.txt) is not there. Fetch it, or take another pooling."
        )
    vectors, norms = embedded(images, embed)
    # The network's own lengths take part in pooling.
    scores = pooled.detector_scores
    return pool(vectors, pooled.templates, pooled.media, way, lengths=norms, detector_scores=scores)


@dataclass(frozen=True, eq=False)
class TemplateBenchmark:
    """Pairs of templates, each said to be of one person or of two.

    Args:
        name: Name in tables.
        images: The images.
        pooled: Which images make which template.
        pairs: (p, 2) int, templates.
        same: (p,) bool.
        pooling: A name in :data:`~unpg.evaluate.templates.POOLINGS`, or a :class:`~unpg.evaluate.templates.Pooling`.
        subjects: (t,) int, who each template shows, where lists say so; -1 where not.
        targets: FARs to report.
    """

    name: str
    images: ImageSet
    pooled: TemplateImages
    pairs: NDArray[np.integer]
    same: NDArray[np.bool_]
    pooling: Pooling | str = "unpg-authors"
    subjects: NDArray[np.integer] | None = None
    targets: Sequence[float] = TEMPLATE_TARGETS

    def run(self, embed: EmbedFunction) -> TemplateResult:
        """AUC, EER, TAR at each FAR, and the histograms of genuine and impostor cosines."""
        pooled = pool_templates(self.name, self.images, embed, self.pooled, self.pooling)
        preset = self.pooling if isinstance(self.pooling, str) else None
        scores = row_scores(pooled.vectors, self.pairs)
        roc, genuine, impostor = roc_of_cosines(scores, self.same)
        return TemplateResult(
            benchmark=self.name,
            images=len(self.images),
            templates=len(pooled.ids),
            genuine=roc.genuine,
            impostor=roc.impostor,
            pooling={"preset": preset, **asdict(named_pooling(self.pooling))},
            auc=roc.auc,
            eer=roc.eer,
            tar_at_far=tuple(roc.tar_at_far(t) for t in self.targets),
            edges=histogram_edges(),
            genuine_counts=coarse_counts(genuine),
            impostor_counts=coarse_counts(impostor),
            roc=roc,
            scores=scores,
            same=self.same,
            people=template_people(len(pooled.ids), self.pairs, self.same, self.subjects)[self.pairs],
        )


def template_people(
    templates: int,
    pairs: NDArray[np.integer],
    same: NDArray[np.bool_],
    subjects: NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """Who each template shows (t,), as far as anybody says.

    Genuine pairs join templates to people, and so do lists that name the subject (``subjects``; -1: no word). Whoever
    is in no genuine pair and in no list counts as a person of their own.

    Args:
        templates: Their number t.
        pairs: (p, 2) int.
        same: (p,) bool.
        subjects: (t,) int, or None.
    """
    first = np.arange(templates)
    if subjects is not None:
        known = np.flatnonzero(np.asarray(subjects) >= 0)
        _, where, inverse = np.unique(np.asarray(subjects)[known], return_index=True, return_inverse=True)
        first[known] = known[where[inverse]]
    joined = np.concatenate([np.stack([np.arange(templates), first], axis=1), np.asarray(pairs)[np.asarray(same)]])
    # The smallest number spreads along the pairs until nothing changes: as many rounds as the longest chain halves.
    people = np.arange(templates)
    while True:
        smallest = people.copy()
        low = np.minimum(people[joined[:, 0]], people[joined[:, 1]])
        for side in (0, 1):
            np.minimum.at(smallest, joined[:, side], low)
            np.minimum.at(smallest, people[joined[:, side]], low)
        smallest = smallest[smallest]
        if np.array_equal(smallest, people):
            return people.astype(np.int64)
        people = smallest
