"""Every other named loss equals the slow loop from its paper's formula, plain and unified: value and all gradients."""

import copy
import math

import pytest
import slow_classification as slow
import slow_losses
import slow_pairs
import torch

from unpg import losses
from unpg.losses import unpg
from unpg.margins import Elastic
from unpg.similarity import Anchors, Streaming

CLASSES, DIM, S = 7, 5, 16.0


def batch(b, seed=0, classes=CLASSES):
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(b, DIM, generator=g, dtype=torch.float64) * 2
    labels = torch.randint(0, classes, (b,), generator=g)
    return features, labels, torch.randn(classes, DIM, generator=g, dtype=torch.float64)


def relative(a, b):
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def elastic_margins(features, labels, weights, **settings):
    margin = Elastic(**settings)
    target = torch.nn.functional.cosine_similarity(features, weights[labels])[:, None]
    return margin.for_batch(Anchors.of(features, labels, step=3), target).m.squeeze(1).tolist()


def after_update(features, labels, weights):
    if len(features) == 1:  # one length has no spread: the deviation stays what it was
        return {"mean": 0.99 * 20 + 0.01 * float(features.norm()), "std": 100.0}
    mean, std = slow.adaface_statistics([features])
    return {"mean": mean, "std": std}


def sphere2_bias(loss):
    return -loss.aggregate.bias  # ours is a threshold, theirs is added


# name of the loss -> its settings, the slow loop, the loop's settings (or a function of the batch that gives them)
ZOO = {
    "arcface-straight-through": (
        "arcface", {"s": S, "m": 0.5, "gradient": "straight_through"}, slow.combined,
        {"s": S, "m1": 1.0, "m2": 0.5, "m3": 0.0, "straight_through": True},
    ),
    "combined": (
        "combined", {"s": S, "m1": 1.2, "m2": 0.3, "m3": 0.2, "monotone": False}, slow.combined,
        {"s": S, "m1": 1.2, "m2": 0.3, "m3": 0.2},
    ),
    "combined-straight-through": (
        "combined", {"s": S, "m1": 1.0, "m2": 0.3, "m3": 0.2, "monotone": False, "gradient": "straight_through"},
        slow.combined, {"s": S, "m1": 1.0, "m2": 0.3, "m3": 0.2, "straight_through": True},
    ),
    "adaface": ("adaface", {"s": S, "m": 0.4, "h": 0.333}, slow.adaface, lambda *b: {"s": S, **after_update(*b)}),
    "curricularface": (
        "curricularface", {"s": S, "m": 0.3}, slow.curricularface,
        lambda x, y, w: {"s": S, "m": 0.3, "t": slow.curricularface_t(x, y.tolist(), w)},
    ),
    "elasticface": (
        "elasticface", {"s": S, "form": "arc", "sigma": 0.2}, slow.elasticface,
        lambda *b: {"s": S, "kind": "arc", "margins": elastic_margins(*b, form="arc", m=0.5, sigma=0.2)},
    ),
    "elasticface-sorted": (
        "elasticface", {"s": S, "form": "cos", "sigma": 0.2, "sort": True}, slow.elasticface,
        lambda *b: {"s": S, "kind": "cos", "margins": elastic_margins(*b, form="cos", m=0.35, sigma=0.2, sort=True)},
    ),
    "sphereface": ("sphereface", {}, slow.sphereface, {"lam": slow.sphereface_lambda(4)}),
    "sphereface-late": ("sphereface", {"anneal": False}, slow.sphereface, {"lam": 0.0}),
    "sphereface-r0": ("sphereface_r", {"version": 0}, slow.sphereface_r, {"version": "v0"}),
    "sphereface-r1": ("sphereface_r", {"version": 1}, slow.sphereface_r, {"version": "v1"}),
    "sphereface-r2": ("sphereface_r", {}, slow.sphereface_r, {}),
    "sphereface-r2-exact": (
        "sphereface_r", {"gradient": "exact"}, slow.sphereface_r, {"straight_through": False},
    ),
    "circle": ("circle", {"s": S, "m": 0.25}, slow.circle_class, {"gamma": S, "m": 0.25}),
    "sphereface2": ("sphereface2", {}, slow.sphereface2, {"bias": slow.sphereface2_bias(CLASSES)}),
    "sphereface2-straight-through": (
        "sphereface2", {"gradient": "straight_through"}, slow.sphereface2,
        {"bias": slow.sphereface2_bias(CLASSES), "straight_through": True},
    ),
    "sphereface2-weighted": (
        "sphereface2", {"weight": 50.0}, lambda *a, **k: 50 * slow.sphereface2(*a, **k),
        {"bias": slow.sphereface2_bias(CLASSES)},
    ),
    "uniface": ("uniface", {"s": S}, slow.uniface, {"s": S, "bias": slow.uniface_bias(CLASSES)}),
    "uniface-weighted": (
        "uniface", {"s": S, "negative": 0.3}, slow.uniface, {"s": S, "lam": 0.3, "bias": slow.uniface_bias(CLASSES)},
    ),
}  # fmt: skip


