"""Every study of the project is read, and every arm and trial of it builds."""

import os
from pathlib import Path

import pytest
from PIL import Image

from unpg.cli.main import main
from unpg.config import from_dict
from unpg.distributed import ALONE
from unpg.study import read_study
from unpg.study.recipe import merged
from unpg.train import TrainConfig
from unpg.train.setup import _loss, resolve

FOLDER = Path(__file__).resolve().parents[3] / "recipes" / "study"
STUDIES = sorted(FOLDER.glob("tier*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_arm_and_trial_builds_its_loss(path):
    study, base = read_study(path)
    assert study.name == path.stem
    for name, arm in study.arms.items():
        settings = base
        for of in reversed(list(study.line(name))):
            settings = merged(settings, study.arms[of].set)
        for changes in ({}, *arm.trials):
            config = resolve(from_dict(TrainConfig, merged(settings, changes)))
            assert list(_loss(config, 50, 16, 10, ALONE).parameters()) or config.loss["kind"] not in (
                "arcface",
                "cosface",
            )
        if arm.of is not None and study.tuning is not None:
            assert len(arm.trials) == len(study.arms[arm.of].trials), f"{name} and its base must be tuned alike"


@pytest.mark.data
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_study_says_what_it_would_run(path, faces, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNPG_DATA", str(faces))
    monkeypatch.chdir(tmp_path)
    if path.stem == "tier3-finetune":
        weights = faces / "weights" / "mobilefacenet_xiaoccer_068.ckpt"
        if not weights.exists():
            pytest.skip(f"needs {weights}")
        (tmp_path / "study").mkdir()
        imported = [
            "import",
            str(weights),
            "--as",
            "mobilefacenet-xiaoccer",
            "--out",
            "study/mobilefacenet.safetensors",
        ]
        assert main(imported) == 0
    if path.stem == "tier2-classes":  # the study renders its people first; who they are is no matter here
        for people in (500, 2000, 8000):
            images = tmp_path / "study" / f"people-{people}" / "images"
            for name in (f"{people}-a", f"{people}-b"):
                (images / name).mkdir(parents=True)
                Image.new("RGB", (64, 64)).save(images / name / "0.png")
    assert main(["study", "run", str(path), "--results", "none.jsonl", "--dry-run"]) == 0
    told = capsys.readouterr().out
    study, _ = read_study(path)
    runs = {arm: len(study.seeds) + len(about.trials) for arm, about in study.arms.items()}
    assert f"Budget: {sum(runs.values())} runs to make" in told
    assert not os.path.exists("none.jsonl")
