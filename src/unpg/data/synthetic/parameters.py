"""Bounded parameters, their keyed draws, and their batches.

A draw depends on (seed, keys, name of the parameter) and on nothing else: not on the order of rendering, and not on
which other parameters exist. So parameters can be added later without changing the value of any that is here now.
"""

import dataclasses
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from unpg.errors import ConfigError

__all__ = ["Bounded", "Columns", "Draws", "PerPixel", "bounded", "columns"]

Columns = Mapping[str, Tensor]
"""Parameters by name: (b, 1) float32, one row per picture, or (n,), one value per pixel."""

_MASK = (1 << 64) - 1


def bounded(default: float | None, low: float, high: float) -> Any:
    """A float field of a :class:`Bounded` dataclass: its neutral value (None: left out) and inclusive limits."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


class Bounded:
    """Base of frozen dataclasses of floats: checks the limits of every :func:`bounded` field.

    Raises:
        ConfigError: A value is outside its limits, or is no finite number.
    """

    def __post_init__(self) -> None:
        for name, (low, high) in self.limits().items():
            value = getattr(self, name)
            optional = getattr(type(self), name) is None
            if optional and value is None:
                continue
            if not (isinstance(value, (int, float)) and low <= value <= high):  # nan fails the comparison
                kind = "None or a number" if optional else "a number"
                raise ConfigError(f"{type(self).__name__}.{name} must be {kind} from {low} to {high}, got {value!r}.")

    @classmethod
    def limits(cls) -> dict[str, tuple[float, float]]:
        """The inclusive limits (low, high) of every bounded field, by name."""
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        return {f.name: (f.metadata["low"], f.metadata["high"]) for f in fields if "low" in f.metadata}


def columns(rows: Sequence[Mapping[str, float]], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Parameters of b pictures by name, each (b, 1) float32."""
    table = torch.tensor([list(row.values()) for row in rows], dtype=torch.float32).to(device)
    return dict(zip(rows[0], table.split(1, 1), strict=True))


class PerPixel(Mapping[str, Tensor]):
    """Parameters (n,) of n pixels, gathered when asked for.

    Args:
        table: Parameters of the pictures, each (b, 1).
        picture: (n,) int64, the picture that each pixel lies in.
    """

    def __init__(self, table: Columns, picture: Tensor) -> None:
        self._table, self._picture = table, picture
        self._made: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._made:
            column = self._table[name][:, 0]
            # A single picture needs no copies: its one value is stretched over the pixels.
            self._made[name] = column if len(column) == 1 else column.index_select(0, self._picture)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def select(self, index: Tensor) -> "PerPixel":
        """The parameters of the pixels ``index`` (m,)."""
        return PerPixel(self._table, self._picture.index_select(0, index))


def _mix(value: int) -> int:
    """SplitMix64's finalizer (Steele, Lea, Flood 2014): a bijection of 64-bit words that scatters every bit."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@lru_cache(maxsize=1024)
def _mixed_name(name: str) -> int:
    return _mix(zlib.crc32(name.encode()))


class Draws:
    """Random numbers that are pure functions of keys: integers of any size, or names.

    ``Draws(1, 2).uniform("a")`` is one number, whatever else is drawn, in whatever order.

    Args:
        keys: What all draws of this source depend on.
    """

    def __init__(self, *keys: int | str) -> None:
        self._state = self._absorb(0, keys)

    @staticmethod
    def _absorb(state: int, keys: tuple[int | str, ...]) -> int:
        for key in keys:
            if isinstance(key, str):
                state = _mix(state ^ _mixed_name(key))
                continue
            number = key
            state = _mix(state ^ _mix(number & _MASK))
            while not -(1 << 63) <= number <= _MASK:  # what one word cannot hold goes into the next
                number >>= 64
                state = _mix(state ^ _mix(number & _MASK) ^ 1)
        return state

    def word(self, *keys: int | str) -> int:
        """A 64-bit word."""
        return self._absorb(self._state, keys)

    def uniform(self, *keys: int | str) -> float:
        """A number in (0, 1)."""
        return ((self.word(*keys) >> 11) + 0.5) * 2.0**-53

    def normal(self, *keys: int | str) -> float:
        """A standard normal number (Box-Muller)."""
        radius = math.sqrt(-2.0 * math.log(self.uniform(*keys, "radius")))
        return radius * math.cos(2.0 * math.pi * self.uniform(*keys, "angle"))
