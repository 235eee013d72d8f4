"""Reductions against torch on dense matrices; empty sets; gradients where torch's own are NaN."""

import pytest
import torch

from unpg.similarity import (
    DifferentLabel,
    EachPairOnce,
    NotOwnClass,
    SameLabel,
    SimilaritySet,
    log_add_exp,
    masked_logsumexp,
    normalize,
    softplus,
)


def test_masked_logsumexp_equals_torch_on_what_is_in():
    values = torch.randn(20, 30, dtype=torch.float64) * 50
    mask = torch.rand(20, 30) < 0.3
    mask[:, 0] = True
    expected = torch.stack([row[m].logsumexp(0) for row, m in zip(values, mask, strict=True)])
    torch.testing.assert_close(masked_logsumexp(values, mask), expected, rtol=1e-14, atol=1e-14)


def test_masked_logsumexp_gradients_with_empty_and_huge_rows():
    values = torch.tensor([[1.0, 2.0], [1e30, 5.0], [0.0, 0.0]], requires_grad=True)
    mask = torch.tensor([[True, True], [False, True], [False, False]])
    out = masked_logsumexp(values, mask)
    assert out[2] == -torch.inf
    out[:2].sum().backward()
    expected = torch.stack([torch.tensor([1.0, 2.0]).softmax(0), torch.tensor([0.0, 1.0]), torch.zeros(2)])
    torch.testing.assert_close(values.grad, expected)
    values.grad = None
    softplus(masked_logsumexp(values, mask)).sum().backward()  # a loss over an empty row
    assert torch.isfinite(values.grad).all()
    assert masked_logsumexp(torch.zeros(3, 0), torch.zeros(3, 0, dtype=torch.bool)).tolist() == [-torch.inf] * 3


def test_masked_logsumexp_gradcheck():
    mask = torch.rand(5, 7) < 0.5
    mask[:, 0] = True
    assert torch.autograd.gradcheck(
        lambda v: masked_logsumexp(v, mask), torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    )


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


def test_normalize():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-18, 0.0]], requires_grad=True)
    unit, norms = normalize(x)
    torch.testing.assert_close(unit.detach(), torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))
    torch.testing.assert_close(norms.detach(), torch.tensor([[5.0], [0.0], [1e-18]]))
    (unit.sum() + norms.sum()).backward()
    assert torch.equal(x.grad[1], torch.zeros(2))
    assert normalize(torch.full((1, 4), 300.0, dtype=torch.float16)).norms == 600
    assert torch.autograd.gradcheck(
        lambda v: tuple(normalize(v)), torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    )


LABELS = torch.tensor([0, 1, 0, 2, 2])


def brute(condition):
    return torch.tensor([[condition(i, j) for j in range(5)] for i in range(5)])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (DifferentLabel(LABELS), brute(lambda i, j: bool(LABELS[i] != LABELS[j]))),
        (SameLabel(LABELS), brute(lambda i, j: bool(LABELS[i] == LABELS[j]) and i != j)),
        (EachPairOnce(DifferentLabel(LABELS), 5), brute(lambda i, j: bool(LABELS[i] != LABELS[j]) and i < j)),
        (NotOwnClass(LABELS), brute(lambda i, j: int(LABELS[i]) != j)),
    ],
)
def test_rules_and_their_blocks(rule, expected):
    assert torch.equal(rule(0, 5), expected)
    assert torch.equal(torch.cat([rule(0, 2), rule(2, 3), rule(3, 5)], dim=1), expected)


@pytest.mark.parametrize("shared", [False, True])
def test_reductions_of_a_set(shared):
    x = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64))
    s = SimilaritySet(x, x, DifferentLabel(LABELS), shared=shared)
    matrix, mask = x @ x.T, DifferentLabel(LABELS)(0, 5)
    rows = [matrix[mask]] if shared else [row[m] for row, m in zip(matrix, mask, strict=True)]
    torch.testing.assert_close(s.logsumexp(7.0), torch.stack([(7 * r).logsumexp(0) for r in rows]))
    torch.testing.assert_close(
        s.logsumexp(-7.0, lambda c: c - 0.1), torch.stack([(-7 * (r - 0.1)).logsumexp(0) for r in rows])
    )
    torch.testing.assert_close(s.maximum(), torch.stack([r.max() for r in rows]))
    assert s.count().tolist() == s.count_offered().tolist() == [len(r) for r in rows]
    torch.testing.assert_close(s.mean(), matrix[mask].mean())


def test_a_set_of_nothing():
    x = torch.zeros(0, 4)
    s = SimilaritySet(x, x, DifferentLabel(torch.zeros(0, dtype=torch.int64)), shared=True)
    assert s.logsumexp(1.0).tolist() == [-torch.inf]
    assert s.maximum().tolist() == [-torch.inf]
    assert s.count().tolist() == [0]
