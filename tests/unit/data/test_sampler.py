from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unpg.data import PKSampler, SequentialSampler, UniformSampler
from unpg.errors import ConfigError


def epoch_of(sampler, epoch):
    return [sampler.batch(epoch, step) for step in range(sampler.steps_per_epoch)]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 5), st.booleans())
def test_uniform_shows_every_image_at_most_once_and_drops_less_than_a_batch(n, size, seed, epoch, drop_last):
    if n < size and drop_last:
        with pytest.raises(ConfigError, match=f"Set batch_size to {n} or less"):
            UniformSampler(n, size, seed)
        return
    batches = epoch_of(UniformSampler(n, size, seed, drop_last), epoch)
    shown = np.concatenate(batches)
    assert len(set(shown.tolist())) == len(shown)
    assert set(shown.tolist()) <= set(range(n))
    assert len(shown) == (n - n % size if drop_last else n)
    assert all(len(b) == size for b in batches[:-1])
    assert all(b.dtype == np.int64 for b in batches)


@pytest.mark.parametrize("make", [lambda s: UniformSampler(40, 8, s), lambda s: PKSampler([0, 1, 2, 3] * 10, 2, 3, s)])
def test_a_batch_depends_on_seed_epoch_and_step_only(make):
    fresh = {(e, s): make(1).batch(e, s).tolist() for e in (0, 3, 7) for s in (0, 2, 4)}
    used = make(1)
    for e, s in [(7, 4), (0, 2), (3, 0), (7, 0), (0, 0), (3, 4), (0, 4), (7, 2), (3, 2)]:
        assert used.batch(e, s).tolist() == fresh[e, s]
    assert np.concatenate(epoch_of(make(1), 0)).tolist() != np.concatenate(epoch_of(make(1), 1)).tolist()
    assert np.concatenate(epoch_of(make(1), 0)).tolist() != np.concatenate(epoch_of(make(2), 0)).tolist()


def test_the_order_of_an_old_run_can_be_had_again():
    # Golden: a change here breaks every run that is resumed. The first was also had in plain Python, sorting
    # range(10) by the hash of tests/unit/transforms/test_counter.py.
    assert np.concatenate(epoch_of(UniformSampler(10, 5, seed=7), 2)).tolist() == [0, 6, 3, 1, 8, 4, 2, 7, 9, 5]
    few = PKSampler([0, 0, 0, 1, 1, 2, 3, 3, 3, 3], 2, 2, seed=7)
    assert np.concatenate(epoch_of(few, 1)).tolist() == [2, 1, 8, 6, 5, 5, 4, 3]


def test_every_image_has_the_same_chance_at_every_place():
    n, epochs = 10, 4000
    places = np.zeros((n, n))
    sampler = UniformSampler(n, n, seed=3)
    for epoch in range(epochs):
        places[np.arange(n), sampler.batch(epoch, 0)] += 1
    chi2 = ((places - epochs / n) ** 2 / (epochs / n)).sum()
    assert chi2 < 81 + 5 * (2 * 81) ** 0.5  # 81 degrees of freedom, five standard deviations


labels_of = st.lists(st.integers(1, 7), min_size=1, max_size=12).map(
    lambda counts: np.repeat(np.arange(len(counts)), counts)
)


@settings(max_examples=100, deadline=None)
@given(labels_of, st.integers(1, 12), st.integers(1, 5), st.integers(0, 100), st.integers(0, 3), st.randoms())
def test_pk_gives_p_identities_with_k_images_fairly(labels, p, k, seed, epoch, random):
    identities = len(set(labels.tolist()))
    labels = np.array(random.sample(labels.tolist(), len(labels)))
    if p > identities:
        with pytest.raises(
            ConfigError, match=f"but the set has {identities} identities. Set it to {identities} or less"
        ):
            PKSampler(labels, p, k, seed)
        return
    sampler = PKSampler(labels, p, k, seed)
    assert sampler.steps_per_epoch >= len(labels) // (p * k)
    visits, images = Counter(), Counter()
    for batch in epoch_of(sampler, epoch):
        assert batch.shape == (p * k,)
        groups = labels[batch].reshape(p, k)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0].tolist())) == p
        for group in batch.reshape(p, k):
            have = (labels == labels[group[0]]).sum()
            assert len(set(group.tolist())) == min(k, have)
        visits.update(groups[:, 0].tolist())
        images.update(batch.tolist())
    assert set(visits) == set(range(identities))
    assert max(visits.values()) - min(visits.values()) <= 1
    for identity in range(identities):
        own = [images[i] for i in np.flatnonzero(labels == identity).tolist()]
        assert max(own) - min(own) <= 1


def test_pk_is_fair_where_a_batch_takes_nearly_all_identities():
    sampler = PKSampler(np.repeat(np.arange(7), 30), 5, 2, seed=0)
    visits = Counter(np.concatenate([b[::2] for b in epoch_of(sampler, 0)]) % 1000 // 30)
    assert max(visits.values()) - min(visits.values()) <= 1


def test_pk_takes_labels_with_gaps():
    labels = np.array([5, 5, 90, 90, 7])
    assert set(labels[PKSampler(labels, 3, 1, seed=0).batch(0, 0)].tolist()) == {5, 7, 90}


def test_sequential_gives_all_in_order():
    assert [b.tolist() for b in epoch_of(SequentialSampler(5, 2), 9)] == [[0, 1], [2, 3], [4]]
    assert SequentialSampler(0, 2).steps_per_epoch == 0


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match="batch_size must be >= 1, got 0"):
        UniformSampler(5, 0, 0)
    with pytest.raises(ConfigError, match="batch_size must be >= 1"):
        SequentialSampler(5, 0)
    with pytest.raises(ConfigError, match="has 0 images"):
        UniformSampler(0, 4, 0, drop_last=False)
    with pytest.raises(ConfigError, match="identities_per_batch must be >= 1"):
        PKSampler([0, 1], 0, 2, 0)
    with pytest.raises(ConfigError, match="images_per_identity must be >= 1"):
        PKSampler([0, 1], 2, 0, 0)


@pytest.mark.parametrize("step", [-1, 3])
@pytest.mark.parametrize(
    "sampler", [SequentialSampler(6, 2), UniformSampler(6, 2, 0), PKSampler([0, 1, 0, 1, 0, 1], 2, 1, 0)]
)
def test_a_step_outside_of_the_epoch_is_our_own_mistake(sampler, step):
    with pytest.raises(IndexError, match=r"not in \[0, 3\)"):
        sampler.batch(0, step)
