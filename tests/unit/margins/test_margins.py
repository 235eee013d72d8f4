"""Margins against their formulas, and what every registered margin must be."""

import math

import pytest
import slow_classification as slow
import torch

from unpg.errors import ConfigError
from unpg.margins import (
    MARGINS,
    Additive,
    Angular,
    Annealed,
    Combined,
    Elastic,
    Euclidean,
    Lifted,
    Magnitude,
    Multiplicative,
    Quality,
    SelfPaced,
    add_angle,
)
from unpg.margins.angular import angle
from unpg.margins.running import RunningMoments
from unpg.similarity import Anchors

COSINES = torch.cat([torch.linspace(-1, 1, 401, dtype=torch.float64), torch.tensor([-1 - 1e-7, 1 + 1e-7]).double()])


def anchors(norms, step=3):
    """Features of the given lengths (n, 1), all in one direction."""
    unit = torch.zeros(len(norms), 4, dtype=norms.dtype)
    unit[:, 0] = 1
    return Anchors(unit * norms, unit, norms, torch.zeros(len(norms), dtype=torch.int64), step=step)


def of_batch(name, norms, target):
    batch = anchors(norms)
    return MARGINS[name]().for_batch(batch, target.detach()), batch


@pytest.mark.parametrize("name", list(MARGINS))
class TestEveryMargin:
    def test_finite_with_bounded_slope(self, name):
        norms = torch.full_like(COSINES[:, None], 20.0).requires_grad_()
        margin, batch = of_batch(name, norms, COSINES[:, None])
        sides = [lambda c: margin.positive(c, batch), margin.class_negative(), margin.batch_negative()]
        for side in sides:
            if side is None:
                continue
            c = COSINES[:, None].clone().requires_grad_()
            out = side(c)
            out.sum().backward()
            assert torch.isfinite(out).all()
            assert torch.isfinite(c.grad).all()
            assert c.grad.abs().max() <= 4e4 + 1  # 1e4, times the factor on the angle

    def test_gradcheck_inside(self, name):
        c = torch.linspace(-0.98, 0.98, 23, dtype=torch.float64)[:, None].requires_grad_()
        norms = torch.linspace(11, 100, 23, dtype=torch.float64)[:, None].requires_grad_()
        if name in ("self-paced", "quality"):
            pytest.skip("its weights carry no gradient by definition; the slow loops check the slope")
        margin, _ = of_batch(name, norms, c)
        assert torch.autograd.gradcheck(lambda a, n: margin.positive(a, anchors(n)) + 0 * n, (c, norms))
        for side in (margin.class_negative(), margin.batch_negative()):
            assert side is None or torch.autograd.gradcheck(side, (c,))

    def test_negatives_are_elementwise(self, name):
        """A block of columns gives what the whole gives, so sets can be walked in blocks."""
        c = torch.rand(6, 8, dtype=torch.float64) * 2 - 1
        margin, _ = of_batch(name, torch.full((6, 1), 30.0, dtype=torch.float64), c[:, :1])
        for side in (margin.class_negative(), margin.batch_negative()):
            if side is not None:
                assert torch.equal(side(c), torch.cat([side(c[:, :3]), side(c[:, 3:])], dim=1))
        if margin.batch_negative() is not None:  # a set may be shared by all anchors
            assert torch.equal(margin.batch_negative()(c), torch.cat([margin.batch_negative()(r[None]) for r in c]))

    def test_makes_pairs_harder_or_keeps_their_order(self, name):
        c = torch.linspace(-0.5, 1, 100, dtype=torch.float64)[:, None]
        margin, batch = of_batch(name, torch.full_like(c, 30.0), c)
        positive = margin.positive(c, batch)
        if name not in ("self-paced", "euclidean"):  # other scales than the cosine's
            assert (positive <= c + 1e-12).all()
        if name not in ("quality", "elastic"):  # a margin of its own for each row
            assert (positive.diff(dim=0) > -1e-12).all()

    def test_repr_round_trip_and_equality(self, name):
        margin = MARGINS[name]()
        if isinstance(margin, torch.nn.Module):  # it has state; its settings are named
            assert str(margin.m) in repr(margin)
        else:
            assert eval(repr(margin), {kind.__name__: kind for kind in map(MARGINS.__getitem__, MARGINS)}) == margin


