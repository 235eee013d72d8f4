"""Batch normalization of n processes equals torch's own on the whole batch: values, gradients, running statistics."""

import pytest
import torch
from processes import run_processes
from torch import nn

from unpg.distributed import ALONE, GlobalBatchNorm, World, global_batch_norm, syncbn
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


def there_and_back(layer, x, grad):
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    y.backward(grad)
    return y.detach(), x.grad, *(p.grad for p in layer.parameters())


@pytest.mark.parametrize("x_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("grad_format", [torch.contiguous_format, torch.channels_last, "expanded"])
def test_one_process_alone_is_torchs_layer_in_every_layout(x_format, grad_format):
    torch.manual_seed(0)
    x = (torch.randn(9, 64, 31, 33, dtype=torch.float64) * 3 + 100).to(memory_format=x_format)
    assert x.numel() > syncbn._PIECE
    grad = torch.randn(9, 1, 1, 1).double().expand_as(x) if grad_format == "expanded" else torch.randn_like(x)
    if grad_format != "expanded":
        grad = grad.to(memory_format=grad_format)
    layers = nn.BatchNorm2d(64).double(), GlobalBatchNorm(nn.BatchNorm2d(64).double(), ALONE)
    plain, own = (there_and_back(layer, x, grad) for layer in layers)
    assert own[0].is_contiguous(memory_format=x_format)
    for a, b in zip(own, plain, strict=True):
        assert (a - b).norm() <= 1e-10 * b.norm()
    for a, b in zip(layers[1].buffers(), layers[0].buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (3, 3, 2, 2), (2, 3, 2, 2, 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_gradients_are_those_of_finite_differences(shape, affine):
    layer = GlobalBatchNorm(nn.BatchNorm2d(3, affine=affine).double(), ALONE)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *layer.parameters()))


def test_statistics_keep_the_digits_of_float32():
    """torch's own kernel, which adds one value after the other, is off by 3 in the mean here."""
    x = (torch.randn(64, 64, 32, 32) + 1e4).to(memory_format=torch.channels_last)
    layer = GlobalBatchNorm(nn.BatchNorm2d(64, momentum=1.0), ALONE)
    layer(x)
    variance, mean = torch.var_mean(x.double(), (0, 2, 3))
    torch.testing.assert_close(layer.running_mean.double(), mean, rtol=3e-7, atol=0)
    torch.testing.assert_close(layer.running_var.double(), variance, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_half_precision_differs_by_its_own_rounding(dtype, rounding):
    torch.manual_seed(0)
    x, grad = torch.randn(8, 4, 3, 3).to(dtype), torch.randn(8, 4, 3, 3).to(dtype)
    layers = nn.BatchNorm2d(4), GlobalBatchNorm(nn.BatchNorm2d(4), ALONE)
    plain, own = there_and_back(layers[0], x.float(), grad.float()), there_and_back(layers[1], x, grad)
    assert own[0].dtype == own[1].dtype == dtype
    for a, b in zip(own, plain, strict=True):
        assert (a.float() - b).norm() <= 2 * rounding * b.norm()
    for a, b in zip(layers[1].buffers(), layers[0].buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_too_few_values_are_refused():
    layer = GlobalBatchNorm(nn.BatchNorm1d(4), ALONE)
    with pytest.raises(DataError, match="raise sampler.batch_size"):
        layer(torch.randn(1, 4))


def test_the_layer_keeps_its_parameters():
    model = network()
    before = dict(model.named_parameters())
    global_batch_norm(model, World(0, 2))
    assert all(p is before[name] for name, p in model.named_parameters())
