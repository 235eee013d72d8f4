"""Benchmarks that search probes in galleries, of images or of templates."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from unpg.data.blufr import BlufrTrial
from unpg.data.image_set import ImageSet
from unpg.errors import DataError
from unpg.evaluate.allpairs import all_pairs
from unpg.evaluate.benchmark import EmbedFunction, embedded
from unpg.evaluate.distractors import with_distractors
from unpg.evaluate.evidence import all_pairs_evidence
from unpg.evaluate.identification import Searches, search
from unpg.evaluate.results import resolved_targets
from unpg.evaluate.search_evidence import VerificationEvidence
from unpg.evaluate.search_protocol import (
    FPIR_TARGETS,
    RANKS,
    GalleryRates,
    IdentificationResult,
    gallery_rates,
)
from unpg.evaluate.template_protocol import TemplateImages, pool_templates
from unpg.evaluate.templates import Pooling, named_pooling

__all__ = ["BlufrBenchmark", "DistractorBenchmark", "Enrolled", "SearchBenchmark", "closed_set", "judge_distractors"]

BLUFR_FAR, BLUFR_FPIR = 1e-3, 1e-2
"""BLUFR's operating points: of verification, and of open-set identification."""


@dataclass(frozen=True, eq=False)
class Enrolled:
    """A gallery, or the probes.

    Attributes:
        rows: (g,) int, images, or templates where images are pooled.
        subjects: (g,) int, who each shows.
    """

    rows: NDArray[np.integer]
    subjects: NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class SearchBenchmark:
    """Probes that are searched in each gallery.

    Args:
        name: Name in tables.
        images: The images.
        probes: What is searched.
        galleries: Where, by name.
        pooled: Which images make which template, and what poolings need; None where images are searched themselves.
        pooling: A name in :data:`~unpg.evaluate.templates.POOLINGS`, or a :class:`~unpg.evaluate.templates.Pooling`.
        merged: Judge the searches of all galleries as if they were of one; the figures are no gallery's.
        fpirs: FPIRs to report, where some searches are non-mated.
        distractors: Entries of the gallery that are nobody sought, for tables.
        notes: What a reader must know.
    """

    name: str
    images: ImageSet
    probes: Enrolled
    galleries: Mapping[str, Enrolled]
    pooled: TemplateImages | None = None
    pooling: Pooling | str = "unpg-authors"
    merged: bool = False
    fpirs: Sequence[float] = FPIR_TARGETS
    distractors: int = 0
    notes: tuple[str, ...] = ()

    def run(self, embed: EmbedFunction) -> IdentificationResult:
        """Rank-k, and TPIR at each FPIR where some probes are of nobody enrolled; per gallery, and their mean."""
        told = None
        if self.pooled is None:
            vectors, _ = embedded(self.images, embed)
        else:
            vectors = pool_templates(self.name, self.images, embed, self.pooled, self.pooling).vectors
            preset = self.pooling if isinstance(self.pooling, str) else None
            told = {"preset": preset, **asdict(named_pooling(self.pooling))}
        probes, people = vectors[self.probes.rows], np.asarray(self.probes.subjects)
        found = {
            name: search(probes, people, vectors[gallery.rows], gallery.subjects)
            for name, gallery in self.galleries.items()
        }
        who = dict.fromkeys(found, people)
        if self.merged:
            name = " + ".join(found)
            found, who = {name: Searches.merged(list(found.values()))}, {name: np.tile(people, len(found))}
        rates = {name: gallery_rates(s, who[name], fpirs=self.fpirs) for name, s in found.items()}
        return IdentificationResult(self.name, rates, self.distractors, told, notes=self.notes)


def closed_set(name: str, images: ImageSet) -> SearchBenchmark:
    """Rank-k on any labelled set: the first image of each identity is enrolled, its others are searched.

    Identities with one image are enrolled too, as people who might be taken for the one sought.

    Raises:
        DataError: No identity has two images.
    """
    _, first = np.unique(images.labels, return_index=True)
    rest = np.setdiff1d(np.arange(len(images)), first)
    if not len(rest):
        raise DataError(f"{name}: no identity has two images, so there is nobody to search.")
    gallery = Enrolled(first, images.labels[first])
    note = "the first image of each identity (in the set's order) is enrolled, all its others are searched"
    return SearchBenchmark(name, images, Enrolled(rest, images.labels[rest]), {"first images": gallery}, notes=(note,))


