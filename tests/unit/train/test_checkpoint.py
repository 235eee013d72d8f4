"""Checkpoint folders: whole or not at all, read without running anything, damaged ones named."""

import errno
import hashlib
import json
import os
import pickle
import re
import threading
import warnings

import pytest
import torch
from torch import nn
from torch.distributed import checkpoint as torch_checkpoint

from unpg.errors import ConfigError, DataError
from unpg.train import CheckpointConfig, checkpoint, saver
from unpg.train.checkpoint import (
    Identities,
    RunState,
    checkpoint_fault,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
    set_aside,
)
from unpg.train.saver import Saver
from unpg.train.state import flatten, load_optimizer, named_optimizer, rows_of, split, unflatten
from unpg.train.tensor_store import Rows, read_tensors, write_tensors


def some_state(**more):
    tensors = {
        "float": torch.randn(4, 3),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 5),
        "half": torch.randn(2).bfloat16(),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "strided": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "view": torch.randn(1000, 4)[3:5],
        "shared": Rows(torch.randn(3, 2), 0, 3),
        "shared-empty": Rows(torch.zeros(0, 2), 0, 0),
    }
    values = {"config": {"a": 1}, "data": "d", "counters": {"x": 0.1 + 0.2, "best": None}}
    return RunState(tensors | more, values, Identities(["ann", "bob"], [3, 4]))


def test_what_is_read_is_what_was_written(tmp_path):
    state = some_state()
    path = save_checkpoint(tmp_path, 12, state)
    assert path == tmp_path / "checkpoints" / "step-00000012" == latest_checkpoint(tmp_path)
    found = load_checkpoint(path)
    assert (found.step, found.values, found.identities) == (12, state.values, state.identities)
    assert found.tensors.keys() == state.tensors.keys()
    for name, part in state.tensors.items():
        expected = part.local if isinstance(part, Rows) else part
        assert found.tensors[name].dtype == expected.dtype
        assert torch.equal(found.tensors[name], expected), name
    size = sum(file.stat().st_size for file in path.glob("*.distcp"))
    assert size < 25_000  # of the view its own two rows, not the thousand that it is a view of


