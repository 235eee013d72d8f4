"""What a benchmark found, and how it is kept in a folder.

A folder of results holds ``results.json`` (figures of every benchmark, refused ones with their reason),
``scores/<benchmark>.npz`` (what curves are drawn from) and, for lists of pairs, ``scores/<benchmark>.names.txt`` (what
the images are called, one a line, so that a pair can be looked at). All rates are fractions.

For intervals it keeps the figures of every replicate, in the order of ``intervals.figures`` (8 bytes each: 56 kB for
1,000 replicates of all pairs of LFW), not the scores behind them (20 MB): draws are a function of their seed, so the
replicates of two models can be subtracted.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unpg.errors import ConfigError, DataError
from unpg.evaluate.bootstrap import Bootstrap, Intervals, Replicates, bootstrap
from unpg.evaluate.curves import Roc, TarAtFar, target_name
from unpg.evaluate.evidence import Evidence, list_evidence
from unpg.evaluate.hardest import NamedPair
from unpg.evaluate.transfer import AtThreshold, judge_at
from unpg.evaluate.verification import BestThreshold, FoldAccuracy
from unpg.folder_lock import alone_in
from unpg.json_file import read_json_object

__all__ = [
    "AllPairsResult",
    "PairResult",
    "Result",
    "check_folder",
    "kept_replicates",
    "load_results",
    "named_tars",
    "resolved_targets",
    "save_results",
    "stored_replicates",
    "told_intervals",
    "told_threshold",
]


_LONGEST = 200
"""Bytes of a flat file name; file systems end at 255, with what is added to it."""


class ToldRates(Protocol):
    """Rates at a threshold from elsewhere, of pairs or searches."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""


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
        identities: (n, 2) int, who each image of a pair shows; None if nobody knows.
        folds: (n,) int; None if the list has none.
        intervals: Of the figures; None if nobody asked.
        replicates: What they were cut from.
        quality: (n,) float32, the smaller length of a pair's two embeddings before they were normalized; None if the
            lengths are not known.
        pairs: (n, 2) int32, index into ``names``; None if nobody needs to find the images again.
        names: (f,) what the images are called, paths where they are files.
        at_threshold: Rates at a threshold from another set; None if nobody asked.
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
    identities: NDArray[np.integer] | None = field(default=None, repr=False)
    folds: NDArray[np.integer] | None = field(default=None, repr=False)
    intervals: Intervals | None = None
    replicates: Replicates | None = field(default=None, repr=False)
    quality: NDArray[np.float32] | None = field(default=None, repr=False)
    pairs: NDArray[np.int32] | None = field(default=None, repr=False)
    names: Sequence[str] | None = field(default=None, repr=False)
    at_threshold: AtThreshold | None = None
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
        return found | {"auc": self.auc, "eer": self.eer} | named_tars(self.tar_at_far)

    def operating_points(self) -> Roc:
        """The curve of the pairs."""
        return Roc.from_scores(self.scores, self.same)

    def with_threshold(self, threshold: float, chosen: str, settings: Bootstrap | None = None) -> "PairResult":
        """The same with error rates at a threshold from elsewhere; with ``settings`` they have intervals."""
        evidence = None if settings is None else list_evidence(self.scores, self.same, self.identities, self.folds)
        rates = judge_at(self.operating_points(), threshold, chosen, evidence=evidence, settings=settings)
        return replace(self, at_threshold=rates)

    def with_intervals(self, settings: Bootstrap) -> "PairResult":
        """The same with an interval for each figure but the all-pairs best threshold, which is biased itself."""
        evidence = list_evidence(self.scores, self.same, self.identities, self.folds)
        intervals, replicates = bootstrap(evidence, self.metrics(), resolved_targets(self.tar_at_far), settings)
        return replace(self, intervals=intervals, replicates=replicates)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the scores, fit for JSON."""
        return (
            {
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
            | told_threshold(self.at_threshold)
            | told_intervals(self.intervals)
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``scores`` (n,) float32, ``same`` (n,) bool; where they are known ``quality`` (n,) float32 and ``pairs``
        (n, 2) int32; with intervals ``replicates`` (r, k).
        """
        known = {"quality": self.quality, "pairs": self.pairs}
        found: dict[str, NDArray[Any]] = {"scores": self.scores, "same": self.same}
        return found | {name: a for name, a in known.items() if a is not None} | kept_replicates(self.replicates)


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
        evidence: What a bootstrap needs; None if nobody asked for it.
        intervals: Of the figures; None if nobody asked.
        replicates: What they were cut from.
        roc: Every operating point, for a threshold that another set is judged at; None if it was not kept.
        hardest: The impostor pairs of highest and the genuine pairs of lowest score; see
            :mod:`unpg.evaluate.hardest`. None if nobody asked.
        at_threshold: Rates at a threshold from another set; None if nobody asked.
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
    evidence: Evidence | None = field(default=None, repr=False)
    intervals: Intervals | None = None
    replicates: Replicates | None = field(default=None, repr=False)
    roc: Roc | None = field(default=None, repr=False)
    hardest: Sequence[NamedPair] | None = field(default=None, repr=False)
    at_threshold: AtThreshold | None = None
    protocol: str = "all-pairs"

    def metrics(self) -> dict[str, float]:
        """``auc``, ``eer``, ``tar@far=1e-3`` ...; fractions."""
        return {"auc": self.auc, "eer": self.eer} | named_tars(self.tar_at_far)

    def operating_points(self) -> Roc:
        """The curve of the pairs.

        Raises:
            ConfigError: It was not kept.
        """
        if self.roc is None:
            raise ConfigError(f"{self.benchmark!r} was judged without keeping its curve; use judge_all_pairs.")
        return self.roc

    def with_threshold(self, threshold: float, chosen: str, settings: Bootstrap | None = None) -> "AllPairsResult":
        """The same with error rates at a threshold from elsewhere; ``settings`` and evidence give them intervals."""
        rates = judge_at(self.operating_points(), threshold, chosen, evidence=self.evidence, settings=settings)
        return replace(self, at_threshold=rates)

    def with_intervals(self, settings: Bootstrap) -> "AllPairsResult":
        """The same with an interval for each figure.

        Raises:
            ConfigError: The result came without evidence.
        """
        if self.evidence is None:
            raise ConfigError(
                f"{self.benchmark!r} was judged without what intervals need: ask for it with "
                "AllPairsBenchmark(..., evidence=True) or judge_all_pairs(..., evidence=True)."
            )
        intervals, replicates = bootstrap(self.evidence, self.metrics(), resolved_targets(self.tar_at_far), settings)
        return replace(self, intervals=intervals, replicates=replicates)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the histograms, fit for JSON."""
        return (
            {
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
                **({} if self.hardest is None else {"hardest": [list(pair) for pair in self.hardest]}),
            }
            | told_threshold(self.at_threshold)
            | told_intervals(self.intervals)
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``genuine`` (b,), ``impostor`` (b,) int64, ``edges`` (b + 1,) float64; with intervals ``replicates``."""
        counts = {"genuine": self.genuine_counts, "impostor": self.impostor_counts, "edges": self.edges}
        return counts | kept_replicates(self.replicates)


