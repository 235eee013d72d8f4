"""What can go wrong while training, caused on purpose: what is said, and that going on costs nothing."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from unpg.cli.main import main
from unpg.config import from_dict, from_yaml, write_yaml
from unpg.data import FolderSet, Loader
from unpg.data.convert import convert
from unpg.data.loader import WorkerError
from unpg.errors import ConfigError, DataError
from unpg.train import Stopped, TrainConfig, TrainingError, checkpoint, loop, train
from unpg.train.begin import begin
from unpg.train.checkpoint import checkpoint_fault, checkpoints, latest_checkpoint, load_checkpoint
from unpg.train.setup import prepare, resolve
from unpg.train.trained import open_trained

SETTINGS = {
    "backbone": {"kind": "small_iresnet", "dim": 16, "widths": [4, 4, 8, 8], "blocks": [1, 1, 1, 1], "dropout": 0.2},
    "preprocessing": {"size": [32, 32]},
    "loss": {"kind": "cosface", "s": 16, "m": 0.2},
    "sampler": {"batch_size": 16},
    "optim": {"lr": 0.05},
    "epochs": 3,
    "log_every": 1,
    "device": "cpu",
    "checkpoint": {"every_steps": 3},
}


@pytest.fixture(scope="module")
def settings(patterns):
    """From changed settings to a run of 12 steps, which takes a second."""

    def make(**changes):
        return from_dict(TrainConfig, {"data": {"kind": "folder", "roots": str(patterns)}} | SETTINGS | changes)

    return make


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    """The run of ``settings()``, which nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(settings(), run)
    return run


@pytest.fixture
def data(patterns, tmp_path):
    """A copy of the images to spoil."""
    return shutil.copytree(patterns, tmp_path / "data")


def at_step(monkeypatch, step, do):
    """Call ``do(trainer)`` once, within optimizer step ``step``."""
    real, done = loop._Trainer._count, []

    def counted(self, stepped):
        if self.step == step and not done:
            done.append(True)
            do(self)
        return real(self, stepped)

    monkeypatch.setattr(loop._Trainer, "_count", counted)


def same_end(a, b):
    """Whether two runs end with the same bits: weights, class weights, momentum, statistics, generators."""
    one, other = (load_checkpoint(latest_checkpoint(run)) for run in (a, b))
    assert one.tensors.keys() == other.tensors.keys()
    odd = [name for name, tensor in one.tensors.items() if not torch.equal(tensor, other.tensors[name])]
    assert odd == []
    assert one.step == other.step
    told = [[(e["step"], e["loss"]) for e in events(run) if e["event"] == "step"] for run in (a, b)]
    assert told[0] == told[1]


def events(run, file="metrics.jsonl"):
    return [json.loads(line) for line in (run / file).read_text().splitlines()]


