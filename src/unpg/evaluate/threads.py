"""A thread for each core, each with matrix products of its own."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["in_threads"]

T = TypeVar("T")


def in_threads(work: Callable[[], T], device: torch.device) -> list[T]:
    """What ``work`` returns, called once in each of as many threads as torch may use; on a GPU once.

    Torch shares each single product out among the cores, but what stands between products (counting, gathering,
    sorting) mostly runs on one, and small operations pay for meeting at their end. Here each thread takes its own
    blocks, off one shared iterator say, and torch is told to keep to one core in each; its setting is put back.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return [work()]

    def alone() -> T:
        torch.set_num_threads(1)
        return work()

    try:
        with ThreadPoolExecutor(threads) as pool:
            return [job.result() for job in [pool.submit(alone) for _ in range(threads)]]
    finally:
        torch.set_num_threads(threads)
