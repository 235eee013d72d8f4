"""The Triton kernels against loops of torch in float64, on a GPU or in Triton's interpreter."""

import math
import os
import subprocess
import sys

import pytest
import torch

from unpg import losses
from unpg.errors import ConfigError, ShapeError
from unpg.similarity import Streaming, fused
from unpg.similarity.rank import at_ranks
from unpg.similarity.reshape import HardenedNegative, SelfPacedNegative

pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")

LOWEST = torch.finfo(torch.float32).min
SINGLE = 2e-5  # norm-wise relative error allowed in float32 (design, section 5)
BRAIN = 2**-8  # of bfloat16: half the spacing of its numbers, relative
SHAPES = [(1, 1, 5), (1, 2, 64), (3, 2, 5), (3, 300, 512), (17, 37, 96), (64, 130, 64), (65, 300, 96), (65, 37, 5)]
MARGINS = ["none", "self-paced", "curricular"]


@pytest.fixture(scope="module")
def device():
    pytest.importorskip("triton", reason="the fused reductions need Triton")
    if not fused.available():
        pytest.skip("the fused reductions need a GPU, or TRITON_INTERPRET=1 in the environment")
    return "cpu" if os.environ.get("TRITON_INTERPRET") else "cuda"


def relative(a, b):
    """Norm-wise relative error; of zero only zero is free of it."""
    gap = (a.double() - b.double()).norm()
    return 0.0 if gap == 0 else (gap / b.double().norm()).item()


def unit(vectors):
    norms = vectors.norm(dim=1, keepdim=True)
    return torch.where(norms > 0, vectors / torch.where(norms > 0, norms, 1), 0)


def reshaped(cosine, margin, scale):
    """Logits from cosines, in their type."""
    if isinstance(margin, SelfPacedNegative):
        return scale * (cosine + margin.m).clamp(min=0).detach() * (cosine - margin.m)
    if isinstance(margin, HardenedNegative):
        threshold, t = margin.threshold.to(cosine.dtype), margin.t.to(cosine.dtype)
        return scale * torch.where(cosine > threshold, cosine * (t + cosine), cosine)
    return scale * cosine


