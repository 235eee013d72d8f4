"""Every named loss, plain and unified, equals the slow loop from the formulas: values and gradients."""

import pytest
import torch
from naive_unpg import arcface_logits, kept_negatives, naive_unpg_arcface
from slow_losses import classification_loss

from unpg.losses import arcface, cosface, magface, normface, unpg

MAG = {"l_a": 2.0, "u_a": 6.0, "l_m": 0.2, "u_m": 0.6, "lambda_g": 3.0}
ZOO = {
    "normface": (normface, {}),
    "cosface": (cosface, {"m": 0.35}),
    "arcface": (arcface, {"m": 0.5}),
    "magface": (magface, MAG),
}
CLASSES, DIM, S = 7, 5, 16.0


def batch(b: int, dtype=torch.float64, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(b, DIM, generator=g, dtype=torch.float64).mul(2).to(dtype)
    labels = torch.randint(0, CLASSES, (b,), generator=g)
    weights = torch.randn(CLASSES, DIM, generator=g, dtype=torch.float64).to(dtype)
    return features, labels, weights


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def both(kind, features, labels, weights, unify, step=None):
    """(loss, feature gradient, weight gradient) of ours and of the slow loop."""
    build, settings = ZOO[kind]
    loss = build(CLASSES, DIM, s=S, **settings)
    loss.pairs.head.weight = torch.nn.Parameter(weights.clone())
    head = loss.pairs.head
    slow_unify = {}
    if unify is not None:
        loss = unpg(loss, **unify)
        slow_unify = unify
    x = features.clone().requires_grad_()
    ours = loss(x, labels, step=step).loss
    ours.backward()
    y, w = features.double().clone().requires_grad_(), weights.double().clone().requires_grad_()
    truth = classification_loss(kind, y, labels.tolist(), w, s=S, settings=settings, **slow_unify)
    truth.backward()
    return (ours.detach(), x.grad, head.weight.grad), (truth.detach(), y.grad, w.grad)


@pytest.mark.parametrize("kind", ZOO)
@pytest.mark.parametrize("b", [1, 2, 3, 8, 33])
def test_base(kind, b):
    for ours, truth in zip(*both(kind, *batch(b), None), strict=True):
        assert relative(ours, truth) < 1e-10


@pytest.mark.parametrize("kind", ZOO)
@pytest.mark.parametrize("scope", ["batch", "anchor"])
@pytest.mark.parametrize("r", [0.5, 1.0, 1.5, 2.0, float("inf")])
@pytest.mark.parametrize("weight", [0, 1, 0.3, "balanced"])
def test_unified(kind, scope, r, weight):
    for ours, truth in zip(*both(kind, *batch(17), {"r": r, "scope": scope, "weight": weight}), strict=True):
        assert relative(ours, truth) < 1e-10


@pytest.mark.parametrize("scope", ["batch", "anchor"])
@pytest.mark.parametrize("b", [1, 2, 3, 5, 64])
def test_unified_sizes(scope, b):
    for ours, truth in zip(*both("arcface", *batch(b, seed=b), {"r": 1.0, "scope": scope}), strict=True):
        assert relative(ours, truth) < 1e-10


@pytest.mark.parametrize("scope", ["batch", "anchor"])
def test_unified_at_the_paper_batch(scope):
    for ours, truth in zip(*both("cosface", *batch(512), {"r": 1.5, "scope": scope}), strict=True):
        assert relative(ours, truth) < 1e-10


@pytest.mark.parametrize("scope", ["batch", "anchor"])
@pytest.mark.parametrize("r", [0.0, 0.5, 1.5])
def test_ties(scope, r):
    """Features from a small grid: many equal similarities, some of them on a fence."""
    g = torch.Generator().manual_seed(3)
    features = torch.eye(DIM, dtype=torch.float64)[torch.randint(0, DIM, (24,), generator=g)] * 3
    _, labels, weights = batch(24)
    for ours, truth in zip(*both("cosface", features, labels, weights, {"r": r, "scope": scope}), strict=True):
        assert relative(ours, truth) < 1e-10


@pytest.mark.parametrize("kind", ZOO)
@pytest.mark.parametrize("scope", ["batch", "anchor"])
def test_float32(kind, scope):
    """Against float64, given the same kept pairs (r = inf), within 2e-5."""
    features, labels, weights = batch(33, torch.float32)
    unify = {"r": float("inf"), "scope": scope}
    for ours, truth in zip(*both(kind, features, labels, weights, unify), strict=True):
        assert ours.dtype == torch.float32
        assert relative(ours.double(), truth) < 2e-5


@pytest.mark.parametrize("kind", ZOO)
def test_weight_zero_is_the_base_bit_for_bit(kind):
    features, labels, weights = batch(33, torch.float32)
    plain, _ = both(kind, features, labels, weights, None)
    muted, _ = both(kind, features, labels, weights, {"weight": 0})
    for a, b in zip(plain, muted, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
def test_pytorch_metric_learning_agrees(kind):
    """An independent library: same loss and gradients for the base losses."""
    pml = pytest.importorskip("pytorch_metric_learning.losses")
    features, labels, weights = batch(16)
    if kind == "arcface":  # it takes degrees, and goes on linearly beyond pi
        other = pml.ArcFaceLoss(CLASSES, DIM, margin=28.64788975654116, scale=S)
        ours = arcface(CLASSES, DIM, s=S, m=0.5, tail="linear")
    else:
        other, ours = pml.CosFaceLoss(CLASSES, DIM, margin=0.35, scale=S), cosface(CLASSES, DIM, s=S, m=0.35)
    ours.pairs.head.weight = torch.nn.Parameter(weights.clone())
    other.W = torch.nn.Parameter(weights.T.clone())
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    a, b = ours(x, labels).loss, other(y, labels)
    a.backward()
    b.backward()
    assert relative(a.detach(), b.detach()) < 1e-9
    assert relative(x.grad, y.grad) < 1e-6  # the library clamps its cosines
    assert relative(ours.pairs.head.weight.grad, other.W.grad.T) < 1e-6


@pytest.mark.parametrize("kind", ZOO)
@pytest.mark.parametrize("scope", ["batch", "anchor"])
def test_gradcheck(kind, scope):
    build, settings = ZOO[kind]
    features, labels, weights = batch(6)
    loss = unpg(build(CLASSES, DIM, s=4.0, **settings), r=float("inf"), scope=scope).double()

    def value(x, w):
        call = torch.func.functional_call
        return call(loss, {"pairs.of.head.weight": w}, (x, labels)).loss

    assert torch.autograd.gradcheck(value, (features.requires_grad_(), weights.requires_grad_()))


@pytest.mark.parametrize("r", [None, 0.5, 1.5])
def test_the_naive_form_of_the_benchmark_is_the_same_loss(r):
    features, labels, weights = batch(33)
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    naive = naive_unpg_arcface(x, labels, weights, s=S, m=0.5, r=r)
    truth = classification_loss("arcface", y, labels.tolist(), weights, s=S, settings={"m": 0.5}, r=r)
    naive.backward()
    truth.backward()
    assert relative(naive.detach(), truth.detach()) < 1e-10
    assert relative(x.grad, y.grad) < 1e-9


@pytest.mark.parametrize("b", [2, 8, 33])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_sum_of_two_is_two_cross_entropies(b, weight):
    """The second has the target's logit and the kept pairs of the batch, and no class besides."""
    features, labels, weights = batch(b)
    loss = unpg(arcface(CLASSES, DIM, s=S, m=0.3), r=1.0, weight=weight, join="sum")
    loss.pairs.of.head.weight = torch.nn.Parameter(weights.clone())
    x = features.clone().requires_grad_()
    ours = loss(x, labels)
    ours.loss.backward()
    y, w = features.clone().requires_grad_(), weights.clone().requires_grad_()
    logits = arcface_logits(y, labels, w, S, 0.3)
    own = logits.gather(1, labels[:, None])
    pairs = torch.cat([own, S * kept_negatives(y, labels, 1.0).expand(b, -1)], dim=1)
    first = torch.zeros_like(labels)
    truth = torch.nn.functional.cross_entropy(logits, labels) + weight * torch.nn.functional.cross_entropy(pairs, first)
    truth.backward()
    found = (ours.loss.detach(), x.grad, loss.pairs.of.head.weight.grad)
    for a, c in zip(found, (truth.detach(), y.grad, w.grad), strict=True):
        assert relative(a, c) < 1e-10
    assert ours.per_anchor.shape == (b,)
    assert relative(ours.per_anchor.mean().detach(), truth.detach()) < 1e-10
