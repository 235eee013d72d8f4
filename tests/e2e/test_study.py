"""Studies as a user runs them: processes, logs, kills, and what is there afterwards."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

BASE = {
    "backbone": {"kind": "small_iresnet", "dim": 16, "widths": [4, 4, 8, 8], "blocks": [1, 1, 1, 1]},
    "preprocessing": {"size": [32, 32]},
    "loss": {"kind": "cosface", "s": 16, "m": 0.2},
    "sampler": {"batch_size": 16},
    "optim": {"lr": 0.05},
    "epochs": 2,
    "log_every": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def strangers(tmp_path_factory) -> Path:
    """24 "people" of four images, as tests are; intervals need twenty."""
    root = tmp_path_factory.mktemp("strangers")
    rng = np.random.default_rng(1)
    for identity in range(24):
        (root / f"t{identity}").mkdir()
        pattern = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((4, 4, 1)))
        for view in range(4):
            noisy = np.clip(pattern + rng.normal(0, 40, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / f"t{identity}" / f"{view}.png")
    return root


def write(folder: Path, patterns: Path, strangers: Path, arms, **changes) -> Path:
    path = folder / "made.yaml"
    values = {
        "name": "made",
        "base": {"data": {"kind": "folder", "roots": str(patterns)}, **BASE},
        "arms": arms,
        "seeds": [0],
        "tuning": {"hold_out": 0.25},
        "benchmarks": [str(strangers)],
        "primary": f"{strangers}/tar@far=1e-2",
        "secondary": [f"{strangers}/eer"],
        "intervals": {"replicates": 40},
    }
    path.write_text(yaml.safe_dump(values | changes), encoding="utf-8")
    return path


def start(path: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "unpg", "study", "run", path.name, "--threads", "1", *options]
    return subprocess.Popen(
        command, cwd=path.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def lines(path: Path) -> list[dict]:
    file = path.parent / "results" / "made.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_test_set_that_is_not_there_is_named_before_anything_is_trained(tmp_path, patterns):
    path = write(tmp_path, patterns, tmp_path / "nowhere", {"cosface": {}})
    process = start(path)
    told, _ = process.communicate()
    assert process.returncode == 2, told
    assert "nowhere" in told
    assert "begins" not in told
    assert not (tmp_path / "study").exists()


def test_a_study_runs_reports_what_failed_and_makes_nothing_twice(tmp_path, patterns, strangers):
    (tmp_path / "broken.safetensors").write_bytes(b"no model")
    arms = {
        "cosface": {"label": "CosFace", "trials": [{"loss": {"s": 16}}, {"loss": {"s": 8}}]},
        "unpg": {"label": "CosFace + UNPG", "of": "cosface", "set": {"unpg": {"start_epoch": 1}}},
        "broken": {"set": {"init": {"model": str(tmp_path / "broken.safetensors")}}},
    }
    path = write(tmp_path, patterns, strangers, arms, share_prefix=True)
    process = start(path, "--jobs", "2")
    told, _ = process.communicate()
    assert process.returncode == 1, told
    logs = sorted((tmp_path / "study" / "made" / "broken").glob("seed-*/log.txt"))
    assert len(logs) == 1
    assert all(f"{log.relative_to(tmp_path)}" in told and "broken.safetensors" in log.read_text() for log in logs)

    found = lines(path)
    kinds = sorted((line["arm"], line["trial"], line["seed"]) for line in found if line["trial"] is None)
    assert kinds == [("cosface", None, 0), ("unpg", None, 0)]
    trials = [line for line in found if line["trial"] is not None]
    assert [line["trial"] for line in sorted(trials, key=lambda t: t["trial"])] == [0, 1]
    best = min(trials, key=lambda t: (t["scores"]["held-out"]["eer"], t["trial"]))
    for line in found:
        assert line["images"] == (48 if line["trial"] is not None else 64)
        assert {"loss", "grad_norm", "effective_rank", "cosine/pairwise"} <= line["by_epoch"].keys()
        assert all(len(epochs) == 2 for epochs in line["by_epoch"].values())
        if line["trial"] is None:
            assert line["changes"].get("loss.s", 16) == best["changes"].get("loss.s", 16)
            # UNPG starts after the first of two epochs, whose four steps are those of the run without.
            assert line["shared_steps"] == (4 if line["arm"] == "unpg" else 0)
            assert line["resumed"] is False
            assert ("share/batch" in line["by_epoch"]) == (line["arm"] == "unpg")
            assert 0 < line["scores"][str(strangers)]["auc"] <= 1
            assert line["similarities"][str(strangers)]["sup_negative"] <= 1
            assert (path.parent / "results" / "made" / f"{line['digest']}.npz").exists()

    before = (tmp_path / "results" / "made.jsonl").read_bytes()
    again = start(path, "--only", "unpg")
    told, _ = again.communicate()
    assert again.returncode == 0, told
    assert "begins" not in told
    assert "Budget: 0 runs to make" in told
    assert (tmp_path / "results" / "made.jsonl").read_bytes() == before

    summed = subprocess.run(
        [sys.executable, "-m", "unpg", "study", "summary", path.name, "--markdown", "made.md", "--figures", "figures"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert summed.returncode == 0, summed.stderr
    assert "CosFace + UNPG − CosFace" in (tmp_path / "made.md").read_text(encoding="utf-8")
    assert (tmp_path / "results" / "made.summary.json").exists()
    drawn = ["made-endpoint.svg", "made-tar-cosface.svg", "made-training-cosface.svg"]
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == drawn

    def diagnosed() -> str:
        command = [sys.executable, "-m", "unpg", "study", "diagnose", path.name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert diagnosed().count("diagnosed ") == 2
    kept = json.loads((tmp_path / "results" / "made.diagnosis.json").read_text(encoding="utf-8"))
    assert kept.keys() == {line["digest"] for line in found if line["trial"] is None}
    # As `unpg diagnose` says of the run folder, in its finer bins.
    (line,) = (line for line in found if line["trial"] is None and line["arm"] == "unpg")
    (folder,) = (tmp_path / "study" / "made" / "unpg").iterdir()
    subprocess.run([sys.executable, "-m", "unpg", "diagnose", str(folder)], capture_output=True, check=True)
    one = json.loads((folder / "diagnosis.json").read_text(encoding="utf-8"))["sets"][0]
    densities = {sample["name"]: sample["tail_density"] for sample in one["samples"]}
    seen = kept[line["digest"]]["samples"]
    assert seen["CLPG"]["tail_density"] == pytest.approx(densities["CLPG"], rel=1e-4)
    assert seen["filtered"]["tail_density"] == pytest.approx(densities["UNPG, r = 1.5"], rel=1e-4)
    shown = kept[line["digest"]]["histograms"]
    assert shown.keys() == {"negatives", "CLPG", "MLPG", "filtered"}
    finer = np.array(one["histograms"]["samples"]["MLPG"]).reshape(128, 4).sum(axis=1)
    assert np.allclose(shown["MLPG"], finer, rtol=1e-4)
    before = (tmp_path / "results" / "made.diagnosis.json").read_bytes()
    assert diagnosed() == "There are diagnoses of 2 final runs.\n"
    shutil.rmtree(tmp_path / "study" / "made" / "unpg")
    (tmp_path / "results" / "made.diagnosis.json").unlink()
    told = diagnosed()
    assert "left out  unpg/seed-0" in told
    assert "no folder of it is in study" in told
    (tmp_path / "results" / "made.diagnosis.json").write_bytes(before)

    # Another study beside it takes the base from there: its result, and its first epoch.
    chosen = {"loss": {"s": best["changes"].get("loss.s", 16)}}
    arms = {"plain": {"set": chosen}, "half": {"of": "plain", "set": {"unpg": {"start_epoch": 1, "weight": 0.5}}}}
    second = write(tmp_path, patterns, strangers, arms, name="other", share_prefix=True).rename(tmp_path / "other.yaml")
    third = start(second)
    told, _ = third.communicate()
    assert third.returncode == 0, told
    assert "Budget: 1 runs to make" in told
    assert "begins    half/seed-0" in told
    assert "plain/seed" not in told
    (line,) = (tmp_path / "results" / "other.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["shared_steps"] == 4
    # Its base was diagnosed there, and the folders of that study serve here too.
    command = [sys.executable, "-m", "unpg", "study", "diagnose", second.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [told.split()[1].split("-")[0] for told in done.stdout.splitlines()[:-1]] == ["half/seed"]
    assert done.stdout.endswith("There are diagnoses of 2 final runs.\n")

    # Judged with the mirror image, trials are made anew; final runs are trained already, and are judged anew.
    mirrored = write(tmp_path, patterns, strangers, {"cosface": {"trials": [{"loss": {"s": 16}}]}}, flip="sum")
    fourth = start(mirrored)
    told, _ = fourth.communicate()
    assert fourth.returncode == 0, told
    assert told.count("begins    cosface/trial-0") == 1
    last = lines(mirrored)[-1]
    assert (last["trial"], last["resumed"]) == (None, best["changes"].get("loss.s", 16) == 16)


def test_running_needs_neither_jsonargparse_nor_the_extra_report(tmp_path, patterns, strangers):
    path = write(tmp_path, patterns, strangers, {"cosface": {}})
    without = "import sys; sys.modules.update(jsonargparse=None, matplotlib=None, jinja2=None)\n"
    without += "import unpg.study.job\nfrom unpg.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", without, "study", "run", path.name, "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "to run            cosface/seed-0" in done.stdout


def wait_for(condition, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened in time"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_study_goes_on_from_its_checkpoints(tmp_path, patterns, strangers):
    base = {"data": {"kind": "folder", "roots": str(patterns)}, **BASE, "epochs": 100, "checkpoint_epochs": 5}
    path = write(tmp_path, patterns, strangers, {"cosface": {}}, base=base, tuning=None)

    def saved() -> list[Path]:
        return sorted((tmp_path / "study" / "made" / "cosface").glob("seed-0-*/checkpoints/step-????????"))

    asked = start(path)
    wait_for(saved)
    asked.send_signal(signal.SIGTERM)
    told, _ = asked.communicate()
    assert asked.returncode == 143, told
    assert "1 runs have saved their state" in told
    (folder,) = (tmp_path / "study" / "made" / "cosface").iterdir()
    first = saved()[-1]

    killed = start(path)
    wait_for(lambda: saved() and saved()[-1] > first)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "results").exists()
    # What it had started notices, saves, and ends: the same folder can be gone on with.
    wait_for(lambda: "SIGTERM" in (folder / "log.txt").read_text().rpartition("Resuming")[2])
    wait_for(lambda: start_and_wait(path) == 0)
    assert (folder / "log.txt").read_text().count("Resuming after step") == 2
    (line,) = lines(path)
    assert (line["steps"], line["resumed"]) == (400, True)


def start_and_wait(path: Path) -> int:
    process = start(path)
    process.communicate()
    return process.returncode