def check_folder(folder: str | os.PathLike[str], benchmarks: Sequence[str], **info: Any) -> None:
    """Raise unless results of ``benchmarks`` may join those that ``folder`` keeps: before the work, not after it.

    Args:
        folder: As of :func:`save_results`; need not be there.
        benchmarks: Names of the results that are to come.
        info: What will be said of the model, as of :func:`save_results`; None for what will not be known. It is said of
            all results of a folder, so it must hold of those that stay, too.

    Raises:
        DataError: There is a ``results.json``, and it is broken.
        ConfigError: The results that stay are of another model, or two benchmarks would share a file of scores.
    """
    target = Path(folder)
    kept = load_results(target) if (target / "results.json").exists() else {"results": {}}
    _check_files(target, [*kept["results"], *benchmarks])
    staying = [name for name in kept["results"] if name not in benchmarks]
    other = [
        f"{key} {_brief(kept[key])}, now {_brief(value)}"
        for key, value in info.items()
        if kept.get(key, value) != value
    ]
    if staying and other:
        raise ConfigError(
            f"{target} keeps results of {', '.join(staying)} that are not of this model ({'; '.join(other)}), and one "
            "results.json is of one model. Give another --out, or judge those benchmarks again in the same call."
        )


def save_results(folder: str | os.PathLike[str], results: Sequence[Result], **info: Any) -> Path:
    """Write ``results.json`` and ``scores/<benchmark>.npz`` into ``folder`` (made if absent).

    Results of other benchmarks that are already there stay; those of the same name are replaced. Several processes may
    write to one folder.

    Args:
        folder: Usually the run folder, or one for a model without a run.
        results: What the benchmarks returned.
        info: What else to say about the model, fit for JSON: ``model="..."``, ``flip="sum"``,
            ``versions={...}``. A mapping is joined to the one that is there: ``data_digests={"lfw": "..."}``.

    Returns:
        The path of ``results.json``.

    Raises:
        DataError: There is a ``results.json``, and it is broken.
        ConfigError: Two benchmarks would share a file of scores.
    """
    target = Path(folder)
    scores = target / "scores"
    scores.mkdir(parents=True, exist_ok=True)
    # Two that judge one model would each write what it had read, and one's results were lost. Not the folder itself: it
    # may be that of a run, and held.
    with alone_in(scores):
        return _save(target, results, info)


