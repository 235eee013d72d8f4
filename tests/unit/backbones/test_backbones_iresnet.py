import pytest
import torch
from torch.nn import functional

from unpg.backbones import create_backbone
from unpg.backbones.iresnet import IResNetBlock

BLOCKS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet200": (6, 26, 60, 6),
}
# Counted on insightface's own classes (arcface_torch), 512-d at 112 x 112.
PARAMETERS = {
    "iresnet18": 24_025_600,
    "iresnet34": 34_139_328,
    "iresnet50": 43_590_848,
    "iresnet100": 65_156_160,
    "iresnet200": 118_833_920,
}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def expected_names(blocks):
    """The names in insightface's files, from a look at them rather than from our modules."""
    norm = lambda name: [f"{name}.{part}" for part in NORM]  # noqa: E731
    names = ["conv1.weight", *norm("bn1"), "prelu.weight"]
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            at = f"layer{stage}.{block}"
            names += [*norm(f"{at}.bn1"), f"{at}.conv1.weight", *norm(f"{at}.bn2"), f"{at}.prelu.weight"]
            names += [f"{at}.conv2.weight", *norm(f"{at}.bn3")]
            if block == 0:
                names += [f"{at}.downsample.0.weight", *norm(f"{at}.downsample.1")]
    return [*names, *norm("bn2"), "fc.weight", "fc.bias", *norm("features")]


def count_by_hand(blocks, widths, dim, cells):
    total = 27 * widths[0] + 3 * widths[0]  # stem: convolution, norm (2), PReLU (1)
    before = widths[0]
    for count, width in zip(blocks, widths, strict=True):
        for block in range(count):
            total += 2 * before + 9 * before * width + 3 * width + 9 * width * width + 2 * width
            total += before * width + 2 * width if block == 0 else 0
            before = width
    return total + 2 * before + before * cells * dim + dim + 2 * dim


@pytest.mark.parametrize("kind", BLOCKS)
def test_names_shapes_and_counts_are_insightfaces(kind):
    with torch.device("meta"):
        net = create_backbone(kind)
    assert list(net.state_dict()) == expected_names(BLOCKS[kind])
    count = sum(p.numel() for p in net.parameters())
    assert count == PARAMETERS[kind] == count_by_hand(BLOCKS[kind], (64, 128, 256, 512), 512, 49)
    assert net.state_dict()["fc.weight"].shape == (512, 25088)
    assert net.state_dict()["layer3.0.conv1.weight"].shape == (256, 128, 3, 3)
    assert all(m.eps == 1e-5 for m in net.modules() if "BatchNorm" in type(m).__name__)


@pytest.mark.parametrize(("size", "cells"), [((112, 112), 49), ((112, 96), 42), ((64, 64), 16), ((100, 40), 21)])
def test_the_linear_layer_fits_the_last_map(size, cells):
    with torch.device("meta"):
        net = create_backbone("iresnet18", dim=256, input_size=size)
        small = create_backbone("small_iresnet", dim=64, input_size=size, blocks=(1, 2, 3, 1), widths=[4, 8, 8, 12])
    assert net.fc.in_features == 512 * cells
    assert sum(p.numel() for p in net.parameters()) == count_by_hand((2, 2, 2, 2), (64, 128, 256, 512), 256, cells)
    assert sum(p.numel() for p in small.parameters()) == count_by_hand((1, 2, 3, 1), (4, 8, 8, 12), 64, cells)


def test_iresnet18_runs_at_full_size():
    net = create_backbone("iresnet18").eval()
    with torch.inference_mode():
        assert net(torch.randn(1, 3, 112, 112)).shape == (1, 512)


def reference(state, images, blocks):
    """The network as a formula over its state dict, in evaluation mode."""

    def norm(x, name):
        part = [state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        mean, var, weight, bias = (p.reshape(-1, *[1] * (x.ndim - 2)) for p in part)
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def prelu(x, name):
        return torch.where(x > 0, x, x * state[f"{name}.weight"].reshape(-1, 1, 1))

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = prelu(norm(conv(images, "conv1"), "bn1"), "prelu")
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            at, stride = f"layer{stage}.{block}", 2 if block == 0 else 1
            short = norm(conv(x, f"{at}.downsample.0", 2), f"{at}.downsample.1") if block == 0 else x
            y = prelu(norm(conv(norm(x, f"{at}.bn1"), f"{at}.conv1"), f"{at}.bn2"), f"{at}.prelu")
            x = norm(conv(y, f"{at}.conv2", stride), f"{at}.bn3") + short
    x = norm(x, "bn2").reshape(len(x), -1)
    return norm(x @ state["fc.weight"].T + state["fc.bias"], "features")


def test_the_network_is_the_formula():
    torch.manual_seed(0)
    net = create_backbone(
        "small_iresnet", dim=10, input_size=(40, 24), widths=(4, 6, 8, 10), blocks=(1, 2, 1, 2)
    ).double()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith(("running_var", "prelu.weight")) or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.2, 1.5)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.3)
    images = torch.randn(3, 3, 40, 24, dtype=torch.float64)
    torch.testing.assert_close(
        net.eval()(images), reference(net.state_dict(), images, (1, 2, 1, 2)), rtol=1e-10, atol=1e-10
    )


def test_last_norm_weight_is_trained_or_frozen_at_one():
    trained = create_backbone("small_iresnet", dim=8, input_size=(16, 16))
    frozen = create_backbone("small_iresnet", dim=8, input_size=(16, 16), last_norm_weight="frozen")
    assert trained.features.weight.requires_grad
    assert not frozen.features.weight.requires_grad
    assert frozen.features.bias.requires_grad
    assert torch.equal(frozen.features.weight, torch.ones(8))
    frozen(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert frozen.features.weight.grad is None


def test_dropout_works_in_training_only_and_is_off_by_default():
    images = torch.randn(4, 3, 16, 16)
    for dropout, same in ((0.0, True), (0.4, False)):
        net = create_backbone("small_iresnet", dim=8, input_size=(16, 16), dropout=dropout)
        assert torch.equal(net(images), net(images)) is same
        net.eval()
        assert torch.equal(net(images), net(images))


def test_a_thin_network_survives_channels_last():
    """The strided 1x1 convolution of torch 2.13 corrupts memory here; ours gives the numbers of the plain layout."""
    torch.manual_seed(0)
    net = create_backbone("small_iresnet", dim=16, input_size=(64, 64), widths=(8, 16, 32, 64)).train()
    images = torch.randn(32, 3, 64, 64)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        net.to(memory_format=layout).zero_grad()
        for _ in range(3):
            net(images.contiguous(memory_format=layout)).square().sum().backward()
        gradients.append(net.layer1[0].downsample[0].weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-2)


def test_the_thin_projection_is_the_strided_convolution():
    torch.manual_seed(0)
    ours = IResNetBlock(8, 16, stride=2).double().downsample[0]
    plain = torch.nn.Conv2d(8, 16, 1, stride=2, bias=False).double()
    plain.load_state_dict(ours.state_dict())
    images = torch.randn(2, 8, 7, 6, dtype=torch.float64)
    assert torch.equal(ours(images), plain(images))
