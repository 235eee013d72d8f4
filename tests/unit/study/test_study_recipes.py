"""Every study of the project is read, and every arm and trial of it builds."""

import importlib.util
import os
from pathlib import Path

import pytest
from PIL import Image

from unpg.cli.main import main
from unpg.config import from_dict
from unpg.distributed import ALONE
from unpg.study import Plan, Results, read_study
from unpg.study.recipe import merged
from unpg.study.results import results_path
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


@pytest.fixture
def script():
    """recipes/study/starts.py."""
    spec = importlib.util.spec_from_file_location("starts", FOLDER / "starts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_starts_take_the_epoch_before_unpg_of_the_paper_s_form_alone(script, values, planned):
    unpg = {"later": {"start_epoch": 2}, "first": {}, "half": {"weight": 0.5, "start_epoch": 2}}
    unpg |= {"none": {"start_epoch": 1}}
    values["arms"] = {"base": {"label": "Base"}} | {n: {"of": "base", "set": {"unpg": u}} for n, u in unpg.items()}
    plan = planned(values)
    shares = {0: [0.01, 0.2, 0.4], 1: [0.02, 0.3, 0.5], 2: None}  # the last seed's loss has no denominator
    for arm in values["arms"]:
        for run in plan.finals(arm)[: 2 if arm == "none" else 3]:
            tar, eer = (0.4, 0.1) if arm == "base" else (0.3, 0.12)
            line = {"arm": arm, "trial": None, "seed": run.seed, "digest": run.digest, "diverged": ""}
            told = {"share/target": shares[run.seed]} if shares[run.seed] else {}
            scores = {"test": {"tar@far=1e-2": 0.0 if arm == "none" and run.seed else tar, "eer": eer}}
            plan.results.append(line | {"scores": scores, "by_epoch": told})
    found = list(script.starts(plan))
    assert [(one.arm, one.seed, one.epoch, one.share) for one in found] == [
        ("later", 0, 2, 0.2), ("later", 1, 2, 0.3), ("none", 0, 1, 0.01), ("none", 1, 1, 0.02)
    ]  # fmt: skip
    assert [one.eer_change for one in found] == pytest.approx([0.2] * 4)
    assert [one.tar_change for one in found] == pytest.approx([-0.25, -0.25, -0.25, -1])
    assert script.table(found).count("\n") == 5
    assert "| made | later | 0 | 2 | 20.00 % | +20 % | -25 % (1e-2) |" in script.table(found)
    assert "<svg" in script.drawn(found)


@pytest.mark.data
def test_results_are_found_by_the_digests_they_were_written_with(faces, monkeypatch):
    """A setting that is added later must not orphan what was measured before it."""
    monkeypatch.setenv("UNPG_DATA", str(faces))
    study, base = read_study(FOLDER / "tier1.yaml")
    plan = Plan(study, base, Results(results_path(FOLDER / "tier1.yaml", study.name)))
    for arm in study.arms:
        assert [run is not None and plan.results.get(run.digest) is not None for run in plan.finals(arm)] == [True] * 5
