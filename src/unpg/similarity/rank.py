"""Order statistics of a set without sorting it: radix histograms over the ordered bits of its values.

The value at a rank is found digit by digit. A round counts, for each possible digit, the values that agree with all
digits found before; the digit is where the running count passes the rank. Counts are sums, so blocks of a set, and
processes that each have a part of it, only add them up, and nothing is read back from the device.
Axes: a anchors, n values of a block, q ranks.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from unpg.distributed import ALONE, World, total
from unpg.similarity import fused

__all__ = ["Sample", "at_ranks"]

Sample = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Gives the sets in blocks, as often as asked: values (a, n), and which of them belong, (a, n) bool."""

_TABLE_BITS = 22  # of all anchors together: more anchors, fewer bits a round
_MOST_DIGIT_BITS = 16
_SENT_DIGIT_BITS = 11  # one round more, and an eighth of the counts to send to other processes
_VALUES = 2**21  # of a block at most
_REST_BINS = 2**16
_INTEGERS = {torch.float32: (torch.int32, 32), torch.float64: (torch.int64, 64)}


def at_ranks(sample: Sample, ranks: Tensor, dtype: torch.dtype, world: World = ALONE, *, fuse: bool = False) -> Tensor:
    """The values at the ranks of each anchor's set: (a, q), exact; inf where a set has no such rank.

    Args:
        sample: The sets of a anchors, without NaN.
        ranks: (a, q) int64, 0 for the smallest; one below 0 is taken as 0.
        dtype: Of the values: float32 or float64.
        world: The processes that each have a part of the sets.
        fuse: Whether a kernel counts the digits of float32 values.
    """
    fuse = fuse and dtype == torch.float32
    anchors, queries = ranks.shape
    most = _MOST_DIGIT_BITS if world.alone else _SENT_DIGIT_BITS
    digit_bits = min(most, max(4, _TABLE_BITS - max(anchors - 1, 0).bit_length()))
    shift = _INTEGERS[dtype][1]
    left = ranks.clamp(min=0)  # how many values that agree so far are still to be passed
    found = torch.zeros_like(ranks)  # the digits so far
    inside = torch.ones_like(ranks, dtype=torch.bool)
    first = True
    while shift > 0:
        width = min(digit_bits, shift)
        shift -= width
        # In the first round all values agree, so one table answers all queries.
        tables = [ranks.new_zeros(anchors, 1 << width) for _ in range(1 if first else queries)]
        for values, belongs in sample() if fuse else _sliced(sample()):
            if fuse:
                for q, table in enumerate(tables):
                    fused.add_digits(table, values, belongs, None if first else found[:, q], shift, width)
                continue
            keys = _ordered_bits(values)
            digits = _shifted(keys, shift) & ((1 << width) - 1)
            for q, table in enumerate(tables):
                agrees = belongs if first else belongs & (_shifted(keys, shift + width) == found[:, q : q + 1])
                table += _histogram(digits, agrees, 1 << width)
        running = total(torch.stack(tables, dim=1), world).cumsum(dim=2).expand(-1, queries, -1)
        if first:
            inside = left < running[:, :, -1]
        digit = (running <= left[..., None]).sum(dim=2).clamp(max=(1 << width) - 1)
        passed = running.gather(2, (digit - 1).clamp(min=0)[..., None]).squeeze(2)
        left = left - torch.where(digit > 0, passed, 0)
        found = (found << width) | digit
        first = False
    return torch.where(inside, _from_ordered_bits(found, dtype), torch.inf)


def _sliced(blocks: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The same in blocks of fewer values: a value takes five integers of 8 bytes while it is counted."""
    for values, belongs in blocks:
        width = max(1, _VALUES // max(len(values), 1))
        yield from zip(values.split(width, dim=1), belongs.split(width, dim=1), strict=True)


def _ordered_bits(values: Tensor) -> Tensor:
    """int64 whose low bits, read without sign, have the order of the floating-point values."""
    integer, bits = _INTEGERS[values.dtype]
    raw = values.contiguous().view(integer).to(torch.int64)
    if bits == 64:
        return torch.where(raw < 0, ~raw, raw ^ torch.iinfo(torch.int64).min)
    return torch.where(raw < 0, ~raw, raw | 0x80000000)


def _from_ordered_bits(keys: Tensor, dtype: torch.dtype) -> Tensor:
    integer, bits = _INTEGERS[dtype]
    if bits == 64:
        raw = torch.where(keys < 0, keys ^ torch.iinfo(torch.int64).min, ~keys)
    else:
        raw = torch.where(keys >= 0x80000000, keys & 0x7FFFFFFF, ~keys)
    return raw.to(integer).view(dtype)


def _shifted(keys: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return keys if bits == 0 else (keys >> bits) & ((1 << (64 - bits)) - 1)


def _histogram(digits: Tensor, agrees: Tensor, bins: int) -> Tensor:
    """How often each digit occurs among what agrees: (a, bins)."""
    anchors = len(digits)
    row = torch.arange(anchors, device=digits.device)[:, None] * bins
    if digits.device.type == "cpu":
        places = torch.where(agrees, digits + row, anchors * bins).flatten()  # the rest goes to one last bin
        counts = torch.bincount(places, minlength=anchors * bins + 1)
    else:  # bincount reads the largest place back; many writers to one bin wait for each other, so the rest gets many
        rest = torch.arange(digits.numel(), device=digits.device).view_as(digits) % _REST_BINS
        places = torch.where(agrees, digits + row, anchors * bins + rest).flatten()
        counts = places.new_zeros(anchors * bins + _REST_BINS).scatter_add_(0, places, torch.ones_like(places))
    return counts[: anchors * bins].view(anchors, bins)