@pytest.mark.parametrize("m", [0.0, 0.3, 0.5, 1.2])
def test_angle_is_added(m):
    c = torch.linspace(-0.999, 0.999, 301, dtype=torch.float64)
    torch.testing.assert_close(add_angle(c, m, "none"), torch.cos(torch.acos(c) + m), rtol=0, atol=1e-14)


@pytest.mark.parametrize("m", [0.3, 0.5])
def test_tails_beyond_pi(m):
    theta = torch.linspace(math.pi - m + 1e-6, math.pi, 50, dtype=torch.float64)
    c = theta.cos()
    torch.testing.assert_close(add_angle(c, m, "linear"), c - m * math.sin(m))
    torch.testing.assert_close(add_angle(c, m, "keep"), c)
    torch.testing.assert_close(add_angle(c, m, "none"), torch.cos(theta + m), rtol=0, atol=1e-9)
    before = torch.linspace(0.01, math.pi - m - 1e-6, 50, dtype=torch.float64)
    for tail in ("none", "linear", "keep"):
        torch.testing.assert_close(add_angle(before.cos(), m, tail), torch.cos(before + m), rtol=0, atol=1e-9)


def test_the_easy_tail_widens_angles_below_a_right_one_alone():
    theta = torch.linspace(0.01, math.pi - 0.01, 200, dtype=torch.float64)
    m = torch.linspace(0.2, 0.8, 200, dtype=torch.float64).requires_grad_()
    given = add_angle(theta.cos(), m, "easy")
    truth = torch.where(theta < math.pi / 2, torch.cos(theta + m), theta.cos())
    torch.testing.assert_close(given, truth, rtol=0, atol=1e-12)
    (pull,) = torch.autograd.grad(given.sum(), m)
    assert ((pull == 0) == (theta >= math.pi / 2)).all()


@pytest.mark.parametrize("tail", ["none", "linear", "keep", "easy", "clamp"])
def test_a_margin_for_each_row_is_the_margin(tail):
    for m in (-0.4, 0.3, 1.2):
        each = add_angle(COSINES, torch.full_like(COSINES, m), tail)
        torch.testing.assert_close(each, add_angle(COSINES, m, tail), rtol=0, atol=1e-15)


def test_rounding_past_the_ends_changes_no_value():
    past = torch.tensor([1 + 1e-7, -1 - 1e-7], dtype=torch.float64)
    assert SelfPaced(0.0).positive(past[:1], None) == 0  # a weight is never negative
    assert Lifted(t=2.5).lift(past[1:]) == -1
    one = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    Euclidean().positive(one, None).sum().backward()
    assert one.grad == 1e4  # nearer is more alike


def test_curriculum_of_a_batch():
    """The threshold goes on beyond pi; a negative on it is not hard; what a batch was given stays what it was."""
    margin, target = MARGINS["curricular"](m=0.5), torch.tensor([[-0.99], [0.4]], dtype=torch.float64)
    batch = margin.for_batch(anchors(torch.ones_like(target)), target)
    torch.testing.assert_close(batch.threshold, torch.cos(target.acos() + 0.5))
    assert torch.equal(batch.class_negative()(batch.threshold), batch.threshold)
    t = batch.t.clone()
    margin.for_batch(anchors(torch.ones_like(target), step=4), target + 0.3)
    assert batch.t == t != margin.targets.mean


def test_quality_is_clipped_on_both_ends():
    margin = Quality(m=0.4, h=0.5).eval()
    margin.lengths.mean.fill_(50.0)
    margin.lengths.std.fill_(20.0 - 1e-3)
    lengths = torch.tensor([[2.0], [40.0], [60.0], [98.0]], dtype=torch.float64)
    z = margin.for_batch(anchors(lengths), None).quality
    torch.testing.assert_close(z, torch.tensor([[-1.0], [-0.25], [0.25], [1.0]], dtype=torch.float64))
    ends = torch.tensor([[-0.999], [0.0], [0.0], [0.999]], dtype=torch.float64)
    positive = margin.for_batch(anchors(lengths), None).positive(ends, None)
    # m (1 + z) off the cosine; at the ends the angle stays in [0, pi].
    expected = [-1.0, math.cos(math.pi / 2 + 0.1) - 0.3, math.cos(math.pi / 2 - 0.1) - 0.5, 1 - 0.8]
    torch.testing.assert_close(positive.squeeze(1), torch.tensor(expected, dtype=torch.float64))
    long = Quality(momentum=1.0)
    long.for_batch(anchors(torch.tensor([[80.0], [3000.0]])), None)
    assert long.lengths.mean == 90  # of 80 and 100


