"""The verbs as a user calls them: train, evaluate, report, import, demo; and what wrong use says."""

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from unpg.backbones import create_backbone
from unpg.cli.main import VERBS, main
from unpg.embed import Model
from unpg.export import save_model
from unpg.transforms import Preprocessing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipe(patterns, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    settings = {
        "data": {"kind": "folder", "roots": str(patterns)},
        "backbone": {"kind": "small_iresnet", "dim": 16, "widths": [4, 4, 8, 8], "blocks": [1, 1, 1, 1]},
        "preprocessing": {"size": [32, 32]},
        "loss": {"kind": "arcface", "s": 16, "m": 0.2},
        "sampler": {"batch_size": 12},
        "epochs": 2,
        "log_every": 2,
        "device": "cpu",
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def test_train_evaluate_report(recipe, patterns, tmp_path, capsys):
    run, unified = tmp_path / "base", tmp_path / "unified"
    assert main(["train", "--config", str(recipe), "--out", str(run), "--optim.lr", "0.2"]) == 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["optim"]["lr"] == 0.2
    words = ["train", "--config", str(recipe), "--out", str(unified), "--unpg.weight", "balanced", "--loss.m", "0.1"]
    assert main(words) == 0
    config = yaml.safe_load((unified / "config.yaml").read_text())
    assert config["unpg"]["weight"] == "balanced"
    assert config["loss"] == {"kind": "arcface", "s": 16, "m": 0.1, "tail": "none", "gradient": "exact"}
    assert main(["train", "--config", str(run / "config.yaml"), "--out", str(run), "--resume"]) == 0

    assert main(["evaluate", str(run), "--benchmark", str(patterns), "--baselines", "--out", str(tmp_path / "r")]) == 0
    assert "grey-pixels" in capsys.readouterr().out
    found = json.loads((tmp_path / "r" / "results.json").read_text())["results"][str(patterns)]
    assert found["genuine"] == 8 * 28
    assert found["impostor"] == 28 * 64
    assert found["intervals"]["refused"].startswith("no intervals from 8 identities")

    page = tmp_path / "page.html"
    assert main(["report", str(run), str(tmp_path / "r"), "--out", str(page)]) == 2
    assert "--names" in capsys.readouterr().err
    words = ["report", str(run), str(unified), str(tmp_path / "r"), "--names", "a", "unified", "c"]
    assert main([*words, "--out", str(page), "--figures", str(tmp_path / "f")]) == 0
    figures = sorted((tmp_path / "f").iterdir())
    assert len(figures) == page.read_text().count("<figure")
    assert all(ElementTree.parse(figure).getroot().tag.endswith("svg") for figure in figures)
    text = page.read_text()
    assert "unified" in text
    assert "http" not in text.replace("http://www.w3.org/", "").replace("https://arxiv.org", "")


def test_print_config_is_yaml_that_trains(recipe, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", str(recipe), "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["loss"]["kind"] == "arcface"
    assert printed["optim"]["momentum"] == 0.9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "Did you mean 'train'"),
        (["evaluate", "nothing.safetensors", "--benchmark", "lfw"], "nothing.safetensors"),
        (["evaluate", "weights.ckpt", "--benchmark", "lfw"], "--import-as"),
        (["report", "no-such-folder"], "no-such-folder"),
        (["train"], "there is no training set. Give --config recipe.yaml"),
        (["import", "none.ckpt", "--as", "mobilefacenet-xiaocer", "--out", "x.safetensors"], "Did you mean"),
        (["import", "weights.ckpt", "--as", "insightface-mbf", "--out", "x.st"], "ends in .safetensors"),
    ],
)
def test_wrong_use_is_one_clear_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.ckpt").write_bytes(b"of somebody")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_misspelt_setting_is_refused(recipe, tmp_path, capsys):
    for words, said in (
        (["--optim.lrr", "1"], "unrecognized arguments: --optim.lrr 1. Did you mean --optim.lr?"),
        (["--optim.lrr=1"], "Did you mean --optim.lr?"),
        (["--evaluation.benchmarks", "lfw"], "Got value: lfw\nSeveral values are written as a list: [a, b]."),
        (["--epochs", "1.5"], "Got value: 1.5"),
        (["--unpg.weight", "balance"], "Given value: balance"),
    ):
        assert main(["train", "--config", str(recipe), *words]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.startswith("unpg train: ")
        assert "usage" not in error
    assert main(["train", "--config", str(recipe), "--out", str(tmp_path / "x"), "--loss.margin", "1"]) == 2
    assert "no setting 'margin'" in capsys.readouterr().err


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)
    assert main(["--version"]) == 0
    for verb in VERBS:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0


