"""Class weights in parts, of which each step compares with a random few."""

from typing import Any

import torch
from torch import Tensor, nn

from unpg.distributed import ALONE, World, total
from unpg.errors import ConfigError
from unpg.heads.base import Part, check_head, drawn_rows
from unpg.heads.sharded import held, require_same
from unpg.transforms.counter import hash64

__all__ = ["SampledHead"]

_DRAW = 301  # the last part of the hash's key: what is drawn. Never renumber; runs could not be repeated.
_ROW_STATE = {torch.optim.SGD: ("momentum_buffer",), torch.optim.AdamW: ("exp_avg", "exp_avg_sq")}


class SampledHead(nn.Module):
    """Partial FC (An et al. 2021, arXiv 2010.05222): the classes of the batch, and a random part of the others.

    In step t a class is drawn iff its hash(seed, t, class) is among the ``rate * C`` smallest of all; the classes of
    the batch's labels take part besides. So the draw is a function of seed and step, not of the number of processes.
    A softmax runs over the classes that take part; a sum (UniFace) over those drawn, divided by the probability to be
    drawn, which makes it unbiased.

    A class that does not take part in a step is not touched by it: no decay, no momentum (as in insightface). The
    weights that do are copied to the parameter ``active``, which is what the optimizer sees: call :meth:`attach`.

    Args:
        num_classes: C, over all processes.
        dim: d, the embedding size.
        world: The processes; each holds its own range of the classes.
        rate: Part of the classes drawn, in (0, 1].
        seed: Of the draws.
        init_std: Standard deviation of the initial weights.
        centers: K weights for each class; a class takes part with all of them.

    Attributes:
        weight: (c * K, d), of the c classes here.
        active: Those of this step, in the order of :attr:`rows`.
        rows: int64, the rows of ``weight`` that are in ``active``.
    """

    weight: Tensor

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
    ) -> None:
        super().__init__()
        check_head(num_classes, dim, centers, init_std)
        if not 0 < rate <= 1:
            raise ConfigError(f"head.rate is the part of the classes that a step compares with, in (0, 1]; got {rate}.")
        self.num_classes, self.dim, self.centers, self.world = num_classes, dim, centers, world
        self.rate, self.seed = rate, seed
        self.drawn = max(1, round(rate * num_classes))
        self.first, self.last = world.part(num_classes)
        rows = drawn_rows(num_classes * centers, dim, init_std, self.first * centers, self.last * centers)
        self.register_buffer("weight", rows)
        self.active = nn.Parameter(rows[:0].clone())
        self.rows = torch.empty(0, dtype=torch.int64)
        self._kept: dict[str, str] = {}

    def part(self, labels: Tensor, world: World, step: int | None) -> Part:
        """The weights of this step's classes that are here.

        Raises:
            ConfigError: The caller does not say which step it is; or the loss is computed by other processes than
                those that share the weights.
        """
        require_same(self.world, world)
        if step is None:
            raise ConfigError("Classes are drawn by step: call the loss with step=<optimizer steps done so far>.")
        own, drawn = self._draw(labels, step)
        first = own * self.centers
        self.rows = (first[:, None] + torch.arange(self.centers, device=own.device)).flatten()
        with torch.no_grad():
            self.active.data = self.weight[self.rows]
        classes = labels - self.first
        at = torch.searchsorted(own, classes).clamp(max=max(len(own) - 1, 0))
        place = torch.where(own[at] == classes, at, -1) if len(own) else torch.full_like(labels, -1)
        count = total(torch.tensor(len(own), device=labels.device), world)
        return Part(self.active, place, int(count), self.drawn / self.num_classes, drawn)

    def _draw(self, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The classes that are here and take part, counted from the first one here, in order; and which were drawn."""
        device = self.weight.device
        # Every process hashes all classes: cheaper than talking about it, up to a few million of them.
        hashes = hash64(torch.arange(self.num_classes, device=device), self.seed, step, _DRAW)
        drawn = (hashes <= hashes.kthvalue(self.drawn).values)[self.first : self.last]
        named = torch.zeros(self.num_classes, dtype=torch.bool, device=device)
        named[labels] = True
        own = (drawn | named[self.first : self.last]).nonzero().flatten()
        return own, drawn[own]

    @torch.no_grad()
    def lookup(self, labels: Tensor, world: World) -> Tensor:
        """(b, d) weights of the labels' classes, detached; each is sent by its owner."""
        require_same(self.world, world)
        inside = (labels >= self.first) & (labels < self.last)
        return total(held(self.weight, torch.where(inside, labels - self.first, -1)), world)

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimizer over ``active`` the state of the rows it is about to move, and take both back afterwards.

        Raises:
            ConfigError: The optimizer is neither SGD nor AdamW.
        """
        names = next((names for kind, names in _ROW_STATE.items() if type(optimizer) is kind), None)
        if names is None:
            raise ConfigError(
                f"A sampled head keeps the optimizer's state of each class, for SGD and AdamW; got "
                f"{type(optimizer).__name__}."
            )
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

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        state = optimizer.state[self.active]
        self.weight[self.rows] = self.active
        for name, buffer in self._kept.items():
            rows = state.pop(name, None)  # the optimizer keeps none: its own are of this step's classes
            if rows is not None:  # SGD without momentum has none
                getattr(self, buffer)[self.rows] = rows

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """All but ``active``, which is a copy."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.pop(f"{prefix}active", None)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        state_dict[f"{prefix}active"] = self.active.detach()
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        """Sizes, for ``repr``."""
        return f"num_classes={self.num_classes}, dim={self.dim}, rate={self.rate}"
