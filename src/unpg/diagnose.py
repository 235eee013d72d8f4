"""Why a model errs as it does: its similarities, and which of them its loss sees (``unpg diagnose``)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unpg.data import ImageSet, PKSampler, Sampler, UniformSampler
from unpg.data.image_set import truth_of
from unpg.data.label_noise import Truth
from unpg.data.truth_file import read_truth
from unpg.embed import Embeddings, Model, embed
from unpg.errors import ConfigError
from unpg.evaluate import (
    SHOWN_FILTERS,
    AllPairsBenchmark,
    Benchmark,
    ClassWeights,
    PairBenchmark,
    Sampling,
    SetDiagnosis,
    diagnose_pairs,
    diagnose_set,
    flip_labels,
)
from unpg.pairs import BatchPairs, BoxWhisker, ClassPairs, FeaturePairs, UnifiedPairs
from unpg.similarity import Balanced, Constant, Scheduled, as_weight
from unpg.train import Setup
from unpg.train.trained import open_trained

__all__ = ["DiagnoseOptions", "diagnose_model", "diagnose_run"]

Progress = Callable[[str, int, int], None]
"""Called with what is being embedded, the images done, and the images in all."""

_STREAM = 0xD1A6  # keeps the choice of images apart from other draws of the same seed


@dataclass(frozen=True)
class DiagnoseOptions:
    """How much is looked at.

    Attributes:
        batches: Batches to sample negatives from, at most those of one epoch.
        batch_size: Images in each; None takes the run's, or 256.
        images: Images of a labelled set at most; of a larger one so many are drawn.
        flip_labels: Share of a labelled set's labels that are changed on purpose, to judge the filters by.
        truth: File that says whom the images of the training set show, or those of ``data``; see
            :func:`unpg.data.truth_file.read_truth`. Rendered sets know it themselves.
        seed: Of which images, batches and labels.
        device: auto, cpu, cuda, ...
        workers: Threads that decode images.
        progress: Told how far embedding is.
    """

    batches: int = 64
    batch_size: int | None = None
    images: int = 20_000
    flip_labels: float = 0.0
    truth: Path | None = None
    seed: int = 0
    device: str = "auto"
    workers: int = 1
    progress: Progress | None = None

    def __post_init__(self) -> None:
        for name in ("batches", "images"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}.")
        if not 0 <= self.flip_labels < 1:
            raise ConfigError(f"flip_labels is a share of the images in [0, 1), got {self.flip_labels}.")


def diagnose_run(
    run: Path, benchmarks: Sequence[str] = (), options: DiagnoseOptions | None = None
) -> list[SetDiagnosis]:
    """Diagnose a run: its training set with the class weights of its newest checkpoint, then test sets.

    Of rendered sets with noise the truth is known, so what the filters do to that noise is said without being asked.
    Images are embedded in evaluation mode, without augmentation; batches are drawn as the run draws them, the union is
    weighed as the run weighs it (1 where that follows each row, or without UNPG).

    Raises:
        DataError: The folder holds no run, the data are missing, or there is nothing to compare.
        ConfigError: The training set is another one, or a setting does not fit.
    """
    options = options or DiagnoseOptions()
    setup = open_trained(run, benchmarks=benchmarks, device=options.device)
    sampler = setup.config.sampler
    size = options.batch_size or sampler.batch_size

    def drawn(labels: NDArray[np.int64]) -> Sampler:
        k = sampler.images_per_identity
        if sampler.kind == "uniform":
            return UniformSampler(len(labels), size, options.seed, sampler.drop_last)
        if size % k:
            raise ConfigError(f"The run draws {k} images of each person: batch_size must be a multiple, got {size}.")
        return PKSampler(labels, size // k, k, options.seed)

    sampling = _of_loss(setup)
    micro = setup.config.accumulate if setup.config.pairs == "micro" else 1  # whole: pairs of the whole batch
    truth = None if options.truth is None else read_truth(options.truth, setup.images)
    training = _labelled("training", setup.model, setup.images, drawn, sampling, options, micro=micro, truth=truth)
    # Class weights know nobody of a test set.
    without = replace(sampling, weights=None)
    return [training, *_tests(setup.model, setup.benchmarks, without, options, size)]


def diagnose_model(
    model: Model,
    benchmarks: Sequence[Benchmark] = (),
    data: Mapping[str, ImageSet] | None = None,
    options: DiagnoseOptions | None = None,
) -> list[SetDiagnosis]:
    """Diagnose a model without class weights: only batch negatives can be sampled.

    Args:
        model: Network and preprocessing.
        benchmarks: Test sets: lists of pairs, or labelled sets.
        data: More labelled sets, by name.
        options: How much is looked at.

    Raises:
        ConfigError: There is no set, or a setting does not fit.
        DataError: Data are missing or broken, or there is nothing to compare.
    """
    options = options or DiagnoseOptions()
    own = [AllPairsBenchmark(name, images) for name, images in (data or {}).items()]
    sets = [*own, *benchmarks]
    if options.truth is not None and not own:
        raise ConfigError("A truth file goes with a labelled set: give its folder as --data.")
    if not sets:
        raise ConfigError(
            "A model alone has no training set: name a test set with --benchmark, or a folder with --data."
        )
    truths = {} if options.truth is None else {id(one): read_truth(options.truth, one.images) for one in own}
    return _tests(model, sets, Sampling([], SHOWN_FILTERS), options, options.batch_size or 256, truths)


def _tests(
    model: Model,
    benchmarks: Sequence[Benchmark],
    sampling: Sampling,
    options: DiagnoseOptions,
    size: int,
    truths: Mapping[int, Truth] | None = None,
) -> list[SetDiagnosis]:
    def drawn(labels: NDArray[np.int64]) -> Sampler:
        return UniformSampler(len(labels), min(size, len(labels)), options.seed)

    found = []
    for benchmark in benchmarks:
        if isinstance(benchmark, PairBenchmark):
            embedded = _embedded(benchmark.name, model, benchmark.images, options)
            found.append(diagnose_pairs(benchmark.name, embedded.vectors, benchmark.pairs, benchmark.same))
        elif isinstance(benchmark, AllPairsBenchmark):
            truth = (truths or {}).get(id(benchmark))
            found.append(_labelled(benchmark.name, model, benchmark.images, drawn, sampling, options, truth=truth))
        else:
            raise ConfigError(
                f"{benchmark.name} is neither a list of pairs nor a labelled set, so it has no S^p and S^n to diagnose."
            )
    return found


def _labelled(
    name: str,
    model: Model,
    images: ImageSet,
    drawn: Callable[[NDArray[np.int64]], Sampler],
    sampling: Sampling,
    options: DiagnoseOptions,
    *,
    micro: int = 1,
    truth: Truth | None = None,
) -> SetDiagnosis:
    chosen = _chosen(len(images), options)
    embedded = _embedded(name, model, images, options, indices=chosen, on_error="skip")
    vectors, labels = embedded.vectors[embedded.readable], embedded.labels[embedded.readable]
    sampler = drawn(labels)
    steps = range(min(options.batches, sampler.steps_per_epoch))
    batches = [part for step in steps for part in np.array_split(sampler.batch(0, step), micro) if len(part)]
    truth = truth or truth_of(images)
    clean = twin_of = None
    if truth is not None:
        clean, twin_of = ((part if chosen is None else part[chosen])[embedded.readable] for part in truth)
    flipped = flip_labels(labels, options.flip_labels, options.seed) if options.flip_labels else None
    if flipped is not None and clean is None:
        clean = labels
    found = diagnose_set(
        name,
        vectors,
        labels if flipped is None else flipped,
        replace(sampling, batches=batches),
        clean=clean,
        twin_of=twin_of,
        device=_device(options.device),
    )
    return replace(found, unreadable=len(embedded.unreadable))


def _embedded(name: str, model: Model, images: ImageSet, options: DiagnoseOptions, **more: Any) -> Embeddings:
    tell = None if options.progress is None else partial(options.progress, name)
    return embed(model, images, device=_device(options.device), workers=options.workers, progress=tell, **more)


def _chosen(n: int, options: DiagnoseOptions) -> NDArray[np.int64] | None:
    if n <= options.images:
        return None
    draw = np.random.Generator(np.random.Philox(key=[options.seed % 2**64, _STREAM]))
    return np.sort(draw.permutation(n)[: options.images])


def _of_loss(setup: Setup) -> Sampling:
    """How the loss of a run samples negatives."""
    modules = list(setup.loss.modules())
    union = next((m for m in modules if isinstance(m, UnifiedPairs)), None)
    extra = union.extra if union is not None else None
    extra = extra if isinstance(extra, BatchPairs) else BatchPairs("batch", BoxWhisker())
    filters = dict(SHOWN_FILTERS)
    own = next((name for name, keep in filters.items() if keep == extra.keep), repr(extra.keep))
    filters[own] = extra.keep
    weight = union.weight if union is not None else Constant()
    weight = as_weight(weight.then) if isinstance(weight, Scheduled) else weight
    number = weight.value if isinstance(weight, Constant) and weight.value > 0 else 1.0
    return Sampling(
        batches=[],
        filters=filters,
        weights=_class_weights(modules),
        scope=extra.scope,
        batch_weight=weight.rho if isinstance(weight, Balanced) else number,
        balanced=isinstance(weight, Balanced),
        drawn=own,
    )


def _class_weights(modules: Sequence[nn.Module]) -> ClassWeights | None:
    """What stands for the classes: weights, or the latest feature of each."""
    for module in modules:
        if isinstance(module, ClassPairs):
            return ClassWeights(module.head.weight.detach(), module.head.centers)
        if isinstance(module, FeaturePairs):
            return ClassWeights(module.vectors)
    return None


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
