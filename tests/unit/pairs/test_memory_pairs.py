"""The cross-batch memory: what it holds, which pairs it gives, and that it costs no gradient."""

import math
import weakref

import pytest
import torch
from slow_pairs import memory_negatives, queue_after

from unpg.aggregate.base import negative_reshape
from unpg.errors import ConfigError, ShapeError
from unpg.heads import FullHead
from unpg.losses import arcface, unpg
from unpg.margins import Curricular
from unpg.pairs import BoxWhisker, FeaturePairs, MemoryPairs
from unpg.similarity import Anchors, Share, Streaming

DIM, S = 4, 8.0


def anchors(b, seed, *, step=0, first_id=0, classes=5):
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(b, DIM, generator=g, dtype=torch.float64)
    labels = torch.randint(0, classes, (b,), generator=g)
    return Anchors.of(features, labels, sample_ids=torch.arange(first_id, first_id + b), step=step)


@pytest.mark.parametrize("size", [1, 4, 10, 100])
def test_it_holds_the_last_of_the_batches_before(size):
    memory = MemoryPairs(size, DIM).double()
    batches = [anchors(b, seed, first_id=100 * seed) for seed, b in enumerate([3, 5, 3, 12, 1, 4])]
    for i, batch in enumerate(batches):
        memory(batch)
        before = [b.sample_ids.tolist() for b in batches[:i]]
        assert sorted(memory.sample_ids[: memory.filled].tolist()) == sorted(queue_after(before, size))
    by_id = {int(k): v for b in batches for k, v in zip(b.sample_ids, b.unit, strict=True)}
    for place in range(memory.filled):
        assert torch.equal(memory.vectors[place], by_id[int(memory.sample_ids[place])])


@pytest.mark.parametrize("scope", ["batch", "anchor"])
def test_its_pairs_differ_in_label_and_sample(scope):
    memory = MemoryPairs(20, DIM, scope=scope).double()
    first = anchors(9, 1)
    memory(first)
    again = anchors(9, 2)  # the same sample ids
    negatives = memory(again).negatives[0].similarities
    values, inside = negatives.dense()
    inside, values = inside.reshape(9, 9), values.reshape(9, 9)
    expected = memory_negatives(again.labels.tolist(), list(range(9)), first.labels.tolist(), list(range(9)))
    assert [tuple(place) for place in inside.nonzero().tolist()] == sorted(expected)
    torch.testing.assert_close(values, again.unit @ first.unit.T)
    sums = negatives.logsumexp(S)
    assert sums.shape == ((1,) if scope == "batch" else (9,))
    if scope == "batch":
        assert float(sums) == pytest.approx(float((S * values[inside]).logsumexp(0)), rel=1e-12)


def test_the_loss_is_the_union_of_three_sets():
    """-log of the fraction, with classes, batch and memory in the denominator, each with its weight."""
    torch.manual_seed(0)
    base = arcface(5, DIM, s=S, m=0.3).double()
    loss = unpg(base, r=math.inf, weight=0.5, memory=MemoryPairs(50, DIM).double(), memory_weight=0.25)
    first, second = anchors(6, 3), anchors(7, 4, first_id=50)
    loss(first.features, first.labels, sample_ids=first.sample_ids)
    x = second.features.clone().requires_grad_()
    out = loss(x, second.labels, sample_ids=second.sample_ids)
    (dx,) = torch.autograd.grad(out.loss, x)
    y = second.features.clone().requires_grad_()
    u = torch.nn.functional.normalize(y)
    w = torch.nn.functional.normalize(base.pairs.head.weight.detach())
    labels = second.labels.tolist()
    batch = torch.stack([u[i] @ u[j] for i in range(7) for j in range(i + 1, 7) if labels[i] != labels[j]])
    queue = torch.stack([
        u[i] @ first.unit[m] for i, m in memory_negatives(labels, list(range(7)), first.labels.tolist(), [99] * 6)
    ])  # fmt: skip
    total = 0.0
    for i, label in enumerate(labels):
        cosines = u[i] @ w.T
        target = torch.cos(cosines[label].acos() + 0.3)
        others = torch.cat([cosines[:label], cosines[label + 1 :]])
        denominator = (
            (S * target).exp() + (S * others).exp().sum() + 0.5 * (S * batch).exp().sum()
            + 0.25 * (S * queue).exp().sum()
        )  # fmt: skip
        total = total - (S * target - denominator.log()) / 7
    (truth,) = torch.autograd.grad(total, y)
    torch.testing.assert_close(out.loss, total, rtol=1e-12, atol=0)
    torch.testing.assert_close(dx, truth, rtol=1e-10, atol=1e-13)
    assert out.statistics["memory/kept"] == len(queue)


