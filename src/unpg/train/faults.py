"""Images that could not be read, listed in the run."""

import json
from collections.abc import Sequence
from pathlib import Path

from unpg.data import Fault

__all__ = ["write_faults"]


def write_faults(run: Path, faults: Sequence[Fault]) -> int:
    """Bring ``faults.jsonl`` up to date and count it: a line for each replaced image, kept when a run is resumed."""
    path = run / "faults.jsonl"
    before = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    known = {fault["sample_id"] for fault in before}
    new = [fault._asdict() for fault in faults if fault.sample_id not in known]
    if new:
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(fault) + "\n" for fault in before + new), encoding="utf-8")
        partial.replace(path)
    return len(before) + len(new)
