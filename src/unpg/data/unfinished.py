"""Folders that are being written: ``<out>.partial`` with a note of its job, held by one process, renamed when whole."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unpg.errors import ConfigError, DataError

__all__ = ["JOB", "LOCK", "require_new", "unfinished"]

JOB = "job.json"
"""The note, so that only the same job goes on."""

LOCK = ".lock"
"""The file whose lock the writing process holds; the kernel frees it, however the process ends."""


def require_new(out: Path) -> None:
    """Raise if there is something called ``out`` already.

    Raises:
        ConfigError: There is.
    """
    if out.exists():
        raise ConfigError(f"{out} exists. Remove it, or name another folder.")


@contextmanager
def unfinished(out: Path, job: dict[str, Any]) -> Iterator[Path]:
    """Begin ``<out>.partial`` for ``job`` (fit for JSON), or go on if it was begun for the same; give it.

    The folder gets the name ``out`` when the block ends without an error.

    Raises:
        ConfigError: ``out`` exists.
        DataError: Another process is at the folder, it was begun for another job, or it holds something else.
    """
    require_new(out)
    partial = out.with_name(f"{out.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    with open(partial / LOCK, "ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"Another process is writing {partial}. Wait until it has ended, or name another folder."
            ) from None
        require_new(out)  # the process that held the lock may have finished
        _begin(partial, job)
        yield partial
        # Renamed before the note goes: without a note, nobody could go on after a kill in between.
        os.rename(partial, out)
        for name in (JOB, LOCK):
            (out / name).unlink()


def _begin(partial: Path, job: dict[str, Any]) -> None:
    note = partial / JOB
    if note.exists():
        try:
            known = json.loads(note.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            known = None
        if known != job:
            raise DataError(
                f"{partial} holds the beginning of another job, or what it is made from has changed since. Remove it, "
                "then start again."
            )
        return
    if any(entry.name != LOCK for entry in partial.iterdir()):
        raise DataError(f"{partial} is not empty, and nothing that was begun here. Remove it, then start again.")
    part = partial.with_name(f"{partial.name}.job")
    part.write_text(json.dumps(job), encoding="utf-8")
    os.replace(part, note)