def test_torch_reads_the_tensors_too(tmp_path):
    state = some_state()
    path = save_checkpoint(tmp_path, 1, state)
    found = {"float": torch.empty(4, 3), "shared": torch.empty(3, 2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that there is one process
        torch_checkpoint.load(found, checkpoint_id=path)
    assert torch.equal(found["float"], state.tensors["float"])
    assert torch.equal(found["shared"], state.tensors["shared"].local)


def test_the_manifest_says_what_is_inside(tmp_path):
    path = save_checkpoint(tmp_path, 3, some_state())
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"], manifest["data"]) == (3, 1, "d")
    assert manifest["identities"] == hashlib.sha256(json.dumps(["ann", "bob"]).encode()).hexdigest()
    assert set(manifest["files"]) == {file.name for file in path.iterdir()} - {"manifest.json"}
    for name, about in manifest["files"].items():
        content = (path / name).read_bytes()
        assert about == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_rows_are_read_alone(tmp_path):
    whole = torch.randn(7, 2)
    path = save_checkpoint(
        tmp_path, 1, some_state(**{"loss/w": whole, "optimizer/state/loss/w/step": torch.tensor(5.0)})
    )
    rows = rows_of({"loss/w": (range(2, 5), 7)})
    found = load_checkpoint(path, rows=rows, wanted=lambda name: "loss/w" in name).tensors
    assert torch.equal(found["loss/w"], whole[2:5])
    assert found["optimizer/state/loss/w/step"] == 5
    assert len(found) == 2
    none = load_checkpoint(path, rows=rows_of({"loss/w": (range(3, 3), 7)})).tensors
    assert none["loss/w"].shape == (0, 2)


@pytest.mark.parametrize("victim", ["write_tensors", "_write_values", "_manifest", "_finish", "_flush_folder"])
def test_a_crash_while_saving_leaves_the_one_before(tmp_path, monkeypatch, victim):
    """Whatever the step it dies in; the next save clears the rest away."""
    before = save_checkpoint(tmp_path, 1, some_state())

    class Crash(BaseException):
        pass

    def crash(*_):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, victim, crash)
        with pytest.raises(Crash):
            save_checkpoint(tmp_path, 2, some_state())
    assert checkpoints(tmp_path) == [before]
    load_checkpoint(before)
    after = save_checkpoint(tmp_path, 3, some_state())
    assert sorted((tmp_path / "checkpoints").iterdir()) == [before, after]


def test_files_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync

    def noted(handle):
        name = os.path.realpath(f"/proc/self/fd/{handle}")
        flushed.append(os.path.basename(name))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    path = save_checkpoint(tmp_path, 1, some_state())
    assert {file.name for file in path.iterdir()} - {".metadata"} <= set(flushed)
    assert ".metadata.tmp" in flushed  # torch renames it
    assert flushed[-3:] == ["manifest.json", "step-00000001.part", "checkpoints"]


def test_which_ones_stay(tmp_path):
    for step in range(1, 10):
        save_checkpoint(tmp_path, step, some_state())
    prune_checkpoints(tmp_path, keep=2, keep_every=4, best=3)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["3", "4", "8", "9"]
    prune_checkpoints(tmp_path, keep=1)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["9"]
    moved = set_aside(checkpoints(tmp_path))
    assert checkpoints(tmp_path) == []
    assert moved[0].is_dir()
    save_checkpoint(tmp_path, 9, some_state())
    assert set_aside(checkpoints(tmp_path))[0].name == "step-00000009.set-aside-1"


def test_a_step_that_is_saved_again_replaces_nothing(tmp_path):
    first = save_checkpoint(tmp_path, 1, some_state())
    content = (first / "manifest.json").read_bytes()
    save_checkpoint(tmp_path, 1, some_state())
    aside = first.with_name(first.name + ".set-aside")
    assert (aside / "manifest.json").read_bytes() == content
    assert checkpoint_fault(first) is None


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "bit in the tensors": (lambda p: flip(p / "__0_0.distcp", 3000), "__0_0.distcp is not what was written"),
    "bit in the index": (lambda p: flip(p / ".metadata", 40), ".metadata is not what was written"),
    "bit in the manifest": (lambda p: flip(p / "manifest.json", 200), "manifest.json"),
    "cut": (lambda p: os.truncate(p / "__0_0.distcp", 100), "has 100 bytes, not"),
    "no tensors": (lambda p: (p / "__0_0.distcp").unlink(), "its file __0_0.distcp is missing"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "its file manifest.json is missing"),
    "no values": (lambda p: (p / "values.json").unlink(), "its file values.json is missing"),
    "empty manifest": (lambda p: (p / "manifest.json").write_text(""), "manifest.json cannot be read"),
    "list": (lambda p: (p / "manifest.json").write_text("[]"), "holds no names and values"),
    "deep": (lambda p: (p / "manifest.json").write_text("[" * 100_000), "manifest.json cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(tmp_path, damage):
    path = save_checkpoint(tmp_path, 1, some_state())
    do, message = DAMAGE[damage]
    do(path)
    with pytest.raises(DataError, match=message) as caught:
        load_checkpoint(path)
    assert "step-00000001" in str(caught.value)
    assert checkpoint_fault(path) == str(caught.value)


def sign(path):
    """A manifest that agrees with the files as they are, as an attacker would write it."""
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["digest"]
    for name in manifest["files"]:
        content = (path / name).read_bytes()
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps({**manifest, "digest": digest}))


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_nothing_is_executed(tmp_path, monkeypatch):
    """torch's own reader would run this."""
    monkeypatch.chdir(tmp_path)
    path = save_checkpoint(tmp_path, 1, some_state())
    (path / ".metadata").write_bytes(pickle.dumps(Evil()))
    sign(path)
    with pytest.raises(DataError, match=re.escape("posix.mkdir" if os.name == "posix" else "mkdir")):
        load_checkpoint(path)
    assert not (tmp_path / "executed").exists()


def metadata(path, change):
    with (path / ".metadata").open("rb") as file:
        content = pickle.load(file)
    change(content)
    (path / ".metadata").write_bytes(pickle.dumps(content))
    sign(path)


def enlarge(content):
    whole = content.state_dict_metadata["float"]
    whole.size = whole.chunks[0].sizes = torch.Size([10**9, 10**3])


def shorten(content):
    content.state_dict_metadata["float"].chunks[0].sizes = torch.Size([3, 3])


def escape(content):
    for place in content.storage_data.values():
        place.relative_path = "../../etc/passwd"


@pytest.mark.parametrize(
    ("change", "message"),
    [(enlarge, "does not fit into its files"), (shorten, "only 3 of them are there"), (escape, "out of the folder")],
)
def test_an_index_that_lies_is_refused(tmp_path, change, message):
    path = save_checkpoint(tmp_path, 1, some_state())
    metadata(path, change)
    with pytest.raises(DataError, match=message):
        load_checkpoint(path)


def test_other_versions_are_refused_by_name(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    old = tmp_path / "checkpoints" / "step-00000004.pt"
    torch.save({"format": 1, "step": 4}, old)
    for read in (lambda: latest_checkpoint(tmp_path), lambda: load_checkpoint(old)):
        with pytest.raises(ConfigError, match=r"step-00000004.pt.*earlier version.*--init.model"):
            read()
    path = save_checkpoint(tmp_path, 5, some_state())
    assert latest_checkpoint(tmp_path) == path
    (path / "manifest.json").write_text(json.dumps({"format": 3}))
    with pytest.raises(ConfigError, match="has checkpoint format 3; this version of unpg reads 2"):
        load_checkpoint(path)
    with pytest.raises(DataError, match="no such folder"):
        load_checkpoint(tmp_path / "checkpoints" / "step-00000077")


def test_a_full_disk_is_explained(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, some_state())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(DataError, match=r"The disk is full.*lower checkpoint.keep") as caught:
        save_checkpoint(tmp_path, 2, some_state())
    assert "still " + str(tmp_path / "checkpoints" / "step-00000001") in str(caught.value)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_thread_writes_what_was_there_when_it_was_asked(tmp_path, monkeypatch):
    """Later changes do not reach it, the next save waits for it, and the same step is not written twice."""
    go, order, real = threading.Event(), [], checkpoint.write_tensors

    def slow(*arguments):
        assert go.wait(20)
        order.append(arguments[0].name)
        real(*arguments)

    monkeypatch.setattr(checkpoint, "write_tensors", slow)
    weight = torch.ones(3)
    with Saver(tmp_path, CheckpointConfig(asynchronous=True, keep=3)) as writer:
        writer.save(1, some_state(weight=weight, part=Rows(weight, 0, 3)))
        weight += 1
        assert checkpoints(tmp_path) == []
        timer = threading.Timer(0.1, go.set)
        timer.start()
        writer.save(2, some_state(weight=weight))
        assert [path.name for path in checkpoints(tmp_path)][:1] == ["step-00000001"]
        writer.save(2, some_state(weight=weight))
        writer.wait()
    assert order == ["step-00000001.part", "step-00000002.part"]
    first, second = (load_checkpoint(path).tensors for path in checkpoints(tmp_path))
    assert first["weight"].tolist() == first["part"].tolist() == [1, 1, 1]
    assert second["weight"].tolist() == [2, 2, 2]


def wait(writer):
    writer.wait()


def save(writer):
    writer.save(2, some_state())


def leave(writer):
    writer.__exit__(None, None, None)


@pytest.mark.parametrize("tell", [wait, save, leave])
def test_what_goes_wrong_in_the_thread_is_told(tmp_path, monkeypatch, tell):
    def fail(*_):
        raise DataError("no room")

    monkeypatch.setattr(saver, "save_checkpoint", fail)
    writer = Saver(tmp_path, CheckpointConfig(asynchronous=True))
    writer.save(1, some_state())
    with pytest.raises(DataError, match="no room"):
        tell(writer)
    writer.__exit__(DataError, DataError("another"), None)


def test_a_tree_comes_back_as_it_was():
    tree = {"a": [1, 2.5, None, "x", True], "b": (torch.ones(2), {"c": torch.zeros(1)}), "d": {}, "e": ()}
    plain, tensors = flatten(tree, "top")
    assert set(tensors) == {"top/b/0", "top/b/1/c"}
    back = unflatten(json.loads(json.dumps(plain)), tensors)
    assert back["a"] == tree["a"]
    assert torch.equal(back["b"][0], torch.ones(2))
    assert isinstance(back["b"], tuple)
    assert (back["d"], back["e"]) == ({}, ())
    with pytest.raises(DataError, match="no tensor 'top/b/0'"):
        unflatten(plain, {})
    with pytest.raises(TypeError, match="top/f is a set"):
        flatten({"f": {1}}, "top")
    with pytest.raises(TypeError, match="no name"):
        flatten({"$tensor": 1}, "top")


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_an_optimizer_goes_on(kind):
    """By names, in the memory format of its parameters; with other parameters it is refused."""

    def build():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU()).to(memory_format=torch.channels_last)
        make = {"sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "adamw": lambda p: torch.optim.AdamW(p)}[
            kind
        ]
        return net, make(net.parameters())

    def step(net, optimizer):
        optimizer.zero_grad()
        net(torch.ones(1, 3, 5, 5)).square().sum().backward()
        optimizer.step()

    net, optimizer = build()
    step(net, optimizer)
    plain, tensors = flatten(named_optimizer(optimizer, {"net": net}), "optimizer")
    weights = {k: v.clone() for k, v in net.state_dict().items()}
    tensors = {n: t.clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}  # as from a file
    step(net, optimizer)
    other, again = build()
    other.load_state_dict(weights)
    load_optimizer(again, {"net": other}, unflatten(plain, tensors))
    step(other, again)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    for p, state in again.state.items():
        assert all(t.stride() == p.stride() for t in state.values() if t.shape == p.shape)
    with pytest.raises(DataError, match=r"other parameters.*net/1.weight"):
        load_optimizer(torch.optim.SGD(net[0].parameters()), {"net": net}, unflatten(plain, tensors))


def test_momentum_is_split_with_its_parameter():
    tensors = {
        "loss/w": torch.ones(2, 3),
        "optimizer/state/loss/w/momentum_buffer": torch.ones(2, 3),
        "optimizer/state/loss/w/step": torch.tensor(1.0),
        "loss/w2": torch.ones(2, 3),
    }
    found = split(tensors, {"loss/w": (range(4, 6), 9)})
    assert {name for name, part in found.items() if isinstance(part, Rows)} == {
        "loss/w",
        "optimizer/state/loss/w/momentum_buffer",
    }
    assert (found["loss/w"].first, found["loss/w"].total) == (4, 9)


def test_a_tensor_that_is_not_whole_is_refused(tmp_path):
    """One process's rows without the others'."""
    write_tensors(tmp_path, {"w": Rows(torch.ones(2, 3), 1, 4)})
    with pytest.raises(DataError, match="do not make a whole"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("piece", [b"r\xff\xff\xff\x7f", b"p2147483646\n", b"\x95" + b"\xff" * 7 + b"\x7f"])
def test_an_index_of_tensors_asks_for_no_more_than_it_has(tmp_path, piece):
    write_tensors(tmp_path, {"w": torch.zeros(2)})
    index = tmp_path / ".metadata"
    whole = index.read_bytes()
    index.write_bytes(whole[:2] + b"N" + piece + b"0" + whole[2:])
    with pytest.raises(DataError) as error:
        read_tensors(tmp_path)
    assert not isinstance(error.value.__cause__, MemoryError)
