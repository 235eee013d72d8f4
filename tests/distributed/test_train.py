"""Whole runs on several processes: the losses of one process, across stops and other numbers of processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from processes import run_processes

from unpg.cli.main import main
from unpg.config import from_dict, write_yaml
from unpg.data.synthetic import SyntheticFaces
from unpg.distributed import ALONE
from unpg.evaluate import load_results
from unpg.export import load_model
from unpg.train import Stopped, TrainConfig, train
from unpg.train.begin import begin, heads_of
from unpg.train.parallel import split_rows
from unpg.train.setup import prepare, resolve
from unpg.train.step import Stepper

CONFIG = {
    "data": {"kind": "synthetic", "identities": 12, "views": 4, "size": [32, 32]},
    "backbone": {"kind": "small_iresnet", "dim": 16, "blocks": [1, 1, 1, 1], "widths": [4, 8, 8, 8]},
    "preprocessing": {"size": [32, 32]},
    "loss": {"kind": "cosface", "s": 8.0, "m": 0.2},
    "unpg": {"r": 1.0, "memory": {"size": 30, "follow": True}},
    "head": {"kind": "sharded"},
    "optim": {"lr": 0.003},
    "sampler": {"batch_size": 12},
    "device": "cpu",
    "threads": 1,
    "epochs": 10,
    "log_every": 1,
    "hold_out": 0.3,
    "evaluation": {"benchmarks": ["held-out"], "batch_size": 5},
}


def config(**more):
    return from_dict(TrainConfig, CONFIG | more)


def write_folder(faces, folder):
    for i in range(len(faces)):
        place = folder / faces.identities[faces.labels[i]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(faces.read(i)).save(place / f"{i:03d}.png")


def losses(run):
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {e["step"]: e["loss"] for e in events if e["event"] == "step"}


def steps_told(run):
    """Counted in the text: while a run writes, its last line may be half there."""
    log = run / "metrics.jsonl"
    return log.read_text().count('"event": "step"') if log.exists() else 0


def run_until(world, run, settings, resume, steps):
    """Train, and let the last process get a SIGTERM in its step number ``steps``; None trains to the end.

    Made in a process of its own.
    """
    if steps is not None and world.rank == world.size - 1:
        take = Stepper.__call__

        def take_and_signal(self, batch, epoch, step):
            done = take(self, batch, epoch, step)
            if step + 1 == steps:
                os.kill(os.getpid(), signal.SIGTERM)
            return done

        Stepper.__call__ = take_and_signal
    try:
        done = train(settings, run, resume=resume, world=world)
    except Stopped as stopped:
        return str(stopped)
    return done.summary.results


@pytest.mark.slow
@pytest.mark.parametrize("head", ["sharded", "full", "full and sharded", "sampled", "lazy"])
def test_one_two_three_and_one_process_again(head, tmp_path):
    drawn = {"sampled": {"rate": 0.5}, "lazy": {"kind": "sampled", "rate": 0.3, "lazy": True}}
    kinds = {"full and sharded": ["full", "sharded"]}.get(head, [head])
    every = [config(head={"kind": kind, **drawn.get(kind, {})}) for kind in kinds]
    whole = train(every[0], tmp_path / "whole")
    expected = losses(tmp_path / "whole")
    run = tmp_path / "run"
    for number, (size, steps) in enumerate([(1, 4), (2, 8), (3, 13), (1, None)]):
        settings = every[number % len(every)]
        told = run_processes(size, tmp_path / str(number), run_until, run, settings, number > 0, steps)
        if steps is not None:
            assert all("the state is saved" in text for text in told), told
            assert len(set(told)) == 1, "all stop after the same step"
    found = losses(run)
    assert found.keys() == expected.keys() == set(range(1, len(expected) + 1))
    for step, loss in expected.items():
        assert abs(found[step] - loss) < 1e-4 * max(1, abs(loss)), f"step {step}: {found[step]}, {loss}"
    trained, other = (load_model(r / "model.safetensors").backbone.state_dict() for r in (run, tmp_path / "whole"))
    for name, value in other.items():
        torch.testing.assert_close(trained[name], value, rtol=0.02, atol=0.005, msg=name)
    assert told[0]["held-out"]["auc"] == pytest.approx(whole.summary.results["held-out"]["auc"], abs=0.02)


def train_shortly(world, run, settings):
    train(settings, run, world=world)


def begun(world, settings):
    """Class weights as a run begins, those of this process."""
    setup = prepare(resolve(settings), world)
    said = begin(setup, split_rows(setup.loss))
    return said, next(iter(heads_of(setup.loss).values())).weight.detach()


@pytest.mark.parametrize("head", ["full", "sharded"])
def test_imprinted_class_weights_do_not_depend_on_the_number_of_processes(head, tmp_path):
    train(config(epochs=1), tmp_path / "learned")
    init = {"model": str(tmp_path / "learned" / "model.safetensors"), "class_weights": "imprinted"}
    settings = config(init=init, head={"kind": head}, hold_out=0.0, evaluation={})
    said, whole = begun(ALONE, settings)
    assert "12 of the new ones begin" in said
    found = run_processes(3, tmp_path / "processes", begun, settings)
    assert [text for text, _ in found] == [said] * 3
    parts = [weight for _, weight in found]
    if head == "sharded":
        parts = [torch.cat(parts)]
    for part in parts:
        torch.testing.assert_close(part, whole, rtol=0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.timeout(600)  # the compiler of C++ works for most of it
def test_a_compiled_network_on_two_processes_has_the_losses_of_one_that_is_not(tmp_path):
    few = {"epochs": 1, "hold_out": 0.0, "evaluation": {}}
    train(config(**few), tmp_path / "plain")
    run_processes(2, tmp_path / "processes", train_shortly, tmp_path / "compiled", config(compile=True, **few))
    expected, found = losses(tmp_path / "plain"), losses(tmp_path / "compiled")
    assert found.keys() == expected.keys() == {1, 2, 3, 4}
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=1e-5), f"step {step}"


def torchrun(run, size, *options, **environment):
    port = 29400 + os.getpid() % 1000
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size), "--master-addr", "127.0.0.1",
        "--master-port", str(port), *options, "-m", "unpg", "train", "--config", f"{run}.yaml", "--out", str(run),
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
    )


def workers(parent):
    """Process ids of the ranks that a torchrun has started, in order."""
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in found if b"unpg" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def kill_a_rank(started, run, steps):
    while steps_told(run) < steps:
        assert started.poll() is None, started.stdout.read()
        time.sleep(0.05)
    os.kill(workers(started.pid)[-1], signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_process_ends_the_others_and_torchrun_goes_on_by_itself(tmp_path):
    settings = config(checkpoint={"every_steps": 2}, epochs=20, timeout=60)
    train(settings, tmp_path / "whole")
    run = tmp_path / "run"
    write_yaml(Path(f"{run}.yaml"), settings)
    started = torchrun(run, 2, "--max-restarts", "1")
    kill_a_rank(started, run, 5)
    text, _ = started.communicate(timeout=300)
    assert started.returncode == 0, text
    assert "Resuming after step" in text
    found, expected = losses(run), losses(tmp_path / "whole")
    assert found.keys() == expected.keys()
    for step in range(1, 26):  # twenty after the restart; rounding in another order grows from step to step
        loss = expected[step]
        assert abs(found[step] - loss) < 1e-4 * max(1, abs(loss)), f"step {step}: {found[step]}, {loss}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_restarts_the_others_stop_with_a_message(tmp_path):
    run = tmp_path / "run"
    write_yaml(Path(f"{run}.yaml"), config(checkpoint={"every_steps": 2}, epochs=200, timeout=60))
    started = torchrun(run, 2, "--max-restarts", "0")
    kill_a_rank(started, run, 5)
    began = time.monotonic()
    text, _ = started.communicate(timeout=120)
    assert started.returncode != 0
    assert time.monotonic() - began < 100
    assert "Another process has gone" in text, text
    assert "--resume" in text, text
    assert "train/loop.py" not in text, "torchrun has a traceback of its own; ours have none"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_evaluation_in_two_processes_is_that_of_one(tmp_path):
    """Each embeds a part; the same figures, printed and saved once."""
    train(config(epochs=1), tmp_path / "run")
    faces = SyntheticFaces(5, 3, seed=9, size=(32, 32))
    write_folder(faces, tmp_path / "faces")
    base = ["evaluate", str(tmp_path / "run"), "--benchmark", str(tmp_path / "faces"), "--cache", "none", "--out"]
    assert main([*base, str(tmp_path / "one")]) == 0
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unpg",
        *base, str(tmp_path / "two"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Wrote") == 1
    one, two = (load_results(tmp_path / name)["results"] for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        assert two[name]["metrics"] == pytest.approx(one[name]["metrics"], abs=1e-6)
