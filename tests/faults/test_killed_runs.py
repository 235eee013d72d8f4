"""A run that is killed at any moment and resumed ends with the same bits as one that was left alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_and_resume.py")


def kill_and_resume(patterns, folder, kills, workers, epochs):
    settings = {
        "data": {"kind": "folder", "roots": str(patterns)},
        "backbone": {
            "kind": "small_iresnet",
            "dim": 16,
            "widths": [4, 4, 8, 8],
            "blocks": [1, 1, 1, 1],
            "dropout": 0.3,
        },
        "preprocessing": {"size": [32, 32]},
        "loss": {"kind": "adaface", "s": 16},
        "unpg": {"weight": "balanced", "start_epoch": 1, "memory": {"size": 24, "follow": True}},
        "sampler": {"batch_size": 16},
        "optim": {"lr": 0.05},
        "epochs": epochs,
        "log_every": 1,
        "device": "cpu",
        "threads": 1,
        "checkpoint": {"every_steps": 3},
        "try_workers": workers,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, str(SCRIPT), str(folder / "settings.json"), str(folder), str(kills), "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_killed_three_times(patterns, tmp_path):
    told = kill_and_resume(patterns, tmp_path, kills=3, workers=[0], epochs=4)
    assert told["kills"] == 3
    assert told["in saves"] >= 1
    assert told["different"] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_twenty_times_with_changing_workers(patterns, tmp_path):
    told = kill_and_resume(patterns, tmp_path, kills=20, workers=[0, 0, 1, 0, 2], epochs=10)
    assert told["kills"] == 20
    assert told["in saves"] >= 5
    assert told["different"] == []
