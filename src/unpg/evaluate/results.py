"""What a benchmark found, and how it is kept in a folder.

A folder of results holds ``results.json`` (figures of every benchmark, refused ones with their reason) and
``scores/<benchmark>.npz`` (what curves are drawn from). All rates are fractions.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unpg.errors import DataError
from unpg.evaluate.curves import TarAtFar, target_name
from unpg.evaluate.verification import BestThreshold, FoldAccuracy

__all__ = ["AllPairsResult", "PairResult", "Result", "load_results", "save_results"]


class Result(Protocol):
    """What every benchmark returns."""

    @property
    def benchmark(self) -> str:
        """Name of the benchmark."""

    @property
    def protocol(self) -> str:
        """Kind of benchmark: results of one kind have the same figures and share a table."""

    def metrics(self) -> dict[str, float]:
        """Figures by name, fractions; those that the set cannot resolve are absent."""

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, fit for JSON; refused figures with their reason."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What the curves are drawn from: ``scores``, ``same``, or ``genuine``, ``impostor``, ``edges``."""


@dataclass(frozen=True, eq=False)
class PairResult:
    """Result over a list of pairs.

    Attributes:
        benchmark: Its name.
        genuine: Genuine pairs judged.
        impostor: Impostor pairs judged.
        left_out: Pairs of the list that were not judged, since an image of theirs is missing.
        accuracy: Accuracy over the folds by rule; empty if the list has no folds.
        best_threshold: The all-pairs best threshold (optimistic).
        auc: Area under the ROC.
        eer: Equal error rate.
        tar_at_far: One per target.
        scores: (n,) float32 cosines.
        same: (n,) bool.
    """

    benchmark: str
    genuine: int
    impostor: int
    left_out: int
    accuracy: Mapping[str, FoldAccuracy]
    best_threshold: BestThreshold
    auc: float
    eer: float
    tar_at_far: tuple[TarAtFar, ...]
    scores: NDArray[np.float32] = field(repr=False)
    same: NDArray[np.bool_] = field(repr=False)
    protocol: str = "pairs"

    def metrics(self) -> dict[str, float]:
        """``accuracy`` (exact folds), ``accuracy_std``, ``accuracy_insightface_grid``,
        ``accuracy_best_threshold``, ``auc``, ``eer``, ``tar@far=1e-3`` ...; fractions.
        """
        found: dict[str, float] = {}
        for rule, folds in self.accuracy.items():
            name = "accuracy" if rule == "exact" else f"accuracy_{rule.replace('-', '_')}"
            found[name] = folds.mean
            if rule == "exact":
                found["accuracy_std"] = folds.std
        found["accuracy_best_threshold"] = self.best_threshold.accuracy
        return found | {"auc": self.auc, "eer": self.eer} | _resolved(self.tar_at_far)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the scores, fit for JSON."""
        return {
            "benchmark": self.benchmark,
            "protocol": self.protocol,
            "genuine": self.genuine,
            "impostor": self.impostor,
            "left_out": self.left_out,
            "accuracy": {rule: folds.to_dict() for rule, folds in self.accuracy.items()},
            "best_threshold": self.best_threshold.to_dict(),
            "auc": self.auc,
            "eer": self.eer,
            "tar_at_far": [point.to_dict() for point in self.tar_at_far],
            "metrics": self.metrics(),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``scores`` (n,) float32 and ``same`` (n,) bool."""
        return {"scores": self.scores, "same": self.same}


@dataclass(frozen=True, eq=False)
class AllPairsResult:
    """Result over all pairs of a labelled set.

    Attributes:
        benchmark: Its name.
        images: Number of images.
        identities: Number of identities among them.
        genuine: Genuine pairs.
        impostor: Impostor pairs.
        auc: Area under the ROC.
        eer: Equal error rate.
        tar_at_far: One per target.
        edges: (b + 1,) edges of the histogram bins.
        genuine_counts: (b,) genuine pairs per bin.
        impostor_counts: (b,) impostor pairs per bin.
    """

    benchmark: str
    images: int
    identities: int
    genuine: int
    impostor: int
    auc: float
    eer: float
    tar_at_far: tuple[TarAtFar, ...]
    edges: NDArray[np.float64] = field(repr=False)
    genuine_counts: NDArray[np.int64] = field(repr=False)
    impostor_counts: NDArray[np.int64] = field(repr=False)
    protocol: str = "all-pairs"

    def metrics(self) -> dict[str, float]:
        """``auc``, ``eer``, ``tar@far=1e-3`` ...; fractions."""
        return {"auc": self.auc, "eer": self.eer} | _resolved(self.tar_at_far)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the histograms, fit for JSON."""
        return {
            "benchmark": self.benchmark,
            "protocol": self.protocol,
            "images": self.images,
            "identities": self.identities,
            "genuine": self.genuine,
            "impostor": self.impostor,
            "auc": self.auc,
            "eer": self.eer,
            "tar_at_far": [point.to_dict() for point in self.tar_at_far],
            "metrics": self.metrics(),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``genuine`` (b,), ``impostor`` (b,) int64 and ``edges`` (b + 1,) float64."""
        return {"genuine": self.genuine_counts, "impostor": self.impostor_counts, "edges": self.edges}


def save_results(folder: str | os.PathLike[str], results: Sequence[Result], **info: Any) -> Path:
    """Write ``results.json`` and ``scores/<benchmark>.npz`` into ``folder`` (made if absent).

    Results of other benchmarks that are already there stay; those of the same name are replaced.

    Args:
        folder: Usually the run folder, or one for a model without a run.
        results: What the benchmarks returned.
        info: What else to say about the model, fit for JSON: ``model="..."``, ``flip="sum"``,
            ``versions={...}``.

    Returns:
        The path of ``results.json``.
    """
    target = Path(folder)
    (target / "scores").mkdir(parents=True, exist_ok=True)
    path = target / "results.json"
    kept = load_results(target) if path.exists() else {"results": {}}
    for result in results:
        kept["results"][result.benchmark] = result.to_dict()
        np.savez_compressed(scores_path(target, result.benchmark), allow_pickle=False, **result.arrays())
    kept.update(info)
    # Written beside and renamed: a reader, or a crash, never meets half a file.
    beside = path.with_suffix(".json.part")
    beside.write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(path)
    return path


def load_results(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What :func:`save_results` wrote: ``{"results": {benchmark: figures}, ...}``.

    Raises:
        DataError: There is no ``results.json``, or it is not one.
    """
    path = Path(folder) / "results.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. `unpg evaluate --out {folder}` writes it.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}. Delete it and run `unpg evaluate` again.") from None
    if not isinstance(found, dict) or not isinstance(found.get("results"), dict):
        raise DataError(f'{path} has no object "results". Delete it and run `unpg evaluate` again.')
    return found


def scores_path(folder: Path, benchmark: str) -> Path:
    """Where the arrays of a benchmark lie; a name that is a path (own data) becomes a flat file name."""
    flat = benchmark.replace("/", "_").replace("\\", "_").replace(":", "_").lstrip(".")
    return folder / "scores" / f"{flat}.npz"


def _resolved(points: Sequence[TarAtFar]) -> dict[str, float]:
    return {f"tar@far={target_name(p.target)}": p.value for p in points if p.value is not None}
