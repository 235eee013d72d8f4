"""The processes that work on one run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from unpg.errors import ConfigError

__all__ = ["ALONE", "World", "part"]

_LEFT = "left"  # key in the store: who was the first to leave
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


@dataclass(frozen=True, eq=False)
class World:
    """This process among those that share a run.

    Args:
        rank: Number of this process, from 0.
        size: How many there are.
        group: How they talk; None is torch's default group, or nothing for one process.
        local_rank: Number of this process on its machine: which GPU is its own.
        store: Where a process that leaves says so; it outlives the connections between them.
    """

    rank: int = 0
    size: int = 1
    group: distributed.ProcessGroup | None = None
    local_rank: int = 0
    store: distributed.Store | None = None  # type: ignore[name-defined]

    @property
    def name(self) -> str:
        """This process, for the beginning of a message; empty for one alone."""
        return "" if self.alone else f"Process {self.rank} of {self.size}: "

    @property
    def alone(self) -> bool:
        """Whether there is nobody to talk to."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def part(self, n: int) -> tuple[int, int]:
        """The range of ``n`` things in order that is this process's: :func:`part`."""
        return part(n, self.rank, self.size)

    def barrier(self) -> None:
        """Wait until all are here."""
        if not self.alone:
            distributed.barrier(group=self.group)

    def leave(self) -> None:
        """Tell the others that this process ends early; call it before the connections close."""
        if self.store is not None:
            with suppress(RuntimeError):  # the store may have ended with whoever held it
                self.store.compare_set(_LEFT, "", str(self.rank))

    def who_left(self) -> int | None:
        """The first process that has called :meth:`leave`; None if nobody has, or could."""
        if self.store is not None:
            with suppress(RuntimeError):
                return int(self.store.get(_LEFT)) if self.store.check([_LEFT]) else None
        return None

    def side_group(self) -> distributed.ProcessGroup | None:
        """Another group of the same processes, over the CPU, for talk beside the work; None for one process.

        All processes call it at once.
        """
        return None if self.alone else distributed.new_group(backend="gloo")

    @classmethod
    @contextmanager
    def joined(cls, *, device: torch.device | str = "cpu", timeout: float = 1800.0) -> Iterator["World"]:
        """The world that ``torchrun`` has started this process in; one process where it has not.

        Leaves the group at the end of the ``with`` block, unless it was there before.

        Args:
            device: Where the tensors lie: decides between NCCL (cuda) and gloo.
            timeout: Seconds after which a process that hears nothing from another one gives up.

        Raises:
            ConfigError: Some, not all, of torchrun's variables are set, or they contradict each other.
        """
        if not any(name in os.environ for name in _VARIABLES[:2]):
            yield ALONE
            return
        missing = [name for name in _VARIABLES if name not in os.environ]
        if missing:
            raise ConfigError(
                f"The environment says that several processes run (RANK, WORLD_SIZE), but not {', '.join(missing)}. "
                "Start them with torchrun, as in: torchrun --nproc-per-node 2 -m unpg train ..."
            )
        rank, size = (_number(name) for name in _VARIABLES[:2])
        if not 0 <= rank < size:
            raise ConfigError(f"RANK is {rank}, which is not in [0, WORLD_SIZE = {size}). Start with torchrun.")
        local = _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else 0
        if size == 1:
            yield ALONE
            return
        own = not distributed.is_initialized()
        store = None
        if own:
            backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
            within = timedelta(seconds=timeout)
            store, _, _ = next(rendezvous("env://", timeout=within))
            # torchrun with a fixed master port starts again with the store of the processes that died: without a name
            # of its own, the new group would look for them.
            store = distributed.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # type: ignore[attr-defined]
            distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=within)
        try:
            yield cls(rank, size, distributed.group.WORLD, local, store)
        finally:
            if own:
                distributed.destroy_process_group()


ALONE = World()
"""One process."""


def part(n: int, rank: int, size: int) -> tuple[int, int]:
    """``[start, stop)`` of the ``rank``-th of ``size`` parts of n things in order; they differ by one at most."""
    return n * rank // size, n * (rank + 1) // size


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise ConfigError(f"The variable {name} must be a whole number, got {os.environ[name]!r}.") from None
