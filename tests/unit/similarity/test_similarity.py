"""Reductions against torch on dense matrices; empty sets; gradients where torch's own are NaN."""

from itertools import pairwise

import pytest
import torch

from unpg.errors import ConfigError
from unpg.similarity import (
    ClassSet,
    DifferentLabel,
    DifferentSample,
    EachPairOnce,
    Fences,
    HingeSum,
    LogSumExp,
    OwnClassSet,
    SameLabel,
    SimilaritySet,
    Streaming,
    Sum,
    SumSoftplus,
    log_add_exp,
    normalize,
    rank,
    softplus,
)
from unpg.similarity.rank import at_ranks

REDUCTIONS = {
    "logsumexp": (LogSumExp, lambda z: z.logsumexp(0)),
    "sum-softplus": (SumSoftplus, lambda z: torch.logaddexp(z, torch.zeros_like(z)).sum()),
    "hinge-sum": (HingeSum, lambda z: z.clamp(min=0).sum()),
    "sum": (Sum, lambda z: z.sum()),
}


@pytest.mark.parametrize("name", REDUCTIONS)
class TestReductions:
    def test_any_cut_gives_the_same(self, name):
        """An associative merge: blocks of any width, some of them without a pair."""
        kind, dense = REDUCTIONS[name]
        reduction = kind(1.0)
        z = torch.randn(4, 30, dtype=torch.float64) * 30
        z[:, 10:15] = -torch.inf
        z[2] = -torch.inf
        expected = torch.stack(
            [dense(row[row > -torch.inf]) if (row > -torch.inf).any() else row[:0].sum() for row in z]
        )
        if name == "logsumexp":
            expected[2] = -torch.inf
        for width in (1, 4, 7, 30):
            states = [reduction.absorb(z[:, at : at + width].clone()) for at in range(0, 30, width)]
            whole = states[0]
            for state in states[1:]:
                whole = reduction.merge(whole, state)
            torch.testing.assert_close(reduction.value(whole), expected, rtol=1e-13, atol=1e-13)

    def test_slopes_are_those_of_autograd(self, name):
        kind, dense = REDUCTIONS[name]
        reduction = kind(1.0)
        z = (torch.randn(5, 12, dtype=torch.float64) * 20).requires_grad_()
        torch.stack([dense(row) for row in z]).sum().backward()
        blocks = [z.detach()[:, :5].clone(), z.detach()[:, 5:].clone()]
        parts = [reduction.absorb(block) for block in blocks]
        whole = reduction.merge(*parts)
        for block, part, truth in zip(blocks, parts, (z.grad[:, :5], z.grad[:, 5:]), strict=True):
            factor = reduction.factor(part, whole)
            ours = block if factor is None else block * factor[:, None]
            torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-14)

    def test_of_one(self, name):
        kind, dense = REDUCTIONS[name]
        z = torch.tensor([-40.0, -1.0, 0.5, 30.0], dtype=torch.float64)
        torch.testing.assert_close(kind(1.0).of_one(z), torch.stack([dense(row[None]) for row in z]))

    def test_nothing_at_all(self, name):
        kind, _ = REDUCTIONS[name]
        state = kind(1.0).absorb(torch.zeros(3, 0))
        assert kind(1.0).value(state).tolist() == [-torch.inf if name == "logsumexp" else 0.0] * 3


def test_a_hinge_at_zero_is_not_active():
    logits = torch.tensor([[-1.0, 0.0, 2.0]])
    assert [part.tolist() for part in HingeSum().absorb(logits)] == [[2.0], [1.0]]
    assert logits.tolist() == [[0.0, 0.0, 1.0]]


def test_log_add_exp():
    inf = torch.inf
    a = torch.tensor([1.0, -inf, 2.0, -inf], requires_grad=True)
    b = torch.tensor([3.0, 4.0, -inf, -inf], requires_grad=True)
    out = log_add_exp(a, b)
    torch.testing.assert_close(out.detach(), torch.logaddexp(a, b).detach())
    softplus(out).sum().backward()
    assert torch.isfinite(a.grad).all()
    assert torch.isfinite(b.grad).all()
    assert a.grad[1] == a.grad[3] == b.grad[2] == b.grad[3] == 0


