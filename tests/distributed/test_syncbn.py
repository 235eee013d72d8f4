"""Batch normalization of n processes equals torch's own on the whole batch: values, gradients, running statistics."""

import pytest
import torch
from processes import run_processes
from torch import nn

from unpg.distributed import ALONE, GlobalBatchNorm, World, global_batch_norm
from unpg.errors import DataError

COUNTS = {1: [6], 2: [5, 2], 3: [4, 0, 3]}


def network(seed=0, **settings):
    torch.manual_seed(seed)
    norms = nn.BatchNorm2d(4, **settings), nn.BatchNorm1d(5, affine=False)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norms[0], nn.PReLU(), nn.Flatten(), nn.Linear(36, 5), norms[1]).double()


def steps(model, world, counts, pictures=3):
    mine = slice(sum(counts[: world.rank]), sum(counts[: world.rank + 1])) if not world.alone else slice(None)
    found = []
    for step in range(pictures):
        g = torch.Generator().manual_seed(step)
        x = torch.randn(sum(counts), 3, 5, 5, generator=g, dtype=torch.float64) * 3 + 100
        target = torch.randn(sum(counts), 5, generator=g, dtype=torch.float64)
        own = x[mine].clone().requires_grad_()
        model.zero_grad()
        y = model(own)
        (y * target[mine]).sum().backward()
        found.append((y.detach(), own.grad, {n: p.grad for n, p in model.named_parameters()}))
    return found


def compare(world, settings):
    counts = COUNTS[world.size]
    single, several = network(**settings), global_batch_norm(network(**settings), world)
    assert sum(isinstance(m, GlobalBatchNorm) for m in several.modules()) == 2
    mine = slice(sum(counts[: world.rank]), sum(counts[: world.rank + 1]))
    for one, many in zip(steps(single, ALONE, counts), steps(several, world, counts), strict=True):
        torch.testing.assert_close(many[0], one[0][mine], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(many[1], one[1][mine], rtol=1e-8, atol=1e-10)
        for name, grad in one[2].items():
            summed = torch.zeros_like(grad) if many[2][name] is None else many[2][name].clone()
            torch.distributed.all_reduce(summed)
            torch.testing.assert_close(summed, grad, rtol=1e-8, atol=1e-10)
    for (name, a), b in zip(several.state_dict().items(), single.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, msg=name)
    single.eval(), several.eval()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(several(x), single(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "settings"), [(2, {}), (3, {"momentum": None}), (2, {"track_running_stats": False})])
def test_processes_are_one_process(size, settings, tmp_path):
    run_processes(size, tmp_path, compare, settings)


def test_one_process_alone_is_torchs_layer_in_half_precision_too():
    plain = nn.BatchNorm2d(4)
    own = GlobalBatchNorm(nn.BatchNorm2d(4), ALONE)
    x = torch.randn(8, 4, 3, 3, dtype=torch.bfloat16)
    torch.testing.assert_close(own(x), plain(x))
    assert own(x).dtype == torch.bfloat16
    torch.testing.assert_close(own.running_var, plain.running_var, rtol=0.1, atol=0.1)


def test_too_few_values_are_refused():
    layer = GlobalBatchNorm(nn.BatchNorm1d(4), ALONE)
    with pytest.raises(DataError, match="raise sampler.batch_size"):
        layer(torch.randn(1, 4))


def test_the_layer_keeps_its_parameters():
    model = network()
    before = dict(model.named_parameters())
    global_batch_norm(model, World(0, 2))
    assert all(p is before[name] for name, p in model.named_parameters())
