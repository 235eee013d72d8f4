"""What a run leaves behind while it runs: metrics as JSON lines, optionally TensorBoard, and lines on the screen."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unpg.errors import ConfigError

__all__ = ["MetricsLog", "NoLog", "finite"]


def finite(value: Any) -> Any:
    """``value`` with numbers that JSON cannot hold (NaN, infinities) as None, also deep inside."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    return value


class MetricsLog:
    """``metrics.jsonl``, one event per line, each on the disk before the next step begins.

    Args:
        run: The run folder.
        keep_until: Lines of later steps are dropped first: a resumed run writes those steps again.
        tensorboard: Also write TensorBoard events.
    """

    def __init__(self, run: Path, *, keep_until: int, tensorboard: bool = False) -> None:
        path = run / "metrics.jsonl"
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    event = json.loads(line)
                    keep = event.get("step", 0) <= keep_until
                except (ValueError, RecursionError, AttributeError, TypeError):
                    continue  # the line during which an earlier process was killed, or no line of ours
                if keep:
                    kept.append(line + "\n")
        partial = path.with_suffix(".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        partial.replace(path)
        self._file = path.open("a", encoding="utf-8")
        self._board = _open_board(run) if tensorboard else None

    def write(self, event: str, step: int, epoch: float, **values: Any) -> None:
        """Append one event."""
        line = {"event": event, "step": step, "epoch": round(epoch, 6), **finite(values)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in _flat(values):
                self._board.add_scalar(f"{event}/{name}", value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


class NoLog:
    """For the processes that do not write."""

    def write(self, event: str, step: int, epoch: float, **values: Any) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            found.append((f"{prefix}{name}", float(value)))
    return found


def _open_board(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard: true needs the extra `track`: install unpg[track], or set tensorboard: false."
        ) from error
    return SummaryWriter(str(run / "tensorboard"))