def test_softplus_is_exact_everywhere():
    x = torch.tensor([-torch.inf, -800, -30, 0, 19.9, 20.1, 25, 700], dtype=torch.float64, requires_grad=True)
    y = softplus(x)
    torch.testing.assert_close(y.detach(), torch.logaddexp(x, torch.zeros_like(x)).detach(), rtol=1e-15, atol=0)
    y.sum().backward()
    torch.testing.assert_close(x.grad, x.detach().sigmoid(), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e20), (torch.float32, 1e38), (torch.float64, 1e200)])
def test_features_whose_square_overflows_keep_direction_and_gradient(dtype, far):
    g = torch.Generator().manual_seed(0)
    x, pull = torch.rand(2, 3, 5, generator=g, dtype=dtype)
    long, short = (x * far).requires_grad_(), x.clone().requires_grad_()
    for rows in long, short:
        (normalize(rows).vectors * pull).sum().backward()
    torch.testing.assert_close(normalize(long).vectors, normalize(short).vectors, rtol=1e-5, atol=0)
    torch.testing.assert_close(normalize(long).norms / far, normalize(short).norms, rtol=1e-5, atol=0)
    torch.testing.assert_close(long.grad * far, short.grad, rtol=1e-4, atol=1e-6)


def test_other_features_are_divided_by_their_lengths_to_the_bit():
    x = torch.randn(64, 77, generator=torch.Generator().manual_seed(0), requires_grad=True)
    unit, norms = normalize(x)
    length = x.square().sum(dim=1, keepdim=True).sqrt()
    assert torch.equal(norms, length)
    assert torch.equal(unit, x / length)
    pulls = (torch.autograd.grad(rows.sigmoid().sum(), x)[0] for rows in (unit, x / length))
    assert torch.equal(*pulls)


def test_normalize():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-18, 0.0]], requires_grad=True)
    unit, norms = normalize(x)
    torch.testing.assert_close(unit.detach(), torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))
    torch.testing.assert_close(norms.detach(), torch.tensor([[5.0], [0.0], [1e-18]]))
    (unit.sum() + norms.sum()).backward()
    assert torch.equal(x.grad[1], torch.zeros(2))
    assert normalize(torch.full((1, 4), 300.0, dtype=torch.float16)).norms == 600
    broken = normalize(torch.tensor([[torch.nan, 1.0]]))
    assert broken.vectors.isnan().all()
    assert broken.norms.isnan()
    assert torch.autograd.gradcheck(
        lambda v: tuple(normalize(v)), torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    )


LABELS = torch.tensor([0, 1, 0, 2, 2])


def brute(condition):
    return torch.tensor([[condition(i, j) for j in range(5)] for i in range(5)])


OTHERS = torch.tensor([2, 0, 5, 1, 0])
IDS, OTHER_IDS = torch.tensor([7, 8, 9, 10, 11]), torch.tensor([8, 20, 9, 7, 11])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (DifferentLabel(LABELS), brute(lambda i, j: bool(LABELS[i] != LABELS[j]))),
        (DifferentLabel(LABELS, OTHERS), brute(lambda i, j: bool(LABELS[i] != OTHERS[j]))),
        (SameLabel(LABELS), brute(lambda i, j: bool(LABELS[i] == LABELS[j]) and i != j)),
        (EachPairOnce(DifferentLabel(LABELS), 5), brute(lambda i, j: bool(LABELS[i] != LABELS[j]) and i < j)),
        (EachPairOnce(DifferentLabel(LABELS, OTHERS), 5), brute(lambda i, j: bool(LABELS[i] != OTHERS[j]) and i < j)),
        (
            DifferentSample(DifferentLabel(LABELS, OTHERS), IDS, OTHER_IDS),
            brute(lambda i, j: bool(LABELS[i] != OTHERS[j]) and bool(IDS[i] != OTHER_IDS[j])),
        ),
    ],
)
def test_rules_and_their_blocks(rule, expected):
    assert torch.equal(rule(0, 5), expected)
    assert torch.equal(torch.cat([rule(0, 2), rule(2, 3), rule(3, 5)], dim=1), expected)
    for start, stop in [(0, 2), (2, 4), (0, 5)]:
        limit = rule.rows(stop)
        assert limit is None or not expected[limit:, start:stop].any()


