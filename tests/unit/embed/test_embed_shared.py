import numpy as np
import pytest
import torch
from PIL import Image

from unpg.data import FolderSet
from unpg.data.listed import ListedSet
from unpg.data.pairs import PairImages, csv_pairs
from unpg.data.stretched import StretchedSet
from unpg.embed import Model, SharedEmbeddings, cached_embed, embed


@pytest.fixture
def tree(tmp_path):
    rng = np.random.default_rng(0)
    for who in "abc":
        (tmp_path / "set" / who).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / who / f"{i}.png")
    (tmp_path / "pairs.csv").write_text("path_a,path_b,same\nset/a/0.png,set/a/2.png,1\nset/b/1.png,set/c/1.png,0\n")
    return tmp_path


def network(seed=0):
    torch.manual_seed(seed)
    return Model.create("small_iresnet", dim=4, input_size=(16, 16), widths=(2, 2, 2, 2))


@pytest.mark.parametrize("flip", ["none", "concat"])
def test_a_file_in_two_sets_is_embedded_once(tree, flip):
    whole, part = FolderSet(tree / "set"), PairImages(csv_pairs(tree / "pairs.csv"))
    shared = SharedEmbeddings(network(), flip=flip, batch_size=2)
    shared(whole)
    assert shared.embedded == 9
    found = shared(part)
    assert shared.embedded == 9
    alone = embed(network(), part, flip=flip)
    np.testing.assert_allclose(found.vectors, alone.vectors, atol=1e-6)
    np.testing.assert_allclose(found.norms, alone.norms, rtol=1e-5)
    assert list(found.names) == list(alone.names)
    assert shared(whole) is shared(whole)


def test_the_smaller_set_first_saves_its_share(tree):
    shared = SharedEmbeddings(network())
    shared(PairImages(csv_pairs(tree / "pairs.csv")))
    assert shared.embedded == 4
    whole = shared(FolderSet(tree / "set"))
    assert shared.embedded == 9
    np.testing.assert_allclose(whole.vectors, embed(network(), FolderSet(tree / "set")).vectors, atol=1e-6)


def test_every_set_is_kept_on_disk_by_what_it_depends_on(tree):
    whole, part = FolderSet(tree / "set"), PairImages(csv_pairs(tree / "pairs.csv"))
    first = SharedEmbeddings(network(), tree / "cache")
    first(whole), first(part)
    again = SharedEmbeddings(network(), tree / "cache")
    np.testing.assert_array_equal(again(part).vectors, first(part).vectors)
    assert again.embedded == 0
    for other in (
        SharedEmbeddings(network(1), tree / "cache"),
        SharedEmbeddings(network(), tree / "cache", flip="sum"),
    ):
        other(part)
        assert other.embedded == 4
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tree / "set" / "a" / "0.png")  # another image, another size
    changed = SharedEmbeddings(network(), tree / "cache")
    changed(FolderSet(tree / "set"))
    assert changed.embedded == 9


def test_a_stretched_image_is_not_the_file(tree):
    files = ["a/0.png", "a/1.png"]
    shared = SharedEmbeddings(network())
    plain = shared(ListedSet("list", tree / "set", files, ["a", "a"]))
    stretched = StretchedSet("list", tree / "set", files, ["a", "a"], (24, 20))
    assert stretched.read(0).shape == (24, 20, 3)
    assert "at 24 x 20" in stretched.name(0)
    assert stretched.digest() != StretchedSet("list", tree / "set", files, ["a", "a"], (20, 24)).digest()
    same_size = StretchedSet("list", tree / "set", files, ["a", "a"], (16, 16))
    again = shared(same_size)
    assert shared.embedded == 4  # not taken from the plain list, though it would be the same here
    np.testing.assert_allclose(again.vectors, plain.vectors, atol=1e-5)


def test_a_cache_names_images_by_where_they_lie_now(tree):
    SharedEmbeddings(network(), tree / "cache")(FolderSet(tree / "set"))
    cached_embed(tree / "cache", network(), FolderSet(tree / "set"), indices=[4, 0])
    (tree / "set").rename(tree / "moved")
    moved = FolderSet(tree / "moved")
    again = SharedEmbeddings(network(), tree / "cache")
    assert list(again(moved).names) == [moved.name(i) for i in range(9)]
    assert again.embedded == 0
    assert list(cached_embed(tree / "cache", network(), moved, indices=[4, 0]).names) == [moved.name(4), moved.name(0)]
    assert len(list((tree / "cache").iterdir())) == 2


def test_nothing_that_changes_embeddings_goes_round_the_key(tree):
    for option in ({"precision": "bf16"}, {"on_error": "skip"}, {"indices": [0]}):
        with pytest.raises(TypeError, match=next(iter(option))):
            SharedEmbeddings(network(), tree / "cache", **option)