@dataclass(frozen=True, eq=False)
class BlufrBenchmark:
    """BLUFR: verification at FAR 0.1 % and open-set identification at FPIR 1 %, mean less deviation over the trials.

    Args:
        name: Name in tables.
        images: The images.
        trials: What each trial tests.
        notes: What a reader must know.
        evidence: Keep what intervals need, at the cost of a second pass over the pairs of each trial.
    """

    name: str
    images: ImageSet
    trials: Sequence[BlufrTrial]
    notes: tuple[str, ...] = ()
    evidence: bool = False

    def run(self, embed: EmbedFunction) -> IdentificationResult:
        """TAR at FAR 1e-3 over all pairs of the test set; rank-k and TPIR at FPIR 1e-2 of gallery and probes."""
        vectors, _ = embedded(self.images, embed)
        labels = self.images.labels
        rates = {}
        for number, trial in enumerate(self.trials, start=1):
            tested, people = vectors[trial.test], labels[trial.test]
            tar = all_pairs(tested, people).roc.tar_at_far(BLUFR_FAR)
            verification = None
            if self.evidence and tar.value is not None:
                # No AUC is asked for, so a sample that finds the tail is enough of the other pairs.
                curve = all_pairs_evidence(tested, people, largest_far=BLUFR_FAR, sample=2**17).curve
                verification = VerificationEvidence(curve, np.unique(people), (BLUFR_FAR,))
            probes = labels[trial.probes]
            found = search(vectors[trial.probes], probes, vectors[trial.gallery], labels[trial.gallery])
            rates[f"trial {number}"] = gallery_rates(
                found, probes, fpirs=(BLUFR_FPIR,), tar_at_far=[tar], verification=verification
            )
        return IdentificationResult(self.name, rates, mean_less_std=True, notes=self.notes)


@dataclass(frozen=True, eq=False)
class DistractorBenchmark:
    """MegaFace, challenge 1: each probe among all distractors and one other image of its subject.

    Args:
        name: Name in tables.
        images: Probes and distractors together.
        probes: (p,) int, images.
        subjects: (p,) int.
        distractors: (n,) int, images.
        far: FAR of the verification figure.
        notes: What a reader must know.
    """

    name: str
    images: ImageSet
    probes: NDArray[np.integer]
    subjects: NDArray[np.integer]
    distractors: NDArray[np.integer]
    far: float = 1e-6
    notes: tuple[str, ...] = ()

    def run(self, embed: EmbedFunction) -> IdentificationResult:
        """Identification rate at rank 1, 5, 10, and TAR at FAR 1e-6 of probes against distractors."""
        vectors, _ = embedded(self.images, embed)
        return judge_distractors(
            self.name,
            vectors[self.probes],
            self.subjects,
            vectors[self.distractors],
            far=self.far,
            notes=self.notes,
        )


def judge_distractors(
    name: str,
    probes: NDArray[np.floating],
    subjects: NDArray[np.integer],
    distractors: NDArray[np.floating],
    *,
    far: float = 1e-6,
    notes: tuple[str, ...] = (),
) -> IdentificationResult:
    """Judge probes (p, d) of ``subjects`` (p,) among distractors (n, d); see :class:`DistractorBenchmark`."""
    most = min(RANKS[-1], len(distractors))
    found = with_distractors(probes, subjects, distractors, ranks=range(1, most + 1), targets=(far,))
    rates = GalleryRates(
        subjects=len(np.unique(subjects)),
        probes=found.pairs,
        mated=found.pairs,
        rank={k: found.rates[k] for k in RANKS if k <= most},
        tpir_at_fpir=(),
        tar_at_far=found.verification,
        cmc=np.array([found.rates[k] for k in range(1, most + 1)]),
        searches=found.searches,
        people=found.people,
        verification=VerificationEvidence(found.curve, np.unique(subjects), resolved_targets(found.verification)),
    )
    return IdentificationResult(name, {"distractors": rates}, distractors=found.distractors, notes=notes)
