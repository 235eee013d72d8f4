"""`unpg diagnose` as a user calls it: a run, an unfinished run, a model alone, and what wrong use says."""

import json
import shutil

import pytest
import torch
import yaml

from unpg.cli.main import main
from unpg.train.checkpoint import latest_checkpoint, load_checkpoint
from unpg.train.trained import open_trained

UNPG = {"r": 1.0, "weight": "balanced", "rho": 2.0, "start_epoch": 1}

SETTINGS = {
    "backbone": {"kind": "small_iresnet", "dim": 16, "widths": [4, 4, 8, 8], "blocks": [1, 1, 1, 1]},
    "preprocessing": {"size": [32, 32]},
    "loss": {"kind": "arcface", "s": 16, "m": 0.2},
    "sampler": {"batch_size": 12},
    "epochs": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def runs(patterns, tmp_path_factory):
    """A base, the same with UNPG, and a triplet loss without class weights; six people each, two held out."""
    root = tmp_path_factory.mktemp("runs")
    settings = SETTINGS | {"data": {"kind": "folder", "roots": str(patterns)}, "hold_out": 0.25}
    pk = {"kind": "pk", "batch_size": 12, "images_per_identity": 4}
    kinds = {"base": {}, "unified": {"unpg": UNPG}, "triplet": {"loss": {"kind": "triplet"}, "sampler": pk}}
    for name, changes in kinds.items():
        recipe = root / f"{name}.yaml"
        recipe.write_text(yaml.safe_dump(settings | changes))
        assert main(["train", "--config", str(recipe), "--out", str(root / name)]) == 0
    return root


def told(folder):
    return json.loads((folder / "diagnosis.json").read_text())["sets"]


@pytest.mark.parametrize(
    ("changes", "batch"),
    [
        ({"accumulate": 2, "pairs": "whole"}, 12),  # pairs of the whole batch, as the loss compares them
        ({"accumulate": 2, "pairs": "micro"}, 6),
        ({"sampler": {"batch_size": 100, "drop_last": False}}, 64),  # a set smaller than a batch trains, too
    ],
)
def test_batches_are_those_of_the_loss(patterns, tmp_path, changes, batch):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        yaml.safe_dump(SETTINGS | {"data": {"kind": "folder", "roots": str(patterns)}, "unpg": UNPG} | changes)
    )
    assert main(["train", "--config", str(recipe), "--out", str(tmp_path / "run")]) == 0
    assert main(["diagnose", str(tmp_path / "run")]) == 0
    assert told(tmp_path / "run")[0]["sampling"]["batch_size"] == batch


def test_a_run_over_its_training_set_and_test_sets(runs, patterns, tmp_path, capsys):
    run = tmp_path / "unified"
    shutil.copytree(runs / "unified", run)
    assert main(["diagnose", str(run), "--benchmark", "held-out", str(patterns)]) == 0
    out = capsys.readouterr().out
    assert "training: 48 images of 6 people" in out
    assert "P(p <= n)" in out
    training, held_out, everyone = told(run)
    assert [(s["images"], s["identities"]) for s in (training, held_out, everyone)] == [(48, 6), (16, 2), (64, 8)]
    assert training["wdfs"]["positives"]["pairs"] == 6 * 28
    assert training["wdfs"]["negatives"]["pairs"] == 48 * 47 // 2 - 6 * 28
    # The union as the run weighs it: balanced, the batch twice.
    sampling = training["sampling"]
    assert (sampling["batches"], sampling["batch_size"], sampling["drawn"]) == (4, 12, "r = 1")
    assert (sampling["balanced"], sampling["batch_weight"]) == (True, 2.0)
    shares = {s["name"]: s["class_share"] for s in training["samples"]}
    assert shares["UNPG, r = 1"] == pytest.approx(1 / 3)
    assert sum(training["histograms"]["samples"]["CLPG"]) == 48 * 5
    # Nobody of a test set has a class weight.
    assert {s["kind"] for s in held_out["samples"]} == {"batch"}
    assert (run / "diagnosis-training.svg").read_text().startswith("<svg")
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "UNPG, r = 1" in page
    assert "robust sup" in page


