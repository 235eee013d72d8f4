"""Trains, is killed at random moments, resumes, and says whether anything is other than in an undisturbed run.

    python kill_and_resume.py SETTINGS.json FOLDER KILLS SEED

One process imports everything and forks a child for each attempt, so an attempt starts at once. Half of the kills come
some steps and milliseconds after the start, the other half while a checkpoint is being written, which is made slower
for that. Attempts differ in data workers and in whether a thread writes the checkpoints. Prints a JSON object.
"""

import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from unpg.config import from_dict
from unpg.train import TrainConfig, checkpoint, train
from unpg.train.checkpoint import latest_checkpoint, load_checkpoint

SLOWER = 0.02  # seconds that a save takes longer, in each of three places
PATIENCE = 120.0  # seconds after which an attempt that makes no progress is an error


def slow_saves():
    """Room for a kill before the tensors, between them and the manifest, and before the last name."""
    for name in ("write_tensors", "_manifest", "_finish"):
        real = getattr(checkpoint, name)

        def slow(*arguments, real=real):
            time.sleep(SLOWER)
            return real(*arguments)

        setattr(checkpoint, name, slow)


def start(settings, run, resume, slow=False):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if slow:
                slow_saves()
            torch.manual_seed(os.getpid())  # nothing may depend on what the process did before
            train(from_dict(TrainConfig, settings), run, resume=resume)
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    return child


def finished(child):
    done, status = os.waitpid(child, os.WNOHANG)
    if done and status != 0:
        raise RuntimeError(f"an attempt failed by itself: status {status}")
    return bool(done)


def steps_told(run):
    log = run / "metrics.jsonl"
    return log.read_text().count('"event": "step"') if log.exists() else 0


def parts(run):
    """Checkpoints that are, or were when a run was killed, being written."""
    found = set()
    for path in (run / "checkpoints").glob("*.part"):
        with suppress(FileNotFoundError):  # it got its name just now
            found.add((path.name, path.stat().st_ino))
    return found


def kill_when(child, condition, delay):
    """Kill after ``delay`` seconds from when ``condition`` holds; False if the child was done before."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        if finished(child):
            return False
        if time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
            raise RuntimeError("an attempt makes no progress")
        time.sleep(0.001)
    time.sleep(delay)
    if finished(child):
        return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def kill_in_save(child, run, draw, left):
    return kill_when(child, lambda: parts(run) - left, draw.uniform(0, 3 * SLOWER))


def kill_after_steps(child, run, draw):
    before, more = steps_told(run), draw.randrange(6)
    return kill_when(child, lambda: more == 0 or steps_told(run) != before, draw.uniform(0, 0.05 + 0.05 * more))


def wait(child):
    while not finished(child):
        time.sleep(0.01)


def outcome(run):
    """All that a run comes to: every tensor of its last checkpoint, and the loss of each step."""
    last = load_checkpoint(latest_checkpoint(run))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return last, [(line["step"], line["loss"], line["lr"]) for line in lines if line["event"] == "step"]


def differences(run, whole):
    last, losses = outcome(run)
    expected, expected_losses = whole
    odd = [name for name, tensor in expected.tensors.items() if not torch.equal(tensor, last.tensors[name])]
    odd += ["names"] * (expected.tensors.keys() != last.tensors.keys())
    odd += ["losses"] * (losses != expected_losses)
    return odd + ["step"] * (last.step != expected.step)


def main():
    settings, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    kills, draw = int(sys.argv[3]), random.Random(int(sys.argv[4]))
    torch.set_num_threads(1)
    workers = settings.pop("try_workers")
    wait(start(settings, folder / "whole", resume=False))
    whole = outcome(folder / "whole")
    done, in_saves, runs, odd = 0, 0, 0, []
    attempt = 0
    while done < kills:
        run = folder / f"killed-{runs}"
        while True:
            settings |= {
                "workers": workers[attempt % len(workers)],
                "checkpoint": {**settings["checkpoint"], "asynchronous": draw.random() < 0.5},
            }
            left = parts(run)
            child = start(settings, run, resume=(run / "config.yaml").exists(), slow=True)
            attempt += 1
            if done >= kills:
                wait(child)
                break
            killed = kill_in_save(child, run, draw, left) if done % 2 else kill_after_steps(child, run, draw)
            if not killed:
                break
            done += 1
            in_saves += bool(parts(run) - left)
        odd += differences(run, whole)
        runs += 1
    print(json.dumps({"kills": done, "in saves": in_saves, "runs": runs, "different": odd, "attempts": attempt}))


if __name__ == "__main__":
    main()