def warnings(run):
    return [event["text"] for event in events(run) if event["event"] == "warning"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(settings, whole, tmp_path, monkeypatch, capsys, number):
    write_yaml(tmp_path / "recipe.yaml", settings())
    words = ["train", "--config", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda trainer: os.kill(os.getpid(), number))
        assert main(words) == 128 + number
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    told = capsys.readouterr().err
    assert f"stopped by {number.name} after step 5 of 12; the state is saved" in told
    assert "--resume" in told
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-00000003", "step-00000005"]
    command = re.search(r"unpg (train .*--resume)", told)[1].split()
    assert main(command) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Resuming after step 5 of 12." in out
    assert "bit for bit" in out
    same_end(whole, tmp_path / "run")


@pytest.mark.parametrize("before", [signal.default_int_handler, signal.SIG_IGN])
def test_a_second_signal_stops_at_once(settings, tmp_path, monkeypatch, before):
    """Also where SIGINT was ignored: a shell starts background jobs so, and these tests may be one."""

    def twice(trainer):
        noting = signal.getsignal(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        # Another thread may be handed the signal: Python notes it when the main thread gets to it.
        for _ in range(1000):
            if signal.getsignal(signal.SIGINT) != noting:
                break
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(monkeypatch, 4, twice)
    ours = signal.signal(signal.SIGINT, before)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(settings(), tmp_path / "run")
        assert signal.getsignal(signal.SIGINT) == before
    finally:
        signal.signal(signal.SIGINT, ours)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-00000003"]


def test_a_signal_that_also_ends_the_workers(settings, tmp_path, monkeypatch):
    """A scheduler ends all processes of a job: the batch that never comes is no error then."""
    real = Loader._answers

    def ended(self, epoch, start_step):
        for step, answer in enumerate(real(self, epoch, start_step)):
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                raise WorkerError("a worker ended")
            yield answer

    monkeypatch.setattr(Loader, "_answers", ended)
    with pytest.raises(Stopped, match="after step 2 of 12; the state is saved") as caught:
        train(settings(), tmp_path / "run")
    assert caught.value.exit_code == 143


def test_workers_that_cannot_go_on_cost_nothing(settings, whole, tmp_path, monkeypatch):
    real = Loader._answers

    def ended(self, epoch, start_step):
        for step, answer in enumerate(real(self, epoch, start_step)):
            if epoch == 1 and step == 1:
                raise WorkerError("A data worker process ended.")
            yield answer

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "_answers", ended)
        with pytest.raises(
            WorkerError, match=r"process ended. The state after step 5 is saved. Go on with: .*--resume"
        ):
            train(settings(), tmp_path / "run")
    train(settings(), tmp_path / "run", resume=True)
    same_end(whole, tmp_path / "run")


def test_a_killed_worker_changes_nothing(settings, whole, tmp_path, monkeypatch):

    def kill(trainer):
        for worker in trainer.loader._batches._iterator._workers:
            os.kill(worker.pid, signal.SIGKILL)

    at_step(monkeypatch, 5, kill)
    train(settings(workers=1), tmp_path / "run")
    same_end(whole, tmp_path / "run")
    assert any("data worker process ended" in text for text in warnings(tmp_path / "run"))


def test_an_image_that_goes_bad_in_mid_epoch(settings, data, tmp_path, monkeypatch):
    """A stand-in, recorded; the same one when the run is killed and resumed; and a warning that the data changed."""
    config = settings(data={"kind": "folder", "roots": str(data)})
    good = {path: path.read_bytes() for path in sorted(data.rglob("*.png"))}
    victims = list(good)[10:12]

    def spoil(trainer):
        victims[0].write_bytes(good[victims[0]][:100])
        victims[1].unlink()

    with monkeypatch.context() as patch:
        at_step(patch, 5, spoil)
        summary = train(config, tmp_path / "run").summary
    assert summary.unreadable == 2
    faults = events(tmp_path / "run", "faults.jsonl")
    assert {fault["name"] for fault in faults} == set(map(str, victims))
    assert all("id1" in fault["substitute"] for fault in faults)
    assert "changed on the disk while the run was training" in warnings(tmp_path / "run")[-1]
    # The images are the same in every run: so are the weights, with or without workers.
    for path, content in good.items():
        path.write_bytes(content)
    at_step(monkeypatch, 5, spoil)
    train(config, tmp_path / "again")
    same_end(tmp_path / "run", tmp_path / "again")


def test_a_record_file_that_is_cut_off_while_training(settings, data, tmp_path, monkeypatch):
    """Touching mapped bytes that are gone would end the process; here it says so, and going on costs nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    convert(FolderSet(data), tmp_path / "rec")
    rec = tmp_path / "rec" / "train.rec"
    content = rec.read_bytes()
    config = settings(data={"kind": "recordio", "path": str(rec)})
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda trainer: os.truncate(rec, len(content) // 2))
        with pytest.raises(DataError, match=r"was cut off.*The state after step 6 is saved.*--resume"):
            train(config, tmp_path / "run")
    with pytest.raises(DataError, match="train.rec"):
        train(config, tmp_path / "run", resume=True)
    rec.write_bytes(content)
    train(config, tmp_path / "run", resume=True)
    same_end(tmp_path / "whole", tmp_path / "run")


def test_changed_data_are_refused_by_what_changed(settings, data, tmp_path):
    config = settings(epochs=1, data={"kind": "folder", "roots": str(data)})
    train(config, tmp_path / "run")

    def refused(message):
        with pytest.raises(ConfigError, match=message) as caught:
            train(config, tmp_path / "run", resume=True)
        assert "--fine-tune-from" in str(caught.value)

    image = data / "id0" / "0.png"
    content = image.read_bytes()
    image.write_bytes(content + b"x")
    refused("identities and numbers of images are the same, but names or sizes of files are not")
    image.unlink()
    refused(r"1 identities have another number of images: id0 \(8 images, now 7\)")
    image.write_bytes(content)
    shutil.copytree(data / "id7", data / "id8")
    shutil.rmtree(data / "id2")
    refused("1 identities are gone: id2; 1 identities are new: id8")


def test_fine_tuning_keeps_people_by_name(settings, data, tmp_path):
    """Known identities keep their class weights wherever they stand now; the network is the checkpoint's."""
    config = settings(data={"kind": "folder", "roots": str(data)})
    before = train(config, tmp_path / "run")
    old = before.loss.pairs.head.weight.detach().clone()
    shutil.rmtree(data / "id0")
    shutil.copytree(data / "id7", data / "id9")
    console = Console(record=True, width=500, file=io.StringIO())
    start = {}
    real = loop._Trainer.train

    def look(self):
        start["weight"] = self.setup.loss.pairs.of.head.weight.detach().clone()
        start["backbone"] = {k: v.clone() for k, v in self.setup.model.backbone.state_dict().items()}
        start["momentum"] = dict(self.setup.optimizer.state)
        return real(self)

    write_yaml(tmp_path / "recipe.yaml", settings(data={"kind": "folder", "roots": str(data)}, unpg={}, epochs=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Trainer, "train", look)
        patch.setattr("unpg.cli.train_verb.Screen", lambda: console)
        words = ["train", "--config", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "tuned")]
        assert main([*words, "--fine-tune-from", str(tmp_path / "run")]) == 0
    assert (
        "7 identities known by name keep their class weights, 1 are new; 1 of the checkpoint" in console.export_text()
    )
    assert torch.equal(start["weight"][:7], old[1:8])
    assert not torch.equal(start["weight"][7], old[0])
    assert start["weight"][7].norm() < 0.1  # as it was drawn
    assert start["momentum"] == {}
    for name, tensor in before.model.backbone.state_dict().items():
        assert torch.equal(start["backbone"][name], tensor)
    # Without the first checkpoint, --resume begins where the run began.
    shutil.rmtree(tmp_path / "tuned" / "checkpoints")
    assert main([*words, "--fine-tune-from", str(tmp_path / "run"), "--resume"]) == 0


def test_a_network_of_others_begins_a_run(settings, tmp_path):
    before = train(settings(epochs=1), tmp_path / "run")
    model = str(tmp_path / "run" / "model.safetensors")
    config = settings(epochs=1, init={"model": model}, optim={"lr": 1e-12, "weight_decay": 0.0})
    after = train(config, tmp_path / "next")
    for a, b in zip(before.model.backbone.parameters(), after.model.backbone.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ConfigError, match=r"init.model .* another way: mean 127.5 \(here 100.0\)"):
        train(settings(init={"model": model}, preprocessing={"size": [32, 32], "mean": 100.0}), tmp_path / "x")
    with pytest.raises(DataError, match="tensors are not those of the backbone"):
        train(settings(init={"model": model}, backbone=SETTINGS["backbone"] | {"dim": 8}), tmp_path / "x")
    with pytest.raises(ConfigError, match="give one of them"):
        settings(init={"model": "a", "checkpoint": "b"})
    several = settings(init={"checkpoint": str(tmp_path / "run")}, loss={"kind": "subcenter-arcface", "s": 16})
    with pytest.raises(ConfigError, match=r"\[1\] centers a class.*\[3\]"):
        train(several, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.fixture
def small_disk(tmp_path):
    """From a size in bytes to a folder on a disk of that size; called again, it grows."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def make(size):
        how = f"remount,size={size}" if mounted else f"size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"a small disk needs the right to mount: {done.stderr.strip()}")
        mounted.append(True)
        return place

    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("a small disk needs root and mount")
    yield make
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_leaves_the_last_good_checkpoint(settings, whole, tmp_path, small_disk, asynchronous):
    config = settings(checkpoint={"every_steps": 3, "asynchronous": asynchronous})
    size = sum(file.stat().st_size for file in latest_checkpoint(whole).iterdir())
    run = small_disk(int(1.6 * size) + 65_536) / "run"
    with pytest.raises(
        DataError, match=r"step-00000006 could not be written.*The disk is full.*MiB are free"
    ) as caught:
        train(config, run)
    assert "still " + str(run / "checkpoints" / "step-00000003") in str(caught.value)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert checkpoint_fault(run / "checkpoints" / "step-00000003") is None
    small_disk(100 * size)
    train(config, run, resume=True)
    same_end(whole, run)


@pytest.mark.parametrize("damage", ["bit", "missing"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_offered(settings, whole, tmp_path, damage):
    """And taken only when asked; the damaged one is set aside then, not deleted."""
    train(settings(), tmp_path / "run")
    before, newest = checkpoints(tmp_path / "run")
    file = newest / "__0_0.distcp"
    if damage == "bit":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 8
        file.write_bytes(content)
    else:
        file.unlink()
    message = rf"{newest.name} is damaged: .*__0_0.distcp.*{before.name} is whole: .*--resume-from \S*{before.name}"
    with pytest.raises(DataError, match=message):
        train(settings(), tmp_path / "run", resume=True)
    assert checkpoints(tmp_path / "run") == [before, newest]
    train(settings(), tmp_path / "run", resume=True, resume_from=before)
    same_end(whole, tmp_path / "run")
    assert newest.with_name(newest.name + ".set-aside").is_dir()
    with pytest.raises(ConfigError, match=r"no checkpoint of .*step-00000009.*--fine-tune-from"):
        train(settings(), tmp_path / "run", resume=True, resume_from=whole)


def test_all_checkpoints_damaged(settings, tmp_path):
    train(settings(epochs=1, checkpoint={"keep": 1}), tmp_path / "run")
    (latest_checkpoint(tmp_path / "run") / "values.json").write_text("{")
    with pytest.raises(DataError, match="damaged.*no older one that is whole"):
        train(settings(epochs=1, checkpoint={"keep": 1}), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 5 bytes."),
        MemoryError(),
    ],
)
def test_too_little_memory_says_what_lowers_it(settings, tmp_path, monkeypatch, error):
    def fail(trainer):
        raise error

    at_step(monkeypatch, 4, fail)
    with pytest.raises(TrainingError) as caught:
        train(settings(streaming={"chunk": 5}), tmp_path / "run")
    text = str(caught.value)
    for part in (
        "memory in step 4",
        "batches of 16 images in 1 parts",
        "8 classes in chunks of 5 (streaming.chunk)",
        "streaming.keep_mib: 0",
        "precision: bf16",
        "accumulate: 2",
        "sampler.batch_size than 16",
        "--resume",
    ):
        assert part in text
    assert ("GPU" in text) == isinstance(error, torch.OutOfMemoryError)
    # What it advises is allowed.
    monkeypatch.undo()
    train(settings(streaming={"chunk": 2, "keep_mib": 0}, precision="bf16"), tmp_path / "run", resume=True)


def test_other_errors_of_a_step_are_left_alone(settings, tmp_path, monkeypatch):
    def fail(trainer):
        raise RuntimeError("our own mistake")

    at_step(monkeypatch, 1, fail)
    with pytest.raises(RuntimeError, match="our own mistake"):
        train(settings(), tmp_path / "run")


def test_bad_steps_in_a_row_are_counted_across_a_restart(settings, tmp_path, monkeypatch):
    """Three in a row stop a run, though it was stopped and resumed after the second."""
    real = loop.PairLoss.forward

    def broken(self, *arguments, **more):
        out = real(self, *arguments, **more)
        return replace(out, loss=out.loss * float("nan")) if more["step"] >= 4 else out

    monkeypatch.setattr(loop.PairLoss, "forward", broken)
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            train(settings(max_bad_steps=3), tmp_path / "run")
    with pytest.raises(TrainingError, match="3 steps in a row, the last of them step 7"):
        train(settings(max_bad_steps=3), tmp_path / "run", resume=True)


def test_resuming_says_what_it_is_worth(settings, tmp_path):
    def said(**changes):
        console = Console(record=True, width=2000, file=io.StringIO())
        train(settings(epochs=1, **changes), tmp_path / "run", resume=(tmp_path / "run").exists(), console=console)
        return console.export_text()

    said(threads=1)
    assert "of an uninterrupted run, bit for bit" in said(threads=1, workers=0, log_every=3)
    text = said(threads=1, precision="bf16")
    assert "Not bit for bit what an uninterrupted run would give: precision was fp32, is now bf16" in text
    assert "Images, their order and augmentation" in text
    try:
        assert "threads was 1, is now 2" in said(threads=2)
    finally:
        torch.set_num_threads(1)


def judged_while_training(settings, monkeypatch):
    """A function from ``checkpoint.best`` to settings of a run of four epochs; its evaluations are made up."""
    figures = iter([0.7, 0.9, 0.8, 0.85, 0.6])

    class Judged:
        benchmark = "held-out"

        def __init__(self):
            self.value = next(figures)

        def metrics(self):
            return {"auc": self.value, "accuracy": self.value / 2}

    monkeypatch.setattr(loop._Trainer, "evaluate", lambda self: self._note_best([Judged()]) or [])
    monkeypatch.setattr(loop, "save_results", lambda *a, **k: None)
    return lambda best: settings(
        epochs=4,
        hold_out=0.25,
        evaluation={"benchmarks": ["held-out"], "every_epochs": 1},
        checkpoint={"every_steps": 100, "keep": 1, "best": best},
    )


def test_the_best_checkpoint_stays(settings, tmp_path, monkeypatch):
    """Whatever comes after it; and the run remembers it when it is resumed."""
    config = judged_while_training(settings, monkeypatch)("held-out/auc")
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-00000006", "step-00000012"]
    assert load_checkpoint(latest_checkpoint(tmp_path / "run")).values["counters"]["best"] == [6, 0.9]


def test_a_best_value_is_not_compared_with_another_figure(settings, tmp_path, monkeypatch):
    going_by = judged_while_training(settings, monkeypatch)
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            train(going_by("held-out/auc"), tmp_path / "run")
    console = Console(record=True, width=2000, file=io.StringIO())
    train(going_by("held-out/accuracy"), tmp_path / "run", resume=True, console=console)
    assert "checkpoint.best was another figure" in console.export_text()
    assert load_checkpoint(latest_checkpoint(tmp_path / "run")).values["counters"]["best"] == [9, 0.4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": {"keep": 0}}, "checkpoint.keep must be >= 1"),
        ({"checkpoint": {"every_steps": 0}}, "checkpoint.every_steps must be >= 1"),
        ({"checkpoint": {"best": "auc"}}, "checkpoint.best must be <benchmark>/<figure>"),
        ({"checkpoint": {"best": "lfw/eer"}}, "eer is good when small"),
        ({"checkpoint": {"best": "lfw/auc"}}, "not judged while training"),
        ({"checkpoint": {"best": "lfw/acuracy"}}, "'acuracy' is no figure of a benchmark"),
        ({"checkpoint": {"best": "lfw/tar@far=0.001"}}, "'tar@far=0.001' is no figure .* tar@far=1e-3"),
        ({"checkpoint": {"evry_steps": 3}}, "Did you mean 'every_steps'"),
    ],
)
def test_settings_of_checkpoints(settings, changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_a_figure_that_the_benchmark_has_not(settings, tmp_path):
    config = settings(
        hold_out=0.25,
        evaluation={"benchmarks": ["held-out"], "every_epochs": 1},
        checkpoint={"best": "held-out/accuracy"},
    )
    with pytest.raises(ConfigError, match="asks for accuracy of held-out, which gives auc"):
        train(config, tmp_path / "run")


def test_a_crash_while_the_settings_are_written_leaves_no_half(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(settings(), tmp_path / "run")
    monkeypatch.undo()
    train(settings(epochs=1), tmp_path / "run")


def test_a_save_that_fails_does_not_hide_another_error(settings, tmp_path, monkeypatch):
    """The thread fails while the training step fails too: the step's error is the one that is raised."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)

    def fail(trainer):
        raise RuntimeError("our own mistake")

    at_step(monkeypatch, 4, fail)
    with pytest.raises(RuntimeError, match="our own mistake"):
        train(settings(checkpoint={"every_steps": 3, "asynchronous": True}), tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp16", "optim": {"kind": "adamw", "lr": 1e-3, "clip_norm": 1.0}},
        {"loss": {"kind": "uniface"}, "sampler": {"kind": "pk", "batch_size": 16}, "channels_last": True},
        {"loss": {"kind": "curricularface", "s": 16}, "accumulate": 2, "checkpoint": {"every_steps": 3, "keep": 1}},
        {"head": {"kind": "sampled", "rate": 0.1, "lazy": True}, "sampler": {"kind": "pk", "batch_size": 8}},
    ],
)
def test_every_kind_of_state_goes_on_bit_for_bit(settings, tmp_path, monkeypatch, changes):
    """Scalers, Adam's moments, learned thresholds, running means: stopped in mid-epoch and resumed."""
    train(settings(**changes), tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            train(settings(**changes), tmp_path / "run")
    torch.manual_seed(99)
    train(settings(**changes), tmp_path / "run", resume=True)
    same_end(tmp_path / "whole", tmp_path / "run")
    values = [load_checkpoint(latest_checkpoint(tmp_path / name)).values for name in ("whole", "run")]
    assert values[0]["scaler"] == values[1]["scaler"]
    assert values[0]["counters"] == values[1]["counters"]


def test_full_and_sharded_class_weights_go_on_as_each_other(settings, tmp_path, monkeypatch):
    train(settings(), tmp_path / "whole")
    for first, then in ("full", "sharded"), ("sharded", "full"):
        run = tmp_path / first
        with monkeypatch.context() as patch:
            at_step(patch, 4, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(Stopped):
                train(settings(head={"kind": first}), run)
        train(settings(head={"kind": then}), run, resume=True)
        same_end(tmp_path / "whole", run)
    with pytest.raises(ConfigError, match=r"head.kind was 'full', is now 'sampled'; .*between full and sharded"):
        train(settings(head={"kind": "sampled"}), tmp_path / "full", resume=True)
    with pytest.raises(ConfigError, match=r"other settings: seed was 0, is now 1\. Resume") as found:
        train(settings(head={"kind": "sharded"}, seed=1), tmp_path / "full", resume=True)
    assert "Nothing is saved" not in str(found.value)


def test_data_may_have_moved(settings, whole, data, tmp_path, monkeypatch):
    at_step(monkeypatch, 4, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        train(settings(data={"kind": "folder", "roots": str(data)}), tmp_path / "run")
    moved = {"kind": "folder", "roots": str(data.rename(tmp_path / "elsewhere"))}
    with pytest.raises(DataError, match="data"):
        train(from_yaml(TrainConfig, tmp_path / "run" / "config.yaml"), tmp_path / "run", resume=True)
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "others")
    shutil.rmtree(min((tmp_path / "others").iterdir()))
    with pytest.raises(ConfigError, match="1 identities are gone"):
        train(settings(data=moved | {"roots": str(tmp_path / "others")}), tmp_path / "run", resume=True)
    train(settings(data=moved), tmp_path / "run", resume=True)
    same_end(whole, tmp_path / "run")
    assert from_yaml(TrainConfig, tmp_path / "run" / "config.yaml").data["roots"] == moved["roots"]
    open_trained(tmp_path / "run", device="cpu")


def test_before_the_first_checkpoint_nothing_tells_whether_moved_data_are_the_same(settings, data, tmp_path):
    (tmp_path / "run").mkdir()
    write_yaml(tmp_path / "run" / "config.yaml", resolve(settings()))  # as a run leaves it that is killed at once
    with pytest.raises(ConfigError, match=r"other settings: data.roots was.*Nothing is saved there yet"):
        train(settings(data={"kind": "folder", "roots": str(data)}), tmp_path / "run", resume=True)


def test_fine_tuning_takes_what_lazy_class_weights_would_be(settings, tmp_path):
    lazy = {"kind": "sampled", "rate": 0.1, "lazy": True}
    done = train(settings(head=lazy, sampler={"kind": "pk", "batch_size": 8}), tmp_path / "run")
    behind = load_checkpoint(latest_checkpoint(tmp_path / "run")).tensors["loss/pairs.head.weight"]
    new = prepare(resolve(settings(init={"checkpoint": str(tmp_path / "run")})))
    begin(new)
    assert not torch.equal(done.loss.pairs.head.weight, behind)
    torch.testing.assert_close(new.loss.pairs.head.weight.detach(), done.loss.pairs.head.weight, rtol=0, atol=0)
    opened = open_trained(tmp_path / "run", device="cpu")
    assert torch.equal(opened.loss.pairs.head.weight, done.loss.pairs.head.weight)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("counters",), {"step": "three"}),
        (("counters",), {}),
        (("optimizer",), {}),
        (("optimizer", "groups"), [{"params": ["x"]}]),
        (("backbone",), {}),
        (("backbone",), {"$tensor": "loss/pairs.head.weight"}),
        (("loss",), ["x"]),
    ],
)
def test_values_that_make_no_sense_are_named(settings, tmp_path, monkeypatch, place, value):
    """As a stranger might write them, with digests that fit."""
    real = checkpoint._write_values

    def other(part, state):
        values = json.loads(json.dumps(state.values))
        at = values
        for name in place[:-1]:
            at = at[name]
        at[place[-1]] = value
        real(part, replace(state, values=values))

    monkeypatch.setattr(checkpoint, "_write_values", other)
    train(settings(epochs=1), tmp_path / "run")
    with pytest.raises((DataError, ConfigError)):
        train(settings(epochs=1), tmp_path / "run", resume=True)
