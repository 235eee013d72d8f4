"""Where class weights live changes nothing about what they are."""

import math

import pytest
import torch

from unpg.distributed import ALONE, World
from unpg.errors import ConfigError
from unpg.heads import FullHead, SampledHead, ShardedHead, make_head, making_heads, sampled
from unpg.losses import arcface, cosface, uniface, unpg
from unpg.transforms.counter import hash64

CLASSES, DIM = 50, 6


def batch(b=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(b, DIM, generator=g, dtype=torch.float64), torch.randint(0, CLASSES, (b,), generator=g)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize(("classes", "dim", "centers"), [(CLASSES, DIM, 1), (3, 5, 2), (2**18 + 5, 17, 1)])
def test_shards_together_are_the_full_head(size, classes, dim, centers):
    torch.manual_seed(5)
    full = FullHead(classes, dim, centers=centers)
    after = torch.rand(3)
    parts = []
    for rank in range(size):
        torch.manual_seed(5)
        parts.append(ShardedHead(classes, dim, World(rank, size), centers=centers).weight)
        assert torch.equal(torch.rand(3), after)  # what is drawn next does not depend on it either
    assert torch.equal(torch.cat(parts), full.weight)
    torch.manual_seed(5)
    assert torch.equal(full.weight, torch.randn(classes * centers, dim) * 0.01)


def sampled_loss(rate, seed=3, loss=cosface, **settings):
    torch.manual_seed(1)
    with making_heads(lambda c, d, k: SampledHead(c, d, rate=rate, seed=seed, centers=k, init_std=1.0)):
        made = loss(CLASSES, DIM, **settings).double()
    return made, made.pairs.head


def test_drawing_all_classes_is_the_full_head():
    features, labels = batch()
    torch.manual_seed(1)
    with making_heads(lambda c, d, k: FullHead(c, d, init_std=1.0)):
        full = arcface(CLASSES, DIM).double()
    loss, head = sampled_loss(1.0, loss=arcface)
    for made in full, loss:
        made(features, labels, step=0).loss.backward()
    assert torch.equal(head.active.grad, full.pairs.head.weight.grad)


def test_a_draw_is_a_part_and_all_labels_besides_and_new_in_each_step():
    features, labels = batch()
    loss, head = sampled_loss(0.2)
    draws = []
    for step in range(3):
        loss(features, labels, step=step)
        assert set(labels.tolist()) <= set(head.rows.tolist())
        assert 10 <= len(head.rows) <= 10 + len(labels.unique())
        draws.append(head.rows.tolist())
    assert draws[0] != draws[1] != draws[2]
    loss(features, labels, step=1)
    assert head.rows.tolist() == draws[1]


@pytest.mark.parametrize("classes", [1, 2, 7, 1000, 300_000])
@pytest.mark.parametrize("rate", [1e-6, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("shift", [0, 2])
def test_drawn_are_the_smallest_hashes_of_all_however_they_lie(classes, rate, shift, monkeypatch):
    """``shift`` crowds the hashes in a quarter of their range, where the cut is not where even ones have it."""
    monkeypatch.setattr(sampled, "hash64", lambda *key: hash64(*key) >> shift)
    head = SampledHead(classes, 1, rate=rate, seed=9)
    hashes = hash64(torch.arange(classes), 9, 4, sampled._DRAW) >> shift
    own, drawn = head._draw(torch.empty(0, dtype=torch.int64), 4)
    assert drawn.all()
    assert torch.equal(own, (hashes <= hashes.sort().values[max(1, round(rate * classes)) - 1]).nonzero().flatten())


@pytest.mark.parametrize("balanced", [False, True])
def test_a_sum_over_drawn_classes_is_unbiased(balanced):
    """The mean over many draws is the loss over all classes; batch negatives are balanced with all of them too."""
    features, labels = batch(b=3)
    torch.manual_seed(1)
    with making_heads(lambda c, d, k: FullHead(c, d, init_std=1.0)):
        full = uniface(CLASSES, DIM, s=4.0, m=0.1).double()
    loss, _ = sampled_loss(0.3, loss=uniface, s=4.0, m=0.1)
    if balanced:
        full, loss = (unpg(one, weight="balanced", r=math.inf) for one in (full, loss))
    exact = float(full(features, labels, step=0).loss.detach())
    with torch.no_grad():
        found = torch.stack([loss(features, labels, step=step).loss for step in range(3000)])
    error = float(found.std() / len(found) ** 0.5)
    assert abs(float(found.mean()) - exact) < 4 * error < 0.05 * exact


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.SGD, {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}),
        (torch.optim.SGD, {"lr": 0.3}),
        (torch.optim.AdamW, {"lr": 0.3, "weight_decay": 0.01}),
    ],
)
def test_only_rows_that_take_part_are_moved_each_with_its_own_momentum(kind, settings):
    """Against a plain optimizer over all rows whose untouched rows, and their state, are put back."""
    loss, head = sampled_loss(0.2)
    optimizer = kind([head.active], **settings)
    head.attach(optimizer)
    reference = torch.nn.Parameter(head.weight.clone())
    plain = kind([reference], **settings)
    for step in range(6):
        features, labels = batch(seed=step)
        optimizer.zero_grad()
        loss(features, labels, step=step).loss.backward()
        before = reference.detach().clone()
        state = {k: v.clone() for k, v in plain.state[reference].items() if v is not None and v.ndim}
        reference.grad = torch.zeros_like(reference)
        reference.grad[head.rows] = head.active.grad
        optimizer.step()
        plain.step()
        others = torch.ones(CLASSES, dtype=torch.bool)
        others[head.rows] = False
        with torch.no_grad():
            reference[others] = before[others]
            for name, value in plain.state[reference].items():
                if value is not None and value.ndim:
                    value[others] = state[name][others] if name in state else 0.0
        torch.testing.assert_close(head.weight, reference.detach(), rtol=1e-12, atol=1e-12)


