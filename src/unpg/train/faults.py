"""Images that could not be read, listed in the run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unpg.data import Fault
from unpg.errors import DataError, shown
from unpg.json_file import parse_json

__all__ = ["write_faults"]


def write_faults(run: Path, faults: Sequence[Fault]) -> int:
    """Bring ``faults.jsonl`` up to date and count it: a line for each replaced image, kept when a run is resumed."""
    path = run / "faults.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    before = [_parsed(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    known = {fault["sample_id"] for fault in before}
    new = [fault._asdict() for fault in faults if fault.sample_id not in known]
    if new:
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(fault) + "\n" for fault in before + new), encoding="utf-8")
        partial.replace(path)
    return len(before) + len(new)


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    fault = parse_json(line, where, "Delete the line.")
    if not isinstance(fault, dict) or not isinstance(fault.get("sample_id"), int):
        raise DataError(f'{where}: expected an object with a whole number "sample_id", got {shown(fault)}. Delete it.')
    return fault
