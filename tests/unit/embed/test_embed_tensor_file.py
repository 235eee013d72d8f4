import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unpg.embed import tensor_file
from unpg.embed.tensor_file import read_tensors, write_tensors
from unpg.errors import ConfigError, DataError

KIND = {"file_format": "unpg.test", "version": 3}


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def test_tensors_come_back_bit_for_bit(tmp_path):
    base = torch.randn(4, 3, 5, 5)
    tensors = {
        "last": base.to(memory_format=torch.channels_last),
        "view": base[1:3, 0],
        "same memory": base.view(-1),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(3).bfloat16(),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "yes": torch.tensor([True, False]),
    }
    header = {"text": "ü\u20ac", "list": [1, 2.5, None], "nested": {"a": True}}
    path = tmp_path / "new" / "folder" / "a.safetensors"
    write_tensors(path, tensors, header, **KIND)
    back, read = read_tensors(path, **KIND)
    assert read == header
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        assert torch.equal(bits(back[name]), bits(tensor))
    assert os.listdir(path.parent) == ["a.safetensors"]


def test_equal_content_gives_equal_bytes(tmp_path):
    tensors = {name: torch.arange(3.0) for name in "hgfedcba"}
    write_tensors(tmp_path / "a", tensors, {"x": 1, "y": 2}, **KIND)
    write_tensors(tmp_path / "b", dict(sorted(tensors.items())), {"x": 1, "y": 2}, **KIND)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_was_read_does_not_hang_on_the_file(tmp_path):
    path = tmp_path / "a"
    write_tensors(path, {"x": torch.ones(10_000)}, {}, **KIND)
    back, _ = read_tensors(path, **KIND)
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(back["x"], torch.ones(10_000))


@pytest.mark.parametrize("step", ["save_file", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    path = tmp_path / "a"
    write_tensors(path, {"x": torch.zeros(3)}, {"old": 1}, **KIND)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_file if step == "save_file" else tensor_file.os, step, fail)
    with pytest.raises(DataError, match="a cannot be written.*No space left"):
        write_tensors(path, {"x": torch.ones(3)}, {}, **KIND)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


def test_a_path_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_tensors(tmp_path / "file" / "a", {"x": torch.zeros(1)}, {}, **KIND)


@pytest.mark.parametrize("value", [np.float32(1), {1, 2}, float("nan"), object()])
def test_a_header_that_json_does_not_know_is_refused(tmp_path, value):
    with pytest.raises(ConfigError, match="plain JSON"):
        write_tensors(tmp_path / "a", {}, {"x": value}, **KIND)
    assert os.listdir(tmp_path) == []


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match=f"{path.name} is not a file"):
            read_tensors(path, **KIND)


@pytest.mark.parametrize("keep", [0, 1, 8, 20, 100, -1])
def test_a_file_cut_short_is_named_with_its_size(tmp_path, keep):
    path = tmp_path / "cut"
    write_tensors(path, {"x": torch.randn(50)}, {}, **KIND)
    data = path.read_bytes()[:keep]
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"cut \({len(data)} bytes\) is not a whole safetensors file"):
        read_tensors(path, **KIND)


@pytest.mark.parametrize("content", [b"\x00" * 64, b"\xff" * 64, b"PK\x03\x04 something else", b"hello\n" * 9])
def test_something_else_is_not_read(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(DataError, match="other .* is not a whole safetensors file"):
        read_tensors(path, **KIND)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "its metadata says None"),
        ("", "its metadata says None"),
        ("{", "not JSON"),
        ("[1]", r"its metadata says \[1\]"),
        ('{"format": "pt"}', "'unpg.test'.* its metadata says 'pt'"),
        ('{"format": "unpg.test"}', "version None .* reads version 3"),
        ('{"format": "unpg.test", "version": 4, "header": {}}', "version 4 .* reads version 3"),
        ('{"format": "unpg.test", "version": 3}', "must be a JSON object, got None"),
        ('{"format": "unpg.test", "version": 3, "header": [1]}', r"must be a JSON object, got \[1\]"),
    ],
)
def test_another_header_is_refused(tmp_path, metadata, message):
    save_file({"x": torch.zeros(2)}, tmp_path / "h", metadata=None if metadata is None else {"unpg": metadata})
    with pytest.raises(DataError, match=f"/h.*{message}"):
        read_tensors(tmp_path / "h", **KIND)