def test_additive():
    assert torch.equal(Additive(0.4).positive(COSINES, None), COSINES - 0.4)


def test_magnitude_follows_the_length():
    margin = Magnitude(l_a=10, u_a=110, l_m=0.45, u_m=0.8)
    lengths = torch.tensor([[1.0], [10.0], [60.0], [110.0], [500.0]], dtype=torch.float64, requires_grad=True)
    expected = torch.tensor([[0.45], [0.45], [0.625], [0.8], [0.8]], dtype=torch.float64)
    torch.testing.assert_close(margin.margin(lengths), expected)
    c = torch.full((5, 1), 0.3, dtype=torch.float64)
    torch.testing.assert_close(margin.positive(c, anchors(lengths)), torch.cos(torch.acos(c) + expected))
    a = torch.tensor([10.0, 10, 60, 110, 110], dtype=torch.float64)
    torch.testing.assert_close(margin.penalty(anchors(lengths)), 35 * (a / 110**2 + 1 / a))
    margin.penalty(anchors(lengths)).sum().backward()
    assert lengths.grad[0] == lengths.grad[4] == 0
    assert lengths.grad[2] < 0  # longer is better
    assert float(margin.statistics(anchors(lengths))["norm/clamped"]) == pytest.approx(0.4)


def test_magnitude_scales_with_the_embedding_size():
    assert Magnitude.for_dim(512) == Magnitude()
    small, paper = Magnitude.for_dim(128), Magnitude()
    assert (small.l_a, small.u_a) == (paper.l_a / 2, paper.u_a / 2)
    lengths = torch.tensor([[20.0], [80.0]])
    torch.testing.assert_close(small.margin(lengths / 2), paper.margin(lengths))
    torch.testing.assert_close(small.penalty(anchors(lengths / 2)), paper.penalty(anchors(lengths)))
    assert Magnitude.for_dim(128, l_a=3.0).l_a == 3.0


def test_slope_at_the_ends_is_the_bound():
    c = torch.tensor([1.0, -1.0], dtype=torch.float64, requires_grad=True)
    Angular(0.5).positive(c, None).sum().backward()
    # slope of c cos m - sin(theta) sin m with dsin/dc = -c / 1e-4
    expected = [math.cos(0.5) + math.sin(0.5) * 1e4, math.cos(0.5) - math.sin(0.5) * 1e4]
    torch.testing.assert_close(c.grad, torch.tensor(expected, dtype=torch.float64))


def test_clamped_tail_stays_at_the_ends():
    theta = torch.tensor([0.05, 0.1, 3.0, 3.1], dtype=torch.float64)
    down = add_angle(theta.cos(), torch.full((4,), -0.2, dtype=torch.float64), "clamp")
    torch.testing.assert_close(down, torch.tensor([1.0, 1.0, math.cos(2.8), math.cos(2.9)], dtype=torch.float64))
    up = add_angle(theta.cos(), 0.2, "clamp")
    torch.testing.assert_close(up, torch.tensor([math.cos(0.25), math.cos(0.3), -1.0, -1.0], dtype=torch.float64))


def test_angle():
    inside = COSINES[1:-3]
    torch.testing.assert_close(angle(inside), inside.acos(), rtol=1e-12, atol=1e-12)
    assert angle(torch.tensor([1.0, -1.0, 1.1], dtype=torch.float64)).tolist() == [0.0, math.pi, 0.0]


@pytest.mark.parametrize(("m1", "m2"), [(1.0, 0.5), (1.5, 0.3), (4.0, 0.0)])
def test_combined_falls_all_the_way(m1, m2):
    c = torch.linspace(1, -1, 2001, dtype=torch.float64)
    falling = Combined(m1, m2, 0.1).positive(c, None)
    assert (falling.diff() < 1e-12).all()
    free = Combined(m1, m2, 0.1, monotone=False).positive(c, None)
    before = m1 * c.acos() + m2 <= math.pi
    torch.testing.assert_close(falling[before], free[before], rtol=0, atol=1e-12)
    torch.testing.assert_close(free, torch.cos(m1 * c.acos() + m2) - 0.1, rtol=0, atol=1e-7)


