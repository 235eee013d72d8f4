"""The image files of a set in an order: copied by this process, or encoded by several where there are pixels only."""

import multiprocessing
import sys
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from unpg.data.content import content, has_files
from unpg.data.image_set import ImageSet
from unpg.errors import DataError

__all__ = ["image_files"]

_CHUNK = 32  # images that a worker is asked for at a time
_set: ImageSet | None = None


def image_files(image_set: ImageSet, order: NDArray[np.int64], workers: int) -> Generator[bytes, None, None]:
    """The file of each image of ``order`` (m,), in order. Workers only where something is to be encoded.

    Raises:
        DataError: An image cannot be read, or a worker was killed.
    """
    if workers < 2 or has_files(image_set):
        for i in order.tolist():
            yield content(image_set, i)
        return
    # A fork of a process with threads deadlocks.
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    with ProcessPoolExecutor(workers, context, initializer=_take, initargs=(image_set,)) as pool:
        chunks = (order[start : start + _CHUNK].tolist() for start in range(0, len(order), _CHUNK))
        asked: deque[Future[list[bytes]]] = deque(pool.submit(_files, chunk) for chunk in islice(chunks, 2 * workers))
        try:
            while asked:
                yield from asked.popleft().result()
                asked.extend(pool.submit(_files, chunk) for chunk in islice(chunks, 1))
        except BrokenProcessPool as error:
            raise DataError(
                f"A worker process that encodes images ended (killed, or out of memory?): {error}. The same command "
                "goes on; give it fewer workers."
            ) from error
        finally:
            for future in asked:
                future.cancel()


def _take(image_set: ImageSet) -> None:
    global _set
    _set = image_set


def _files(indices: list[int]) -> list[bytes]:
    assert _set is not None
    return [content(_set, i) for i in indices]
