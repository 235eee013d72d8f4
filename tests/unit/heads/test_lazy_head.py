"""Classes that were not drawn catch up: sampled heads against torch's SGD over all rows, in each step."""

import pytest
import torch

from unpg.config import from_dict
from unpg.distributed import ALONE
from unpg.errors import ConfigError
from unpg.heads import SampledHead, caught_up, making_heads
from unpg.losses import cosface
from unpg.train import TrainConfig

CLASSES, DIM, STEPS = 40, 6, 24


def made(rate=0.1, centers=1, **settings):
    torch.manual_seed(1)
    head = SampledHead(CLASSES, DIM, rate=rate, seed=3, init_std=1.0, centers=centers, lazy=True).double()
    optimizer = torch.optim.SGD([head.active], lr=0.1, **settings)
    head.attach(optimizer)
    return head, optimizer


def dense(head, **settings):
    weight = torch.nn.Parameter(head.weight.clone())
    return weight, torch.optim.SGD([weight], lr=0.1, **settings)


def rate_of(step):
    return 0.3 / (1 + step) if step % 5 else 0.0  # another one each step, and none at times


def go(head, optimizer, first, last, reference=None):
    """Steps with gradients that depend on the weights; the same for the rows of a dense reference, zero elsewhere."""
    for step in range(first, last):
        g = torch.Generator().manual_seed(step)
        labels = torch.randint(0, CLASSES, (2,), generator=g)
        pull = torch.randn(CLASSES * head.centers, DIM, generator=g, dtype=torch.float64)
        part = head.part(labels, ALONE, step)
        optimizer.zero_grad()
        (part.weights * pull[head.rows]).sum().add(part.weights.square().sum()).backward()
        groups = [optimizer.param_groups[0]]
        if reference is not None:
            weight, plain = reference
            torch.testing.assert_close(part.weights.detach(), weight.detach()[head.rows], rtol=1e-12, atol=1e-12)
            if head.centers == 1:
                looked = head.lookup(torch.arange(CLASSES), ALONE)
                torch.testing.assert_close(looked, weight.detach(), rtol=1e-12, atol=1e-12)
            weight.grad = torch.zeros_like(weight)
            weight.grad[head.rows] = head.active.grad
            groups += plain.param_groups
        for group in groups:
            group["lr"] = rate_of(step)
        if step % 7 == 3:
            continue  # a step whose gradient was not finite: nobody moves
        optimizer.step()
        if reference is not None:
            plain.step()


@pytest.mark.parametrize(
    ("settings", "centers"),
    [
        ({"momentum": 0.9, "weight_decay": 0.01}, 1),
        ({"momentum": 0.9}, 1),
        ({"weight_decay": 0.1}, 1),
        ({"momentum": 0.5, "weight_decay": 0.3}, 2),
        ({}, 1),
    ],
)
def test_rows_catch_up_with_sgd_over_all_of_them(settings, centers):
    head, optimizer = made(centers=centers, **settings)
    reference = dense(head, **settings)
    go(head, optimizer, 0, STEPS, reference)
    assert len(head.history) == STEPS - 3  # three were skipped
    assert len(head.seen.unique()) > 3, "rows of several ages"
    head.catch_up_all()
    torch.testing.assert_close(head.weight, reference[0].detach(), rtol=1e-12, atol=1e-12)
    if settings.get("momentum"):
        momentum = reference[1].state[reference[0]]["momentum_buffer"]
        torch.testing.assert_close(head.of_momentum_buffer, momentum, rtol=1e-12, atol=1e-12)
    assert head.seen.eq(len(head.history)).all()
    before = head.weight.clone()
    head.catch_up_all()
    assert torch.equal(head.weight, before)


def test_without_lazy_the_result_is_another():
    settings = {"momentum": 0.9, "weight_decay": 0.01}
    head, optimizer = made(**settings)
    reference = dense(head, **settings)
    head.lazy = False
    go(head, optimizer, 0, 1)
    head.part(torch.tensor([0]), ALONE, 1)
    reference[0].grad = torch.zeros_like(reference[0])
    reference[1].step()
    assert not torch.allclose(head.weight, reference[0].detach())


def test_a_checkpoint_in_the_middle_changes_no_bit():
    settings = {"momentum": 0.9, "weight_decay": 0.01}
    head, optimizer = made(**settings)
    reference = dense(head, **settings)
    go(head, optimizer, 0, 9, reference)
    kept = {name: value.clone() for name, value in head.state_dict().items()}
    state = optimizer.state_dict()
    assert kept["seen"].dtype == torch.int64
    assert kept["history"].shape == (8, 3)
    again, other = made(**settings)
    again.load_state_dict(kept)
    other.load_state_dict(state)
    go(again, other, 9, STEPS, reference)
    go(head, optimizer, 9, STEPS)
    assert torch.equal(again.weight, head.weight)
    again.catch_up_all()
    torch.testing.assert_close(again.weight, reference[0].detach(), rtol=1e-12, atol=1e-12)


def test_a_look_changes_nothing():
    head, optimizer = made(momentum=0.9, weight_decay=0.01)
    go(head, optimizer, 0, 9)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    looked = head.lookup(torch.arange(CLASSES), ALONE)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    head.catch_up_all()
    assert torch.equal(looked, head.weight)


def test_a_little_decay_over_many_steps_is_not_lost_in_float32():
    """One product for 3,000 steps, each of which alone would change no bit of a float32 weight."""
    weight, still = torch.ones(1, 3), torch.zeros(1, 3)
    history = [(1e-3, 0.0, 1e-5)] * 3000
    found, _ = caught_up(weight, still, torch.zeros(1, dtype=torch.int64), history)
    assert float(found[0, 0]) == pytest.approx((1 - 1e-8) ** 3000, abs=6e-8)
    assert float(found[0, 0]) < 1


def test_no_rows_have_nothing_to_catch_up_with():
    rows = torch.zeros(0, 3)
    found, momentum = caught_up(rows, rows, torch.zeros(0, dtype=torch.int64), [(0.1, 0.9, 0.0)])
    assert found.shape == momentum.shape == (0, 3)


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        (torch.optim.AdamW, {}, "AdamW"),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, "SGD with nesterov=True"),
        (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.1}, r"SGD with dampening=0\.1"),
    ],
)
def test_other_optimizers_are_refused(kind, settings, named):
    with making_heads(lambda c, d, k: SampledHead(c, d, centers=k, lazy=True)):
        loss = cosface(CLASSES, DIM)
    optimizer = kind(loss.parameters(), lr=0.1, **settings)
    with pytest.raises(ConfigError, match=f"{named}. Set optim.kind: sgd, or head.lazy: false"):
        loss.pairs.head.attach(optimizer)


def test_settings_that_do_not_fit_are_refused():
    data = {"data": {"kind": "synthetic"}}
    with pytest.raises(ConfigError, match="head.kind full leaves out none"):
        from_dict(TrainConfig, data | {"head": {"lazy": True}})
    with pytest.raises(ConfigError, match="optim.kind is adamw"):
        from_dict(TrainConfig, data | {"head": {"kind": "sampled", "lazy": True}, "optim": {"kind": "adamw"}})
