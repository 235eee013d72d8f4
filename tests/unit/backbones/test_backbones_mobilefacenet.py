import pytest
import torch
from torch.nn import functional

from unpg.backbones import create_backbone

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# (input channels, hidden, output, stride) of the 15 bottlenecks: table 1 of arXiv 1804.07573.
TABLE = [
    (64, 128, 64, 2),
    *[(64, 128, 64, 1)] * 4,
    (64, 256, 128, 2),
    *[(128, 256, 128, 1)] * 6,
    (128, 512, 128, 2),
    *[(128, 256, 128, 1)] * 2,
]


def expected_shapes(dim, kernel):
    """Names and shapes in Xiaoccer's files."""
    shapes = {}

    def norm(name, width):
        shapes.update({f"{name}.{part}": () if part == NORM[4] else (width,) for part in NORM})

    def layer(name, weight, width, prelu=True):
        shapes[f"{name}.conv.weight"] = weight
        norm(f"{name}.bn", width)
        if prelu:
            shapes[f"{name}.prelu.weight"] = (width,)

    layer("conv1", (64, 3, 3, 3), 64)
    layer("dw_conv1", (64, 1, 3, 3), 64)
    for i, (before, hidden, after, _) in enumerate(TABLE):
        at = f"blocks.{i}.conv"
        shapes[f"{at}.0.weight"] = (hidden, before, 1, 1)
        norm(f"{at}.1", hidden)
        shapes[f"{at}.2.weight"] = (hidden,)
        shapes[f"{at}.3.weight"] = (hidden, 1, 3, 3)
        norm(f"{at}.4", hidden)
        shapes[f"{at}.5.weight"] = (hidden,)
        shapes[f"{at}.6.weight"] = (after, hidden, 1, 1)
        norm(f"{at}.7", after)
    layer("conv2", (512, 128, 1, 1), 512)
    layer("linear7", (512, 1, *kernel), 512, prelu=False)
    layer("linear1", (dim, 512, 1, 1), dim, prelu=False)
    return shapes


@pytest.mark.parametrize(
    ("dim", "size", "kernel"), [(512, (112, 112), (7, 7)), (128, (112, 96), (7, 6)), (64, (64, 40), (4, 3))]
)
def test_names_and_shapes_are_the_public_ones(dim, size, kernel):
    net = create_backbone("mobilefacenet", dim=dim, input_size=size)
    assert {k: tuple(v.shape) for k, v in net.state_dict().items()} == expected_shapes(dim, kernel)
    assert list(net.state_dict()) == list(expected_shapes(dim, kernel))


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        # Counted on the classes of Xiaoccer/MobileFaceNet_Pytorch and of insightface's arcface_torch.
        ({"dim": 128, "input_size": (112, 96)}, 999_552),
        ({"scale": 2}, 2_059_520),
        ({"scale": 4, "blocks": (2, 8, 12, 4)}, 6_314_880),
    ],
)
def test_parameter_counts(settings, count):
    net = create_backbone("mobilefacenet", **settings)
    assert sum(p.numel() for p in net.parameters()) == count


def reference(state, images):
    """The network as a formula over its state dict, in evaluation mode."""

    def norm(x, name):
        part = [state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        mean, var, weight, bias = (p.reshape(-1, 1, 1) for p in part)
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def prelu(x, name):
        return torch.where(x > 0, x, x * state[f"{name}.weight"].reshape(-1, 1, 1))

    def conv(x, name, stride=1, padding=0):
        weight = state[f"{name}.weight"]
        return functional.conv2d(x, weight, None, stride, padding, groups=x.shape[1] // weight.shape[1])

    def layer(x, name, stride=1, padding=0):
        return norm(conv(x, f"{name}.conv", stride, padding), f"{name}.bn")

    x = prelu(layer(images, "conv1", 2, 1), "conv1.prelu")
    x = prelu(layer(x, "dw_conv1", 1, 1), "dw_conv1.prelu")
    for i, (before, _, after, stride) in enumerate(TABLE):
        at = f"blocks.{i}.conv"
        y = prelu(norm(conv(x, f"{at}.0"), f"{at}.1"), f"{at}.2")
        y = prelu(norm(conv(y, f"{at}.3", stride, 1), f"{at}.4"), f"{at}.5")
        y = norm(conv(y, f"{at}.6"), f"{at}.7")
        x = x + y if stride == 1 and before == after else y
    x = layer(prelu(layer(x, "conv2"), "conv2.prelu"), "linear7")
    return layer(x, "linear1")[:, :, 0, 0]


def test_the_network_is_the_formula():
    torch.manual_seed(0)
    net = create_backbone("mobilefacenet", dim=10, input_size=(40, 24)).double()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith(("running_var", "prelu.weight")) or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.2, 1.5)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.3)
    images = torch.randn(2, 3, 40, 24, dtype=torch.float64)
    torch.testing.assert_close(net.eval()(images), reference(net.state_dict(), images), rtol=1e-9, atol=1e-9)