def test_demo_in_small(tmp_path, capsys):
    words = ["demo", "--out", str(tmp_path / "demo"), "--identities", "16", "--views", "10", "--epochs", "4"]
    assert main(words) == 0
    out = capsys.readouterr().out
    for row in ("grey pixels", "untrained network", "CosFace", "CosFace + UNPG"):
        assert row in out
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    assert main(words) == 2
    assert "not empty" in capsys.readouterr().err


def test_paired_difference_of_two_models(tmp_path, capsys):
    """Two seeds of one untrained network, judged on pairs of drawn pictures, and then by the report."""
    rng = np.random.default_rng(0)
    lines = ["path_a,path_b,same,identity_a,identity_b"]
    for who in range(24):
        pattern = np.kron(rng.integers(40, 215, (4, 4, 3)), np.ones((8, 8, 1)))
        for i in range(2):
            noisy = np.clip(pattern + rng.normal(0, 30, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / f"{who}-{i}.png")
        other = (who + 1) % 24
        lines += [f"{who}-0.png,{who}-1.png,1,{who},{who}", f"{who}-0.png,{other}-1.png,0,{who},{other}"]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("\n".join(lines) + "\n")
    for seed in (1, 2):
        torch.manual_seed(seed)
        shape = {"widths": [4, 4, 8, 8], "blocks": [1, 1, 1, 1]}
        network = create_backbone("small_iresnet", dim=16, input_size=(32, 32), **shape)
        model = Model(network, Preprocessing(size=(32, 32)), "small_iresnet", shape)
        save_model(tmp_path / f"m{seed}.safetensors", model)
        words = ["evaluate", str(tmp_path / f"m{seed}.safetensors"), "--benchmark", str(pairs), "--replicates", "50"]
        assert main([*words, "--out", str(tmp_path / f"r{seed}")]) == 0
    assert "95 % intervals: vertex bootstrap by identity" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "r1"), str(tmp_path / "r2"), "--out", str(page)]) == 0
    assert re.search(r"EER: .* points, 95 % interval .* after Holm", capsys.readouterr().out)
    assert "m2 less m1" in page.read_text()
    words = ["evaluate", str(tmp_path / "m1.safetensors"), "--benchmark", str(pairs)]
    assert main([*words, "--intervals", "none"]) == 0
    assert "interval" not in capsys.readouterr().out
    assert main([*words, "--replicates", "5"]) == 2
    assert "40 or more" in capsys.readouterr().err


@pytest.mark.data
def test_foreign_weights_through_the_command_line(faces, tmp_path, capsys):
    """Import, then judge on pairs of ten LFW people given as a CSV."""
    weights = faces / "weights" / "mobilefacenet_xiaoccer_068.ckpt"
    model = tmp_path / "m.safetensors"
    assert main(["import", str(weights), "--as", "mobilefacenet-xiaoccer", "--out", str(model)]) == 0
    people = [p for p in sorted((faces / "lfw" / "images").iterdir()) if len(list(p.iterdir())) >= 2][:20]
    lines = ["path_a,path_b,same"]
    for a, b in zip(people, people[1:] + people[:1], strict=True):
        first, second = sorted(a.iterdir())[:2]
        lines += [f"{first},{second},1", f"{first},{sorted(b.iterdir())[0]},0"]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("\n".join(lines) + "\n")
    assert main(["evaluate", str(model), "--benchmark", str(pairs), "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())["results"][str(pairs)]
    assert found["auc"] > 0.97


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_run(script, tmp_path):
    words = [sys.executable, str(script)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
