import numpy as np
import pytest
import torch

from unpg.data import ArraySet
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