def test_straight_through_has_the_value_of_one_and_the_slope_of_the_other():
    for margin in (Angular(0.5, gradient="straight_through"), Combined(1.2, 0.3, 0.1, gradient="straight_through")):
        c = COSINES[1:-3].clone().requires_grad_()
        out = margin.positive(c, None)
        out.sum().backward()
        exact = type(margin)(**{**vars(margin), "gradient": "exact"}).positive(c.detach(), None)
        torch.testing.assert_close(out.detach(), exact, rtol=1e-14, atol=1e-15)
        assert (c.grad == 1).all()


def test_annealing_ends_at_its_least():
    margin, c = Annealed(Multiplicative(4.0)), torch.tensor([[0.3]], dtype=torch.float64)
    psi = slow.psi(c.squeeze(), 4)
    for step in (0, 10, 100_000):
        share = slow.sphereface_lambda(step + 1)
        ours = margin.positive(c, anchors(torch.ones_like(c), step)).squeeze()
        torch.testing.assert_close(ours, (share * c.squeeze() + psi) / (1 + share))
    assert margin.share(100_000) == 5
    with pytest.raises(ConfigError, match="step="):
        margin.positive(c, anchors(torch.ones_like(c), None))


def test_annealing_passes_on_what_the_margin_has():
    lengths = torch.tensor([[20.0], [60.0]], dtype=torch.float64)
    batch, margin = anchors(lengths), Magnitude()
    mixed = Annealed(margin).for_batch(batch, None)
    assert torch.equal(mixed.penalty(batch), margin.penalty(batch))
    assert mixed.statistics(batch) == margin.statistics(batch)

    class Doubled(Additive):
        def for_batch(self, batch, target):
            return Additive(2 * self.m)

    c = torch.full((2, 1), 0.5, dtype=torch.float64)
    plain = Annealed(Additive(0.4)).positive(c, batch)
    assert torch.equal(Annealed(Doubled(0.2)).for_batch(batch, None).positive(c, batch), plain)


def test_running_moments_follow_the_batches():
    batches = [torch.rand(7, dtype=torch.float64) * 5 + 20 for _ in range(4)]
    moments = RunningMoments(0.01, mean=20.0, std=100.0).double()
    for values in batches:
        moments.see(values, None)
    features = [torch.nn.functional.pad(values[:, None], (0, 2)) for values in batches]
    mean, std = slow.adaface_statistics(features)
    assert float(moments.mean) == pytest.approx(mean, rel=1e-12)
    assert float(moments.std) == pytest.approx(std, rel=1e-12)


def test_running_moments_update_once_a_step():
    """Two micro-batches of a step are one batch; and what comes of nothing, or of one value, is defined."""
    whole, parts = (RunningMoments(0.1, mean=1.0, std=2.0) for _ in range(2))
    values = torch.rand(10) + 3
    for step in range(3):
        whole.see(values + step, step)
        parts.see(values[:4] + step, step)
        parts.see(values[4:] + step, step)
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.std, whole.std)
    before = whole.state_dict()["mean"].clone()
    whole.see(torch.zeros(0), 3)
    assert whole.mean == before
    whole.see(torch.tensor([torch.nan, torch.inf]), 3)
    assert whole.mean == before
    std = whole.std.clone()
    whole.see(torch.tensor([9.0]), 4)
    assert whole.std == std
    assert whole.mean > before


def test_quality_statistics_are_detached():
    margin = Quality()
    norms = torch.tensor([[15.0], [25.0], [300.0]], requires_grad=True)
    of = margin.for_batch(anchors(norms), None)
    assert not margin.lengths.mean.requires_grad
    assert not of.quality.requires_grad
    assert not of.positive(torch.full((3, 1), 0.5), anchors(norms)).requires_grad


