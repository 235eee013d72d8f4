import numpy as np
import pytest

from unpg.data import ArraySet, ImageSet, Subset, select_identities, split_identities
from unpg.errors import ConfigError, DataError, ShapeError


def small(n=12, identities=4, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (n, 4, 5, 3), dtype=np.uint8)
    return ArraySet(images, np.arange(n) % identities, [f"person {i}" for i in range(identities)])


def test_array_set_is_an_image_set():
    data = small()
    assert isinstance(data, ImageSet)
    assert len(data) == 12
    assert data.image_size == (4, 5)
    assert data.labels.dtype == np.int64
    assert (data.read(3) == data.images[3]).all()
    assert data.name(5) == "person 1/5"


def test_names_can_be_given():
    data = ArraySet(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1]), ["a", "b"], names=["x", "y"])
    assert data.name(1) == "y"


@pytest.mark.parametrize("change", ["pixel", "label", "identity", "name"])
def test_digest_changes_with_anything_that_makes_another_set(change):
    a, b = small(), small()
    assert a.digest() == b.digest()
    if change == "pixel":
        b.images[0, 0, 0, 0] ^= 1
    elif change == "label":
        b.labels[0] = 3
    elif change == "identity":
        b.identities[0] = "someone"
    else:
        b = ArraySet(b.images, b.labels, b.identities, names=[str(i) for i in range(12)])
    assert a.digest() != b.digest()


def test_a_label_without_identity_is_named():
    with pytest.raises(DataError, match=r"label 2 of image 1 is not in \[0, 2\)"):
        ArraySet(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 2]), ["a", "b"])
    with pytest.raises(DataError, match="label -1 of image 0"):
        ArraySet(np.zeros((2, 4, 4, 3), np.uint8), np.array([-1, 1]), ["a", "b"])


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="float64"):
        ArraySet(np.zeros((2, 4, 4, 3)), np.array([0, 1]), ["a", "b"])
    with pytest.raises(ShapeError, match="2 images, 3 labels"):
        ArraySet(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1, 1]), ["a", "b"])
    with pytest.raises(ShapeError, match="1 names"):
        ArraySet(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1]), ["a", "b"], names=["x"])
    with pytest.raises(ShapeError, match=r"labels must have shape \(n,\)"):
        ArraySet(np.zeros((2, 4, 4, 3), np.uint8), np.array([[0], [1]]), ["a", "b"])


def test_subset_relabels_without_gaps_and_keeps_the_order():
    data = small()
    part = Subset(data, [7, 3, 1])
    assert isinstance(part, ImageSet)
    assert part.identities == ["person 1", "person 3"]
    assert part.labels.tolist() == [1, 1, 0]
    assert part.name(0) == data.name(7)
    assert (part.read(2) == data.images[1]).all()
    assert part.digest() != Subset(data, [3, 7, 1]).digest()
    assert part.digest() == Subset(small(), [7, 3, 1]).digest()


@pytest.mark.parametrize(("indices", "match"), [([0, 12], "index 12"), ([-1], "index -1"), ([2, 2], "twice")])
def test_subset_refuses_indices_that_make_no_set(indices, match):
    with pytest.raises(DataError, match=match):
        Subset(small(), indices)


def test_select_identities_by_name():
    part = select_identities(small(), ["person 3", "person 0"])
    assert part.identities == ["person 0", "person 3"]
    assert part.indices.tolist() == [0, 3, 4, 7, 8, 11]
    with pytest.raises(DataError, match=r"no identity 'persn 3'. Did you mean 'person 3'"):
        select_identities(small(), ["persn 3"])


def test_split_puts_every_image_on_one_side_and_no_person_on_both():
    data = small(100, 20)
    rest, held = split_identities(data, 0.25, seed=1)
    assert len(held.identities) == 5
    assert not set(rest.identities) & set(held.identities)
    assert sorted([*rest.indices.tolist(), *held.indices.tolist()]) == list(range(100))
    again = split_identities(data, 0.25, seed=1)[1]
    assert again.identities == held.identities
    others = {tuple(split_identities(data, 0.25, seed=s)[1].identities) for s in range(6)}
    assert len(others) > 3


def test_split_refuses_sides_without_two_people():
    with pytest.raises(DataError, match="leaves 3 and 1"):
        split_identities(small(), 0.25, seed=0)
    with pytest.raises(ConfigError, match=r"in \(0, 1\), got 1"):
        split_identities(small(), 1.0, seed=0)