class Classes:
    """Features and class weights with what is awkward about them."""

    def __init__(self, device, b, c, d, kind="none", *, scale=64.0, seed=0):
        generator = torch.Generator().manual_seed(1000 * b + c + d + seed)
        weights = torch.randn(c, d, generator=generator) * torch.rand(c, 1, generator=generator)
        labels = torch.randint(c, (b,), generator=generator)
        rows = unit(torch.randn(b, d, generator=generator) + 0.7 * unit(weights)[labels] * math.sqrt(d))
        if c > 2:
            weights[c // 2] = 0
        self.rows, self.weights, self.labels, self.scale = rows.to(device), weights.to(device), labels.to(device), scale
        self.grad = torch.randn(b, generator=generator).to(device)
        self.grad[::5] *= b == 1  # some rows ask for nothing
        threshold = torch.rand(b, generator=generator) * 0.2 - 0.1
        self.margin = {
            "none": None,
            "self-paced": SelfPacedNegative(0.25),
            "curricular": HardenedNegative(threshold[:, None].to(device), torch.tensor(0.3, device=device)),
        }[kind]

    def fused(self, dtype=torch.float32, weights_dtype=None):
        """peak + log(total), d_rows, d_weights of inputs rounded to the types."""
        rows, weights = self.rows.to(dtype), self.weights.to(weights_dtype or dtype)
        norms = weights.float().norm(dim=1)
        inverse = torch.where(norms > 0, 1 / norms, 0)
        peak, total = fused.class_forward(rows, weights, inverse, self.labels, self.scale, self.margin)
        gradients = fused.class_backward(
            rows, weights, inverse, self.labels, self.scale, peak, total, self.grad, self.margin
        )
        for tensor in (peak, total, *gradients):
            assert tensor.dtype == torch.float32
            assert tensor.isfinite().all()
        assert torch.equal(total == 0, peak == LOWEST)
        return torch.where(total > 0, peak + total.log(), -torch.inf), *gradients

    def torch(self, dtype, product=None):
        """The same of inputs rounded to a type, from products in float64 or in the type ``product``."""
        wide = torch.float64 if product is None else torch.float32
        rows = self.rows.to(dtype).to(wide, copy=True).requires_grad_()
        weights = self.weights.to(dtype).to(wide, copy=True).requires_grad_()
        cosine = (rows.to(product or wide) @ unit(weights).to(product or wide).T).to(wide)
        kept = self.labels[:, None] != torch.arange(len(weights), device=rows.device)
        logits = reshaped(cosine, self.margin, self.scale).masked_fill(~kept, -torch.inf)
        some = kept.any(dim=1)
        values = torch.full_like(self.grad, -torch.inf, dtype=wide)
        values[some] = logits[some].logsumexp(dim=1)
        (values[some] * self.grad[some].to(wide)).sum().backward()
        return values.detach(), rows.grad, weights.grad


@pytest.mark.parametrize("kind", MARGINS)
@pytest.mark.parametrize(("b", "c", "d"), SHAPES)
def test_classes_in_float32_against_float64(device, b, c, d, kind):
    case = Classes(device, b, c, d, kind)
    for ours, truth in zip(case.fused(), case.torch(torch.float32), strict=True):
        some = truth > -torch.inf
        assert torch.equal(ours > -torch.inf, some)
        assert relative(ours[some], truth[some]) <= SINGLE


@pytest.mark.parametrize("kind", MARGINS)
@pytest.mark.parametrize(("b", "c", "d"), [(3, 300, 512), (17, 37, 96), (64, 130, 64), (65, 300, 96), (65, 37, 5)])
def test_classes_in_bfloat16_are_no_worse_than_plain_bfloat16(device, b, c, d, kind):
    case = Classes(device, b, c, d, kind)
    ours, plain = case.fused(torch.bfloat16), case.torch(torch.bfloat16, product=torch.bfloat16)
    ours_off, plain_off = (
        [relative(*both) for both in zip(path, case.torch(torch.bfloat16), strict=True)] for path in (ours, plain)
    )
    assert all(a <= p for a, p in zip(ours_off, plain_off, strict=True)), (ours_off, plain_off)
    assert ours_off[0] <= SINGLE  # only the gradients are rounded on the way
    assert max(ours_off) <= BRAIN
    # Against the inputs before rounding, whose error both share: it adds up as it happens to.
    ours_off, plain_off = (
        [relative(*both) for both in zip(path, case.torch(torch.float32), strict=True)] for path in (ours, plain)
    )
    assert all(a <= p + BRAIN for a, p in zip(ours_off, plain_off, strict=True)), (ours_off, plain_off)


def test_float32_weights_under_bfloat16_rows_are_rounded_for_products_only(device, monkeypatch):
    monkeypatch.setattr(fused, "WORKSPACE", 128 * 96 * 2)  # pieces of one tile
    case = Classes(device, 17, 300, 96)
    for ours, truth in zip(case.fused(torch.bfloat16, torch.float32), case.torch(torch.float32), strict=True):
        assert relative(ours, truth) <= 3 * BRAIN
    rows = case.rows.bfloat16()
    norms = case.weights.norm(dim=1)
    inverse = torch.where(norms > 0, 1 / norms, 0)
    both = [
        fused.class_forward(rows, weights, inverse, case.labels, case.scale)
        for weights in (case.weights, case.weights.bfloat16())
    ]
    for mixed, rounded in zip(*both, strict=True):
        torch.testing.assert_close(mixed, rounded)
    d_weights = fused.class_backward(rows, case.weights, inverse, case.labels, case.scale, *both[0], case.grad)[1]
    radial = (d_weights * case.weights).sum(dim=1).abs()
    assert (radial <= SINGLE * d_weights.norm(dim=1) * norms).all()  # along the weights as they are


@pytest.mark.parametrize("kind", MARGINS)
def test_classes_in_pieces_and_splits(device, monkeypatch, kind):
    case = Classes(device, 65, 300, 20, kind)
    truth = case.torch(torch.float32)
    for workspace in (1, 4 * 65 * 128, 1 << 20):
        monkeypatch.setattr(fused, "WORKSPACE", workspace)
        for a, b in zip(case.fused(), truth, strict=True):
            assert relative(a, b) <= SINGLE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_without_negatives_is_empty_and_pulls_nothing(device, dtype):
    case = Classes(device, 3, 1, 5)
    value, d_rows, d_weights = case.fused(dtype)
    assert (value == -torch.inf).all()
    assert not d_rows.any()
    assert not d_weights.any()


def test_all_of_one_class(device):
    case = Classes(device, 17, 37, 16)
    case.labels[:] = 5
    ours = case.fused()
    for a, b in zip(ours, case.torch(torch.float32), strict=True):
        assert relative(a, b) <= SINGLE
    assert not ours[2][5].any()


@pytest.mark.parametrize("kind", MARGINS)
def test_a_zero_weight_counts_as_cosine_zero_and_gets_no_gradient(device, kind):
    case = Classes(device, 3, 2, 5, kind)
    case.weights[:] = 0
    case.labels[:] = 0
    value, d_rows, d_weights = case.fused()
    torch.testing.assert_close(value, reshaped(torch.zeros(3, 1, device=device), case.margin, case.scale).squeeze(1))
    assert not d_rows.any()
    assert not d_weights.any()


def test_labels_that_name_no_class_here_leave_nothing_out(device):
    case = Classes(device, 17, 37, 16)
    case.labels[::2] = -1
    case.labels[1::4] = 37
    for a, b in zip(case.fused(), case.torch(torch.float32), strict=True):
        assert relative(a, b) <= SINGLE


@pytest.mark.parametrize("kind", MARGINS)
def test_huge_logits(device, kind):
    case = Classes(device, 17, 37, 96, kind, scale=1e5)
    case.rows = unit(case.weights)[case.labels]  # the class that is left out stands far above the others
    plain = case.torch(torch.float32, product=torch.float32)
    for ours, theirs, truth in zip(case.fused(), plain, case.torch(torch.float32), strict=True):
        # A GPU rounds scale * cosine - peak once, and has rounded the peak: half a unit of the logits, in the exponent.
        assert relative(ours, truth) <= 3 * relative(theirs, truth) + SINGLE + case.scale * 2**-24


def test_equal_cosines_share_equally(device):
    case = Classes(device, 3, 37, 8)
    case.weights[:] = case.weights[0]
    inverse = 1 / case.weights.norm(dim=1)
    peak, total = fused.class_forward(case.rows, case.weights, inverse, case.labels, 64.0)
    torch.testing.assert_close(peak + total.log(), 64 * case.rows @ unit(case.weights)[0] + math.log(36))
    peak, total = fused.class_forward(case.rows, case.weights, inverse, case.labels, 640.0)  # the largest is looked for
    torch.testing.assert_close(total, torch.full_like(total, 36))
    torch.testing.assert_close(peak, 640 * case.rows @ unit(case.weights)[0])


def test_classes_merged_with_other_negatives(device):
    case = Classes(device, 17, 130, 16)
    more = torch.linspace(-30, 90, 17, device=device)
    value, *alone = case.fused()
    norms = case.weights.norm(dim=1)
    inverse = torch.where(norms > 0, 1 / norms, 0)
    peak = torch.maximum(value, more)
    total = (value - peak).exp() + (more - peak).exp()
    merged = fused.class_backward(case.rows, case.weights, inverse, case.labels, 64.0, peak, total, case.grad)
    case.grad *= torch.sigmoid(value - more)
    assert relative(merged[0], alone[0]) > 0.1
    for a, b in zip(merged, case.torch(torch.float32)[1:], strict=True):
        assert relative(a, b) <= SINGLE


def test_no_rows_and_no_classes(device):
    empty = torch.zeros(0, 8, device=device)
    weights, ones = torch.ones(3, 8, device=device), torch.ones(3, device=device)
    none, labels = torch.zeros(0, device=device), torch.zeros(0, dtype=torch.long, device=device)
    peak, total = fused.class_forward(empty, weights, ones, labels, 64.0)
    assert peak.shape == total.shape == (0,)
    d_rows, d_weights = fused.class_backward(empty, weights, ones, labels, 64.0, peak, total, none)
    assert d_rows.shape == (0, 8)
    assert torch.equal(d_weights, torch.zeros(3, 8, device=device))
    peak, total = fused.class_forward(weights, empty, none, labels.new_zeros(3), 64.0)
    assert peak.tolist() == [LOWEST] * 3
    assert total.tolist() == [0] * 3
    d_rows, d_weights = fused.class_backward(weights, empty, none, labels.new_zeros(3), 64.0, peak, total, ones)
    assert torch.equal(d_rows, torch.zeros(3, 8, device=device))
    assert d_weights.shape == (0, 8)
    no, far = torch.tensor(-torch.inf, device=device), torch.tensor(torch.inf, device=device)
    assert [x.item() for x in fused.pair_forward(empty, labels, 64.0, no, far)] == [LOWEST, 0]


def test_inputs_in_any_layout_and_under_autocast(device):
    case = Classes(device, 17, 37, 16)
    expected = case.fused()
    case.rows, case.weights = case.rows.T.contiguous().T, case.weights.T.contiguous().T
    case.labels, case.grad = case.labels.repeat_interleave(2)[::2], case.grad.repeat_interleave(2)[::2]
    with torch.autocast(device, dtype=torch.bfloat16):
        got = case.fused()
    for a, b in zip(got, expected, strict=True):
        assert relative(a, b) <= 1e-6


class Batch:
    """Features of a batch, some near another of the same or of a different label."""

    def __init__(self, device, b, d, *, identities=7):
        generator = torch.Generator().manual_seed(1000 * b + d)
        self.labels = torch.randint(identities, (b,), generator=generator).to(device)
        centres = torch.randn(identities, d, generator=generator)
        rows = unit(torch.randn(b, d, generator=generator).to(device) + 0.5 * centres.to(device)[self.labels])
        self.rows, self.scale = rows, 64.0

    def offered(self):
        return (self.labels[:, None] != self.labels).triu(1)

    def fused(self, lower, upper, grad=1.0):
        """peak + log(total), d_rows."""
        lower, upper, grad = (torch.tensor(x, device=self.rows.device) for x in (lower, upper, grad))
        peak, total = fused.pair_forward(self.rows, self.labels, self.scale, lower, upper)
        d_rows = fused.pair_backward(self.rows, self.labels, self.scale, lower, upper, peak, total, grad)
        for tensor in (peak, total, d_rows):
            assert tensor.dtype == torch.float32
            assert tensor.isfinite().all()
        assert (total == 0) == (peak == LOWEST)
        return (peak + total.log() if total > 0 else -torch.inf), d_rows

    def torch(self, lower, upper, grad=1.0):
        """The same in float64."""
        rows = self.rows.double().requires_grad_()
        cosine = rows @ rows.T
        kept = cosine[self.offered() & (cosine >= lower) & (cosine <= upper)]
        value = (self.scale * kept).logsumexp(dim=0)
        if len(kept):
            (grad * value).backward()
        return value.detach(), rows.grad if len(kept) else torch.zeros_like(rows)

    def count(self, lower, upper):
        """How many pairs are kept: at scale 0 each counts as 1."""
        lower, upper = (torch.tensor(x, device=self.rows.device) for x in (lower, upper))
        return fused.pair_forward(self.rows, self.labels, 0.0, lower, upper)[1].item()


@pytest.mark.parametrize("fences", [(-torch.inf, torch.inf), (-0.05, 0.2), (-torch.inf, 0.1), (0.1, torch.inf)])
@pytest.mark.parametrize(("b", "d"), [(2, 5), (3, 64), (17, 5), (64, 96), (65, 512), (130, 64)])
def test_pairs_against_float64(device, b, d, fences):
    case = Batch(device, b, d)
    value, d_rows = case.fused(*fences, grad=-0.7)
    expected, gradient = case.torch(*fences, grad=-0.7)
    assert value == expected or relative(value, expected) <= SINGLE
    assert relative(d_rows, gradient) <= SINGLE


def test_each_pair_of_different_labels_counts_once(device):
    for b in (1, 2, 64, 65, 130):
        case = Batch(device, b, 16)
        assert case.count(-torch.inf, torch.inf) == case.offered().sum()


@pytest.mark.parametrize("fences", [(0.9999, 1.0), (0.3, 0.2), (torch.inf, torch.inf), (torch.nan, torch.inf)])
def test_fences_that_keep_nothing(device, fences):
    value, d_rows = Batch(device, 65, 16).fused(*fences)
    assert value == -torch.inf
    assert not d_rows.any()


def test_one_label_is_no_pair(device):
    for b in (1, 65):
        value, d_rows = Batch(device, b, 16, identities=1).fused(-torch.inf, torch.inf)
        assert value == -torch.inf
        assert not d_rows.any()


def test_a_pair_on_a_fence_is_in(device):
    case = Batch(device, 65, 4)
    case.rows = (torch.randint(2, (65, 4), generator=torch.Generator().manual_seed(0)) - 0.5).to(device)
    cosine = (case.rows @ case.rows.T)[case.offered()]  # -1, -0.5, 0, 0.5, 1, exactly
    assert case.count(-0.5, 0.5) == ((cosine >= -0.5) & (cosine <= 0.5)).sum()
    tighter = torch.nextafter(torch.tensor([-0.5, 0.5]), torch.tensor(0.0)).tolist()
    assert case.count(*tighter) == (cosine == 0).sum()
    assert case.count(-0.5, -0.5) == (cosine == -0.5).sum()
    value, d_rows = case.fused(-0.5, 0.5)
    expected, gradient = case.torch(-0.5, 0.5)
    assert relative(value, expected) <= SINGLE
    assert relative(d_rows, gradient) <= SINGLE


def test_fences_are_judged_in_float32(device):
    """Similarities apart by less than TF32 or bfloat16 can tell."""
    case = Batch(device, 3, 2)
    case.labels = torch.arange(3, device=device)
    angles = torch.tensor([0.0, 1.0, 1.0 + 1e-5], dtype=torch.float64)
    case.rows = torch.stack([angles.cos(), angles.sin()], dim=1).float().to(device)
    low, high = sorted([math.cos(1.0), math.cos(1.0 + 1e-5)])
    assert case.count(low - 3e-6, (low + high) / 2) == 1
    assert case.count((low + high) / 2, high + 3e-6) == 1


def test_bfloat16_rows_are_widened(device):
    case = Batch(device, 65, 16)
    case.rows = case.rows.bfloat16()
    got = case.fused(-0.05, 0.2)
    case.rows = case.rows.float()
    for a, b in zip(got, case.fused(-0.05, 0.2), strict=True):
        assert torch.equal(a, b)


def test_pairs_in_pieces(device, monkeypatch):
    case = Batch(device, 200, 16)
    expected = case.torch(-0.3, 0.3)
    for workspace in (1, 4 * 200 * 130):
        monkeypatch.setattr(fused, "WORKSPACE", workspace)
        assert relative(case.fused(-0.3, 0.3)[1], expected[1]) <= SINGLE


def test_huge_pair_logits(device):
    case = Batch(device, 65, 16)
    case.scale = 1e4
    case.rows[1] = case.rows[0]  # of one label or two, and on the diagonal: cosine 1
    case.labels[1] = case.labels[0]
    value, d_rows = case.fused(-torch.inf, torch.inf)
    expected, gradient = case.torch(-torch.inf, torch.inf)
    assert relative(value, expected) <= SINGLE
    assert relative(d_rows, gradient) <= 1e4 * 1e-6  # float32 knows such logits to a thousandth


@pytest.mark.parametrize(("anchors", "n"), [(1, 1), (1, 9000), (3, 500), (2, 4096)])
def test_values_at_ranks_against_sorting(device, anchors, n):
    """Ties, both signs and zeros, infinities, values that do not belong, ranks that do not exist, several blocks."""
    generator = torch.Generator().manual_seed(n)
    values = torch.randn(anchors, n, generator=generator).round(decimals=2)
    values[:, ::7] = 0.0
    values[:, 3::50] = -0.0
    values[:, 5::200] = torch.inf
    values[:, 6::200] = -torch.inf
    belongs = torch.rand(anchors, n, generator=generator) < 0.7
    belongs[:, 0] = True
    counts = belongs.sum(dim=1)
    ranks = torch.stack([counts * 0, counts // 4, counts * 3 // 4, counts - 1, counts, counts * 0 - 3], dim=1)
    values, belongs, ranks = values.to(device), belongs.to(device), ranks.to(device)

    def blocks():
        return zip(values.split(n // 2 + 1, dim=1), belongs.split(n // 2 + 1, dim=1), strict=True)

    ordered = torch.where(belongs, values, torch.nan).sort(dim=1).values  # NaN last
    expected = ordered.gather(1, ranks.clamp(0, n - 1))
    expected[:, 4] = torch.inf
    for fuse in (True, False):
        assert torch.equal(at_ranks(blocks, ranks, torch.float32, fuse=fuse), expected), fuse


def test_what_does_not_fit_is_refused(device):
    rows, labels = torch.ones(3, 8, device=device), torch.zeros(3, dtype=torch.long, device=device)
    weights, ones = torch.ones(2, 8, device=device), torch.ones(2, device=device)
    with pytest.raises(ShapeError, match=r"rows must be \(b, d\) bfloat16 or float32, got \(3, 8\) torch.float16"):
        fused.class_forward(rows.half(), weights, ones, labels, 64.0)
    with pytest.raises(ShapeError, match=r"weights must be \(2, 8\)"):
        fused.class_forward(rows, weights[:, :4], ones, labels, 64.0)
    with pytest.raises(ShapeError, match=r"labels must be \(3,\) torch.int64"):
        fused.class_forward(rows, weights, ones, labels.int(), 64.0)
    with pytest.raises(ShapeError, match=r"margin.threshold must be \(3, 1\)"):
        fused.class_forward(rows, weights, ones, labels, 64.0, HardenedNegative(ones, ones[0]))
    with pytest.raises(ShapeError, match=r"grad must be \(3,\)"):
        fused.class_backward(rows, weights, ones, labels, 64.0, rows[:, 0], rows[:, 0], ones)
    with pytest.raises(ShapeError, match=r"lower must be \(\)"):
        fused.pair_forward(rows, labels, 64.0, ones, ones[0])


@pytest.mark.parametrize(
    ("kernel", "products", "runs"),
    [
        ("auto", "float32", ["pair_forward"]),
        ("auto", "bfloat16", ["class_forward", "pair_forward"]),
        ("plain", "bfloat16", []),
        ("triton", "float32", ["class_forward", "pair_forward"]),
    ],
)
def test_which_kernels_run_by_themselves(device, monkeypatch, kernel, products, runs):
    if device == "cpu" and kernel == "auto":
        runs = []  # nothing runs by itself in the interpreter
    called = []
    for function in ("class_forward", "pair_forward"):
        original = getattr(fused, function)

        def counted(*arguments, function=function, original=original, **options):
            called.append(function)
            return original(*arguments, **options)

        monkeypatch.setattr(fused, function, counted)
    loss = losses.arcface(7, 8).to(device)
    loss.pairs.streaming = Streaming(kernel=kernel, products=products)
    loss = losses.unpg(loss)
    loss(torch.randn(9, 8, device=device), (torch.arange(9) % 7).to(device))
    assert sorted(called) == runs


def test_without_triton_the_module_imports_and_says_so():
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from unpg.similarity import fused\n"
        "assert not fused.available()\n"
        "n, x = torch.zeros(1, dtype=torch.long), torch.tensor(0.0)\n"
        "fused.pair_forward(torch.ones(1, 2), n, 64.0, x, x)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode
    assert f"{ConfigError.__name__}: The fused reductions need Triton" in ran.stderr, ran.stderr


@pytest.mark.parametrize("name", ["arcface", "curricularface", "circle", "uniface", "subcenter_arcface"])
@pytest.mark.parametrize("unify", [False, True])
def test_a_loss_is_the_same_with_and_without_kernels(device, name, unify):
    """Whole losses; those without a kernel take the plain way."""
    if unify and name in ("uniface", "circle"):
        pytest.skip("their batch negatives are no plain log-sum-exp")
    results = []
    for kernel in ("plain", "triton"):
        torch.manual_seed(0)
        loss = getattr(losses, name)(13, 24, s=32.0).to(device)
        loss.pairs.streaming = Streaming(kernel=kernel)
        head = loss.pairs.head
        loss = losses.unpg(loss, r=1.0) if unify else loss
        x = torch.randn(20, 24, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()
        labels = (torch.arange(20) % 13).to(device)
        out = loss(x, labels, step=0)
        out.loss.backward()
        results.append((out.loss.detach(), x.grad, head.weight.grad))
    for plain, fast in zip(*results, strict=True):
        assert (plain - fast).norm() <= 2e-5 * plain.norm()


def test_the_kernels_run_where_they_are_asked_for(device, monkeypatch):
    called = []
    for function in ("class_forward", "class_backward", "pair_forward", "pair_backward"):
        original = getattr(fused, function)

        def counted(*arguments, function=function, original=original, **options):
            called.append(function)
            return original(*arguments, **options)

        monkeypatch.setattr(fused, function, counted)
    loss = losses.arcface(7, 8).to(device)
    loss.pairs.streaming = Streaming(kernel="triton", products="bfloat16")
    loss = losses.unpg(loss)
    loss(torch.randn(9, 8, device=device, requires_grad=True), (torch.arange(9) % 7).to(device)).loss.backward()
    assert sorted(called) == ["class_backward", "class_forward", "pair_backward", "pair_forward"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("b", "c", "d"), [(1, 1, 5), (3, 300, 512), (65, 300, 96), (64, 130, 64)])
def test_kept_exponentials_give_the_same_gradients(device, monkeypatch, dtype, b, c, d):
    case = Classes(device, b, c, d)
    norms = case.weights.norm(dim=1)
    inverse = torch.where(norms > 0, 1 / norms, 0)
    products = "float32" if dtype == torch.float32 else "bfloat16"
    inputs = (case.rows, case.weights, inverse, case.labels, case.scale)
    truth = case.torch(torch.float32)[1:]
    for workspace in (fused.WORKSPACE, 128 * d * dtype.itemsize):
        monkeypatch.setattr(fused, "WORKSPACE", workspace)
        shares: list = []
        peak, total = fused.class_forward(*inputs, products=products, shares=shares)
        assert sum(share.shape[1] for share in shares) == c
        more = torch.where(total > 0, peak + total.log(), 0)  # merged with as much again: half the gradient
        merged = torch.where(total > 0, (peak + total.log() - more).exp() + 1, 0)
        kept = fused.class_backward(*inputs, more, merged, 2 * case.grad, products=products, shares=shares)
        assert shares == []
        again = fused.class_backward(*inputs, more, merged, 2 * case.grad, products=products)
        for ours, others, right in zip(kept, again, truth, strict=True):
            assert ours.isfinite().all()
            off, off_again = relative(ours, right), relative(others, right)
            assert off <= (SINGLE if dtype == torch.float32 else 1.2 * off_again + 2**-10)


@pytest.mark.parametrize("scale", [1.0, 30.0, 64.0, 78.0, 79.0, 200.0])
@pytest.mark.parametrize("towards", [-1, 0, 1])
def test_exponentials_neither_overflow_nor_vanish(device, scale, towards):
    """All classes right beside a row, or opposite to it, at scales with and without a peak known beforehand."""
    case = Classes(device, 17, 130, 16, scale=scale)
    if towards:
        case.weights[:] = towards * case.rows[:1] * torch.linspace(0.1, 2, 130, device=device)[:, None]
        case.rows[:] = case.rows[0]
    assert fused.keeps_shares(scale, None, 10**6) == (scale <= 78)
    value, *gradients = case.fused()
    expected, *truth = case.torch(torch.float32)
    assert (value - expected).abs().max() <= 3e-6 * scale + 1e-5
    for ours, right in zip(gradients, truth, strict=True):
        assert (ours - right).norm() <= 2e-5 * scale * case.grad.norm()


def test_a_scale_that_keeps_exponentials_keeps_all_that_matter(device):
    """Half of a million classes opposite to the row: they stay representable beside one that is near."""
    reference = fused._reference(64.0, None, 10**6)
    assert -64 * 1.02 - reference >= -87
    assert 64 * 1.02 - reference + math.log(10**6) <= 87 + 1e-9
