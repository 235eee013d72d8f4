import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from unpg.data import ArraySet, FolderSet, Loader, PKSampler, SequentialSampler, SizeError, UniformSampler
from unpg.data import loader as loader_module
from unpg.data.loader import WorkerError
from unpg.errors import ConfigError, DataError

# Loaders in worker processes import this module, so what they need stands at its top.


class Numbered:
    """Image i is the number i; some cannot be read, one may kill its reader or have another size."""

    def __init__(self, labels, broken=(), deadly=-1, odd=-1):
        self.labels = np.asarray(labels, dtype=np.int64)
        self.identities = [f"person {i}" for i in range(self.labels.max() + 1)]
        self.broken, self.deadly, self.odd = frozenset(broken), deadly, odd

    def __len__(self):
        return len(self.labels)

    def read(self, i):
        if i in self.broken:
            raise DataError(f"file {i} is broken")
        if i == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.full((5 if i == self.odd else 4, 4, 3), i, np.uint8)

    def name(self, i):
        return f"file {i}"

    def digest(self):
        return "0"


def content(batches):
    return [(b.images.tolist(), b.labels.tolist(), b.sample_ids.tolist()) for b in batches]


def test_a_batch_holds_what_the_sampler_asked_for():
    data = Numbered([0, 0, 1, 1, 2])
    batches = list(Loader(data, SequentialSampler(5, 2)).epoch(0))
    assert [b.sample_ids.tolist() for b in batches] == [[0, 1], [2, 3], [4]]
    assert [b.labels.tolist() for b in batches] == [[0, 0], [1, 1], [2]]
    for b in batches:
        assert b.images.dtype == torch.uint8
        assert b.labels.dtype == b.sample_ids.dtype == torch.int64
        assert b.images.shape == (len(b.labels), 4, 4, 3)
        assert (b.images == b.sample_ids[:, None, None, None]).all()


def test_changing_a_batch_does_not_change_the_set():
    data = ArraySet(np.zeros((4, 2, 2, 3), np.uint8), np.array([0, 0, 1, 1]), ["a", "b"])
    next(Loader(data, SequentialSampler(4, 4)).epoch(0)).images.fill_(9)
    assert data.images.max() == 0


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_resuming_gives_the_rest_of_the_epoch(start):
    data = Numbered([0, 1] * 10, broken=[3, 8])
    whole = content(Loader(data, UniformSampler(20, 4, seed=1)).epoch(2))
    assert content(Loader(data, UniformSampler(20, 4, seed=1)).epoch(2, start)) == whole[start:]


@pytest.mark.parametrize("start", [-1, 6])
def test_a_step_to_resume_at_that_the_epoch_does_not_have(start):
    loader = Loader(Numbered([0, 1] * 10), UniformSampler(20, 4, seed=1))
    with pytest.raises(ConfigError, match=rf"start_step {start} is not in \[0, 5\]"):
        loader.epoch(0, start)


@pytest.mark.parametrize(
    ("broken", "wanted", "instead"),
    [
        ([1], 1, 4),  # the next image of its identity
        ([1, 4], 1, 0),  # in a circle
        ([4], 4, 0),
        ([0, 1, 4], 1, 2),  # no image of its identity is left: the next one in order
        ([0, 1, 4, 2, 3], 4, 5),
        ([0, 1, 2, 4, 5, 6], 4, 3),
    ],
)
def test_what_stands_in_for_an_unreadable_image(broken, wanted, instead):
    data = Numbered([0, 0, 1, 1, 0, 2, 2], broken)
    loader = Loader(data, SequentialSampler(7, 7))
    (batch,) = loader.epoch(0)
    assert batch.sample_ids[wanted] == instead
    assert batch.labels[wanted] == data.labels[instead]
    assert (batch.images[wanted] == instead).all()
    fault = next(f for f in loader.faults if f.sample_id == wanted)
    assert fault == (wanted, f"file {wanted}", f"file {wanted} is broken", f"file {instead}")


def test_shapes_and_steps_never_change_and_each_fault_is_told_once():
    labels = np.arange(30) % 5
    loader = Loader(Numbered(labels, broken=range(0, 30, 3)), PKSampler(labels, 3, 2, seed=0))
    for epoch in range(3):
        batches = list(loader.epoch(epoch))
        assert len(batches) == loader.steps_per_epoch == 5
        assert all(b.images.shape == (6, 4, 4, 3) for b in batches)
        assert not any(int(i) % 3 == 0 for b in batches for i in b.sample_ids)
    assert len(loader.faults) == len({f.sample_id for f in loader.faults})
    assert {f.sample_id for f in loader.faults} <= set(range(0, 30, 3))
    assert len(loader.faults) > 5


def test_nothing_readable_is_an_error():
    loader = Loader(Numbered([0, 0, 1], broken=range(3)), SequentialSampler(3, 3))
    with pytest.raises(DataError, match=r"None of the 3 images of the set can be read. The first failure: file 0"):
        next(loader.epoch(0))


def test_evaluation_can_refuse_stand_ins():
    loader = Loader(Numbered([0, 0, 1], broken=[1]), SequentialSampler(3, 3), unreadable="raise")
    with pytest.raises(DataError, match="file 1 is broken"):
        next(loader.epoch(0))


