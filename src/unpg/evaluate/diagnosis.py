"""All that ``unpg diagnose`` says of a set: how far it is from WDFS, and what each way of sampling sees of it.

A folder with a diagnosis holds ``diagnosis.json``: the figures, and histograms of 512 bins to draw.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from unpg.errors import DataError
from unpg.evaluate.allpairs import all_pairs, unit_rows
from unpg.evaluate.curves import Roc
from unpg.evaluate.distribution import Distribution
from unpg.evaluate.judge import pair_scores
from unpg.evaluate.sampling import ClassWeights, Sample, View, sample_negatives, view
from unpg.evaluate.wdfs import Wdfs
from unpg.json_file import read_json_object
from unpg.pairs import BoxWhisker, Filter, KeepAll, Quantile, Scope, TopK

__all__ = [
    "SHOWN_FILTERS",
    "Sampling",
    "SetDiagnosis",
    "diagnose_pairs",
    "diagnose_set",
    "load_diagnosis",
    "save_diagnosis",
]

SHOWN_FILTERS: Mapping[str, Filter] = {
    "all kept": KeepAll(),
    "r = 1": BoxWhisker(1.0),
    "r = 1.5": BoxWhisker(1.5),
    "r = 2": BoxWhisker(2.0),
    "r = 1.5, upper side": BoxWhisker(1.5, "upper"),
    "quantile 0.999": Quantile(0.0, 0.999),
    "top 1000": TopK(1000),
}

_EDGES = np.linspace(-1.0, 1.0, 513)


@dataclass(frozen=True, eq=False)
class Sampling:
    """How negatives are sampled.

    Attributes:
        batches: (b,) indices of the images of each batch.
        filters: By name.
        weights: Class weights, if there are any.
        scope: Whose batch negatives an anchor sees.
        batch_weight: How much batch negatives count in the union.
        balanced: Whether both sets count alike before that.
        drawn: Name of the filter to draw.
    """

    batches: Sequence[NDArray[np.int64]]
    filters: Mapping[str, Filter]
    weights: ClassWeights | None = None
    scope: Scope = "batch"
    batch_weight: float = 1.0
    balanced: bool = False
    drawn: str = "r = 1.5"


@dataclass(frozen=True, eq=False)
class SetDiagnosis:
    """What was found over one set.

    Attributes:
        name: Of the set.
        images: Number of images.
        identities: Number of identities; None for a list of pairs.
        wdfs: S^p and S^n.
        sampling: How the samples were drawn; None for a list of pairs.
        samples: What each way of sampling sees, held against S^n.
        flipped: Labels that are wrong on purpose.
        unreadable: Images that were left out because they could not be read.
    """

    name: str
    images: int
    identities: int | None
    wdfs: Wdfs
    sampling: Sampling | None = None
    samples: tuple[tuple[Sample, View], ...] = ()
    flipped: int = 0
    unreadable: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Figures and histograms, fit for JSON."""
        sampling = self.sampling
        wdfs = self.wdfs
        return {
            "name": self.name,
            "images": self.images,
            "identities": self.identities,
            "flipped": self.flipped,
            "unreadable": self.unreadable,
            "wdfs": wdfs.to_dict(),
            "sampling": None
            if sampling is None
            else {
                "batches": len(sampling.batches),
                "batch_size": max(map(len, sampling.batches)),
                "scope": sampling.scope,
                "batch_weight": sampling.batch_weight,
                "balanced": sampling.balanced,
                "drawn": sampling.drawn,
            },
            "samples": [_sampled(*found) for found in self.samples],
            "histograms": {
                "edges": _EDGES.tolist(),
                "positives": _counts(wdfs.positives),
                "negatives": _counts(wdfs.negatives),
                "samples": {sample.name: _counts(sample.similarities) for sample, _ in self.samples},
            },
        }