def test_elastic_draws_are_normal_and_belong_to_the_sample():
    margin = Elastic("arc", m=0.5, sigma=0.1, seed=1)
    n = 20_000
    batch = anchors(torch.ones(n, 1))
    batch = Anchors(**{**vars(batch), "sample_ids": torch.arange(n)})
    drawn = margin.for_batch(batch, None).m.squeeze(1)
    assert float(drawn.mean()) == pytest.approx(0.5, abs=5 * 0.1 / math.sqrt(n))
    assert float(drawn.std()) == pytest.approx(0.1, rel=0.03)
    inside = ((drawn - 0.5).abs() < 0.1).float().mean()
    assert float(inside) == pytest.approx(0.6827, abs=0.02)
    order = torch.randperm(n)
    mixed = margin.for_batch(Anchors(**{**vars(batch), "sample_ids": order}), None).m.squeeze(1)
    assert torch.equal(mixed, drawn[order])
    later = margin.for_batch(Anchors(**{**vars(batch), "step": 4}), None).m.squeeze(1)
    assert abs(float(torch.corrcoef(torch.stack([drawn, later]))[0, 1])) < 0.05
    other = Elastic("arc", m=0.5, sigma=0.1, seed=2).for_batch(batch, None).m.squeeze(1)
    assert abs(float(torch.corrcoef(torch.stack([drawn, other]))[0, 1])) < 0.05
    unnumbered = Anchors(**{**vars(batch), "step": None})
    first, second = (margin.for_batch(unnumbered, None).m for _ in range(2))
    assert not torch.equal(first, second)
    margin.eval()
    assert (margin.for_batch(batch, None).m == 0.5).all()


def test_elastic_draws_are_finite_at_the_ends(monkeypatch):
    """The largest and the smallest uniform number; float32 would take the first for 1, whose quantile is inf."""
    ends = torch.tensor([1 - 2.0**-24, 0.0, 0.5])
    monkeypatch.setattr("unpg.margins.elastic.uniform", lambda ids, *key: ends)
    drawn = Elastic("cos", m=1.0, sigma=0.1).for_batch(anchors(torch.ones(3, 1)), None).m.squeeze(1)
    largest = math.sqrt(2) * float(torch.erfinv(torch.tensor(1 - 2.0**-24, dtype=torch.float64)))
    torch.testing.assert_close(drawn, torch.tensor([1 + 0.1 * largest, 1 - 0.1 * largest, 1.0]))


def test_elastic_gives_the_hardest_the_largest():
    drawn, target = torch.tensor([[0.4], [0.6], [0.5], [0.55]]), torch.tensor([[0.9], [0.1], [0.3], [0.3]])
    assert Elastic.assign(drawn, target).squeeze(1).tolist() == pytest.approx([0.4, 0.6, 0.5, 0.55])
    expected = slow.elasticface_sorted(drawn.squeeze(1).tolist(), [0.9, 0.1, 0.3, 0.31])
    assert Elastic.assign(drawn, torch.tensor([[0.9], [0.1], [0.3], [0.31]])).squeeze(1).tolist() == expected


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Angular(gradient="none"), "exact, straight_through"),
        (lambda: Combined(m1=0.5), "m1 >= 1"),
        (lambda: Combined(m3=3.0), "m3 in"),
        (lambda: Multiplicative(m=0.5), ">= 1"),
        (lambda: Multiplicative(form="up"), "falling, capped, others"),
        (lambda: Annealed(least=-1.0), ">= 0"),
        (lambda: Annealed(Quality()), "without state"),
        (lambda: Quality(m=0.0), r"\(0, 1.5\]"),
        (lambda: Quality(momentum=0.0), "momentum"),
        (lambda: MARGINS["curricular"](m=4.0), "radians"),
        (lambda: MARGINS["curricular"]().for_batch(anchors(torch.ones(1, 1)), None), "ClassPairs"),
        (lambda: Elastic(form="sine"), "arc, cos"),
        (lambda: Elastic(sigma=-1.0), "sigma"),
        (lambda: Elastic(sort=True).for_batch(anchors(torch.ones(1, 1)), None), "ClassPairs"),
        (lambda: Lifted(t=0.5), "t >= 1"),
        (lambda: SelfPaced(2.0), r"\[0, 1\]"),
    ],
)
def test_bad_settings_say_what_is_allowed(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_euclidean_is_the_distance():
    x, y = torch.nn.functional.normalize(torch.randn(2, 9, 4, dtype=torch.float64), dim=-1)
    ours = Euclidean().positive((x * y).sum(dim=1), None)
    torch.testing.assert_close(ours, -(x - y).norm(dim=1), rtol=1e-9, atol=1e-12)
