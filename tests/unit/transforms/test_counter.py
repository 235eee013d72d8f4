import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unpg.transforms.counter import hash64, uniform

ANY = st.integers(-(2**63), 2**63 - 1)


def slow_hash(i, *key):
    """The same definition in Python's unbounded integers."""
    mask = 2**64 - 1

    def mix(z):
        z &= mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    start = 0
    for part in key:
        start = mix((start ^ (part & mask)) + 0x9E3779B97F4A7C15)
    return mix(i * 0x9E3779B97F4A7C15 + start)


def test_without_a_key_it_is_splitmix64_with_its_published_outputs():
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert hash64(torch.arange(1, 5)).numpy().view(np.uint64).tolist() == expected


@given(ANY, st.lists(ANY, max_size=4))
def test_equals_unbounded_integer_arithmetic(i, key):
    got = hash64(torch.tensor([i]), *key).numpy().view(np.uint64)[0]
    assert int(got) == slow_hash(i, *key)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=30), st.randoms())
def test_neither_order_nor_company_changes_a_draw(ids, random):
    alone = {i: uniform(torch.tensor([i]), 3, 5).item() for i in ids}
    random.shuffle(ids)
    assert uniform(torch.tensor(ids), 3, 5).tolist() == [alone[i] for i in ids]


@pytest.mark.parametrize("vary", ["id", "seed", "epoch", "operation"])
def test_uniform_and_uncorrelated_along_every_axis_of_the_key(vary):
    n = 20_000
    if vary == "id":
        u = uniform(torch.arange(n), 1, 2, 3)
    else:
        place = ["seed", "epoch", "operation"].index(vary)
        u = torch.stack([uniform(torch.tensor(7), *[i if p == place else 4 for p in range(3)]) for i in range(n // 10)])
    u = u.double().numpy()
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    chi2 = ((counts - len(u) / 20) ** 2 / (len(u) / 20)).sum()
    assert chi2 < 45  # 19 degrees of freedom: p < 0.001 above 43.8
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / np.sqrt(len(u))


def test_the_order_of_the_key_counts():
    assert hash64(torch.arange(4), 1, 2).tolist() != hash64(torch.arange(4), 2, 1).tolist()