def test_weight_rules_see_the_union():
    """Balanced compares with the other classes, also for the third set; a share is one of all that came before."""
    first, second = anchors(9, 3), anchors(9, 4, first_id=50)

    def statistics(weight):
        torch.manual_seed(0)
        memory = MemoryPairs(50, DIM).double()
        loss = unpg(arcface(5, DIM, s=S).double(), r=math.inf, weight=weight, memory=memory)
        loss(first.features, first.labels)
        return loss(second.features, second.labels)

    q = statistics(Share(0.3)).statistics
    negatives = q["share/classes"] + q["share/batch"] + q["share/memory"]
    assert float(q["share/memory"] / negatives) == pytest.approx(0.3, rel=1e-9)
    assert float(q["share/batch"] / negatives) == pytest.approx(0.3 * 0.7, rel=1e-9)
    plain, balanced = statistics(1.0).statistics, statistics("balanced").loss
    batch, memory = (4 / float(plain[f"{name}/kept"]) for name in ("negatives", "memory"))
    torch.manual_seed(0)
    queue = MemoryPairs(50, DIM).double()
    base = arcface(5, DIM, s=S).double()
    same = unpg(base, r=math.inf, weight=batch, memory=queue, memory_weight=memory)
    same(first.features, first.labels)
    torch.testing.assert_close(same(second.features, second.labels).loss, balanced, rtol=1e-10, atol=0)


def test_margins_treat_it_as_a_batch():
    """A queue belongs to all anchors, as the batch does: what depends on the row is for classes alone."""
    features = anchors(6, 5)
    margin = Curricular().double().for_batch(features, torch.full((6, 1), -0.5, dtype=torch.float64))
    negatives = MemoryPairs(4, DIM)(features).negatives[0]
    assert margin.class_negative() is not None
    assert negative_reshape(margin, negatives) is None


