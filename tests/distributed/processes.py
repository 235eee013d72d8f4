"""Runs a function in several processes that talk by gloo."""

import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

from unpg.distributed import World

TIMEOUT = timedelta(seconds=30)


def run_processes(size: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """``function(world, *arguments)`` in ``size`` processes of one thread; what each returns.

    Raises:
        AssertionError: One of them failed; with its traceback.
    """
    folder.mkdir(parents=True, exist_ok=True)
    multiprocessing.spawn(_child, (size, folder, function, arguments), nprocs=size)
    results = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]
    for rank, (fine, result) in enumerate(results):
        assert fine, f"process {rank} of {size}: {result}"
    return [result for _, result in results]


def _child(rank: int, size: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size, timeout=TIMEOUT
    )
    try:
        result = True, function(World(rank, size, distributed.group.WORLD, rank), *arguments)
    except BaseException:
        result = False, traceback.format_exc()
    torch.save(result, folder / f"{rank}.pt")
    distributed.destroy_process_group()
