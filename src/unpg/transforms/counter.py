"""Random numbers without a state: a hash of what they are for.

A drawn number depends on its key (seed, epoch, operation) and the sample's id alone, never on what was drawn
before. So batch composition, the count of workers or ranks and resuming change nothing, and there is no state
to save. The hash is SplitMix64 (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195) in wrapping int64
arithmetic, which CPU and CUDA do alike.
"""

import torch
from torch import Tensor

__all__ = ["hash64", "uniform"]

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def hash64(ids: Tensor, *key: int) -> Tensor:
    """64 random bits for each id.

    Args:
        ids: int64, any shape: the counter. Ids that differ give bits that look independent.
        key: Whole numbers that say what the bits are for, such as seed, epoch, operation. Their order counts.

    Returns:
        int64 of the shape of ``ids``, all 64 bits random. Without a key, id ``i`` gives the ``i``-th output of
        SplitMix64 seeded with 0.
    """
    start = 0
    for part in key:
        start = _mix_int((start ^ (part & _MASK)) + _GAMMA)
    z = ids * _signed(_GAMMA) + _signed(start)
    z = (z ^ _shift(z, 30)) * _signed(_MIX_1)
    z = (z ^ _shift(z, 27)) * _signed(_MIX_2)
    return z ^ _shift(z, 31)


def uniform(ids: Tensor, *key: int) -> Tensor:
    """A number in [0, 1) for each id, float32 of the shape of ``ids``; a multiple of 2**-24, so exact."""
    return _shift(hash64(ids, *key), 40).to(torch.float32) * 2.0**-24


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; int64's own shift would drag the sign along."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix_int(z: int) -> int:
    z &= _MASK
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit number."""
    return value - (1 << 64) if value >> 63 else value
