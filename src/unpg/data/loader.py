"""Batches from an image set: decoded in worker processes, in the sampler's order, whole whatever happens.

An unreadable image never changes a batch's shape or an epoch's length: the next readable image of its identity
in index order stands in, or else the next readable one of the set, and the fault is recorded. What stands in
depends on the set alone, so worker counts and resuming change nothing.
"""

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from types import TracebackType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from unpg.data.image_set import Batch, ImageSet, SizeError
from unpg.data.sampler import Sampler
from unpg.errors import ConfigError, DataError, UnpgError

__all__ = ["Fault", "Loader", "WorkerError"]

Unreadable = Literal["replace", "raise"]

_GUARD = "Workers need a script in a file that does its work under `if __name__ == '__main__':`."


class Fault(NamedTuple):
    """An image that could not be read."""

    sample_id: int
    name: str
    reason: str
    substitute: str
    """The name of the image that stands in."""


class WorkerError(DataError):
    """A worker process ended without an answer."""


class Loader:
    """Hands out the batches of an epoch.

    With workers, the calling script must do its work under ``if __name__ == "__main__":``, since workers are
    fresh processes that import it. They live until :meth:`close`, the end of a ``with`` block, or the loader's
    own end. The set is sent to each of them: keep sets that lie in memory at ``workers=0``.

    Args:
        image_set: Where images come from. All must have one size.
        sampler: Which images make up a batch.
        workers: Processes that decode; 0 decodes in this one.
        prefetch: Batches that each worker keeps ready.
        device: Where batches go; None leaves them on the CPU. For a CUDA device they pass through pinned
            memory and are copied without waiting.
        unreadable: ``"replace"`` an unreadable image as described above, or ``"raise"`` its error (for
            evaluation, where a stand-in would be a lie).

    Attributes:
        faults: Each unreadable image once, in the order met.

    Raises:
        ConfigError: A setting is out of range.
    """

    def __init__(
        self,
        image_set: ImageSet,
        sampler: Sampler,
        *,
        workers: int = 0,
        prefetch: int = 2,
        device: torch.device | str | None = None,
        unreadable: Unreadable = "replace",
    ) -> None:
        if workers < 0:
            raise ConfigError(f"Loader.workers must be >= 0, got {workers}.")
        if prefetch < 1:
            raise ConfigError(f"Loader.prefetch must be >= 1, got {prefetch}.")
        if unreadable not in ("replace", "raise"):
            raise ConfigError(f"Loader.unreadable must be 'replace' or 'raise', got {unreadable!r}.")
        self.image_set = image_set
        self.sampler = sampler
        self.workers = workers
        self.faults: list[Fault] = []
        self._seen: set[int] = set()
        self._device = None if device is None else torch.device(device)
        self._plan = _Plan(sampler)
        self._batches = self._data_loader(prefetch, unreadable)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in every epoch."""
        return self.sampler.steps_per_epoch

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from ``start_step`` on. One epoch may be under way at a time.

        Raises:
            ConfigError: ``start_step`` is not in ``[0, steps_per_epoch]``.
            DataError: No image can stand in for an unreadable one, or ``unreadable="raise"``.
            SizeError: Images of different sizes.
            WorkerError: A worker was killed.
        """
        if not 0 <= start_step <= self.steps_per_epoch:
            raise ConfigError(
                f"start_step {start_step} is not in [0, {self.steps_per_epoch}], the steps of an epoch. A run "
                "can only be resumed with the data and batch size that it was started with."
            )
        return self._run(epoch, start_step)

    def _run(self, epoch: int, start_step: int) -> Iterator[Batch]:
        self._plan.start(epoch, start_step)
        try:
            answers = iter(self._batches)
        except OSError as error:
            raise WorkerError(f"The data workers cannot be started: {error}. {_GUARD}") from error
        for step in range(start_step, self.steps_per_epoch):
            try:
                answer = next(answers)
            except RuntimeError as error:
                if isinstance(error, UnpgError) or "exited unexpectedly" not in str(error):
                    raise
                raise WorkerError(
                    f"A data worker process ended at epoch {epoch}, step {step} (killed, or out of memory?): "
                    f"{error}. {_GUARD} Or lower workers or prefetch; with workers=0 you see where it ends."
                ) from error
            if isinstance(answer, UnpgError):
                raise answer
            images, labels, sample_ids, faults = answer
            for fault in faults:
                if fault.sample_id not in self._seen:
                    self._seen.add(fault.sample_id)
                    self.faults.append(fault)
            yield self._placed(Batch(images, labels, sample_ids))

    def close(self) -> None:
        """End the workers. The loader cannot be used afterwards."""
        iterator = getattr(self._batches, "_iterator", None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
        self._batches = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _placed(self, batch: Batch) -> Batch:
        if self._device is None:
            return batch
        return Batch(*(tensor.to(self._device, non_blocking=True) for tensor in batch))

    def _data_loader(self, prefetch: int, unreadable: Unreadable) -> Any:
        multiple: dict[str, Any] = {}
        if self.workers:
            # Forking a process that has threads or CUDA deadlocks; the fork server has neither, and with the
            # imports done there once, a worker starts at once.
            context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
            with suppress(ValueError):
                context.set_forkserver_preload(["__main__", __name__])
            multiple = {
                "multiprocessing_context": context,
                "persistent_workers": True,
                "prefetch_factor": prefetch,
            }
        return DataLoader(
            _Decoded(self.image_set, unreadable),
            batch_size=None,
            sampler=self._plan,
            num_workers=self.workers,
            pin_memory=self._device is not None and self._device.type == "cuda",
            # A generator of its own: DataLoader would draw from torch's global one, and so change the run.
            generator=torch.Generator(),
            **multiple,
        )


class _Plan:
    """The index arrays of the steps to come."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.epoch, self.first = 0, 0

    def start(self, epoch: int, step: int) -> None:
        self.epoch, self.first = epoch, step

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for step in range(self.first, self.sampler.steps_per_epoch):
            yield self.sampler.batch(self.epoch, step)

    def __len__(self) -> int:
        return self.sampler.steps_per_epoch - self.first


class _Decoded(Dataset[Any]):
    """A batch for an array of indices; lives in the worker. Errors for the user are returned, not raised,
    because a raise in a worker wraps the message in the worker's stack.
    """

    def __init__(self, image_set: ImageSet, unreadable: Unreadable) -> None:
        self.image_set = image_set
        self.unreadable = unreadable
        self.broken: dict[int, str] = {}

    def __getitem__(self, indices: NDArray[np.int64]) -> Any:
        try:
            return self._batch(indices)
        except UnpgError as error:
            return error

    def _batch(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[Fault]]:
        shown = indices.copy()
        faults: list[Fault] = []
        images: NDArray[np.uint8] | None = None
        read_many = getattr(self.image_set, "read_many", None)
        if read_many is not None and len(indices):  # rendered sets: no file can be broken
            images = read_many(indices)
            return torch.from_numpy(images), torch.from_numpy(self.image_set.labels[shown]), torch.from_numpy(shown), []
        for row, wanted in enumerate(indices.tolist()):
            image = self._read(wanted)
            if image is None:
                image, shown[row] = self._substitute(wanted)
                name = self.image_set.name
                faults.append(Fault(wanted, name(wanted), self.broken[wanted], name(int(shown[row]))))
            if images is None:
                images = np.empty((len(indices), *image.shape), dtype=np.uint8)
            elif image.shape != images.shape[1:]:
                raise SizeError(
                    f"{self.image_set.name(int(shown[row]))} is {image.shape[0]} x {image.shape[1]} pixels (height x "
                    f"width), but {self.image_set.name(int(shown[0]))} is {images.shape[1]} x {images.shape[2]}. "
                    "Images of one set must have one size: align the faces first (`unpg align`)."
                )
            images[row] = image
        if images is None:
            raise DataError("A sampler gave a batch without images.")
        labels = self.image_set.labels[shown]
        return torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(shown), faults

    def _read(self, i: int) -> NDArray[np.uint8] | None:
        """The image, or None if it cannot be read; remembers which and why."""
        if i in self.broken:
            return None
        try:
            return self.image_set.read(i)
        except SizeError:
            raise  # no substitute mends a set that is not aligned
        except DataError as error:
            if self.unreadable == "raise":
                raise
            self.broken[i] = str(error)
            return None

    def _substitute(self, i: int) -> tuple[NDArray[np.uint8], int]:
        labels = self.image_set.labels
        own = np.flatnonzero(labels == labels[i])
        place = int(np.searchsorted(own, i))
        around = chain(range(i + 1, len(labels)), range(i))
        for candidate in chain(np.roll(own, -place)[1:].tolist(), around):
            image = self._read(candidate)
            if image is not None:
                return image, candidate
        raise DataError(f"None of the {len(labels)} images of the set can be read. The first failure: {self.broken[i]}")
