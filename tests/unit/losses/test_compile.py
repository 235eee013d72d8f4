"""Losses under torch.compile and inside a compiled network: the same numbers, whatever is compiled around them."""

import pytest
import torch

from unpg.losses import arcface, curricularface, triplet, unpg

BUILDS = {
    "unpg-arcface": lambda: unpg(arcface(6, 8, s=16.0), weight="balanced"),
    "curricularface": lambda: curricularface(6, 8, s=16.0),
    "triplet": triplet,
}


def step(loss, network, x, labels):
    out = loss(network(x), labels, step=0)
    out.loss.backward()
    grads = [p.grad.clone() for p in [*network.parameters(), *loss.parameters()]]
    for p in [*network.parameters(), *loss.parameters()]:
        p.grad = None
    return out.loss.detach(), grads


def compare(name, backend):
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8))
    x, labels = torch.randn(18, 5), torch.arange(18) % 6
    torch.manual_seed(1)
    plain = step(BUILDS[name](), network, x, labels)
    torch.manual_seed(1)
    loss = BUILDS[name]()
    for compiled_loss, compiled_network in [
        (torch.compile(loss, backend=backend), network),
        (torch.compile(loss, backend=backend), torch.compile(network, backend=backend)),
    ]:
        if name == "curricularface":
            loss.margin.targets.load_state_dict(BUILDS[name]().margin.targets.state_dict())
        value, grads = step(compiled_loss, compiled_network, x, labels)
        torch.testing.assert_close(value, plain[0], rtol=1e-6, atol=1e-6)
        for a, b in zip(grads, plain[1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of dynamo, about what it leaves to Python
@pytest.mark.parametrize("name", BUILDS)
def test_traced(name):
    """Dynamo and the autograd tracer, without generated code."""
    compare(name, "aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BUILDS)
def test_compiled(name):
    compare(name, "inductor")
