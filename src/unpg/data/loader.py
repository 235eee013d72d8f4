"""Batches from an image set: decoded in worker processes, in the sampler's order, whole whatever happens.

An unreadable image never changes a batch's shape or an epoch's length: the next readable image of its identity
in index order stands in, or else the next readable one of the set, and the fault is recorded. What stands in
depends on the set alone, so worker counts and resuming change nothing.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
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

_RESTARTS = 3
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
    own end. The set is sent to each of them: keep sets that lie in memory at ``workers=0``. If one ends (killed, as
    where memory is short), all are started again at the step that is missing, three times in a loader's life.

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
        restarts: How often the workers were started again.

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
        self.restarts = 0
        self._seen: set[int] = set()
        self._device = None if device is None else torch.device(device)
        self._plan = _Plan(sampler)
        self._prefetch, self._unreadable = prefetch, unreadable
        self._batches = self._data_loader()

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
            WorkerError: Workers were killed, again and again.
        """
        if not 0 <= start_step <= self.steps_per_epoch:
            raise ConfigError(
                f"start_step {start_step} is not in [0, {self.steps_per_epoch}], the steps of an epoch. A run "
                "can only be resumed with the data and batch size that it was started with."
            )
        return self._run(epoch, start_step)

    def _run(self, epoch: int, start_step: int) -> Iterator[Batch]:
        for answer in self._answers(epoch, start_step):
            if isinstance(answer, UnpgError):
                raise answer
            images, labels, sample_ids, faults = answer
            for fault in faults:
                if fault.sample_id not in self._seen:
                    self._seen.add(fault.sample_id)
                    self.faults.append(fault)
            yield self._placed(Batch(images, labels, sample_ids))

    def _answers(self, epoch: int, start_step: int) -> Iterator[Any]:
        """What the workers answer, step by step; they are started again if one ends."""
        step = start_step
        while step < self.steps_per_epoch:
            self._plan.start(epoch, step)
            try:
                for answer in iter(self._batches):
                    step += 1
                    yield answer
            except OSError as error:
                raise WorkerError(f"The data workers cannot be started: {error}. {_GUARD}") from error
            except RuntimeError as error:
                if isinstance(error, UnpgError) or "exited unexpectedly" not in str(error):
                    raise
                if self.restarts == _RESTARTS:
                    raise WorkerError(
                        f"A data worker process ended at epoch {epoch}, step {step} (killed, or out of memory?), after "
                        f"{_RESTARTS} restarts: {error}. {_GUARD} Or lower workers or prefetch; with workers=0 you see "
                        f"where it ends."
                    ) from error
                self.restarts += 1
                self.close()
                self._batches = self._data_loader()

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

    def _data_loader(self) -> Any:
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
                "prefetch_factor": self._prefetch,
                "worker_init_fn": _depend_on_parent,
            }
        return DataLoader(
            _Decoded(self.image_set, self._unreadable),
            batch_size=None,
            sampler=self._plan,
            num_workers=self.workers,
            pin_memory=self._device is not None and self._device.type == "cuda",
            # A generator of its own: DataLoader would draw from torch's global one, and so change the run.
            generator=torch.Generator(),
            **multiple,
        )


def _depend_on_parent(worker: int) -> None:
    """Ends a worker when the process that trains ends, however it ends, and not before.

    Torch looks for the death of the fork server, which in turn waits for its last worker: after a SIGKILL both would
    stay for ever. And Ctrl-C reaches all processes of a terminal; what comes of it is for the one that trains to say.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


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
        # Saves a copy of each image: the set decodes into the batch.
        self._read_into: Callable[[int, NDArray[np.uint8]], NDArray[np.uint8]] | None
        self._read_into = getattr(image_set, "read_into", None)

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
            image = self._read(wanted, None if images is None else images[row])
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
                    "Images of one set must have one size: align the faces to one template first."
                )
            if not np.may_share_memory(image, images[row]):
                images[row] = image
        if images is None:
            raise DataError("A sampler gave a batch without images.")
        labels = self.image_set.labels[shown]
        return torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(shown), faults

    def _read(self, i: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8] | None:
        """The image, in ``out`` where the set can do that, or None if it cannot be read; remembers which and why."""
        if i in self.broken:
            return None
        try:
            if out is not None and self._read_into is not None:
                return self._read_into(i, out)
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
