"""Class weights in parts, of which each step compares with a random few."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unpg.distributed import ALONE, World, gather, total
from unpg.errors import ConfigError
from unpg.heads.base import Part, check_head, drawn_rows, places
from unpg.heads.sharded import held, require_same
from unpg.transforms.counter import hash64

__all__ = ["SampledHead", "caught_up"]

_DRAW = 301  # the last part of the hash's key: what is drawn. Never renumber; runs could not be repeated.
_ROW_STATE = {torch.optim.SGD: ("momentum_buffer",), torch.optim.AdamW: ("exp_avg", "exp_avg_sq")}
_MOMENTUM = "of_momentum_buffer"


class SampledHead(nn.Module):
    """Partial FC (An et al. 2021, arXiv 2010.05222): the classes of the batch, and a random part of the others.

    In step t a class is drawn iff its hash(seed, t, class) is among the ``rate * C`` smallest of all; the classes of
    the batch's labels take part besides. So the draw is a function of seed and step, not of the number of processes.
    A softmax runs over the classes that take part; a sum (UniFace) over those drawn, divided by the probability to be
    drawn, which makes it unbiased.

    A class that does not take part in a step is not touched by it: no decay, no momentum (as in insightface). With
    ``lazy`` it gets both, later: before a row takes part again, or is looked up, it is brought to where SGD over all
    rows had taken it with zero gradients (:func:`caught_up`). ``weight`` and the momentum are behind until then; for
    all of them at once there is :meth:`catch_up_all`. A checkpoint holds them as they are, with what is needed to
    catch up, so that saving changes no later bit.

    The weights that take part are copied to the parameter ``active``, which is what the optimizer sees: call
    :meth:`attach`.

    Args:
        num_classes: C, over all processes.
        dim: d, the embedding size.
        world: The processes; each holds its own range of the classes.
        rate: Part of the classes drawn, in (0, 1].
        seed: Of the draws.
        init_std: Standard deviation of the initial weights.
        centers: K weights for each class; a class takes part with all of them.
        lazy: Whether classes that were not drawn catch up with decay and momentum; for SGD only.

    Attributes:
        weight: (c * K, d), of the c classes here.
        active: Those of this step, in the order of :attr:`rows`.
        rows: int64, the rows of ``weight`` that are in ``active``.
        seen: With ``lazy``: (c * K,) int64, the optimizer steps that each row has had.
        history: With ``lazy``: learning rate, momentum and weight decay of each optimizer step so far. A step that was
            skipped is none.
    """

    # In the state of every process, and the same there: does not go by rows, whatever its length.
    COMMON_STATE: ClassVar[frozenset[str]] = frozenset({"history"})

    weight: Tensor
    seen: Tensor

    def __init__(
        self,
        num_classes: int,
        dim: int,
        world: World = ALONE,
        *,
        rate: float = 0.1,
        seed: int = 0,
        init_std: float = 0.01,
        centers: int = 1,
        lazy: bool = False,
    ) -> None:
        super().__init__()
        check_head(num_classes, dim, centers, init_std)
        if not 0 < rate <= 1:
            raise ConfigError(f"head.rate is the part of the classes that a step compares with, in (0, 1]; got {rate}.")
        self.num_classes, self.dim, self.centers, self.world = num_classes, dim, centers, world
        self.rate, self.seed, self.lazy = rate, seed, lazy
        self.drawn = max(1, round(rate * num_classes))
        self.first, self.last = world.part(num_classes)
        rows = drawn_rows(num_classes * centers, dim, init_std, self.first * centers, self.last * centers)
        self.register_buffer("weight", rows)
        self.active = nn.Parameter(rows[:0].clone())
        self.rows = torch.empty(0, dtype=torch.int64)
        self._kept: dict[str, str] = {}
        self._version = self.active._version  # of its values, which writing in place counts up
        self.history: list[tuple[float, float, float]] = []
        if lazy:
            self.register_buffer("seen", torch.zeros(len(rows), dtype=torch.int64))

    def part(self, labels: Tensor, world: World, step: int | None) -> Part:
        """The weights of this step's classes that are here.

        Raises:
            ConfigError: The caller does not say which step it is; or the loss is computed by other processes than
                those that share the weights; or an optimizer that is not attached has moved the classes of a step.
        """
        require_same(self.world, world)
        if not self._kept and self.active._version > self._version:
            raise ConfigError(
                "An optimizer has moved the classes that a sampled head had drawn, and the head would lose that: call "
                "head.attach(optimizer) before the first step."
            )
        if step is None:
            raise ConfigError("Classes are drawn by step: call the loss with step=<optimizer steps done so far>.")
        own, drawn = self._draw(labels, step)
        first = own * self.centers
        self.rows = (first[:, None] + torch.arange(self.centers, device=own.device)).flatten()
        self._catch_up(self.rows)
        with torch.no_grad():
            # A change of type makes autograd forget the shape that it expects: a loop that still holds the loss of the
            # step before would get an error for every other number of rows.
            other = torch.float64 if self.weight.dtype != torch.float64 else torch.float32
            self.active.data = self.weight.new_empty(0, dtype=other)
            self.active.data = self.weight[self.rows]
        self._version = self.active._version
        classes = labels - self.first
        at = torch.searchsorted(own, classes).clamp(max=max(len(own) - 1, 0))
        place = torch.where(own[at] == classes, at, -1) if len(own) else torch.full_like(labels, -1)
        count = total(torch.tensor(len(own), device=labels.device), world)
        return Part(self.active, place, int(count), self.drawn / self.num_classes, drawn)

    def _draw(self, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The classes that are here and take part, counted from the first one here, in order; and which were drawn."""
        classes = torch.arange(self.first, self.last, device=self.weight.device)
        hashes = hash64(classes, self.seed, step, _DRAW)
        drawn = hashes <= self._largest_drawn(hashes)
        taking = drawn.clone()
        place = places(labels, self.first, self.last)
        taking[place[place >= 0]] = True
        own = taking.nonzero().flatten()
        return own, drawn[own]

    def _largest_drawn(self, hashes: Tensor) -> Tensor:
        """The ``drawn``-th smallest hash of all classes, of which each process has those of its own, (c,)."""
        slack = 8 * math.isqrt(self.drawn) + 8  # more than seven standard deviations of the rank of an even hash
        while True:
            low, high = (
                min(max((self.drawn + off) * 2**64 // self.num_classes, 0), 2**64 - 1) - 2**63
                for off in (-slack, slack)
            )
            below = int(total((hashes < low).sum(), self.world))
            near = gather(hashes[(hashes >= low) & (hashes <= high)], self.world)
            if below < self.drawn <= below + len(near):
                return near.kthvalue(self.drawn - below).values
            slack *= 2

    @torch.no_grad()
    def lookup(self, labels: Tensor, world: World) -> Tensor:
        """(b, d) weights of the labels' classes, detached; each is sent by its owner."""
        require_same(self.world, world)
        place = places(labels, self.first, self.last)
        if not self._behind:
            return total(held(self.weight, place), world)
        rows = place[place >= 0]
        found = self.weight.new_zeros(len(labels), self.dim)
        # Into a copy: what is only looked at is not changed.
        found[place >= 0] = self._now(rows)[0]
        return total(found, world)

    def catch_up_all(self) -> None:
        """Bring all rows here up to the last step, with ``lazy``; nothing otherwise."""
        self._catch_up(torch.arange(len(self.weight), device=self.weight.device))

    @property
    def _behind(self) -> bool:
        """Whether rows can be."""
        return self.lazy and bool(self.history)

    @torch.no_grad()
    def _catch_up(self, rows: Tensor) -> None:
        if self._behind and len(rows):
            self.weight[rows], getattr(self, _MOMENTUM)[rows] = self._now(rows)
            self.seen[rows] = len(self.history)

    def _now(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and momentum of rows after the last step."""
        return caught_up(self.weight[rows], getattr(self, _MOMENTUM)[rows], self.seen[rows], self.history)

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimizer over ``active`` the state of the rows it is about to move, and take both back afterwards.

        Raises:
            ConfigError: The optimizer is neither SGD nor AdamW without amsgrad; or the head is lazy, and it is not
                plain SGD.
        """
        names = next((names for kind, names in _ROW_STATE.items() if type(optimizer) is kind), None)
        amsgrad = any(group.get("amsgrad") for group in optimizer.param_groups)
        if names is None or amsgrad:
            raise ConfigError(
                f"A sampled head keeps the optimizer's state of each class, for SGD and AdamW; got "
                f"{type(optimizer).__name__}{' with amsgrad' if amsgrad else ''}."
            )
        if self.lazy:
            _require_plain_sgd(optimizer)
        for name in names:
            self._kept[name] = f"of_{name}"
            self.register_buffer(f"of_{name}", torch.zeros_like(self.weight))
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    @torch.no_grad()
    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        state = optimizer.state[self.active]
        if isinstance(optimizer, torch.optim.AdamW):
            state.setdefault("step", torch.zeros((), dtype=torch.float32))  # steps of the run, the same for all rows
        for name, buffer in self._kept.items():
            state[name] = getattr(self, buffer)[self.rows]
        if self.lazy:
            group = next(g for g in optimizer.param_groups if any(p is self.active for p in g["params"]))
            self.history.append((float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])))

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        state = optimizer.state[self.active]
        self.weight[self.rows] = self.active
        for name, buffer in self._kept.items():
            rows = state.pop(name, None)  # the optimizer keeps none: its own are of this step's classes
            if rows is not None:  # SGD without momentum has none
                getattr(self, buffer)[self.rows] = rows
        if self.lazy:
            self.seen[self.rows] = len(self.history)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """All but ``active``, which is a copy."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.pop(f"{prefix}active", None)
        if self.lazy:
            destination[f"{prefix}history"] = torch.tensor(self.history, dtype=torch.float64).reshape(-1, 3)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        state_dict[f"{prefix}active"] = self.active.detach()
        if self.lazy:
            lr, momentum, decay = state_dict.pop(f"{prefix}history").double().reshape(-1, 3).T.tolist()
            self.history = list(zip(lr, momentum, decay, strict=True))
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self._version = self.active._version

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        lazy = ", lazy=True" if self.lazy else ""
        return f"num_classes={self.num_classes}, dim={self.dim}, rate={self.rate}{lazy}"


def caught_up(
    weight: Tensor, momentum: Tensor, seen: Tensor, history: Sequence[tuple[float, float, float]]
) -> tuple[Tensor, Tensor]:
    """What SGD makes of rows whose gradient has been zero since their last step.

    With momentum mu, weight decay wd and learning rate lr a step is v <- mu v + wd w; w <- w - lr v: linear in (w, v),
    with the same 2 x 2 matrix for all rows. Rows of one age share one product of matrices. torch's SGD lets the
    momentum begin as the first gradient, which is this with v = 0.

    Args:
        weight: (r, d) as it was after the row's last step.
        momentum: (r, d), likewise.
        seen: (r,) int64, how many of the steps each row has had.
        history: Learning rate, momentum and weight decay of each step.

    Returns:
        Weight and momentum after all steps, (r, d) each.
    """
    if not len(seen):
        return weight, momentum
    now, oldest = len(history), int(seen.min())
    a, b, c, d = 1.0, 0.0, 0.0, 1.0  # w = a w + b v; v = c w + d v
    of_age = [(0.0, b, c, d)]
    for lr, mu, wd in reversed(history[oldest:]):
        a, b = a * (1 - lr * wd) + b * wd, mu * (b - a * lr)
        c, d = c * (1 - lr * wd) + d * wd, mu * (d - c * lr)
        of_age.append((a - 1, b, c, d))
    table = torch.tensor(of_age, dtype=torch.float64, device=seen.device)
    # a - 1, not a: of what a step of little decay changes, float32 would keep nothing in a.
    less, b_, c_, d_ = table[now - seen].to(weight.dtype).T[..., None]
    return weight + (less * weight + b_ * momentum), c_ * weight + d_ * momentum


def _require_plain_sgd(optimizer: torch.optim.Optimizer) -> None:
    """Raise unless a step with zero gradient is the recurrence of :func:`caught_up`."""
    odd = type(optimizer).__name__ if type(optimizer) is not torch.optim.SGD else None
    for group in optimizer.param_groups if odd is None else ():
        odd = next((f"SGD with {name}={group[name]}" for name in ("nesterov", "dampening") if group[name]), odd)
    if odd is not None:
        raise ConfigError(
            f"A lazy head catches up with what SGD (without nesterov and dampening) would have done; the optimizer is "
            f"{odd}. Set optim.kind: sgd, or head.lazy: false."
        )