def test_another_size_is_never_replaced():
    loader = Loader(Numbered([0, 0, 1], odd=1), SequentialSampler(3, 3))
    with pytest.raises(SizeError, match=r"file 1 is 5 x 4 .*file 0 is 4 x 4.*align the faces"):
        next(loader.epoch(0))


def test_a_folder_that_is_not_aligned_stops_the_run_by_name(tmp_path):
    for i, size in enumerate([(8, 8), (8, 8), (9, 8), (8, 8)]):
        path = tmp_path / "ab"[i // 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)
    loader = Loader(FolderSet(tmp_path), SequentialSampler(4, 2))
    with pytest.raises(SizeError, match=r"b/2.png is 9 x 8"):
        list(loader.epoch(0))


def test_torchs_random_state_is_neither_used_nor_moved():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    list(Loader(Numbered([0, 1] * 5), UniformSampler(10, 5, 0)).epoch(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("setting", "match"),
    [({"workers": -1}, "workers"), ({"prefetch": 0}, "prefetch"), ({"unreadable": "x"}, "unreadable")],
)
def test_settings_out_of_range_are_named(setting, match):
    with pytest.raises(ConfigError, match=f"Loader.{match}"):
        Loader(Numbered([0, 1]), SequentialSampler(2, 2), **setting)


@pytest.fixture(scope="module")
def two_workers():
    labels = np.arange(60) % 7
    data = Numbered(labels, broken=[3, 10, 17, 24, 31, 38, 45, 52, 59, 5])  # all of identity 3, one of 5
    with Loader(data, UniformSampler(60, 8, seed=1), workers=2) as loader:
        yield data, loader


def test_any_count_of_workers_gives_the_same_batches_and_faults(two_workers):
    data, loader = two_workers
    alone = Loader(data, UniformSampler(60, 8, seed=1))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for epoch in (0, 1):
        assert content(loader.epoch(epoch)) == content(alone.epoch(epoch))
    assert loader.faults == alone.faults
    assert len(loader.faults) >= 9
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_resume_in_mid_epoch_after_one_was_left(two_workers):
    data, loader = two_workers
    whole = content(Loader(data, UniformSampler(60, 8, seed=1)).epoch(4))
    left = loader.epoch(4)
    assert content([next(left), next(left)]) == whole[:2]
    left.close()
    assert content(loader.epoch(4, 3)) == whole[3:]
    assert content(loader.epoch(4)) == whole


def test_errors_come_from_workers_as_they_are():
    data = Numbered([0, 1], broken=[1])
    loader = Loader(data, SequentialSampler(2, 2), workers=1, unreadable="raise")
    with loader, pytest.raises(DataError) as caught:
        next(loader.epoch(0))
    assert str(caught.value) == "file 1 is broken"


class KilledOnce(Numbered):
    """Kills its reader at image ``deadly``, if a file is there that it removes first."""

    def __init__(self, labels, deadly, trap):
        super().__init__(labels)
        self.trap, self.place = trap, deadly

    def read(self, i):
        if i == self.place and self.trap.exists():
            self.trap.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(i)


def test_a_killed_worker_is_started_again(tmp_path):
    """At the step that is missing; the batches are what they would have been."""
    trap = tmp_path / "trap"
    trap.touch()
    with Loader(KilledOnce([0, 1] * 8, 5, trap), UniformSampler(16, 2, seed=3), workers=2) as loader:
        got = content(loader.epoch(0))
        assert not trap.exists()
        assert loader.restarts == 1
        assert got == content(Loader(Numbered([0, 1] * 8), UniformSampler(16, 2, seed=3)).epoch(0))


def test_a_worker_that_is_killed_again_and_again_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(loader_module, "_RESTARTS", 1)
    loader = Loader(Numbered([0, 1] * 4, deadly=3), SequentialSampler(8, 2), workers=1)
    message = r"worker process ended at epoch 0, step \d.*after 1 restarts.*workers=0"
    with loader, pytest.raises(WorkerError, match=message):
        list(loader.epoch(0))


def test_no_worker_outlives_a_killed_process(tmp_path):
    """They hold its output open while they live."""
    script = tmp_path / "killed.py"
    script.write_text(
        """
import os, signal
import numpy as np
from unpg.data import ArraySet, Loader, SequentialSampler

if __name__ == "__main__":
    data = ArraySet(np.zeros((8, 4, 4, 3), np.uint8), np.arange(8) % 2, ["a", "b"])
    batches = Loader(data, SequentialSampler(8, 2), workers=1).epoch(0)
    next(batches)
    print("going", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "going\n"


@pytest.mark.slow
def test_a_script_that_workers_cannot_import_is_told_so():
    script = """
from unpg.data import ArraySet, Loader, SequentialSampler
import numpy as np
data = ArraySet(np.zeros((400, 40, 40, 3), np.uint8), np.arange(400) % 2, ["a", "b"])
next(Loader(data, SequentialSampler(400, 2), workers=1).epoch(0))
"""
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert re.search(r"WorkerError: .*if __name__ == '__main__':", done.stderr)


@pytest.mark.data
def test_real_faces_come_through_workers(faces):
    data = FolderSet(faces / "yaleb")
    expected = next(Loader(data, UniformSampler(len(data), 32, seed=0)).epoch(0))
    with Loader(data, UniformSampler(len(data), 32, seed=0), workers=1) as loader:
        got = next(loader.epoch(0))
    assert torch.equal(got.images, expected.images)
    assert got.images.shape == (32, 112, 112, 3)
    assert loader.faults == []
