"""Who is in a rendered set: splits, flips and near-twins whose truth is known."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unpg.data import Loader, SequentialSampler, Subset
from unpg.data.image_set import ArraySet, truth_of
from unpg.data.label_noise import Truth
from unpg.data.source import SOURCES
from unpg.data.synthetic import Identity, Noise, SyntheticFaces, sample_identity
from unpg.data.synthetic.population import TWIN_STEP, Population, person
from unpg.errors import ConfigError, DataError, ShapeError

SMALL = (16, 16)
NOISY = Noise(split_identities=0.2, flipped_labels=0.1, twins=0.1)


@given(
    identities=st.integers(2, 60),
    split=st.floats(0, 0.25),
    twins=st.floats(0, 0.25),
    seed=st.integers(0, 5),
    first=st.integers(0, 3),
)
def test_counts_are_the_shares_and_every_link_holds(identities, split, twins, seed, first):
    try:
        who = Population(identities, seed, first, Noise(split, 0.0, twins))
    except ConfigError:
        assert 2 * (round(split * identities) + round(twins * identities)) > identities
        return
    k = np.arange(identities)
    assert len(who) == len(set(who.names)) == identities
    assert who.names == sorted(who.names)
    assert (who.first != k).sum() == round(split * identities)
    assert (who.twin_of >= 0).sum() == round(twins * identities)
    for label in range(identities):
        assert who.people[who.first[label]] == who.people[label]
        if who.twin_of[label] >= 0:
            assert who.people[label] == -1 - who.people[who.twin_of[label]]
    assert len(set(who.people.tolist())) == identities - round(split * identities)
    # Nobody is both split and the model of a twin, so each knob can be judged alone.
    assert not set(who.first[who.first != k]) & set(who.twin_of[who.twin_of >= 0])


def test_without_noise_people_are_numbers_and_truth_is_the_label():
    faces = SyntheticFaces(4, 3, seed=2, first_identity=7, size=SMALL)
    assert faces.population.people.tolist() == [7, 8, 9, 10]
    assert np.array_equal(faces.true_labels, faces.labels)
    assert truth_of(faces) is None
    assert faces.parameters(4)[0] == sample_identity(2, 8)


def test_a_twin_stands_a_small_step_from_its_model_toward_one_person():
    one, twin = person(3, 5), person(3, -6)
    assert one == sample_identity(3, 5)
    moved = {f.name: getattr(twin, f.name) - getattr(one, f.name) for f in dataclasses.fields(Identity)}
    assert sum(abs(step) > 1e-6 for step in moved.values()) > 30
    for name, step in moved.items():
        low, high = Identity.limits()[name]
        other = getattr(one, name) + step / TWIN_STEP
        assert low - 1e-9 <= other <= high + 1e-9
    stranger = person(3, 6)
    far = [abs(getattr(stranger, f) - getattr(one, f)) for f in moved]
    assert np.mean(np.abs(list(moved.values()))) < 0.5 * np.mean(far)


def test_pixels_follow_the_truth_and_no_picture_comes_twice():
    clean = SyntheticFaces(20, 4, seed=1, size=SMALL)
    noisy = SyntheticFaces(20, 4, seed=1, size=SMALL, noise=NOISY)
    wrong = noisy.true_labels != noisy.labels
    flipped = noisy.true_labels != noisy.population.first[noisy.labels]
    assert flipped.sum() == 8
    assert wrong.sum() > flipped.sum()  # second halves of split identities too
    names = dict(zip(clean.identities, range(20), strict=True))
    a, b = clean.materialize().images, noisy.materialize().images
    for i in np.flatnonzero(~wrong).tolist():
        label, view = divmod(i, 4)
        if (where := names.get(noisy.identities[label])) is not None and noisy.population.people[label] >= 0:
            assert np.array_equal(b[i], a[4 * where + view]), "a right label shows what it shows without noise"
    assert len(np.unique(b.reshape(len(b), -1), axis=0)) == len(b)
    for i in np.flatnonzero(flipped).tolist():
        shown = noisy.population.person(int(noisy.true_labels[i]))
        assert noisy.parameters(i)[0] == shown
        assert shown != noisy.population.person(int(noisy.labels[i]))


def test_the_same_seed_gives_the_same_noise_and_another_seed_another():
    sets = [SyntheticFaces(20, 4, seed=s, size=SMALL, noise=NOISY) for s in (1, 1, 2)]
    assert np.array_equal(sets[0].true_labels, sets[1].true_labels)
    assert sets[0].identities == sets[1].identities
    assert sets[0].digest() == sets[1].digest() != sets[2].digest()
    assert not np.array_equal(sets[0].true_labels, sets[2].true_labels)
    assert sets[0].digest() != SyntheticFaces(20, 4, seed=1, size=SMALL).digest()
    again = pickle.loads(pickle.dumps(sets[0]))
    assert np.array_equal(again.read(9), sets[0].read(9))


def test_the_truth_outlives_memory_and_parts():
    noisy = SyntheticFaces(10, 3, seed=1, size=SMALL, noise=NOISY)
    kept = noisy.materialize()
    assert np.array_equal(truth_of(kept).labels, noisy.true_labels)
    assert truth_of(SyntheticFaces(3, 2, size=SMALL).materialize()) is None
    part = Subset(noisy, np.flatnonzero(noisy.labels >= 4))
    truth, whole = truth_of(part), truth_of(noisy)
    labels, twins = whole.labels[part.indices], whole.twin_of[part.indices]
    assert np.array_equal(truth.labels[:, None] == truth.labels, labels[:, None] == labels), "the same people"
    assert np.array_equal(truth.labels[:, None] == truth.twin_of, labels[:, None] == twins), "the same twins"
    assert (twins >= 0).any()
    right = labels == noisy.labels[part.indices]
    assert np.array_equal(truth.labels[right], part.labels[right])
    assert truth_of(Subset(kept, [0, 3])) is not None
    with pytest.raises(ShapeError, match="one true label per image"):
        ArraySet(kept.images, kept.labels, kept.identities, truth=Truth(kept.labels[:3], kept.labels[:3]))


def test_a_loader_reads_a_rendered_batch_at_once_with_the_same_pixels():
    faces = SyntheticFaces(6, 2, seed=3, size=SMALL)
    kept = faces.materialize()
    part = np.array([1, 4, 5, 8, 10, 11])
    for rendered, stored in ((faces, kept), (Subset(faces, part), Subset(kept, part))):
        pairs = zip(*(Loader(s, SequentialSampler(len(s), 4)).epoch(0) for s in (rendered, stored)), strict=True)
        for a, b in pairs:
            assert a.images.equal(b.images)
            assert a.labels.equal(b.labels)
            assert a.sample_ids.equal(b.sample_ids)
    assert Subset(kept, part).read_many is None


def test_workers_render_the_same_pixels():
    faces = SyntheticFaces(4, 2, seed=3, size=SMALL)
    with Loader(faces, SequentialSampler(8, 3), workers=1) as loader:
        images = np.concatenate([batch.images.numpy() for batch in loader.epoch(0)])
    assert np.array_equal(images, faces.materialize().images)


def test_sources_on_demand_and_in_memory_are_the_same_pictures():
    settings = {"identities": 10, "views": 2, "size": [16, 16], "twins": 0.1, "variation": {"yaw": [0, 10]}}
    demand = SOURCES.build("synthetic", {**settings, "on_demand": True})
    memory = SOURCES.build("synthetic", settings)
    assert isinstance(memory, ArraySet)
    assert demand.identities == memory.identities
    assert np.array_equal(demand.read_many(range(20)), memory.images)
    assert all(0 <= demand.parameters(i)[1].pose.yaw <= 10 for i in range(20))
    assert SOURCES.build("synthetic", settings) is memory


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"twins": 1.2}, "Noise.twins is a share"),
        ({"split_identities": 0.3, "twins": 0.3}, "may be 0.5 together"),
        ({"flipped_labels": -0.1}, "Noise.flipped_labels"),
        ({"variation": {"yav": [0, 1]}}, "Did you mean 'yaw'"),
        ({"variation": {"yaw": [5, 1]}}, "Variation.yaw"),
        ({"size": [16]}, "height and width"),
        ({"views": 0}, "views must be a whole number"),
        ({"identities": 3, "split_identities": 0.5}, "only 1 are left"),
    ],
)
def test_settings_that_do_not_fit_are_said(settings, match):
    with pytest.raises(ConfigError, match=match):
        SOURCES.build("synthetic", {"identities": 4, "views": 2, "size": [16, 16], **settings})


def test_flips_need_two_people():
    with pytest.raises(DataError, match="two identities or more"):
        SyntheticFaces(1, 4, size=SMALL, noise=Noise(flipped_labels=0.5))
