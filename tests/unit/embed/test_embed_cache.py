import os

import numpy as np
import pytest
import torch
from PIL import Image

from unpg.data import ArraySet, FolderSet, Subset
from unpg.data.convert import convert
from unpg.data.joined import JoinedSet
from unpg.data.open_source import open_source
from unpg.embed import Model, cached_embed, embed, embedding_key
from unpg.errors import DataError


class Counted(ArraySet):
    reads = 0
    broken = frozenset()

    def read(self, i):
        self.reads += 1
        if i in self.broken:
            raise DataError(f"{self.name(i)} is broken.")
        return super().read(i)


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    return Counted(pixels, np.array([0, 1, 1, 0, 1]), ["a", "b"])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model.create("small_iresnet", dim=4, input_size=(16, 16), widths=(2, 2, 2, 2))


def test_the_second_time_reads_no_image(tmp_path, model, images):
    first = cached_embed(tmp_path / "c", model, images, flip="sum", batch_size=2)
    assert images.reads == 5
    second = cached_embed(tmp_path / "c", model, images, flip="sum", batch_size=2)
    assert images.reads == 5
    assert np.array_equal(first.vectors, second.vectors)
    assert np.array_equal(first.vectors, embed(model, images, flip="sum", batch_size=2).vectors)
    assert list(first.names) == list(second.names)


def test_other_weights_or_settings_never_meet_an_old_file(tmp_path, model, images):
    before = cached_embed(tmp_path, model, images)
    model.backbone.fc.weight.data *= -1
    after = cached_embed(tmp_path, model, images)
    assert images.reads == 10
    assert not np.allclose(before.vectors, after.vectors)
    part = cached_embed(tmp_path, model, images, indices=[4, 1])
    assert images.reads == 12
    np.testing.assert_allclose(part.vectors, after.vectors[[4, 1]], rtol=1e-4, atol=1e-6)


def test_gaps_are_not_kept(tmp_path, model, images):
    images.broken = frozenset({2})
    assert cached_embed(tmp_path, model, images, on_error="skip").unreadable == [images.name(2)]
    assert list(tmp_path.iterdir()) == []
    images.broken = frozenset()
    assert cached_embed(tmp_path, model, images, on_error="skip").readable.all()


def test_a_broken_file_in_the_cache_is_named(tmp_path, model, images):
    cached_embed(tmp_path, model, images)
    path = tmp_path / f"{embedding_key(model, images)}.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=path.name):
        cached_embed(tmp_path, model, images)


def folder_of(path, values):
    for who, value in values.items():
        (path / who).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (value, 0, 0)).save(path / who / "0.bmp")
    return FolderSet(path)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: Subset(s, [1, 0]), lambda s: JoinedSet({"x": s})])
def test_an_image_replaced_by_one_of_the_same_size_is_embedded_anew(tmp_path, model, wrap):
    data = wrap(folder_of(tmp_path / "f", {"a": 10, "b": 250}))
    before = cached_embed(tmp_path / "c", model, data)
    again = wrap(folder_of(tmp_path / "f", {"a": 250, "b": 10}))
    assert again.digest() == data.digest()
    after = cached_embed(tmp_path / "c", model, again)
    assert not np.allclose(before.vectors, after.vectors)
    assert np.array_equal(after.vectors, embed(model, again).vectors)


@pytest.mark.parametrize("form", ["recordio", "webdataset", "lmdb", "csv", "folder"])
def test_a_container_that_changed_has_another_key(tmp_path, monkeypatch, model, form):
    pytest.importorskip("lmdb")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    convert(folder_of(tmp_path / "f", {"a": 10, "b": 250}), tmp_path / "s", form)
    key = embedding_key(model, open_source(tmp_path / "s"))
    assert embedding_key(model, open_source(tmp_path / "s")) == key
    for file in (tmp_path / "s").rglob("*.*"):
        os.utime(file, ns=(0, 0))
    assert embedding_key(model, open_source(tmp_path / "s")) != key