def compare(case, data, unify=None, streaming=None):
    name, settings, loop, loop_settings = ZOO[case]
    features, labels, weights = data
    loss = getattr(losses, name)(CLASSES, DIM, **settings).double()
    head = loss.pairs.head
    head.weight = torch.nn.Parameter(weights.clone())
    if streaming:
        loss.pairs.streaming = streaming
    base = loss
    if unify is not None:
        loss = unpg(base, r=unify["r"], weight=unify["w"])
    x = features.clone().requires_grad_()
    out = loss(x, labels, step=3)
    out.loss.backward()
    y, w = features.clone().requires_grad_(), weights.clone().requires_grad_()
    extra = {}
    if unify is not None:
        similarity = slow_losses.cosine_matrix(y, y)
        kept = slow_losses.batch_negatives(similarity, labels.tolist(), unify["r"], None)
        extra = {"extra": kept, "w": unify["w"]}
    known = loop_settings(features, labels, weights) if callable(loop_settings) else dict(loop_settings)
    bias = None
    if "bias" in known:
        bias = torch.tensor(known["bias"], dtype=torch.float64, requires_grad=True)
        known["bias"] = bias
    truth = loop(y, labels.tolist(), w, **known, **extra)
    truth.backward()
    assert relative(out.loss.detach(), truth.detach()) < (1e-7 if bias is not None else 1e-10)
    tolerance = 1e-6 if bias is not None else 1e-9  # a learned bias begins as a float32 number
    assert relative(x.grad, y.grad) < tolerance
    assert relative(head.weight.grad, w.grad) < tolerance
    if bias is not None:
        assert abs(float(base.aggregate.bias.grad)) == pytest.approx(abs(float(bias.grad)), rel=1e-6)
    assert float(out.per_anchor.mean().detach()) == pytest.approx(float(out.loss.detach()), rel=1e-9)


@pytest.mark.parametrize("case", ZOO)
@pytest.mark.parametrize("b", [1, 2, 9, 24])
def test_base(case, b):
    compare(case, batch(b, seed=b))


@pytest.mark.parametrize("case", [c for c in ZOO if not c.startswith("sphereface-late") and c != "sphereface"])
@pytest.mark.parametrize("r", [0.5, 1.5, math.inf])
@pytest.mark.parametrize("w", [1.0, 0.3])
def test_unified(case, r, w):
    compare(case, batch(17), {"r": r, "w": w})


@pytest.mark.parametrize("case", ZOO)
@pytest.mark.parametrize("streaming", [Streaming(chunk=1), Streaming(chunk=3, keep_mib=0), Streaming(chunk=2)])
def test_in_chunks(case, streaming):
    """No chunk, and nothing kept for the backward pass, changes value or gradient."""
    compare(case, batch(13), streaming=streaming)