def _save(target: Path, results: Sequence[Result], info: Mapping[str, Any]) -> Path:
    path = target / "results.json"
    kept = load_results(target) if path.exists() else {"results": {}}
    _check_files(target, [*kept["results"], *(result.benchmark for result in results)])
    for result in results:
        kept["results"][result.benchmark] = result.to_dict()
        scores = scores_path(target, result.benchmark)
        np.savez_compressed(scores, allow_pickle=False, **result.arrays())
        names = result.names if isinstance(result, PairResult) else None
        names_path(scores).unlink(missing_ok=True)
        if names is not None:
            listed = "".join(f"{_one_line(name)}\n" for name in names)
            # Names of files may hold bytes that are no UTF-8; they go out as they came in.
            names_path(scores).write_text(listed, encoding="utf-8", errors="surrogateescape")
    for key, value in info.items():
        before = kept.get(key)
        kept[key] = {**before, **value} if isinstance(before, dict) and isinstance(value, Mapping) else value
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
    again = "Delete it and run `unpg evaluate` again."
    try:
        found = read_json_object(path, again)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. `unpg evaluate --out {folder}` writes it.") from None
    results = found.get("results")
    if not isinstance(results, dict) or not all(isinstance(figures, dict) for figures in results.values()):
        raise DataError(f'{path} has no object "results" of objects. {again}')
    return found


def scores_path(folder: Path, benchmark: str) -> Path:
    """Where the arrays of a benchmark lie; a name that is a path (own data) becomes a flat file name, a very long one a
    digest and its end.
    """
    flat = benchmark.replace("/", "_").replace("\\", "_").replace(":", "_").lstrip(".")
    if len(os.fsencode(flat)) > _LONGEST:
        flat = f"{hashlib.sha256(os.fsencode(benchmark)).hexdigest()[:16]}-{flat[-40:]}"
    return folder / "scores" / f"{flat}.npz"


def _check_files(folder: Path, benchmarks: Sequence[str]) -> None:
    """Raise if two of the benchmarks would share a file."""
    owners: dict[Path, str] = {}
    for name in benchmarks:
        path = scores_path(folder, name)
        if owners.setdefault(path, name) != name:
            raise ConfigError(
                f"The scores of {owners[path]!r} and of {name!r} would both be kept in {path}. Save one of them "
                "elsewhere, or name it otherwise (an absolute path, say)."
            )


def _brief(value: Any) -> str:
    """Of a digest the start."""
    text = str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."


def names_path(scores: Path) -> Path:
    """Where the names of the images lie that the pairs of :func:`scores_path` point into."""
    return scores.with_suffix(".names.txt")


def _one_line(name: str) -> str:
    # A name with a line break would shift all that follow; it is shown without a picture.
    return " ".join(name.splitlines()) or name


def stored_replicates(figures: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Replicates | None:
    """The replicates of a benchmark from ``results.json`` and ``scores/``; None if they are not kept.

    Args:
        figures: What ``results.json`` says of the benchmark.
        arrays: Its arrays.

    Raises:
        DataError: The two do not belong together.
    """
    told, values = figures.get("intervals"), arrays.get("replicates")
    if told is None or values is None:
        return None
    names = tuple(told["figures"])
    if values.shape != (told["replicates"], len(names)):
        raise DataError(
            f"results.json tells of {told['replicates']} replicates of {len(names)} figures of "
            f"{figures.get('benchmark')!r}, and scores/ holds an array of shape {values.shape}. "
            "Run `unpg evaluate` again."
        )
    estimates = tuple(float(figures["metrics"][name]) for name in names)
    return Replicates(names, estimates, values, told["seed"], told["unit"], told["digest"])


def resolved_targets(points: Sequence[TarAtFar]) -> list[float]:
    """FARs at which there is a TAR."""
    return [p.target for p in points if p.value is not None]


def told_threshold(rates: ToldRates | None) -> dict[str, Any]:
    """The entry ``at_threshold`` of ``to_dict()``; nothing if nobody asked for it."""
    return {} if rates is None else {"at_threshold": rates.to_dict()}


def told_intervals(intervals: Intervals | None) -> dict[str, Any]:
    """The entry ``intervals`` of ``to_dict()``; nothing if nobody asked for any."""
    return {} if intervals is None else {"intervals": intervals.to_dict()}


def kept_replicates(replicates: Replicates | None) -> dict[str, NDArray[Any]]:
    """The entry ``replicates`` (r, k) of ``arrays()``; nothing if there are none."""
    return {} if replicates is None else {"replicates": replicates.values}


def named_tars(points: Sequence[TarAtFar]) -> dict[str, float]:
    """``tar@far=1e-3`` and so on for ``metrics()``; refused ones are absent."""
    return {f"tar@far={target_name(p.target)}": p.value for p in points if p.value is not None}
