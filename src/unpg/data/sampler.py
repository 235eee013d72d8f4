"""Which images make up a batch: a pure function of (seed, epoch, step), so that resuming needs two counters.

Axes: n images, p identities and k images of each per batch.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from unpg.errors import ConfigError
from unpg.transforms.counter import hash64

__all__ = ["PKSampler", "Sampler", "SequentialSampler", "UniformSampler"]

# The last part of the hash's key: what is shuffled. Never renumber; runs could not be repeated.
_IMAGES, _IDENTITIES, _IMAGES_OF_IDENTITY = 101, 102, 103


class Sampler(Protocol):
    """What the loader needs of a sampler."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in every epoch."""
        ...

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Indices of the images in batch ``step`` (from 0) of ``epoch``, (b,) int64."""
        ...


class SequentialSampler:
    """All images once, in order; the last batch may be short. For embedding, not for training.

    Args:
        n: Number of images.
        batch_size: Images per batch.

    Raises:
        ConfigError: ``batch_size`` below 1.
    """

    def __init__(self, n: int, batch_size: int) -> None:
        _require_positive("batch_size", batch_size)
        self.n, self.batch_size = n, batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches, the short one included."""
        return -(-self.n // self.batch_size)

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """(b,) int64; the same in every epoch."""
        _require_step(step, self.steps_per_epoch)
        return np.arange(step * self.batch_size, min((step + 1) * self.batch_size, self.n), dtype=np.int64)


class UniformSampler:
    """Every image once per epoch, in a new order each time.

    Args:
        n: Number of images.
        batch_size: Images per batch.
        seed: The run's seed.
        drop_last: Leave out the images of an epoch that do not fill a batch (others each epoch), so that all
            batches have one size.

    Raises:
        ConfigError: Fewer images than a batch needs, with ``drop_last``; no images; ``batch_size`` below 1.
    """

    def __init__(self, n: int, batch_size: int, seed: int, drop_last: bool = True) -> None:
        _require_positive("batch_size", batch_size)
        if n < (batch_size if drop_last else 1):
            raise ConfigError(
                f"batch_size is {batch_size}, but the set has {n} images, so no batch can be filled. "
                f"Set batch_size to {n} or less, or add images."
            )
        self.n, self.batch_size, self.seed, self.drop_last = n, batch_size, seed, drop_last
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in every epoch."""
        return self.n // self.batch_size if self.drop_last else -(-self.n // self.batch_size)

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """(b,) int64."""
        _require_step(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, np.argsort(_bits(self.n, self.seed, epoch, _IMAGES), kind="stable")
        return self._epoch[1][step * self.batch_size : (step + 1) * self.batch_size]


class PKSampler:
    """p identities with k images each per batch; no identity twice in a batch.

    Identities come in rounds: all of them once, in a new order, then again. An epoch has as many batches as the
    images need (n / (p k), rounded down), but at least a full round, so every identity is seen in every epoch
    and any two differ by at most one visit. At each visit an identity shows its next k images, in an order that
    is new in each epoch and that starts again when they are used up; an identity with fewer than k images
    repeats them within the batch.

    Args:
        labels: (n,) the identity of each image.
        identities_per_batch: p.
        images_per_identity: k.
        seed: The run's seed.

    Raises:
        ConfigError: p or k below 1, or fewer than p identities.
    """

    def __init__(self, labels: ArrayLike, identities_per_batch: int, images_per_identity: int, seed: int) -> None:
        _require_positive("identities_per_batch", identities_per_batch)
        _require_positive("images_per_identity", images_per_identity)
        self.labels = np.asarray(labels, dtype=np.int64)
        _, self._members, self._counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        self._starts = np.cumsum(self._counts) - self._counts
        if len(self._counts) < identities_per_batch:
            raise ConfigError(
                f"identities_per_batch is {identities_per_batch}, but the set has {len(self._counts)} identities. "
                f"Set it to {len(self._counts)} or less, or add identities."
            )
        self.p, self.k, self.seed = identities_per_batch, images_per_identity, seed
        self._epoch: tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in every epoch."""
        return max(len(self.labels) // (self.p * self.k), -(-len(self._counts) // self.p))

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """(p k,) int64, the k images of an identity side by side."""
        _require_step(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, *self._plan(epoch))
        _, identities, visits, images = self._epoch
        who = identities[step * self.p : (step + 1) * self.p, None]
        shown = visits[step * self.p : (step + 1) * self.p, None] * self.k + np.arange(self.k)
        return images[self._starts[who] + shown % self._counts[who]].reshape(-1)

    def _plan(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(steps p,) identity of each place, (steps p,) its earlier visits, (n,) images grouped by identity."""
        count, places = len(self._counts), self.steps_per_epoch * self.p
        rounds: list[NDArray[np.int64]] = []
        begun = np.empty(0, dtype=np.int64)  # the places already taken in the batch that the next round fills
        for turn in range(-(-places // count)):
            order = np.argsort(_bits(count, self.seed, epoch, _IDENTITIES, turn), kind="stable")
            if len(begun):
                fresh = order[~np.isin(order, begun)][: self.p - len(begun)]
                order = np.concatenate([fresh, order[~np.isin(order, fresh)]])
            rounds.append(order)
            begun = order[count - (turn + 1) * count % self.p :]
        stream = np.concatenate(rounds)[:places]
        by_identity = np.argsort(stream, kind="stable")
        first = np.searchsorted(stream[by_identity], stream[by_identity], side="left")
        visits = np.empty(places, dtype=np.int64)
        visits[by_identity] = np.arange(places) - first
        shuffled = _bits(len(self.labels), self.seed, epoch, _IMAGES_OF_IDENTITY)
        return stream, visits, np.lexsort((shuffled, self._members))


def _bits(n: int, *key: int) -> NDArray[np.int64]:
    bits: NDArray[np.int64] = hash64(torch.arange(n), *key).numpy()
    return bits


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} must be >= 1, got {value}.")


def _require_step(step: int, steps: int) -> None:
    if not 0 <= step < steps:
        raise IndexError(f"step {step} is not in [0, {steps}), the steps of an epoch")