def diagnose_set(
    name: str,
    embeddings: ArrayLike | torch.Tensor,
    labels: ArrayLike,
    sampling: Sampling,
    *,
    clean: ArrayLike | None = None,
    twin_of: ArrayLike | None = None,
    device: torch.device | str = "cpu",
) -> SetDiagnosis:
    """Diagnose a labelled set.

    Args:
        name: Of the set.
        embeddings: (n, d) real; rows are normalised here.
        labels: (n,) integers as training has them; classes of ``sampling.weights``, if there are any.
        sampling: How negatives are sampled.
        clean: (n,) the true labels, where ``labels`` are wrong on purpose. S^p and S^n are those of the true labels,
            the samples those of the wrong ones.
        twin_of: (n,) with ``clean``, the true label whose near-twin is shown, or -1; see
            :class:`~unpg.data.label_noise.Truth`.
        device: Where to multiply.

    Raises:
        ShapeError: The arrays do not fit each other.
        DataError: An embedding is not finite; there is no genuine or no impostor pair; no batch has two identities.
    """
    unit = unit_rows(embeddings)
    truth = np.asarray(labels if clean is None else clean)
    wdfs = Wdfs(*Distribution.of_roc(all_pairs(unit, truth, device=device).roc))
    samples = sample_negatives(
        unit,
        labels,
        sampling.batches,
        sampling.filters,
        weights=sampling.weights,
        scope=sampling.scope,
        batch_weight=sampling.batch_weight,
        balanced=sampling.balanced,
        clean=clean,
        twin_of=twin_of,
        device=device,
    )
    seen = tuple((sample, view(sample, wdfs.negatives)) for sample in samples)
    flipped = int(np.count_nonzero(truth != np.asarray(labels)))
    return SetDiagnosis(name, len(unit), len(np.unique(truth)), wdfs, sampling, seen, flipped)


def diagnose_pairs(name: str, embeddings: ArrayLike, pairs: ArrayLike, same: ArrayLike) -> SetDiagnosis:
    """Diagnose a list of pairs (p, 2) of rows, ``same`` (p,) bool. A list has no batches, so nothing is sampled.

    Raises:
        ShapeError: The arrays do not fit each other.
        DataError: An embedding is not finite, or there is no genuine or no impostor pair.
    """
    roc = Roc.from_scores(pair_scores(embeddings, pairs), same)
    return SetDiagnosis(name, len(np.asarray(embeddings)), None, Wdfs(*Distribution.of_roc(roc)))


def save_diagnosis(folder: str | os.PathLike[str], found: Sequence[SetDiagnosis], **info: Any) -> Path:
    """Write ``diagnosis.json`` into ``folder`` (made if absent), in one step.

    Args:
        folder: Usually the run folder.
        found: What was diagnosed; a set that has a picture comes first.
        info: What else to say, fit for JSON: ``model="..."``.

    Returns:
        Its path.
    """
    path = Path(folder) / "diagnosis.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".json.part")
    content = {**info, "sets": [one.to_dict() for one in found]}
    beside.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(path)
    return path


def load_diagnosis(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What :func:`save_diagnosis` wrote: ``{"sets": [...], ...}``.

    Raises:
        DataError: There is no ``diagnosis.json``, or it is not one.
    """
    path = Path(folder) / "diagnosis.json"
    again = f"Run `unpg diagnose {folder}` again."
    try:
        found = read_json_object(path, again)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. `unpg diagnose {folder}` writes it.") from None
    if not isinstance(found.get("sets"), list) or not all(isinstance(one, dict) for one in found["sets"]):
        raise DataError(f'{path} has no list "sets" of objects. {again}')
    for one in found["sets"]:
        lacking = [key for key in ("name", "wdfs", "samples", "histograms") if key not in one]
        if lacking:
            raise DataError(f"{path}: a set lacks {', '.join(lacking)}. {again}")
        histograms = one["histograms"]
        try:
            bins = len(histograms["edges"]) - 1
            counts = {**histograms["samples"], **{name: histograms[name] for name in ("positives", "negatives")}}
            sizes = {name: len(histogram) for name, histogram in counts.items()}
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path}: histograms must be an object with the lists edges, positives and negatives, and samples, an "
                f"object of such: {error}. {again}"
            ) from None
        for name, size in sizes.items():
            if size != bins:
                raise DataError(f"{path}: the histogram {name!r} has {size} entries for {bins} bins. {again}")
    return found


def _sampled(sample: Sample, seen: View) -> dict[str, Any]:
    return {
        "name": sample.name,
        "kind": sample.kind,
        "pairs_kept": sample.kept,
        "class_share": sample.class_share,
        "wasserstein": seen.wasserstein,
        "kolmogorov_smirnov": seen.kolmogorov_smirnov,
        "reach": seen.reach,
        "tail_coverage": seen.tail_coverage,
        "tail_coverage_step": seen.tail_coverage_step,
        "tail_density": seen.tail_density,
        "filter": None if sample.quality is None else sample.quality.to_dict(),
    }


def _counts(similarities: Distribution) -> list[float]:
    return [round(c, 3) for c in similarities.histogram(_EDGES).tolist()]