def test_the_noise_of_a_rendered_training_set_is_known(tmp_path, capsys):
    data = {"kind": "synthetic", "identities": 12, "views": 4, "size": [32, 32], "on_demand": True}
    noise = {"split_identities": 0.17, "twins": 0.17, "flipped_labels": 0.1}
    recipe = tmp_path / "noisy.yaml"
    settings = {
        "data": data | noise,
        "backbone": {"kind": "small_iresnet", "dim": 16, "widths": [4, 4, 8, 8], "blocks": [1, 1, 1, 1]},
        "preprocessing": {"size": [32, 32]},
        "sampler": {"batch_size": 24},
        "epochs": 1,
        "device": "cpu",
    }
    recipe.write_text(yaml.safe_dump(settings))
    assert main(["train", "--config", str(recipe), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["diagnose", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    # Two halves of four images each, and five flips, of which some may fall on a half.
    assert "labels are wrong on purpose" in out
    (training,) = told(tmp_path / "run")
    assert 8 + 5 - 4 <= training["flipped"] <= 8 + 5
    assert training["identities"] == 10  # people, of twelve labels
    found = next(s["filter"] for s in training["samples"] if s["name"] == "MLPG")
    assert found["noise"] > 0
    assert found["twins"] > 0
    assert found["twins_kept"] == 1.0


def test_class_weights_are_those_of_the_checkpoint(runs):
    setup = open_trained(runs / "base", device="cpu")
    state = load_checkpoint(latest_checkpoint(runs / "base")).tensors
    weights = [v for k, v in state.items() if k.startswith("loss/") and k.endswith("weight")]
    assert torch.equal(setup.loss.pairs.head.weight.cpu(), weights[0])
    assert not setup.model.backbone.training
    for name, tensor in setup.model.backbone.state_dict().items():
        assert torch.equal(tensor, state[f"backbone/{name}"]), name


def test_planted_noise(runs, tmp_path, capsys):
    words = ["diagnose", str(runs / "base"), "--flip-labels", "0.25", "--batch-size", "24", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "12 labels are wrong on purpose" in capsys.readouterr().out
    (training,) = told(tmp_path)
    assert training["flipped"] == 12
    assert training["wdfs"]["positives"]["pairs"] == 6 * 28  # of the true labels
    filters = {s["name"]: s["filter"] for s in training["samples"]}
    assert filters["CLPG"] is None
    assert filters["MLPG"]["noise"] > 0 == filters["MLPG"]["cut"]
    assert main(["diagnose", str(runs / "base"), "--flip-labels", "0.25", "--seed", "1", "--out", str(tmp_path)]) == 0
    assert told(tmp_path)[0]["samples"] != training["samples"]


def test_some_images_of_a_large_set(runs, tmp_path):
    words = ["diagnose", str(runs / "base"), "--images", "30", "--batches", "2", "--out", str(tmp_path)]
    assert main(words) == 0
    (training,) = told(tmp_path)
    assert (training["images"], training["sampling"]["batches"]) == (30, 2)
    assert sum(training["histograms"]["samples"]["CLPG"]) == 24 * 5  # all classes, whoever is drawn


def test_a_loss_without_class_weights(runs, tmp_path):
    assert main(["diagnose", str(runs / "triplet"), "--out", str(tmp_path)]) == 0
    (training,) = told(tmp_path)
    assert {s["kind"] for s in training["samples"]} == {"batch"}


def test_a_model_alone(runs, patterns, tmp_path, capsys):
    model = str(runs / "base" / "model.safetensors")
    assert main(["diagnose", model, "--data", str(patterns), "--batch-size", "16"]) == 0
    out = capsys.readouterr().out
    assert "MLPG, r = 1.5" in out
    assert "CLPG" not in out
    assert "Nothing was written" in out
    pairs = tmp_path / "pairs.csv"
    names = [sorted((patterns / f"id{i}").iterdir()) for i in range(3)]
    rows = [f"{names[i][0]},{names[i][1]},1\n{names[i][0]},{names[i - 1][1]},0" for i in range(3)]
    pairs.write_text("path_a,path_b,same\n" + "\n".join(rows) + "\n")
    assert main(["diagnose", model, "--benchmark", str(pairs), "--out", str(tmp_path)]) == 0
    (one,) = told(tmp_path)
    assert (one["samples"], one["wdfs"]["positives"]["pairs"]) == ([], 3)


def test_an_unreadable_image_is_left_out(runs, patterns, tmp_path, capsys):
    people = tmp_path / "people"
    shutil.copytree(patterns, people)
    (people / "id3" / "2.png").write_bytes(b"no picture")
    model = str(runs / "base" / "model.safetensors")
    assert main(["diagnose", model, "--data", str(people), "--out", str(tmp_path)]) == 0
    assert "1 images left out" in capsys.readouterr().out
    (one,) = told(tmp_path)
    assert (one["images"], one["unreadable"], one["wdfs"]["positives"]["pairs"]) == (63, 1, 7 * 28 + 21)


def test_wrong_use(runs, patterns, tmp_path, capsys):
    def refused(*words):
        assert main(["diagnose", *map(str, words)]) == 2
        return capsys.readouterr().err

    model = runs / "base" / "model.safetensors"
    assert "--benchmark" in refused(model)
    assert "--benchmark FOLDER" in refused(runs / "base", "--data", patterns)
    assert "flip_labels" in refused(runs / "base", "--flip-labels", 1.5)
    assert "batches must be >= 1" in refused(runs / "base", "--batches", 0)
    assert "'nothing-of-the-kind' is no name" in refused(runs / "base", "--benchmark", "nothing-of-the-kind")
    assert "4 images of each person" in refused(runs / "triplet", "--batch-size", 10)
    bare = tmp_path / "bare"
    shutil.copytree(runs / "base", bare)
    shutil.rmtree(bare / "checkpoints")
    assert "no checkpoint" in refused(bare)
    other = tmp_path / "other"
    shutil.copytree(runs / "base", other)
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("hold_out_seed: 0", "hold_out_seed: 1"))
    assert "not the one" in refused(other)
    one = tmp_path / "people"
    shutil.copytree(patterns / "id0", one / "id0")
    assert "two or more" in refused(model, "--data", one)
    (one / "id1").mkdir()
    shutil.copy(next((patterns / "id1").iterdir()), one / "id1")
    for file in sorted((one / "id0").iterdir())[1:]:
        file.unlink()
    assert "0 genuine and 1 impostor pairs" in refused(model, "--data", one)
