"""One process, or thread, at a time in a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["alone_in"]


@contextmanager
def alone_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Wait until no other block holds ``folder``, which must be there, and hold it.

    The lock lies on the folder itself: it leaves no file behind, and ends with the process however that ends. It binds
    those who ask for it, and nobody else.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