@pytest.mark.parametrize("centers", [1, 3])
@pytest.mark.parametrize("unify", [None, {"r": 1.0, "w": 1.0}])
@pytest.mark.parametrize("streaming", [Streaming(), Streaming(chunk=2, keep_mib=0)])
def test_subcenter(centers, unify, streaming):
    features, labels, _ = batch(17)
    weights = torch.randn(CLASSES, centers, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    loss = losses.subcenter_arcface(CLASSES, DIM, centers, s=S).double()
    loss.pairs.head.weight = torch.nn.Parameter(weights.flatten(0, 1).clone())
    loss.pairs.streaming = streaming
    head = loss.pairs.head
    loss = loss if unify is None else unpg(loss, r=unify["r"])
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    w = weights.clone().requires_grad_()
    extra = {}
    if unify is not None:
        similarity = slow_losses.cosine_matrix(y, y)
        extra = {"extra": slow_losses.batch_negatives(similarity, labels.tolist(), unify["r"], None)}
    ours, truth = loss(x, labels).loss, slow.subcenter_arcface(y, labels.tolist(), w, s=S, **extra)
    ours.backward()
    truth.backward()
    assert relative(ours.detach(), truth.detach()) < 1e-10
    assert relative(x.grad, y.grad) < 1e-10
    assert relative(head.weight.grad, w.grad.flatten(0, 1)) < 1e-10


def test_sphereface_over_the_own_row():
    """Each row has its own scale, so unpg takes scope="anchor": |x_i| times the cosines of row i."""
    features, labels, weights = batch(11)
    base = losses.sphereface(CLASSES, DIM, anneal=False).double()
    base.pairs.head.weight = torch.nn.Parameter(weights.clone())
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    ours = unpg(base, r=1.0, scope="anchor")(x, labels).loss
    ours.backward()
    similarity = slow_losses.cosine_matrix(y, y)
    w = weights.clone().requires_grad_()
    truth = sum(
        slow.sphereface(
            y[i : i + 1], [label], w, lam=0.0, extra=slow_losses.batch_negatives(similarity, labels.tolist(), 1.0, i)
        )
        for i, label in enumerate(labels.tolist())
    ) / len(labels)
    truth.backward()
    assert relative(ours.detach(), truth.detach()) < 1e-10
    assert relative(x.grad, y.grad) < 1e-10
    assert relative(base.pairs.head.weight.grad, w.grad) < 1e-10


PAIRS = {
    **{f"triplet-{mining}-{distance}": (
        losses.triplet, {"m": 0.3, "mining": mining, "distance": distance}, slow_pairs.triplet,
        {"m": 0.3, "mining": mining, "distance": distance},
    ) for mining in ("all", "hard", "semihard") for distance in ("euclidean", "cosine")},
    "contrastive": (losses.contrastive, {}, slow_pairs.contrastive, {}),
    "contrastive-margins": (
        losses.contrastive, {"pos_margin": 0.4, "neg_margin": 1.3}, slow_pairs.contrastive,
        {"pos_margin": 0.4, "neg_margin": 1.3},
    ),
    "contrastive-cosine": (
        losses.contrastive, {"distance": "cosine", "pos_margin": 0.9, "neg_margin": 0.2}, slow_pairs.contrastive,
        {"distance": "cosine", "pos_margin": 0.9, "neg_margin": 0.2},
    ),
    "npair": (losses.npair, {}, slow_pairs.npair, {}),
    "infonce": (losses.infonce, {"temperature": 0.1}, slow_pairs.infonce, {"temperature": 0.1}),
    "supcon": (losses.supcon, {}, slow_pairs.supcon, {}),
    "multi-similarity": (losses.multi_similarity, {}, slow_pairs.multi_similarity, {"mining": True}),
    "multi-similarity-all": (losses.multi_similarity, {"epsilon": None}, slow_pairs.multi_similarity, {}),
    "circle-pairs": (losses.circle_pairs, {"s": 20.0}, slow_pairs.circle_pairs, {"gamma": 20.0}),
    "snpair": (losses.snpair, {"s": 16.0}, slow_pairs.snpair, {"s": 16.0}),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRS)
@pytest.mark.parametrize(("b", "classes"), [(2, 2), (6, 3), (17, 4), (30, 3), (9, 1), (5, 1000)])
def test_pairs_of_the_batch(case, b, classes):
    """Also without negatives (one class) and without positives (all labels differ)."""
    build, settings, loop, loop_settings = PAIRS[case]
    features, labels, _ = batch(b, seed=b, classes=classes)
    if classes == 1000:
        labels = torch.arange(b)
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    out, truth = build(**settings)(x, labels), loop(y, labels.tolist(), **loop_settings)
    out.loss.backward()
    truth.backward()
    assert relative(out.loss.detach(), truth.detach()) < 1e-10
    assert relative(x.grad, y.grad) < 1e-8
    assert float(out.per_anchor.mean().detach()) == pytest.approx(float(out.loss.detach()), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("b", [3, 17])
def test_mixface(b):
    features, labels, weights = batch(b)
    labels[-1] = labels[0]
    loss = losses.mixface(CLASSES, DIM).double()
    head = loss.losses["arcface"].pairs.head
    head.weight = torch.nn.Parameter(weights.clone())
    x, y, w = features.clone().requires_grad_(), features.clone().requires_grad_(), weights.clone().requires_grad_()
    out, truth = loss(x, labels), slow_pairs.mixface(y, labels.tolist(), w)
    out.loss.backward()
    truth.backward()
    for ours, theirs in zip((out.loss, x.grad, head.weight.grad), (truth, y.grad, w.grad), strict=True):
        assert relative(ours.detach(), theirs.detach()) < 1e-10


@pytest.mark.parametrize("name", ["margin_triplet", "margin_contrastive"])
def test_sums_are_sums(name):
    features, labels, weights = batch(17)
    loss = getattr(losses, name)(CLASSES, DIM, base="cosface", s=S, m=0.35, weight=0.5).double()
    head = loss.losses["margin"].pairs.head
    head.weight = torch.nn.Parameter(weights.clone())
    y, w = features.clone().requires_grad_(), weights.clone().requires_grad_()
    truth = slow_losses.classification_loss("cosface", y, labels.tolist(), w, s=S, settings={"m": 0.35})
    aux = (
        slow_pairs.triplet(y, labels.tolist(), m=0.5)
        if name == "margin_triplet"
        else slow_pairs.contrastive(y, labels.tolist())
    )
    truth = truth + 0.5 * aux
    x = features.clone().requires_grad_()
    out = loss(x, labels)
    out.loss.backward()
    truth.backward()
    for ours, theirs in zip((out.loss, x.grad, head.weight.grad), (truth, y.grad, w.grad), strict=True):
        assert relative(ours.detach(), theirs.detach()) < 1e-9
    assert (
        relative(out.statistics[f"loss/{name.removeprefix('margin_')}"], aux.detach()) < 1e-10
    )  # as it is, unweighted
    assert float(out.per_anchor.mean().detach()) == pytest.approx(float(out.loss.detach()), rel=1e-9)


def test_uss_meets_the_features_of_the_batches_before():
    loss = losses.uss(CLASSES, DIM, s=S).double()
    bias = None
    memory = torch.zeros(CLASSES, DIM, dtype=torch.float64)
    for seed in range(8):
        features, labels, _ = batch(6, seed)
        x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
        out = loss(x, labels)
        out.loss.backward()
        assert out.loss > 0
        if memory.norm(dim=1).min() > 0:  # the slow loop has no zero vector
            bias = first_threshold(features, labels, memory) if bias is None else bias
            truth = slow_pairs.uss(y, labels.tolist(), memory, bias=bias, s=S)
            truth.backward()
            assert relative(out.loss.detach(), truth.detach()) < 1e-10
            assert relative(x.grad, y.grad) < 1e-9
            assert float(loss.aggregate.bias.detach()) == pytest.approx(bias, rel=1e-12)
            assert loss.aggregate.bias.grad is not None
        else:  # a threshold that began with classes nobody has seen would stand far from where it belongs
            assert float(loss.aggregate.bias.detach()) == 0.0
            assert loss.aggregate.bias.grad is None
            waited = seed
        memory = slow_pairs.uss_memory(memory, features, labels.tolist())
    assert waited >= 1
    assert bias is not None


def first_threshold(features, labels, memory):
    """By a loop: the mean over anchors of log sum e^(s c) over the other classes."""
    sums = []
    for x, y in zip(features, labels.tolist(), strict=True):
        cosines = [slow_pairs.cosine(x, memory[j]) for j in range(len(memory)) if j != y]
        sums.append(sum(math.exp(S * float(c)) for c in cosines))
    return sum(map(math.log, sums)) / len(sums)


def test_uss_begins_at_the_threshold_of_the_first_batch_that_trains():
    loss = losses.uss(CLASSES, DIM, s=S).double()
    memory = torch.zeros(CLASSES, DIM, dtype=torch.float64)
    with torch.no_grad():  # as UniTSFace waits
        for seed in range(8):
            features, labels, _ = batch(6, seed)
            loss(features, labels)
            memory = slow_pairs.uss_memory(memory, features, labels.tolist())
    assert memory.norm(dim=1).min() > 0
    bias = loss.aggregate.bias.detach()
    assert float(bias) == 0.0
    features, labels, _ = batch(6, 11)
    truth = first_threshold(features, labels, memory)
    # Looking at a batch is no training; and a batch whose features are not finite says nothing.
    loss.eval()(features, labels)
    assert float(bias) == 0.0
    broken = copy.deepcopy(loss).train()
    broken(torch.full_like(features, math.nan), labels)
    assert float(broken.aggregate.bias.detach()) == 0.0
    loss.train()
    unbegun = {name: value.clone() if torch.is_tensor(value) else value for name, value in loss.state_dict().items()}
    x = features.clone().requires_grad_()
    out = loss(x, labels)
    assert float(bias) == pytest.approx(truth, rel=1e-12)
    assert relative(out.loss.detach(), slow_pairs.uss(features, labels.tolist(), memory, bias=truth, s=S)) < 1e-9
    # There the negatives' pull at b is at most one positive's.
    out.loss.backward()
    assert abs(float(loss.aggregate.bias.grad)) <= 1.0
    loss(batch(6, 12)[0], batch(6, 12)[1]).loss.backward()
    assert float(bias) == pytest.approx(truth, rel=1e-12)
    # Another object goes on where a checkpoint was, begun or not.
    for state, begun in ((loss.state_dict(), True), (unbegun, False)):
        other = losses.uss(CLASSES, DIM, s=S).double()
        other.aggregate.bias.data.fill_(3.0)
        other(features, labels)
        other.load_state_dict(state)
        other(batch(6, 13)[0], batch(6, 13)[1])
        threshold = float(other.aggregate.bias.detach())
        assert threshold > 0
        assert (threshold == pytest.approx(truth, rel=1e-12)) is begun


def test_unitsface_starts_with_cosface_and_adds_uss():
    features, labels, weights = batch(9)
    loss = losses.unitsface(CLASSES, DIM, s=S, start=2).double()
    loss.losses["cosface"].pairs.head.weight = torch.nn.Parameter(weights.clone())
    plain = losses.cosface(CLASSES, DIM, s=S, m=0.4).double()
    plain.pairs.head.weight = torch.nn.Parameter(weights.clone())
    first = loss(features, labels, step=1)
    assert torch.equal(first.loss, plain(features, labels).loss)
    assert loss.losses["uss"].pairs._waiting is not None  # it fills while it waits
    both = loss(features, labels, step=2)
    torch.testing.assert_close(both.loss, both.statistics["loss/cosface"] + both.statistics["loss/uss"])
    assert both.statistics["loss/uss"] > 0


def test_unitsface_waits_for_every_class():
    """Each batch is stored when the next one comes; after a resumed run the wait is over where it was over before."""
    features, _, weights = batch(CLASSES)
    half, whole = torch.arange(CLASSES) // 2, torch.arange(CLASSES)
    loss, resumed = (losses.unitsface(CLASSES, DIM, s=S).double() for _ in range(2))
    loss.losses["cosface"].pairs.head.weight = torch.nn.Parameter(weights.clone())
    sums = []
    for labels in (half, whole, whole, whole):
        resumed.load_state_dict(loss.state_dict())
        out, again = (part(features, labels) for part in (loss, resumed))
        assert torch.equal(out.loss, again.loss)
        sums.append(bool(out.loss > out.statistics["loss/cosface"]))
    assert sums == [False, False, False, True]
    assert float(loss.losses["uss"].aggregate.bias.detach()) > 0
    loss.eval()
    out = loss(features, whole)
    torch.testing.assert_close(out.loss, out.statistics["loss/cosface"] + out.statistics["loss/uss"])


@pytest.mark.parametrize(
    ("name", "settings", "miner", "other"),
    [
        ("infonce", {"temperature": 0.1}, None, lambda L, _: L.NTXentLoss(temperature=0.1)),
        ("supcon", {"temperature": 0.1}, None, lambda L, _: L.SupConLoss(temperature=0.1)),
        ("triplet", {"m": 0.3}, None, lambda L, _: L.TripletMarginLoss(margin=0.3)),
        ("contrastive", {}, None, lambda L, _: L.ContrastiveLoss()),
        ("multi_similarity", {}, "MultiSimilarityMiner", lambda L, _: L.MultiSimilarityLoss()),
        ("multi_similarity", {"epsilon": None}, None, lambda L, _: L.MultiSimilarityLoss()),
        (
            "triplet", {"m": 0.3, "mining": "hard"}, "BatchHardMiner",
            lambda L, R: L.TripletMarginLoss(margin=0.3, reducer=R.MeanReducer()),
        ),
    ],
)  # fmt: skip
def test_pytorch_metric_learning_agrees(name, settings, miner, other):
    """An independent library, on a batch of P x K."""
    pml = pytest.importorskip("pytorch_metric_learning.losses")
    from pytorch_metric_learning import miners, reducers

    features, _, _ = batch(24)
    labels = torch.arange(24) // 4
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    ours = getattr(losses, name)(**settings)(x, labels).loss
    mined = getattr(miners, miner)()(y, labels) if miner else None
    theirs = other(pml, reducers)(y, labels, mined)
    ours.backward()
    theirs.backward()
    assert relative(ours.detach(), theirs.detach()) < 1e-9
    assert relative(x.grad, y.grad) < 1e-7
