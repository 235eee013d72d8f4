"""Class weights and momentum that one process saved, two, three and one again go on with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("reshard.py")


@pytest.mark.parametrize("rows", [2, pytest.param(7, marks=pytest.mark.slow)])
def test_one_two_three_one(tmp_path, rows):
    """Every step depends on weights and momentum of all rows; with two rows one of three processes has none."""
    command = [sys.executable, str(SCRIPT), str(tmp_path / "run"), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["steps"] == [[2], [4, 4], [6, 6, 6], [8]]
    kept = {"loss/head.weight", "optimizer/state/loss/head.weight/momentum_buffer"}
    assert kept | {"loss/sampled.weight", "loss/sampled.of_momentum_buffer"} < set(told["worst"])
    assert set(told["worst"].values()) == {0.0}
    assert told["left"] == ["step-00000007", "step-00000008"]
    for message in told["failed"]:
        assert "No space left" in message
        assert "step-00000008" in message
