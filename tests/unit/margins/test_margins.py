"""Margins against their formulas, and what every registered margin must be."""

import math

import pytest
import torch

from unpg.margins import MARGINS, Additive, Angular, Magnitude, add_angle

COSINES = torch.cat([torch.linspace(-1, 1, 401, dtype=torch.float64), torch.tensor([-1 - 1e-7, 1 + 1e-7]).double()])


@pytest.mark.parametrize("name", list(MARGINS))
class TestEveryMargin:
    def test_finite_with_bounded_slope(self, name):
        c = COSINES[:, None].clone().requires_grad_()
        norms = torch.full_like(c, 20.0).detach().requires_grad_()
        out = MARGINS[name]().positive(c, norms)
        out.sum().backward()
        assert torch.isfinite(out).all()
        assert torch.isfinite(c.grad).all()
        assert c.grad.abs().max() <= 1e4 + 1

    def test_gradcheck_inside(self, name):
        c = torch.linspace(-0.98, 0.98, 23, dtype=torch.float64)[:, None].requires_grad_()
        norms = torch.linspace(11, 100, 23, dtype=torch.float64)[:, None].requires_grad_()
        assert torch.autograd.gradcheck(lambda a, n: MARGINS[name]().positive(a, n) + 0 * n, (c, norms))

    def test_makes_the_positive_harder(self, name):
        c = torch.linspace(-0.5, 1, 100, dtype=torch.float64)[:, None]
        assert (MARGINS[name]().positive(c, torch.full_like(c, 30.0)) <= c + 1e-15).all()

    def test_repr_round_trip_and_equality(self, name):
        margin = MARGINS[name]()
        assert eval(repr(margin), {type(margin).__name__: type(margin)}) == margin


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


def test_additive():
    assert torch.equal(Additive(0.4).positive(COSINES, COSINES), COSINES - 0.4)


def test_magnitude_follows_the_length():
    margin = Magnitude(l_a=10, u_a=110, l_m=0.45, u_m=0.8)
    lengths = torch.tensor([[1.0], [10.0], [60.0], [110.0], [500.0]], dtype=torch.float64, requires_grad=True)
    expected = torch.tensor([[0.45], [0.45], [0.625], [0.8], [0.8]], dtype=torch.float64)
    torch.testing.assert_close(margin.margin(lengths), expected)
    c = torch.full((5, 1), 0.3, dtype=torch.float64)
    torch.testing.assert_close(margin.positive(c, lengths), torch.cos(torch.acos(c) + expected))
    a = torch.tensor([10.0, 10, 60, 110, 110], dtype=torch.float64)
    torch.testing.assert_close(margin.penalty(lengths), 35 * (a / 110**2 + 1 / a))
    margin.penalty(lengths).sum().backward()
    assert lengths.grad[0] == lengths.grad[4] == 0
    assert lengths.grad[2] < 0  # longer is better
    assert float(margin.statistics(lengths)["norm/clamped"]) == pytest.approx(0.4)


def test_magnitude_scales_with_the_embedding_size():
    assert Magnitude.for_dim(512) == Magnitude()
    small, paper = Magnitude.for_dim(128), Magnitude()
    assert (small.l_a, small.u_a) == (paper.l_a / 2, paper.u_a / 2)
    lengths = torch.tensor([[20.0], [80.0]])
    torch.testing.assert_close(small.margin(lengths / 2), paper.margin(lengths))
    torch.testing.assert_close(small.penalty(lengths / 2), paper.penalty(lengths))
    assert Magnitude.for_dim(128, l_a=3.0).l_a == 3.0


def test_slope_at_the_ends_is_the_bound():
    c = torch.tensor([1.0, -1.0], dtype=torch.float64, requires_grad=True)
    Angular(0.5).positive(c, c).sum().backward()
    # slope of c cos m - sin(theta) sin m with dsin/dc = -c / 1e-4
    expected = [math.cos(0.5) + math.sin(0.5) * 1e4, math.cos(0.5) - math.sin(0.5) * 1e4]
    torch.testing.assert_close(c.grad, torch.tensor(expected, dtype=torch.float64))
