"""What a head offers, and which kind of head the losses of a run get."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from unpg.distributed import World
from unpg.errors import ConfigError

__all__ = ["Head", "Part", "check_head", "drawn_rows", "make_head", "making_heads", "places"]

_CHUNK = 2**22  # numbers drawn at once; a multiple of 16, which torch's generator needs to give the same ones in parts


class Part(NamedTuple):
    """The class weights that a process compares with, in one step.

    Attributes:
        weights: (c * K, d), the K centers of c classes one after the other, with gradient.
        places: (b,) int64, where the class of each label is among the c; -1 if it is not.
        num_classes: How many classes all processes compare with together.
        inclusion: Probability of a class to be drawn, where they are a random part.
        drawn: (c,) bool, which were drawn; the others are labels of the batch. None: all of them.
    """

    weights: Tensor
    places: Tensor
    num_classes: int
    inclusion: float = 1.0
    drawn: Tensor | None = None


class Head(Protocol):
    """Holds class weights.

    Attributes:
        num_classes: C, over all processes.
        dim: d, the embedding size.
        centers: K weights for each class.
    """

    num_classes: int
    dim: int
    centers: int

    @property
    def weight(self) -> Tensor:
        """The (rows, d) weights that are in this process."""
        ...

    def part(self, labels: Tensor, world: World, step: int | None) -> Part:
        """What this process compares with. All processes of ``world`` have the same (b,) labels, in [0, C)."""
        ...

    def lookup(self, labels: Tensor, world: World) -> Tensor:
        """(b, d) weights of the labels' classes, detached, the same in all processes; of heads with one center."""
        ...


HeadMaker = Callable[[int, int, int], Head]

_maker: ContextVar[HeadMaker | None] = ContextVar("maker", default=None)


@contextmanager
def making_heads(maker: HeadMaker) -> Iterator[None]:
    """Losses built within get the heads that ``maker(num_classes, dim, centers)`` gives; full ones elsewhere.

    A run decides where class weights live, a loss does not: and weights that fit into no single process must not be
    made there first.
    """
    token = _maker.set(maker)
    try:
        yield
    finally:
        _maker.reset(token)


def make_head(num_classes: int, dim: int, centers: int = 1) -> Head:
    """The head of a named loss."""
    from unpg.heads.full import FullHead  # which needs this module

    maker = _maker.get()
    return FullHead(num_classes, dim, centers=centers) if maker is None else maker(num_classes, dim, centers)


def check_head(num_classes: int, dim: int, centers: int, init_std: float) -> None:
    """Raise :class:`ConfigError` for sizes that no head can have."""
    if num_classes < 1 or dim < 1:
        raise ConfigError(f"A head needs num_classes >= 1 and dim >= 1, got {num_classes} and {dim}.")
    if not init_std > 0:
        raise ConfigError(f"head.init_std must be > 0, got {init_std}.")
    if centers < 1:
        raise ConfigError(f"A head needs centers >= 1, got {centers}.")


def drawn_rows(rows: int, dim: int, std: float, first: int, last: int) -> Tensor:
    """Rows ``first .. last`` of a (rows, dim) normal draw, of which no more is held at once.

    The generator moves on by all rows, so that initial weights do not depend on who holds them.
    """
    kept = torch.empty(last - first, dim)
    height = max(16, _CHUNK // dim // 16 * 16)
    for start in range(0, rows, height):
        drawn = torch.randn(min(height, rows - start), dim)
        a, b = max(first, start), min(last, start + len(drawn))
        if a < b:
            kept[a - first : b - first] = drawn[a - start : b - start]
    return kept.mul_(std)


def places(labels: Tensor, first: int, last: int) -> Tensor:
    """Labels counted from class ``first``; -1 where they are not below ``last``, or below ``first``."""
    return torch.where((labels >= first) & (labels < last), labels - first, -1)