def test_it_has_its_own_fences():
    torch.manual_seed(1)
    memory = MemoryPairs(64, DIM, keep=BoxWhisker(0.3)).double()
    memory(anchors(30, 5))
    negatives = memory(anchors(30, 6, first_id=100)).negatives[0].similarities
    assert 0 < negatives.count() < negatives.count_offered()
    ranked = negatives.dense()[0][negatives.dense_offered()[1]].sort().values
    q1, q3 = ranked[len(ranked) // 4], ranked[3 * len(ranked) // 4]
    assert negatives.fences.upper == q3 + 0.3 * (q3 - q1)


def test_it_waits_for_its_start_and_fills_meanwhile():
    memory = MemoryPairs(64, DIM, start=2).double()
    batches = [anchors(6, step, step=step, first_id=10 * step) for step in range(4)]
    counts = [int(memory(batch).negatives[0].similarities.count()) for batch in batches]
    assert counts[:2] == [0, 0]
    assert memory.filled == 18
    assert counts[2] > 0
    with pytest.raises(ConfigError, match="step="):
        memory(anchors(6, 9, step=None))


def test_old_features_follow_their_class():
    torch.manual_seed(2)
    head = FullHead(5, DIM).double()
    memory = MemoryPairs(20, DIM, head=head).double()
    assert dict(memory.named_parameters()) == {}  # the weights belong to the loss
    first = anchors(6, 7)
    memory(first)
    before = torch.nn.functional.normalize(head.weight.detach())[first.labels]
    with torch.no_grad():
        head.weight += 0.005 * torch.randn_like(head.weight)
    now = torch.nn.functional.normalize(head.weight.detach())[first.labels]
    columns = memory(anchors(4, 8, first_id=50)).negatives[0].similarities.columns
    expected = torch.nn.functional.normalize(first.unit + now - before)
    torch.testing.assert_close(columns, expected)
    assert (columns * first.unit).sum(dim=1).min() < 0.999


def test_no_gradient_and_no_learning_in_evaluation():
    memory = MemoryPairs(20, DIM).double()
    batch = anchors(5, 1)
    features = batch.features.clone().requires_grad_()
    memory(Anchors.of(features, batch.labels))
    negatives = memory(anchors(5, 2)).negatives[0].similarities
    assert not negatives.columns.requires_grad
    memory.eval()
    memory(anchors(5, 3))
    assert memory.filled == 5
    assert memory._waiting is not None
    assert len(memory._waiting[0]) == 5


@pytest.mark.parametrize("width", [1, 4])
def test_a_late_backward_pass_still_finds_its_columns(width, monkeypatch):
    """The queue moves on between a forward and its backward pass; the gradient is that of the forward's pairs. Sets of
    several blocks make their masks anew on the way back."""
    monkeypatch.setattr(Streaming, "columns", lambda self, rows, device: width)
    grads = []
    for late in (False, True):
        x = anchors(4, 2, first_id=10).features.clone().requires_grad_()
        fresh = MemoryPairs(4, DIM).double()
        fresh(anchors(4, 1))
        batch = Anchors.of(x, anchors(4, 2).labels, sample_ids=torch.arange(2, 6))
        value = fresh(batch).negatives[0].similarities.logsumexp(S)
        if late:
            fresh(anchors(4, 3, first_id=4))
            fresh(anchors(4, 4, first_id=4))
        grads.append(torch.autograd.grad(value.sum(), x)[0])
    assert torch.equal(*grads)


def test_a_late_backward_pass_still_finds_the_latest_features():
    first, second, third = anchors(4, 1), anchors(4, 2), anchors(4, 3)
    grads = []
    for late in (False, True):
        pairs, x = FeaturePairs(5, DIM).double(), second.features.clone().requires_grad_()
        pairs(first)
        found = pairs(Anchors.of(x, second.labels))
        value = found.negatives[0].similarities.logsumexp(S) - found.positives.logsumexp(-S)
        if late:
            pairs(third)
            pairs(third)
        grads.append(torch.autograd.grad(value.sum(), x)[0])
    assert torch.equal(*grads)


def test_the_kernel_of_a_recipe_reaches_the_pairs_of_the_batch():
    base = arcface(5, DIM)
    base.pairs.streaming = Streaming(kernel="triton")
    for keep in (None, BoxWhisker(math.inf)):
        negatives = unpg(base, keep=keep).pairs.extra(anchors(4, 1)).negatives[0].similarities
        assert negatives.kernel == "triton"
    assert unpg(arcface(5, DIM)).pairs.extra(anchors(4, 1)).negatives[0].similarities.kernel == "auto"


def test_what_is_stored_is_a_copy():
    """A caller may write the next batch into the same tensors; what is not finite is stored as nothing."""
    features, labels, ids = anchors(3, 1).features.float(), torch.tensor([0, 1, 2]), torch.arange(3)
    unit = torch.nn.functional.normalize(features)
    features[1, 2] = torch.nan
    memory, latest = MemoryPairs(3, DIM), FeaturePairs(5, DIM)
    for pairs in (memory, latest):
        batch = Anchors.of(features, labels.clone(), sample_ids=ids.clone())
        pairs(batch)
        batch.labels.fill_(4)
        batch.sample_ids.fill_(9)
        pairs(batch)
    expected = torch.stack([unit[0], torch.zeros(DIM), unit[2]])
    assert memory.labels.tolist() == memory.sample_ids.tolist() == [0, 1, 2]
    torch.testing.assert_close(memory.vectors, expected)
    torch.testing.assert_close(latest.vectors[:3], expected)
    assert not latest.vectors[4].any()


@pytest.mark.parametrize("build", [lambda: MemoryPairs(9, DIM), lambda: FeaturePairs(5, DIM)])
def test_the_batch_that_waits_holds_no_graph_and_moves_with_the_buffers(build):
    pairs, batch = build(), anchors(3, 1)
    x = batch.features.clone().requires_grad_()
    hidden = x * 2
    held = weakref.ref(hidden)
    pairs(Anchors.of(hidden, batch.labels))
    del hidden
    assert held() is None
    pairs.float()
    assert pairs._waiting[0].dtype == torch.float32
    pairs.to("meta")
    assert all(column.device.type == "meta" for column in pairs._waiting)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MemoryPairs(0, DIM), "size >= 1"),
        (lambda: MemoryPairs(5, DIM, start=-1), "start >= 0"),
        (lambda: MemoryPairs(5, DIM, scope="row"), "batch, anchor"),
        (lambda: MemoryPairs(5, DIM, head=FullHead(3, DIM, centers=2)), "one center"),
    ],
)
def test_bad_settings_say_what_is_allowed(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
    with pytest.raises(ShapeError, match="4 dimensions"):
        MemoryPairs(5, DIM)(Anchors.of(torch.randn(2, 3), torch.arange(2)))