def test_a_checkpoint_holds_all_weights_and_the_state_of_their_rows():
    def steps(loss, optimizer, first, last):
        for step in range(first, last):
            features, labels = batch(seed=step)
            optimizer.zero_grad()
            loss(features, labels, step=step).loss.backward()
            optimizer.step()

    def made():
        loss, head = sampled_loss(0.2)
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.3, momentum=0.9)
        head.attach(optimizer)
        return loss, optimizer

    loss, optimizer = made()
    steps(loss, optimizer, 0, 3)
    kept = {k: v.clone() for k, v in loss.state_dict().items()}
    kept_optimizer = optimizer.state_dict()
    steps(loss, optimizer, 3, 6)
    again, other = made()
    again.load_state_dict(kept)
    other.load_state_dict(kept_optimizer)
    steps(again, other, 3, 6)
    assert torch.equal(again.pairs.head.weight, loss.pairs.head.weight)


def trained(optimizer, attach=True):
    """Steps of a loop that keeps the loss of the step before until it has the next one."""
    loss, head = sampled_loss(0.3)
    moving = optimizer(loss.parameters())
    if attach:
        head.attach(moving)
    before, sizes = head.weight.clone(), set()
    for step in range(4):
        moving.zero_grad()
        out = loss(*batch(seed=step), step=step)
        out.loss.backward()
        moving.step()
        sizes.add(len(head.rows))
    assert len(sizes) > 1
    return head.weight - before


def test_a_loop_may_keep_the_loss_of_the_step_before():
    assert trained(lambda parameters: torch.optim.SGD(parameters, lr=0.1)).abs().amax() > 0


def test_steps_of_an_optimizer_that_is_not_attached_are_not_lost_silently():
    with pytest.raises(ConfigError, match="attach"):
        trained(lambda parameters: torch.optim.SGD(parameters, lr=0.1), attach=False)
    with pytest.raises(ConfigError, match="amsgrad"):
        trained(lambda parameters: torch.optim.AdamW(parameters, lr=0.1, amsgrad=True))


def test_heads_say_what_is_wrong():
    with pytest.raises(ConfigError, match="rate is the part of the classes"):
        SampledHead(5, 3, rate=0.0)
    loss, head = sampled_loss(0.2)
    with pytest.raises(ConfigError, match="call the loss with step"):
        loss(*batch())
    with pytest.raises(ConfigError, match="for SGD and AdamW; got Adagrad"):
        head.attach(torch.optim.Adagrad([head.active]))
    shard = ShardedHead(5, 3, World(0, 2))
    with pytest.raises(ConfigError, match="split over 2 processes, the loss is computed by 1"):
        shard.part(torch.tensor([0]), ALONE, 0)
    assert isinstance(make_head(5, 3), FullHead)
