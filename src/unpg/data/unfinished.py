"""Folders that are being written: a note of what is to become of them, so that only the same job goes on in one."""

import json
import os
from pathlib import Path
from typing import Any

from unpg.errors import DataError

__all__ = ["JOB", "begin"]

JOB = "job.json"
"""The note; whoever finishes the folder removes it."""


def begin(partial: Path, job: dict[str, Any]) -> None:
    """Begin the folder ``partial`` for ``job`` (fit for JSON), or go on if it was begun for the same.

    Raises:
        DataError: It was begun for another job, or holds something else.
    """
    note = partial / JOB
    if note.exists():
        try:
            known = json.loads(note.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            known = None
        if known != job:
            raise DataError(f"{partial} holds the beginning of another job. Remove it, then start again.")
        return
    if partial.exists() and any(partial.iterdir()):
        raise DataError(f"{partial} is not empty, and nothing that was begun here. Remove it, then start again.")
    partial.mkdir(parents=True, exist_ok=True)
    part = partial.with_name(f"{partial.name}.job")
    part.write_text(json.dumps(job), encoding="utf-8")
    os.replace(part, note)