def test_half_of_the_matrix_is_never_computed():
    assert [EachPairOnce(DifferentLabel(LABELS), 5).rows(stop) for stop in (1, 3, 5)] == [1, 3, 5]


@pytest.fixture(params=[None, 1, 2, 3])
def width(request, monkeypatch):
    """Blocks of a few columns, as in a batch of thousands."""
    if request.param is not None:
        monkeypatch.setattr(Streaming, "columns", lambda self, rows, device: request.param)


@pytest.mark.usefixtures("width")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("fenced", [False, True])
def test_reductions_of_a_set(shared, fenced):
    x = torch.nn.functional.normalize(
        torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    x.requires_grad_()
    rule = EachPairOnce(DifferentLabel(LABELS), 5) if shared else DifferentLabel(LABELS)
    s = SimilaritySet(x, x, rule, shared=shared)
    matrix, mask = x @ x.T, rule(0, 5)
    if fenced:
        lower, upper = torch.tensor([[-0.5]]).double(), torch.tensor([[0.4]]).double()
        s = s.within(Fences(lower, upper))
        mask = mask & (matrix >= lower) & (matrix <= upper)
    rows = [matrix[mask]] if shared else [row[m] for row, m in zip(matrix, mask, strict=True)]
    assert all(len(row) for row in rows)
    offset = torch.randn(len(rows), dtype=torch.float64).requires_grad_()
    reshape = lambda c: c * c.detach() - 0.1  # noqa: E731
    cases = [
        (s.logsumexp(7.0), [(7 * r).logsumexp(0) for r in rows]),
        (s.logsumexp(-7.0, reshape=reshape), [(-7 * reshape(r)).logsumexp(0) for r in rows]),
        (
            s.sum_softplus(5.0, offset, reshape=reshape),
            [softplus(5 * reshape(r) + o).sum() for r, o in zip(rows, offset, strict=True)],
        ),
        (s.sum(), [r.sum() for r in rows]),
        (s.hinge_sum(2.0, 0.3)[0], [(2 * r + 0.3).clamp(min=0).sum() for r in rows]),
    ]
    for ours, parts in cases:
        expected = torch.stack(parts)
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
        grad = torch.randn(len(rows), dtype=torch.float64)
        inputs = (x, offset)
        mine = torch.autograd.grad(ours, inputs, grad, allow_unused=True, retain_graph=True)
        truth = torch.autograd.grad(expected, inputs, grad, allow_unused=True, retain_graph=True)
        for a, b in zip(mine, truth, strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.allclose(a, b, rtol=1e-11, atol=1e-12)
    assert s.hinge_sum(2.0, 0.3)[1].tolist() == [int((2 * r + 0.3 > 0).sum()) for r in rows]
    torch.testing.assert_close(s.maximum(), torch.stack([r.max() for r in rows]).detach())
    torch.testing.assert_close(s.minimum(), torch.stack([r.min() for r in rows]).detach())
    assert s.count().tolist() == [len(r) for r in rows]
    assert s.count_offered().sum() == rule(0, 5).sum()
    torch.testing.assert_close(s.mean(), matrix[mask].mean().detach())
    values, inside = s.dense()
    assert torch.equal(values[inside].sort().values, matrix[mask].detach().sort().values)


def test_fences_may_be_moved_after_they_were_used():
    x = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64))
    every = SimilaritySet(x, x, DifferentLabel(LABELS))
    far = torch.full((1, 1), torch.inf, dtype=torch.float64)
    none = every.within(Fences(far, far))
    assert none.count().sum() == 0
    assert torch.equal(none.within(Fences(-far, far)).count(), every.count())


def test_masks_of_many_blocks_are_not_written_down(monkeypatch):
    monkeypatch.setattr(Streaming, "columns", lambda self, rows, device: 2)
    x = torch.nn.functional.normalize(torch.randn(5, 3)).requires_grad_()
    s = SimilaritySet(x, x, DifferentLabel(LABELS))
    s.logsumexp(1.0).sum().backward()
    assert s._masks == {}


def test_a_set_of_nothing():
    x = torch.zeros(0, 4)
    s = SimilaritySet(x, x, DifferentLabel(torch.zeros(0, dtype=torch.int64)), shared=True)
    assert s.logsumexp(1.0).tolist() == [-torch.inf]
    assert s.maximum().tolist() == [-torch.inf]
    assert s.minimum().tolist() == [torch.inf]
    assert s.count().tolist() == [0]
    assert s.at_ranks(torch.tensor([[0, 3]])).tolist() == [[torch.inf, torch.inf]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("anchors", "n"), [(1, 1), (1, 3000), (7, 1), (40, 60), (600, 5), (3, 0)])
