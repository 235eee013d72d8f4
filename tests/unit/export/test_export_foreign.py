import hashlib
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unpg.errors import DataError
from unpg.export.foreign import file_digest, read_state_dict

STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([1.0, 2.0])}


def same(state):
    return list(state) == list(STATE) and all(torch.equal(state[k], v) for k, v in STATE.items())


def prefixed(prefix, **more):
    return {**{prefix + k: v for k, v in STATE.items()}, **more}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("content", "left_out"),
    [
        (STATE, []),
        ({"state_dict": STATE, "epoch": 3}, ["epoch"]),
        ({"epoch": 68, "net_state_dict": STATE}, ["epoch"]),
        ({"model": {"state_dict": STATE, "version": "a"}, "optimizer": {"lr": 0.1}}, ["optimizer", "version"]),
        ({"epoch": 1, "best_acc": 0.5, "backbone": STATE}, ["epoch", "best_acc"]),
        (prefixed("module."), []),
        (prefixed("module.backbone."), []),
        (prefixed("_orig_mod.module."), []),
        ({"state_dict": prefixed("backbone.", **{"head.weight": torch.ones(2)})}, ["head.weight"]),
    ],
)
def test_containers_and_prefixes_are_taken_off(tmp_path, content, left_out, legacy):
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    state, rest = read_state_dict(tmp_path / "w.pth")
    assert same(state)
    assert rest == left_out


def test_safetensors_are_told_by_content(tmp_path):
    save_file(prefixed("backbone."), tmp_path / "weights.pth")
    state, rest = read_state_dict(tmp_path / "weights.pth")
    assert all(torch.equal(state[k], v) for k, v in STATE.items())
    assert rest == []


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_a_pickle_that_would_run_something_does_not(tmp_path, how):
    path, trap = tmp_path / "w.pt", tmp_path / "ran"
    content = {"state_dict": STATE, "extra": Malicious(trap)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(DataError, match=r"w.pt"):
        read_state_dict(path)
    assert not trap.exists()
    # The trap is a real one: whoever unpickles falls into it.
    with open(path, "rb") as file:
        torch.load(file, weights_only=False) if how != "pickle" else pickle.load(file)
    assert trap.exists()


class TheirNet(nn.Linear):
    """Stands for the authors' network, whose class only their code has."""


def test_a_whole_pickled_module_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "best.pt"
    torch.save({"epoch": 1, "backbone": TheirNet(3, 2)}, path)
    with pytest.raises(DataError, match=r"best.pt holds Python objects .*TheirNet.*state_dict\(\)") as caught:
        read_state_dict(path)
    # What the message advises works.
    c = torch.load(path, weights_only=False)
    torch.save(c["backbone"].state_dict(), tmp_path / "weights.pt")
    assert set(read_state_dict(tmp_path / "weights.pt")[0]) == {"weight", "bias"}
    assert "torch.save(c['backbone'].state_dict(), 'weights.pt')" in str(caught.value)


def itself():
    content = {}
    content["model"] = content
    return content


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, "found an empty dict"),
        ({"a": 1, "b": torch.zeros(1)}, "entries a, b"),
        ({"state_dict": {}}, "found"),
        ([torch.zeros(1)], "found list"),
        (torch.zeros(1), "found Tensor"),
        (itself(), "entries model"),
    ],
)
def test_a_file_without_a_state_dict_says_what_it_has(tmp_path, content, found):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(DataError, match=f"w.pt: no state dict found.*{found}"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("keep", [0, 3, 9, 40, 150, -1])
@pytest.mark.parametrize("how", ["zip", "legacy", "safetensors"])
def test_a_file_cut_short_is_named(tmp_path, how, keep):
    path = tmp_path / "cut"
    if how == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=how == "zip")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="cut"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [b"hello", b"\x80\x02", b"PK\x03\x04", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"])
def test_something_else_is_named(tmp_path, content):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(DataError, match="/w "):
        read_state_dict(tmp_path / "w")


def test_a_torchscript_archive_is_refused(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/constants.pkl", b"\x80\x02}.")
        archive.writestr("w/data.pkl", b"\x80\x02}.")
        archive.writestr("w/version", b"3\n")
    with pytest.raises(DataError, match=r"w.pt"):
        read_state_dict(tmp_path / "w.pt")


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="is not a file"):
            read_state_dict(path)


def test_file_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 99_999)
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"abc" * 99_999).hexdigest()
