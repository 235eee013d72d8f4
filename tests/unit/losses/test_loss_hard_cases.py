"""Where losses usually break: each case has a defined, finite value and a finite, bounded gradient."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from unpg.aggregate import Contrast, MultiSimilarity, PerPositive, Softmax, TripletHinge
from unpg.errors import ConfigError, DataError, ShapeError
from unpg.losses import (
    LOSSES,
    PairLoss,
    SumLoss,
    arcface,
    contrastive,
    cosface,
    effective_rank,
    mixface,
    multi_similarity,
    triplet,
    unpg,
)
from unpg.margins import Magnitude, NoMargin, SelfPaced
from unpg.pairs import BatchPairs, ClassPairs, FeaturePairs
from unpg.similarity import (
    Anchors,
    Balanced,
    ClassSet,
    Constant,
    LogSumExp,
    OwnClassSet,
    Scheduled,
    Share,
    SimilaritySet,
    stream,
)

CLASSES, DIM = 6, 8


def build(name):
    torch.manual_seed(0)
    settings = {"start": 0} if name == "unitsface" else {}  # or half of it waits
    return LOSSES.build(name, settings, num_classes=CLASSES, dim=DIM)


def over_classes(loss):
    return isinstance(loss, PairLoss) and isinstance(loss.pairs, ClassPairs)


UNIFIED = [{"scope": "batch"}, {"scope": "anchor"}, {"weight": "balanced"}, {"weight": Share(0.5)}]


def every_loss():
    for name in LOSSES:
        yield pytest.param(name, None, id=name)
        for unify in UNIFIED if over_classes(build(name)) else []:
            if name != "sphereface":
                yield pytest.param(name, unify, id=f"{name}-{unify}")
    yield pytest.param("sphereface", {"scope": "anchor"}, id="sphereface-anchor")
    yield pytest.param("sphereface", {"scope": "anchor", "join": "sum"}, id="sphereface-anchor-sum")
    for name in ("arcface", "magface", "curricularface"):
        yield pytest.param(name, {"join": "sum", "weight": 0.5}, id=f"{name}-sum")


@pytest.fixture
def loss(name, unify):
    base = build(name)
    return base if unify is None else unpg(base, **unify)


def backward(loss, features, labels, step=0):
    x = features.clone().requires_grad_()
    ids = torch.arange(len(labels))
    out = loss(x, labels, step=step, sample_ids=ids)
    out.loss.backward()
    grads = {}
    for name, parameter in loss.named_parameters():
        # The bias of a loss that starts late has no gradient yet.
        grads[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = None
    for name, t in {"loss": out.loss, "per_anchor": out.per_anchor, "dx": x.grad, **grads}.items():
        assert torch.isfinite(t).all(), f"{name} is not finite"
    return out, x.grad, grads


def class_weights(loss):
    heads = [module.head.weight for module in loss.modules() if isinstance(module, ClassPairs)]
    return heads[0].detach()[:CLASSES] if heads else torch.randn(CLASSES, DIM)


@pytest.mark.parametrize(("name", "unify"), list(every_loss()))
class TestEveryLoss:
    def test_cosine_exactly_one_and_minus_one(self, loss):
        own = torch.arange(CLASSES)
        w = class_weights(loss)
        _, dx, _ = backward(loss, torch.cat([w, -w, 1000 * w]), own.repeat(3))
        # The slope of a margin is at most 1e4 (four times that for four times the angle), the scale 256.
        assert dx.abs().max() < 256 * 4e4 / w.norm(dim=1).min()

    def test_zero_feature_has_no_gradient(self, loss):
        x = torch.randn(6, DIM)
        x[1] = 0
        _, dx, _ = backward(loss, x, torch.tensor([0, 1, 2, 3, 0, 2]))
        assert torch.equal(dx[1], torch.zeros(DIM))

    def test_all_features_zero(self, loss):
        backward(loss, torch.zeros(4, DIM), torch.tensor([0, 1, 2, 3]))

    def test_one_identity_in_the_batch(self, loss, name, unify):
        """No batch negatives: the unified loss is the base loss."""
        x, labels = torch.randn(5, DIM), torch.full((5,), 2)
        out, dx, _ = backward(loss, x, labels)
        if unify is not None:
            plain, plain_dx, _ = backward(build(name), x, labels)
            assert torch.equal(out.loss, plain.loss)
            assert torch.equal(dx, plain_dx)

    def test_no_identity_twice(self, loss):
        backward(loss, torch.randn(CLASSES, DIM), torch.arange(CLASSES))

    def test_batch_of_one(self, loss):
        backward(loss, torch.randn(1, DIM), torch.tensor([3]))

    def test_empty_batch(self, loss):
        out, dx, grads = backward(loss, torch.zeros(0, DIM), torch.zeros(0, dtype=torch.int64))
        assert out.loss == 0
        assert dx.shape == (0, DIM)
        assert not any(grad.any() for grad in grads.values())

    def test_all_similarities_equal(self, loss):
        backward(loss, torch.ones(6, DIM), torch.arange(6) // 2)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, loss, name, unify, dtype):
        """Half features are widened: the value is that of the same numbers in float32, also for lengths over 256."""
        x, labels = (torch.randn(9, DIM) * 300).to(dtype), torch.arange(9) % CLASSES
        out, dx, _ = backward(loss, x, labels)
        assert out.loss.dtype == torch.float32
        assert dx.dtype == dtype
        again = build(name) if unify is None else unpg(build(name), **unify)  # some learn from what they see
        assert torch.equal(out.loss, backward(again, x.float(), labels)[0].loss)

    def test_autocast_changes_nothing(self, loss, name, unify):
        x, labels = torch.randn(9, DIM), torch.arange(9) % CLASSES
        with torch.autocast("cpu", torch.bfloat16):
            inside, dx, grads = backward(loss, x, labels)
        again = build(name) if unify is None else unpg(build(name), **unify)
        outside, plain_dx, plain_grads = backward(again, x, labels)
        assert torch.equal(inside.loss, outside.loss)
        assert torch.equal(dx, plain_dx)
        assert all(torch.equal(grads[key], plain_grads[key]) for key in grads)

    def test_order_of_the_batch_does_not_matter(self, name, unify):
        x, labels = torch.randn(12, DIM, dtype=torch.float64), torch.arange(12) % CLASSES
        order, results = torch.randperm(12), []
        for place in (torch.arange(12), order):
            loss = (build(name) if unify is None else unpg(build(name), **unify)).double()
            y = x[place].clone().requires_grad_()
            out = loss(y, labels[place], step=0, sample_ids=place)
            out.loss.backward()
            grads = [p.grad for p in loss.parameters() if p.grad is not None]
            results.append((y.grad, out.per_anchor.detach(), grads))
        (dx, per_anchor, grads), (dx2, per_anchor2, grads2) = results
        torch.testing.assert_close(dx[order], dx2, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(per_anchor[order], per_anchor2, rtol=1e-9, atol=1e-12)
        for a, b in zip(grads, grads2, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)

    def test_renaming_labels_changes_nothing(self, name, unify):
        """Classes are renamed together with their weights."""
        x, labels = torch.randn(12, DIM, dtype=torch.float64), torch.arange(12) % CLASSES
        renamed = torch.randperm(CLASSES)
        losses = [(build(name) if unify is None else unpg(build(name), **unify)).double() for _ in range(2)]
        for module in losses[1].modules():
            if isinstance(module, ClassPairs):
                weight, centers = module.head.weight.detach(), module.head.centers
                moved = weight.view(CLASSES, centers, DIM)[renamed.argsort()].reshape(weight.shape)
                module.head.weight = torch.nn.Parameter(moved)
        ids = torch.arange(12)
        first = losses[0](x, labels, step=0, sample_ids=ids).loss
        second = losses[1](x, renamed[labels], step=0, sample_ids=ids).loss
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)

    def test_statistics_are_detached_scalars(self, loss):
        out = loss(torch.randn(12, DIM, requires_grad=True), torch.arange(12) % CLASSES, step=0)
        assert "cosine/target" in out.statistics
        for name, value in out.statistics.items():
            assert value.ndim == 0, name
            assert not value.requires_grad, name

    def test_learned_state_survives_a_checkpoint(self, name, unify):
        """Averages, queues and counters come back with the state dict."""
        batches = [(torch.randn(9, DIM), torch.randint(0, CLASSES, (9,))) for _ in range(5)]
        whole, first, second = ((build(name) if unify is None else unpg(build(name), **unify)) for _ in range(3))
        for step, (x, labels) in enumerate(batches):
            expected = whole(x, labels, step=step, sample_ids=torch.arange(9)).loss
        for step, (x, labels) in enumerate(batches[:3]):
            first(x, labels, step=step, sample_ids=torch.arange(9))
        second.load_state_dict(first.state_dict())
        for step, (x, labels) in enumerate(batches[3:], 3):
            resumed = second(x, labels, step=step, sample_ids=torch.arange(9)).loss
        assert torch.equal(resumed, expected)

    def test_a_batch_that_is_not_finite_leaves_no_trace(self, loss):
        """The trainer sees such a step and skips it; averages and queues must not carry it into the next ones."""
        x, labels = torch.randn(9, DIM), torch.arange(9) % CLASSES
        x[2, 1], x[5] = torch.nan, torch.inf
        out = loss(x.requires_grad_(), labels, step=0)
        out.loss.backward()  # mining may choose around it, the gradient does not
        assert not torch.isfinite(out.loss) or not torch.isfinite(x.grad).all()
        loss.zero_grad()
        for step in (1, 2):
            backward(loss, torch.randn(9, DIM), labels, step)

    def test_evaluation_learns_nothing(self, loss):
        loss.eval()
        before = {key: str(value) for key, value in loss.state_dict().items()}
        loss(torch.randn(9, DIM), torch.arange(9) % CLASSES, step=0)
        assert {key: str(value) for key, value in loss.state_dict().items()} == before


UNITS = {
    "triplet": "triplet", "npair": "positive pair", "infonce": "positive pair", "snpair": "positive pair",
    "contrastive": "batch", "circle-pairs": "batch",
}  # fmt: skip


@pytest.mark.parametrize("name", list(LOSSES))
def test_reductions_and_unit_are_those_named(name, monkeypatch):
    """What an aggregate asks of its sets is what it declares."""
    asked = set()
    for kind, method in (ClassSet, "reduce"), (OwnClassSet, "reduce"), (SimilaritySet, "_reduce"):
        original = getattr(kind, method)

        def noted(self, reduction, *arguments, original=original, **options):
            asked.add(type(reduction))
            return original(self, reduction, *arguments, **options)

        monkeypatch.setattr(kind, method, noted)
    loss = build(name)
    parts = list(loss.losses.values()) if isinstance(loss, SumLoss) else [loss]
    for part in parts:
        asked.clear()
        x, labels = torch.randn(12, DIM), torch.arange(12) % CLASSES
        units = part(x, labels, step=0).statistics["units"]
        # With a bias of its own a sum of binary terms asks no batch where to begin.
        given = {LogSumExp} if name in ("sphereface2", "uniface") else set()
        assert asked == set(part.aggregate.reductions) - given
        anchors = Anchors.of(x, labels, step=0)
        pairs = part.pairs(anchors)
        found = part.aggregate(pairs, part.margin.for_batch(anchors, pairs.target()), anchors)
        assert found.count == units
        if len(parts) == 1:
            assert found.unit == UNITS.get(name, "anchor")


@pytest.mark.parametrize("name", [name for name in LOSSES if any(
    isinstance(m, ClassPairs | FeaturePairs) for m in build(name).modules()
)])  # fmt: skip
def test_label_out_of_range_is_named(name):
    for bad in (CLASSES, -1):
        with pytest.raises(DataError, match=f"Label {bad} at place 1.*0 to {CLASSES - 1}"):
            build(name)(torch.randn(2, DIM), torch.tensor([0, bad]), step=0)


@pytest.mark.parametrize("name", [name for name in LOSSES if over_classes(build(name)) and name != "sphereface"])
def test_weight_zero_is_the_base_bit_for_bit(name):
    x, labels = torch.randn(12, DIM), torch.arange(12) % CLASSES
    out, dx, grads = backward(build(name), x, labels)
    for scope in ("batch", "anchor"):
        muted, muted_dx, muted_grads = backward(unpg(build(name), weight=0, scope=scope), x, labels)
        assert torch.equal(out.loss, muted.loss)
        assert torch.equal(dx, muted_dx)
        for key, value in grads.items():
            assert torch.equal(value, muted_grads[key.replace("pairs.", "pairs.of.")]), key


def test_weight_zero_of_a_sum_is_the_base_bit_for_bit():
    x, labels = torch.randn(12, DIM), torch.arange(12) % CLASSES
    out, dx, grads = backward(build("arcface"), x, labels)
    late = unpg(build("arcface"), weight=Scheduled(5), join="sum")
    muted, muted_dx, muted_grads = backward(late, x, labels, step=4)
    assert torch.equal(out.loss, muted.loss)
    assert torch.equal(dx, muted_dx)
    assert torch.equal(grads["pairs.head.weight"], muted_grads["pairs.of.head.weight"])
    begun, begun_dx, _ = backward(late, x, labels, step=5)
    assert begun.loss > out.loss
    assert not torch.equal(dx, begun_dx)


# By definition their slope is not that of their value: part of the formula carries no gradient.
DETACHED = ("adaface", "circle", "circle-pairs")


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in DETACHED])
def test_gradcheck(name):
    """Central differences in float64."""
    loss = build(name).double()
    if name == "sphereface-r":
        loss = LOSSES.build(name, {"gradient": "exact"}, num_classes=CLASSES, dim=DIM).double()
    loss.eval()
    x = torch.randn(8, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    names, parameters = zip(*loss.named_parameters(), strict=True) if list(loss.parameters()) else ((), ())
    parameters = [p.detach().clone().requires_grad_() for p in parameters]
    for p in parameters:
        if p.ndim == 2:
            p.data = torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(6))
        elif name in ("uss", "unitsface"):
            p.data.fill_(2.0)  # a threshold that has begun: at 0 it is the batch's
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 0, 3])

    def value(x, *parameters):
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(loss, state, (x, labels), {"step": 9}).loss

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), *parameters), eps=1e-7, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("name", list(LOSSES))
def test_labels_of_any_integer_type(name, dtype):
    x, labels = torch.randn(9, DIM), torch.arange(9) % CLASSES
    assert torch.equal(build(name)(x, labels.to(dtype), step=0).loss, build(name)(x, labels, step=0).loss)


def test_one_class_only_has_loss_zero():
    loss = unpg(arcface(1, DIM))
    out, _, _ = backward(loss, torch.randn(4, DIM), torch.zeros(4, dtype=torch.int64))
    assert out.loss == 0


def test_renaming_labels_changes_nothing_in_batch_pairs():
    loss = PairLoss(BatchPairs("anchor"), NoMargin(), Softmax(8.0))
    x, labels = torch.randn(8, DIM), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    assert torch.equal(loss(x, labels).loss, loss(x, 100 - 7 * labels).loss)


def test_batch_pairs_alone_equal_a_slow_loop():
    """softplus(LSE_n + LSE_p) over a batch; an anchor without positives counts 0."""
    x, labels = torch.randn(7, DIM, dtype=torch.float64), [0, 0, 1, 1, 1, 2, 3]
    u = x / x.norm(dim=1, keepdim=True)
    expected = 0.0
    for i in range(7):
        total = sum(
            math.exp(8.0 * float(u[i] @ u[n] - u[i] @ u[p]))
            for n in range(7)
            for p in range(7)
            if labels[n] != labels[i] and labels[p] == labels[i] and p != i
        )
        expected += math.log1p(total) / 7
    loss = PairLoss(BatchPairs("anchor"), NoMargin(), Softmax(8.0))
    assert float(loss(x, torch.tensor(labels)).loss) == pytest.approx(expected, rel=1e-12)


def test_statistics_are_what_they_say():
    torch.manual_seed(1)
    loss = unpg(cosface(CLASSES, DIM, s=5.0, m=0.2), r=0.5)
    x, labels = torch.randn(10, DIM), torch.arange(10) % CLASSES
    stats = loss(x, labels).statistics
    u = torch.nn.functional.normalize(x)
    w = torch.nn.functional.normalize(loss.pairs.of.head.weight.detach())
    negatives = [float(u[i] @ u[j]) for i in range(10) for j in range(i + 1, 10) if labels[i] != labels[j]]
    kept = [v for v in negatives if float(stats["fence/lower"]) <= v <= float(stats["fence/upper"])]
    assert stats["negatives/offered"] == len(negatives)
    assert stats["negatives/kept"] == len(kept) < len(negatives)
    assert stats["negatives/cut"] == len(negatives) - len(kept)
    assert float(stats["negatives/hardest_kept"]) == pytest.approx(max(kept), abs=1e-6)
    cosines = u @ w.T
    assert float(stats["cosine/target"]) == pytest.approx(float(cosines[torch.arange(10), labels].mean()), abs=1e-6)
    assert float(stats["wdfs/inf_target"]) == pytest.approx(float(cosines[torch.arange(10), labels].min()), abs=1e-6)
    together = [float(u[i] @ u[j]) for i in range(10) for j in range(i) if labels[i] == labels[j]]
    assert float(stats["wdfs/inf_positive"]) == pytest.approx(min(together), abs=1e-6)
    assert float(stats["wdfs/gap"]) == pytest.approx(min(together) - max(kept), abs=1e-6)
    pairwise = [float(u[i] @ u[j]) for i in range(10) for j in range(10) if i != j]
    assert float(stats["cosine/pairwise"]) == pytest.approx(sum(pairwise) / 90, abs=1e-6)
    shared = sum(math.exp(5 * v) for v in kept)
    shares = [0.0, 0.0, 0.0]
    for i in range(10):
        parts = [
            math.exp(5 * (float(cosines[i, labels[i]]) - 0.2)),
            sum(math.exp(5 * float(cosines[i, j])) for j in range(CLASSES) if j != labels[i]),
            shared,
        ]
        shares = [a + p / sum(parts) / 10 for a, p in zip(shares, parts, strict=True)]
    for source, share in zip(["target", "classes", "batch"], shares, strict=True):
        assert float(stats[f"share/{source}"]) == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize("scope", ["batch", "anchor"])
def test_the_smallest_positive_of_a_batch(scope, monkeypatch):
    """Of each scope, in blocks too, whatever the fences cut; inf where no two features are of one class; without UNPG
    there is none to see.
    """
    monkeypatch.setitem(stream._ENTRIES, "cpu", 2**10)  # 64 columns at a time
    torch.manual_seed(2)
    x, labels = torch.randn(130, DIM), torch.arange(130) % CLASSES
    u = torch.nn.functional.normalize(x)
    smallest = (u @ u.T)[labels[:, None] == labels].min()
    stats = unpg(cosface(CLASSES, DIM), scope=scope, r=0.0)(x, labels).statistics
    torch.testing.assert_close(stats["wdfs/inf_positive"], smallest)
    apart = unpg(cosface(CLASSES, DIM), scope=scope, r=0.0)(x[:CLASSES], labels[:CLASSES]).statistics
    assert apart["wdfs/inf_positive"] == torch.inf
    base = cosface(CLASSES, DIM)(x, labels).statistics
    assert "wdfs/inf_target" in base
    assert "wdfs/inf_positive" not in base


def test_a_margin_with_a_gradient_of_its_own_is_refused_on_batch_pairs():
    """Its gradient would be lost in the blocks; better said than dropped."""
    loss = PairLoss(BatchPairs("anchor"), Magnitude(l_a=0.1), Softmax(8.0))
    with pytest.raises(ConfigError, match="gradient besides"):
        loss(torch.randn(4, 3, requires_grad=True), torch.tensor([0, 0, 1, 1]))


def test_share_weight_gives_that_share():
    torch.manual_seed(1)
    for scope in ("batch", "anchor"):
        stats = unpg(arcface(CLASSES, DIM), scope=scope, weight=Share(0.3))(
            torch.randn(12, DIM), torch.arange(12) % CLASSES
        )
        stats = stats.statistics
        assert float(stats["share/batch"] / (stats["share/batch"] + stats["share/classes"])) == pytest.approx(
            0.3, abs=1e-5
        )


def test_what_is_right_by_exactly_the_margin_costs_nothing():
    """Bounds are strict: no triplet and no mined pair sits on them, and none is counted."""
    east, north, up = torch.eye(3)
    apart = torch.stack([east, east, north]), torch.tensor([0, 0, 1])
    assert triplet(m=1.0, distance="cosine")(*apart).statistics["units"] == 0
    assert triplet(m=1.1, distance="cosine")(*apart).statistics["units"] == 2
    alike = torch.stack([east, east, east]), torch.tensor([0, 0, 1])
    assert triplet(m=1.0, mining="semihard", distance="cosine")(*alike).statistics["units"] == 0
    square = torch.stack([east, north, up]), torch.tensor([0, 0, 1])
    assert multi_similarity(epsilon=0.0)(*square).loss == 0
    assert multi_similarity(epsilon=1e-6)(*square).loss > 0


def test_ranges_of_triplets_are_exact_in_a_large_batch():
    """A few small hinges between large running sums, in float32."""
    g = torch.Generator().manual_seed(0)
    x, labels = torch.randn(600, 3, generator=g), torch.arange(600) // 3
    loss = triplet(m=1e-3, mining="semihard", distance="cosine")
    narrow, wide = loss(x, labels), loss(x.double(), labels)
    assert wide.statistics["units"] > 100
    error = (narrow.per_anchor.double() - wide.per_anchor).norm() / wide.per_anchor.norm()
    assert error < 1e-3


def test_the_scale_that_follows_the_negatives():
    """``ln |S^n| + ln((1 - epsilon) / epsilon)``, with a tolerance that can be told from ``ln(1 / epsilon)``."""
    x, labels = torch.randn(9, DIM), torch.arange(9) // 2
    pairs = BatchPairs("batch", positives="batch")
    negatives = sum(int(labels[i] != labels[j]) for i in range(9) for j in range(i))
    by_rule = PairLoss(pairs, NoMargin(), PerPositive(None, 0.2))(x, labels).loss
    by_hand = PairLoss(pairs, NoMargin(), PerPositive(math.log(negatives) + math.log(4)))(x, labels).loss
    torch.testing.assert_close(by_rule, by_hand)


def test_share_of_an_empty_union_is_the_whole_set():
    nothing, some = torch.tensor([-torch.inf]), torch.tensor([2.0])
    count = torch.ones(1, dtype=torch.int64)
    for own, others in (some, nothing), (nothing, some):
        assert Share(0.3).log(own=own, others=others, kept=count, rivals=count, step=None) == 0


def test_shares_are_those_of_anchors_with_pairs():
    """An anchor without positives has no denominator to share."""
    loss = PairLoss(BatchPairs("anchor"), NoMargin(), Softmax(8.0))
    x = torch.randn(3, DIM)
    stats = loss(x, torch.tensor([0, 0, 1])).statistics
    u = torch.nn.functional.normalize(x)
    share = sum(torch.sigmoid(8 * (u[0] @ u[1] - u[i] @ u[2])) for i in (0, 1)) / 2
    assert float(stats["share/target"]) == pytest.approx(float(share), rel=1e-4)
    assert float(stats["share/target"] + stats["share/batch"]) == pytest.approx(1, abs=1e-6)


def test_shares_of_binary_terms_are_parts_of_the_loss():
    torch.manual_seed(3)
    loss = unpg(LOSSES.build("sphereface2", {"s": 8.0, "balance": 0.9}, num_classes=CLASSES, dim=DIM), weight=0.25)
    x, labels = torch.randn(10, DIM), torch.arange(10) % CLASSES
    out = loss(x, labels)
    anchors = Anchors.of(x, labels)
    pairs, bias = loss.pairs(anchors), loss.aggregate.bias.detach()
    classes, batch = (
        0.1 / 8 * n.similarities.sum_softplus(8.0, -bias, reshape=loss.margin.class_negative()).detach()
        for n in pairs.negatives
    )
    target = 0.9 / 8 * torch.nn.functional.softplus(bias - 8 * loss.margin.positive(pairs.target(), anchors)).squeeze(1)
    whole = target + classes + 0.25 * batch
    torch.testing.assert_close(out.per_anchor.detach(), whole)
    for source, part in ("target", target), ("classes", classes), ("batch", 0.25 * batch):
        torch.testing.assert_close(out.statistics[f"share/{source}"], (part / whole).mean())


def test_schedule_starts_ramps_and_stays():
    torch.manual_seed(2)
    x, labels = torch.randn(12, DIM), torch.arange(12) % CLASSES
    base = arcface(CLASSES, DIM)
    late = unpg(base, weight=Scheduled(start=10, ramp=3, then="balanced"))
    assert torch.equal(late(x, labels, step=9).loss, base(x, labels).loss)
    for step, rho in [(10, 0.25), (11, 0.5), (12, 0.75), (13, 1.0), (999, 1.0)]:
        torch.testing.assert_close(late(x, labels, step=step).loss, unpg(base, weight=Balanced(rho))(x, labels).loss)
    with pytest.raises(ConfigError, match="step="):
        late(x, labels)


def test_unified_shares_its_weights_with_the_base():
    base = arcface(CLASSES, DIM)
    assert unpg(base).pairs.of.head is base.pairs.head


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: arcface(0, DIM), "num_classes >= 1"),
        (lambda: arcface(CLASSES, DIM, s=0), "scale s"),
        (lambda: arcface(CLASSES, DIM, m=4), "radians"),
        (lambda: arcface(CLASSES, DIM, tail="up"), "none, linear, keep"),
        (lambda: cosface(CLASSES, DIM, m=-0.1), r"\[0, 2\]"),
        (lambda: LOSSES.build("magface", num_classes=CLASSES, dim=DIM, settings={"l_a": 5.0, "u_a": 4.0}), "l_a < u_a"),
        (lambda: LOSSES.build("magface", num_classes=CLASSES, dim=DIM, settings={"l_m": 0.9}), "l_m <= u_m"),
        (lambda: LOSSES.build("magface", num_classes=CLASSES, dim=DIM, settings={"lambda_g": -1.0}), "lambda_g"),
        (lambda: LOSSES.build("sphereface2", num_classes=CLASSES, dim=DIM, settings={"weight": 0.0}), "weight must be"),
        (lambda: unpg(arcface(CLASSES, DIM), r=-1), "BoxWhisker.r"),
        (lambda: unpg(arcface(CLASSES, DIM), r=float("nan")), "BoxWhisker.r"),
        (lambda: unpg(arcface(CLASSES, DIM), scope="row"), "batch, anchor"),
        (lambda: unpg(arcface(CLASSES, DIM), weight=-1), ">= 0"),
        (lambda: unpg(arcface(CLASSES, DIM), weight="equal"), "balanced"),
        (lambda: unpg(arcface(CLASSES, DIM), weight=True), "balanced"),
        (lambda: unpg(unpg(arcface(CLASSES, DIM))), "ClassPairs"),
        (lambda: unpg(triplet()), "one over BatchPairs"),
        (lambda: unpg(build("mixface")), "SumLoss"),
        (lambda: unpg(build("sphereface")), 'scope="anchor"'),
        (lambda: unpg(arcface(CLASSES, DIM), join="both"), "union, sum"),
        (lambda: unpg(arcface(CLASSES, DIM), join="sum", weight="balanced"), "one denominator"),
        (lambda: unpg(arcface(CLASSES, DIM), join="sum", weight=Scheduled(3, then=Share(0.3))), "one denominator"),
        (lambda: unpg(build("uniface"), join="sum"), "BinarySum"),
        (
            lambda: PairLoss(BatchPairs("batch"), NoMargin(), TripletHinge())(torch.randn(4, 2), torch.arange(4)),
            "BatchPairs",
        ),
        (
            lambda: PairLoss(BatchPairs("anchor"), NoMargin(), Softmax("norm"))(torch.randn(4, 2), torch.arange(4)),
            "ClassPairs",
        ),
        (
            lambda: PairLoss(BatchPairs("anchor", positives="batch"), NoMargin(), PerPositive(1.0))(
                torch.randn(4, 2), torch.arange(4)
            ),
            'positives="batch"',
        ),
        (lambda: mixface(CLASSES, DIM, epsilon=0.0), r"epsilon must be in \(0, 0.5\)"),
        (lambda: contrastive(neg_margin=math.nan), "finite margins"),
        (lambda: multi_similarity(base=math.inf), "finite base"),
        (lambda: Softmax("length"), "norm"),
        (
            lambda: PairLoss(BatchPairs("anchor"), SelfPaced(), Contrast())(torch.randn(4, 2), torch.arange(4) // 2),
            "NoMargin",
        ),
        (
            lambda: PairLoss(BatchPairs("anchor"), SelfPaced(), MultiSimilarity())(
                torch.randn(4, 2), torch.arange(4) // 2
            ),
            "NoMargin",
        ),
        (lambda: LOSSES.build("arcfase"), "Did you mean 'arcface'"),
        (lambda: LOSSES.build("arcface", {"margin": 1}, num_classes=3, dim=2), "no setting 'margin'"),
        (lambda: LOSSES.build("arcface", {"dim": 1}, num_classes=3, dim=2), "not set by hand"),
        (lambda: Share(1.0), "between 0 and 1"),
        (lambda: Balanced(0), "> 0"),
        (lambda: Constant(math.inf), "finite"),
        (lambda: Scheduled(-1), "start >= 0"),
    ],
)
def test_bad_settings_say_what_is_allowed(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_bad_shapes_are_named():
    loss = arcface(CLASSES, DIM)
    with pytest.raises(ShapeError, match="same dim"):
        loss(torch.randn(2, DIM + 1), torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match="batch, dim"):
        loss(torch.randn(2, DIM, 1), torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match="one integer label"):
        loss(torch.randn(2, DIM), torch.tensor([0, 1, 2]))
    with pytest.raises(ShapeError, match="one integer label"):
        loss(torch.randn(2, DIM), torch.tensor([0.0, 1.0]))


def test_effective_rank():
    assert float(effective_rank(torch.ones(5, 3))) == 1.0
    spread = torch.cat([torch.eye(4), -torch.eye(4)])
    assert float(effective_rank(spread)) == pytest.approx(4, rel=1e-5)
    line = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [2.0, 0, 0], [-3.0, 0, 0]])
    assert float(effective_rank(line)) == pytest.approx(1, abs=1e-4)
    assert math.isnan(float(effective_rank(torch.ones(1, 3))))
    for bad in (torch.nan, torch.inf):
        assert math.isnan(float(effective_rank(torch.tensor([[1.0, bad, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]))))


class _Reads(TorchDispatchMode):
    """Counts values that are brought to the host, which would stall a GPU."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("scope", ["batch", "anchor"])
