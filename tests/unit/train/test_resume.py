"""What a resumed run promises, and what is said of changed data."""

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unpg.data import ArraySet
from unpg.errors import ConfigError
from unpg.heads import FullHead, SampledHead, ShardedHead
from unpg.losses import LOSSES
from unpg.train.begin import heads_of
from unpg.train.checkpoint import Identities
from unpg.train.parallel import split_rows
from unpg.train.resume import identities_of, promise, require_same_data
from unpg.train.stop import StopRequest

NOW = {"device": "cpu", "threads": "2", "torch": "2.13.0 (abc)", "processes": "1", "precision": "fp32"}


def test_bits_are_promised_only_where_nothing_differs():
    assert "bit for bit" in promise(NOW, NOW)
    assert "Not bit for bit" not in promise(NOW, NOW)
    compiled = promise(NOW | {"compile": "True"}, NOW | {"compile": "True"})
    assert "bit for bit" not in compiled
    assert "up to rounding" in compiled
    assert "bit for bit" in promise(NOW | {"compile": "False"}, NOW | {"compile": "False"})
    gpu = NOW | {"device": "NVIDIA H100"}
    assert "a GPU adds in no fixed order" in promise(gpu, gpu)


@pytest.mark.parametrize("name", NOW)
def test_what_differs_is_said(name):
    text = promise(NOW, NOW | {name: "other"})
    assert f"Not bit for bit what an uninterrupted run would give: {name} was {NOW[name]}, is now other." in text
    assert "Images, their order and augmentation" in text
    assert ("dropout" in text) == (name == "processes")
    assert ("scaler" in text) == (name == "precision")


def test_where_class_weights_live_counts_only_where_several_processes_share_them():
    assert "head was full, is now sharded" in promise(NOW | {"head": "full"}, NOW | {"head": "sharded"})
    assert "Not bit" not in promise(NOW, NOW | {"head": "sharded"})


def test_a_condition_that_an_older_checkpoint_does_not_know_counts_as_different():
    assert "processor was None, is now x86" in promise(NOW, NOW | {"processor": "x86"})


def images(labels, names):
    return ArraySet(np.zeros((len(labels), 2, 2, 3), np.uint8), np.array(labels), names)


def test_what_changed_in_the_data():
    now = images([0, 0, 1, 2], ["ann", "bob", "cy"])
    assert identities_of(now) == Identities(["ann", "bob", "cy"], [2, 1, 1])
    require_same_data(identities_of(now), now.digest(), now, Path("c"))

    def said(names, counts):
        with pytest.raises(ConfigError, match="--fine-tune-from c") as caught:
            require_same_data(Identities(names, counts), "another", now, Path("c"))
        return str(caught.value)

    assert "1 identities are gone: dan" in said(["ann", "bob", "cy", "dan"], [2, 1, 1, 9])
    assert "1 identities are new: cy" in said(["ann", "bob"], [2, 1])
    assert "bob (5 images, now 1)" in said(["ann", "bob", "cy"], [2, 5, 1])
    assert "in another order" in said(["bob", "ann", "cy"], [1, 2, 1])
    assert "names or sizes of files are not" in said(["ann", "bob", "cy"], [2, 1, 1])
    many = [f"p{i}" for i in range(9)]
    assert "9 identities are gone: p0, p1, p2, p3, p4 ..." in said([*many, "ann", "bob", "cy"], [1] * 9 + [2, 1, 1])


def test_class_weights_are_found_by_name():
    loss = LOSSES.build("arcface", {}, num_classes=5, dim=4)
    assert list(heads_of(loss)) == ["loss/pairs.head.weight"]
    assert isinstance(heads_of(loss)["loss/pairs.head.weight"], FullHead)
    assert split_rows(loss) == {}
    assert heads_of(LOSSES.build("supcon", {}, num_classes=5, dim=4)) == {}


def test_rows_of_sharded_heads_are_those_of_their_centers():
    world = SimpleNamespace(part=lambda n: (2, 5), rank=1, size=2, alone=False)
    loss = torch.nn.Module()
    loss.a = ShardedHead(7, 4, world, centers=3)
    loss.b = SampledHead(7, 4, world, rate=0.5)
    loss.b.attach(torch.optim.SGD(loss.parameters(), lr=0.1))
    loss.c = SampledHead(7, 4, world, lazy=True)
    loss.c.attach(torch.optim.SGD(loss.c.parameters(), lr=0.1))
    loss.c.history = [(0.1, 0.9, 0.0)] * 3  # as many steps as there are classes here, and not theirs
    assert split_rows(loss) == {
        "loss/a.weight": (range(6, 15), 21),
        "loss/b.weight": (range(2, 5), 7),
        "loss/b.of_momentum_buffer": (range(2, 5), 7),
        "loss/c.weight": (range(2, 5), 7),
        "loss/c.of_momentum_buffer": (range(2, 5), 7),
        "loss/c.seen": (range(2, 5), 7),
    }


def test_signals_are_left_alone_outside_the_main_thread():
    found = []

    def look():
        with StopRequest() as stop:
            found.append(stop.signal)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [None]


@pytest.mark.parametrize("last", [True, False])
def test_sigterm_does_not_cut_off_the_last_words(last):
    """torchrun sends it as soon as another process has died, while this one is about to say so."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with pytest.raises(RuntimeError, match="gone"), StopRequest(lambda error: last and "gone" in str(error)):
            raise RuntimeError("gone")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert came == ([] if last else [signal.SIGTERM])
        signal.signal(signal.SIGTERM, before)
        with StopRequest(lambda error: True):
            pass
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)