def test_ranks_are_those_of_a_sorted_list(anchors, n, dtype):
    values = torch.randn(anchors, n, dtype=dtype)
    values[values.abs() < 0.3] = 0  # ties
    values[:, ::7] *= -1
    belongs = torch.rand(anchors, n) < 0.7
    count = belongs.sum(dim=1, keepdim=True)
    ranks = torch.cat([count // 4, 3 * count // 4, count - 1, count, torch.zeros_like(count)], dim=1)
    cuts = [0, n // 3, n]
    blocks = lambda: ((values[:, a:b], belongs[:, a:b]) for a, b in pairwise(cuts))  # noqa: E731
    ranked = torch.nn.functional.pad(
        values.masked_fill(~belongs, torch.inf).sort(dim=1).values, (0, 1), value=torch.inf
    )
    assert torch.equal(at_ranks(blocks, ranks, dtype), ranked.gather(1, ranks.clamp(0, n)))


@pytest.mark.parametrize("anchors", [1, 1000, 100_000])
def test_tables_of_ranks_stay_small(anchors, monkeypatch):
    """4 million counts at once, however many anchors there are."""
    sizes, histogram = [], rank._histogram
    monkeypatch.setattr(rank, "_histogram", lambda d, a, bins: sizes.append(len(d) * bins) or histogram(d, a, bins))
    values = torch.randn(anchors, 2)
    rank.at_ranks(
        lambda: [(values, torch.ones(anchors, 2, dtype=torch.bool))],
        torch.zeros(anchors, 1, dtype=torch.int64),
        torch.float32,
    )
    assert max(sizes) <= 2**22


def class_set(centers=1, streaming=Streaming(), b=9, classes=11, d=6, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(b, d, generator=g, dtype=torch.float64)).to(dtype).requires_grad_()
    weights = torch.randn(classes * centers, d, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    labels = torch.randint(0, classes, (b,), generator=g)
    return ClassSet(rows, weights, labels, centers=centers, streaming=streaming), rows, weights, labels


@pytest.mark.parametrize("centers", [1, 3])
@pytest.mark.parametrize("streaming", [Streaming(), Streaming(1), Streaming(4), Streaming(4, 0)])
@pytest.mark.parametrize("reshape", [None, lambda c: c * (c.detach() + 0.2) - 0.1])
@pytest.mark.parametrize("kind", ["logsumexp", "sum-softplus"])
def test_classes_against_the_matrix(centers, streaming, reshape, kind):
    classes, rows, weights, labels = class_set(centers, streaming)
    offset = torch.randn(9, dtype=torch.float64).requires_grad_()
    reduction = REDUCTIONS[kind][0](5.0)
    value = classes.reduce(reduction, offset=offset, reshape=reshape)
    own = OwnClassSet(classes).values.squeeze(1)
    unit = torch.nn.functional.normalize(weights)
    cosines = (rows @ unit.T).view(9, -1, centers).max(dim=2).values
    others = torch.arange(11)[None] != labels[:, None]
    shaped = cosines if reshape is None else reshape(cosines)
    truth = torch.stack([REDUCTIONS[kind][1](z[m]) for z, m in zip(5 * shaped + offset[:, None], others, strict=True)])
    torch.testing.assert_close(value, truth, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own, cosines.gather(1, labels[:, None]).squeeze(1), rtol=1e-12, atol=1e-12)
    pull, target_pull = torch.randn(2, 9, dtype=torch.float64)
    inputs = (rows, weights, offset)
    mine = torch.autograd.grad((value * pull + own * target_pull).sum(), inputs)
    expected = torch.autograd.grad(
        (truth * pull + cosines.gather(1, labels[:, None]).squeeze(1) * target_pull).sum(), inputs
    )
    for a, b in zip(mine, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert classes.count().tolist() == [10] * 9


def test_the_nearest_center_whatever_the_sign_of_the_scale():
    """A class is as near as its nearest center, also where nearness lowers a logit."""
    classes, rows, weights, labels = class_set(centers=3)
    value = classes.logsumexp(-5.0)
    cosines = (rows @ torch.nn.functional.normalize(weights).T).view(9, 11, 3).amax(dim=2)
    others = torch.arange(11)[None] != labels[:, None]
    truth = (-5 * cosines).masked_fill(~others, -torch.inf).logsumexp(dim=1)
    torch.testing.assert_close(value, truth)
    inputs = (rows, weights)
    for a, b in zip(torch.autograd.grad(value.sum(), inputs), torch.autograd.grad(truth.sum(), inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_an_excluded_pair_has_no_gradient_however_steep_the_reshape():
    eye = torch.eye(3, dtype=torch.float64)
    rows, weights = eye.clone().requires_grad_(), eye.clone().requires_grad_()
    value = ClassSet(rows, weights, torch.arange(3)).logsumexp(2.0, reshape=lambda c: (1 - c).sqrt())
    value.sum().backward()
    expected = -torch.ones(3, 3, dtype=torch.float64).fill_diagonal_(0) / 2
    torch.testing.assert_close(rows.grad, expected)
    torch.testing.assert_close(weights.grad, expected)


def test_own_class_asked_first_is_the_same_only_slower():
    """Gathered rows and the rows found on the way agree, value and gradient."""
    results = []
    for first in (True, False):
        classes, rows, weights, _ = class_set()
        own = OwnClassSet(classes)
        before = own.values if first else None
        value = classes.logsumexp(3.0)
        after = before if first else own.values
        results.append((after.detach(), *torch.autograd.grad((value + after.squeeze(1)).sum(), (rows, weights))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_own_class_after_a_reduction_without_gradient_still_has_one():
    classes, rows, weights, _ = class_set()
    with torch.no_grad():
        classes.logsumexp(3.0)
    late = torch.autograd.grad(classes.own().sum(), (rows, weights))
    fresh, rows, weights, _ = class_set()
    for a, b in zip(late, torch.autograd.grad(fresh.own().sum(), (rows, weights)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_another_type_are_as_exact_as_the_rows(dtype):
    """However the target cosine is asked for, it is that of the weights in the type of the features."""
    _, rows, weights, labels = class_set(dtype=torch.float32, d=64)
    weights = weights.detach().to(dtype).requires_grad_()
    truth = torch.nn.functional.cosine_similarity(rows.detach(), weights.detach().float()[labels])
    classes = ClassSet(rows, weights, labels)
    gathered, detached = classes.own(), classes.own_detached()
    value = classes.logsumexp(8.0)
    for own in (gathered, detached, classes.own()):
        torch.testing.assert_close(own.detach(), truth, rtol=0, atol=2e-7)
    torch.testing.assert_close(value, ClassSet(rows, weights.detach().float(), labels).logsumexp(8.0))
    (d_weights,) = torch.autograd.grad(value.sum() + classes.own().sum(), weights)
    assert d_weights.dtype == dtype
    same = weights.detach().float().requires_grad_()
    plain = ClassSet(rows, same, labels)
    (expected,) = torch.autograd.grad(plain.logsumexp(8.0).sum() + plain.own().sum(), same)
    assert float((d_weights.float() - expected).norm() / expected.norm()) < 8 * torch.finfo(dtype).eps + 1e-6


def test_a_zero_weight_has_cosine_zero_and_no_gradient():
    classes, _, weights, labels = class_set()
    with torch.no_grad():
        weights[labels[0]] = 0
        weights[(labels[0] + 1) % 11] = 0
    assert OwnClassSet(classes).detached()[0] == 0
    value, own = classes.logsumexp(3.0), OwnClassSet(classes).values
    (value.sum() + own.sum()).backward()
    assert own[0] == 0
    assert not weights.grad[labels[0]].any()
    assert not weights.grad[(labels[0] + 1) % 11].any()
    assert torch.isfinite(weights.grad).all()


def test_backward_twice_after_a_retained_graph():
    """The kept blocks are overwritten on the way back; a second pass computes them again."""
    classes, rows, weights, _ = class_set()
    value = classes.logsumexp(3.0).sum()
    first = torch.autograd.grad(value, (rows, weights), retain_graph=True)
    second = torch.autograd.grad(value, (rows, weights))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


def test_what_is_kept_and_how_wide():
    assert Streaming().keeps(10_000, torch.zeros(1))
    assert not Streaming(keep_mib=0).keeps(1, torch.zeros(1))
    assert Streaming().keeps(2**26, torch.zeros(1))
    assert not Streaming().keeps(2**26 + 1, torch.zeros(1))
    assert Streaming().keeps(2**25, torch.zeros(1).double())
    assert not Streaming().keeps(2**25 + 1, torch.zeros(1).double())
    assert Streaming(chunk=7).columns(1000, torch.device("cpu")) == 7
    assert Streaming().columns(10**6, torch.device("cpu")) == 64
    assert Streaming().columns(512, torch.device("cpu")) == 2048
    for bad in ({"chunk": 0}, {"keep_mib": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            Streaming(**bad)


def test_nothing_is_kept_that_may_not_be(monkeypatch):
    asked = []
    columns = Streaming.columns
    monkeypatch.setattr(
        Streaming, "columns", lambda self, rows, device: asked.append(rows) or columns(self, rows, device)
    )
    for keep_mib, kept in (0, 0), (None, 3):
        value = class_set(centers=2, streaming=Streaming(4, keep_mib))[0].logsumexp(3.0)
        assert len(value.grad_fn.kept) == kept
    assert asked == [18, 18]  # a block has b x K rows of products


def test_linear_cross_entropy_agrees_at_margin_zero():
    """torch's own fused loss, in the versions that have it."""
    fused = getattr(torch.nn.functional, "linear_cross_entropy", None)
    if fused is None:
        pytest.skip(f"torch {torch.__version__} has no linear_cross_entropy")
    classes, rows, weights, labels = class_set(streaming=Streaming(3, 0))
    lse = classes.logsumexp(20.0)
    own = OwnClassSet(classes).values.squeeze(1)
    ours = softplus(lse - 20 * own).mean()
    unit = torch.nn.functional.normalize(weights)
    theirs = fused(20 * rows, unit, labels)
    for a, b in zip(
        (ours, *torch.autograd.grad(ours, (rows, weights))), (theirs, *torch.autograd.grad(theirs, (rows, weights))),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("streaming", [Streaming(products="bfloat16"), Streaming(4, 0, "bfloat16")])
def test_rounded_products_round_nothing_else(streaming):
    """bfloat16 factors with float32 sums: near the exact value of the rounded factors, and no farther from the truth
    than a plain bfloat16 product is."""
    truth, rows, weights, labels = class_set(dtype=torch.float32, b=40, classes=300, d=64)
    s = 64.0
    expected = truth.logsumexp(s)
    exact = torch.autograd.grad(expected.sum(), (rows, weights))
    near = ClassSet(rows, weights, labels, streaming=streaming)
    value = near.logsumexp(s)
    ours = torch.autograd.grad(value.sum(), (rows, weights))
    norms = weights.norm(dim=1, keepdim=True)
    cosines = (rows.bfloat16() @ weights.bfloat16().T).float() / norms.T  # the product itself rounded, too
    own = labels[:, None] == torch.arange(300)
    plain = (s * cosines).masked_fill(own, -torch.inf).logsumexp(dim=1)
    naive = torch.autograd.grad(plain.sum(), (rows, weights))

    def off(a, b):
        return float(((a - b).norm() / b.norm()).detach())

    assert off(value, expected) < off(plain, expected)
    rounded = rows.detach().bfloat16().double() @ weights.detach().bfloat16().double().T / norms.T
    wide = (s * rounded).masked_fill(own, -torch.inf).logsumexp(dim=1)
    assert off(value.detach().double(), wide) < 1e-6
    for a, b, c in zip(ours, naive, exact, strict=True):
        assert off(a, c) < off(b, c) + 1e-3
    own_value = OwnClassSet(near).values  # the target cosine is not rounded
    torch.testing.assert_close(own_value, OwnClassSet(truth).values, rtol=0, atol=0)


def test_kernels_that_are_not_there_are_named():
    classes, *_ = class_set(dtype=torch.float32, streaming=Streaming(kernel="triton"))
    with pytest.raises(ConfigError, match=r"need Triton.*streaming.kernel: plain"):
        classes.logsumexp(1.0)
    for bad in ({"kernel": "cuda"}, {"products": "float16"}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            Streaming(**bad)
