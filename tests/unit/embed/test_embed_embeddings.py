import numpy as np
import pytest
import torch

from unpg.embed import Embeddings
from unpg.embed.tensor_file import read_tensors, write_tensors
from unpg.errors import DataError, ShapeError


def some(n=4, d=3, **changes):
    rng = np.random.default_rng(n)
    arrays = {
        "vectors": rng.normal(size=(n, d)).astype(np.float32),
        "norms": rng.random(n).astype(np.float32),
        "labels": rng.integers(0, 9, n),
        "names": [f"Zoë/{i}\n€.jpg" for i in range(n)],
        "readable": rng.random(n) > 0.5,
        "info": {"flip": "none", "note": "é"},
    }
    return Embeddings(**{**arrays, **changes})


@pytest.mark.parametrize("n", [0, 1, 4])
def test_saved_is_loaded_bit_for_bit(tmp_path, n):
    before = some(n)
    before.save(tmp_path / "e")
    after = Embeddings.load(tmp_path / "e")
    for name in ("vectors", "norms", "labels", "readable"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
        assert getattr(before, name).dtype == getattr(after, name).dtype
    assert list(after.names) == list(before.names)
    assert after.info == before.info
    assert (len(after), after.dim) == (n, 3)
    assert after.vectors.flags.writeable


def test_names_that_are_no_unicode_survive(tmp_path):
    name = b"\xff\xfe.jpg".decode("utf-8", "surrogateescape")
    some(1, names=[name]).save(tmp_path / "e")
    assert list(Embeddings.load(tmp_path / "e").names) == [name]


def test_unreadable_lists_names():
    found = some(3, readable=np.array([True, False, False]), names=["a", "b", "c"])
    assert found.unreadable == ["b", "c"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vectors", np.zeros((4, 3))),
        ("vectors", np.zeros((3, 3), np.float32)),
        ("vectors", np.zeros(4, np.float32)),
        ("norms", np.zeros((4, 1), np.float32)),
        ("labels", np.zeros(4, np.int32)),
        ("readable", np.zeros(4, np.uint8)),
        ("names", ["a"]),
    ],
)
def test_arrays_that_do_not_fit_are_named(name, value):
    with pytest.raises(ShapeError, match="Embeddings." + ("vectors" if name == "names" else name)):
        some(**{name: value})


def test_a_file_with_other_tensors_is_refused(tmp_path):
    some().save(tmp_path / "e")
    kind = {"file_format": "unpg.embeddings", "version": 1}
    tensors, header = read_tensors(tmp_path / "e", **kind)
    for broken in (
        {k: v for k, v in tensors.items() if k != "norms"},
        {**tensors, "norms": torch.zeros(9)},
        {**tensors, "names": torch.zeros(5, dtype=torch.uint8)},
    ):
        write_tensors(tmp_path / "b", broken, header, **kind)
        with pytest.raises(DataError, match="/b"):
            Embeddings.load(tmp_path / "b")