def test_nothing_but_the_label_check_reads_from_the_device(scope):
    loss = unpg(LOSSES.build("magface", num_classes=CLASSES, dim=DIM), scope=scope, weight="balanced")
    with _Reads() as reads:
        loss(torch.randn(12, DIM), torch.arange(12) % CLASSES).loss.backward()
    assert reads.count == 1  # on CUDA that check is asynchronous


def test_repr_is_the_recipe():
    text = repr(unpg(arcface(CLASSES, DIM, s=32, m=0.3), r=1.0, weight="balanced"))
    for part in ("Angular(m=0.3", "Softmax(scale=32", "BoxWhisker(r=1.0", "Balanced(rho=1.0)", "num_classes=6"):
        assert part in text


@pytest.mark.parametrize("name", ["mixface", "unitsface", "margin-triplet", "margin-contrastive"])
def test_a_sum_is_unified_as_the_error_says(name):
    loss = LOSSES.build(name, num_classes=CLASSES, dim=DIM)
    with pytest.raises(ConfigError, match=r"in Python: .* then SumLoss of unpg\(arcface\(...\)\) and the other losses"):
        unpg(loss)
    first, *others = loss.losses.items()
    whole = SumLoss({first[0]: unpg(first[1]), **dict(others)})
    statistics = whole(torch.randn(12, DIM), torch.arange(12) % CLASSES, step=0).statistics
    assert 0 < statistics["share/batch"] < 1


@pytest.mark.parametrize("classes", [1, 2, 3, 50])
@pytest.mark.parametrize("s", [8.0, 40.0, 64.0, 2000.0])
@pytest.mark.parametrize("balance", [0.5, 0.7, 0.99])
def test_the_threshold_of_sphereface2_balances_pulls_for_few_classes_and_large_scales(classes, s, balance):
    loss = LOSSES.build("sphereface2", {"s": s, "balance": balance}, num_classes=classes, dim=DIM)
    b = loss.aggregate.bias.detach().double()
    lift = 2 * 0.5**3 - 1
    odds = torch.tensor(balance / ((1 - balance) * max(classes - 1, 1)), dtype=torch.float64)
    pull = odds.log() + torch.nn.functional.logsigmoid(b - s * (lift - 0.4))
    torch.testing.assert_close(pull, torch.nn.functional.logsigmoid(s * (lift + 0.4) - b), rtol=1e-6, atol=1e-6 * s)
