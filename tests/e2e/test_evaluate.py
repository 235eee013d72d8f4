"""``unpg evaluate`` as a user calls it: several sets, baselines, a foreign threshold, and what wrong use says."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from unpg.cli.main import main
from unpg.embed import Model
from unpg.evaluate import BENCHMARKS, MODEL_BASELINES, open_benchmark
from unpg.export import save_model


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with an LFW of patterns: 24 people with four images, ten folds of 4 + 4 pairs."""
    base = tmp_path_factory.mktemp("root")
    rng = np.random.default_rng(0)
    names = [f"Name_{chr(97 + p)}" for p in range(24)]
    for name in names:
        pattern = np.kron(rng.integers(40, 215, (4, 4, 3)), np.ones((8, 8, 1)))
        (base / "lfw/images" / name).mkdir(parents=True)
        for i in range(1, 5):
            noisy = np.clip(pattern + rng.normal(0, 30, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(base / "lfw/images" / name / f"{name}_{i:04d}.jpg")
    lines = ["10\t4"]
    for _ in range(10):
        lines += [f"{names[p]}\t1\t{i}" for p, i in zip(rng.permutation(24)[:4], (2, 3, 4, 2), strict=True)]
        lines += [f"{names[a]}\t1\t{names[b]}\t2" for a, b in rng.permutation(24)[:8].reshape(4, 2)]
    (base / "lfw/pairs.txt").write_text("\n".join(lines) + "\n")
    return base


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    save_model(path, Model.create("small_iresnet", dim=16, input_size=(32, 32), widths=[4, 4, 8, 8]))
    return str(path)


def test_several_sets_a_foreign_threshold_and_baselines(root, model, tmp_path, capsys):
    words = ["evaluate", model, "--data", str(root), "--benchmark", "lfw", "lfw-allpairs", "lfw-closed-set"]
    words += ["--threshold-from", "lfw:far=0.1", "--replicates", "40", "--cache", str(tmp_path / "cache")]
    words += ["--baselines", "grey-pixels", "shuffled-labels", "constant", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "lfw-allpairs: 144 genuine, 4,416 impostor pairs" in shown
    assert "72 searches in one gallery of 24 subjects" in shown
    assert re.search(r"FMR at T of lfw:far=0\.1 .* \[", shown)
    assert re.search(r"constant: No threshold from lfw:far=0\.1.*accept no pair", shown)
    assert re.search(r"FNIR at T of lfw:far=0\.1 .* \[", shown)
    found = json.loads((tmp_path / "out/results.json").read_text())["results"]
    assert set(found) == {"lfw", "lfw-allpairs", "lfw-closed-set"}
    assert "at_threshold" not in found["lfw"]  # its own threshold says nothing new
    assert found["lfw-allpairs"]["at_threshold"]["chosen"] == "lfw:far=0.1"
    searched = found["lfw-closed-set"]["at_threshold"]
    assert searched["threshold"] == found["lfw-allpairs"]["at_threshold"]["threshold"]
    assert (searched["fpir"], searched["mated"]) == (None, 72)
    assert len(found["lfw-allpairs"]["hardest"]) == 100
    name_a, name_b, cosine, same = found["lfw-allpairs"]["hardest"][0]
    assert (name_a[-4:], name_b[-4:], same) == (".jpg", ".jpg", False)
    assert -1 <= cosine <= 1
    assert {p.name for p in (tmp_path / "out").iterdir() if p.is_dir()} == {
        "scores",
        "grey-pixels",
        "shuffled-labels",
        "constant",
    }
    blind = json.loads((tmp_path / "out/constant/results.json").read_text())["results"]
    assert blind["lfw"]["accuracy"]["exact"]["mean"] == 0.5
    assert blind["lfw-closed-set"]["rank"]["1"] == 0.0
    shuffled = json.loads((tmp_path / "out/shuffled-labels/results.json").read_text())["results"]
    assert shuffled["lfw-allpairs"]["auc"] == pytest.approx(0.5, abs=0.1)
    # What pairs point into can be opened.
    listed = (tmp_path / "out/scores/lfw.names.txt").read_text().splitlines()
    pairs = np.load(tmp_path / "out/scores/lfw.npz")["pairs"]
    with Image.open(listed[pairs[0, 1]]) as image:
        assert image.size == (32, 32)
    assert np.load(tmp_path / "out/scores/lfw.npz")["quality"].shape == (80,)
    # Three sets of the same images, one file of embeddings each, and a second call embeds nothing.
    assert len(list((tmp_path / "cache").iterdir())) == len(
        {open_benchmark(n, root).images.digest() for n in ("lfw", "lfw-allpairs", "lfw-closed-set")}
    )


def test_a_second_call_opens_no_network(root, model, tmp_path, capsys, monkeypatch):
    words = ["evaluate", model, "--data", str(root), "--benchmark", "lfw", "--intervals", "none"]
    words += ["--cache", str(tmp_path)]
    assert main(words) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr("unpg.embed.shared.embed", lambda *a, **k: pytest.fail("embedded again"))
    assert main(words) == 0
    assert capsys.readouterr().out.split("lfw:")[1] == first.split("lfw:")[1]


def test_the_authors_threshold_has_its_own_name(root, model, capsys):
    words = ["evaluate", model, "--data", str(root), "--benchmark", "lfw", "--cache", "none"]
    assert main([*words, "--folds", "authors-best-threshold", "--intervals", "none"]) == 0
    shown = capsys.readouterr().out
    assert "accuracy (authors' best threshold)" in shown
    assert "optimistic" in shown
    assert main([*words, "--folds", "insightface-grid", "--intervals", "none"]) == 0
    assert "accuracy (insightface-grid)" in capsys.readouterr().out


@pytest.fixture
def groups(root, tmp_path):
    """The people of ``root`` in two groups."""
    for g, group in enumerate(("north", "south")):
        for p in range(12):
            name = f"Name_{chr(97 + 12 * g + p)}"
            shutil.copytree(root / "lfw/images" / name, tmp_path / "set" / group / name)
    return f"{tmp_path / 'set'}:groups"


def test_groups_of_ones_own_at_a_foreign_threshold(root, model, groups, tmp_path, capsys):
    words = ["evaluate", model, "--data", str(root), "--benchmark", groups]
    words += ["--threshold-from", "lfw:eer", "--cache", "none", "--intervals", "none", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "common threshold from lfw:eer" in shown
    assert "north: FMR" in shown
    (found,) = json.loads((tmp_path / "out/results.json").read_text())["results"].values()
    assert found["chosen"] == "lfw:eer"


def test_list_and_layout(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "5000")
    assert main(["evaluate", "--list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in BENCHMARKS)
    assert main(["evaluate", "--layout", "ijbc-1n"]) == 0
    shown = capsys.readouterr().out
    assert "ijbc_1N_probe_mixed.csv" in shown
    assert "NIST" in shown
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in (*BENCHMARKS, *MODEL_BASELINES))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("lfw-closed-set:eer", "lfw-closed-set has searches and no pairs"),
        ("lfw:fpir=0.1", "lfw has pairs and no searches"),
        ("GROUPS:eer", "has groups; name a set that has none"),
    ],
)
def test_a_rule_that_the_set_has_no_use_for_is_refused_before_the_work(
    root, model, groups, rule, said, capsys, monkeypatch
):
    monkeypatch.setattr("unpg.embed.shared.embed", lambda *a, **k: pytest.fail("embedded"))
    rule = rule.replace("GROUPS", groups)
    words = ["--benchmark", "lfw", "--data", str(root), "--cache", "none", "--threshold-from", rule]
    assert main(["evaluate", model, *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs a model and --benchmark"),
        (["m.safetensors"], "needs a model and --benchmark"),
        (["--layout", "lwf"], "Did you mean 'lfw'"),
        (["MODEL", "--benchmark", "lfw", "--baselines", "grey-pixel"], "Did you mean 'grey-pixels'"),
        (["MODEL", "--benchmark", "lfw", "--threshold-from", "lfw"], "as lfw:far=1e-3"),
        (["MODEL", "--benchmark", "lfw", "--threshold-from", "lfw-closed-set:eer"], "no pairs to choose a threshold"),
        (
            ["MODEL", "--benchmark", "lfw", "--threshold-from", "lfw-closed-set:fpir=0.1@G1"],
            "has the galleries first images",
        ),
        (["MODEL", "--benchmark", "ijbc"], "nist.gov"),
        (["MODEL", "--benchmark", "lfw", "--device", "gpu"], "device must be auto, cpu, cuda or cuda:<n>, got 'gpu'"),
        (["MODEL", "--benchmark", "lfw", "--name", "constant", "--baselines"], "are both called constant"),
        (
            ["MODEL", "--benchmark", "lfw", "--import-as", "mobilefacenet-xiaoccer"],
            "net.safetensors is a model file of unpg. Leave --import-as mobilefacenet-xiaoccer out.",
        ),
    ],
)
def test_wrong_use_is_said(root, model, words, said, capsys):
    words = [model if word == "MODEL" else word for word in words]
    assert main(["evaluate", *words, "--data", str(root), "--cache", "none"]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_of_results_is_of_one_model(root, model, tmp_path, capsys, monkeypatch):
    torch.manual_seed(4)
    other = str(tmp_path / "net.safetensors")  # the same name, other weights
    save_model(other, Model.create("small_iresnet", dim=16, input_size=(32, 32), widths=[4, 4, 8, 8]))
    words = ["--data", str(root), "--cache", "none", "--intervals", "none", "--out", str(tmp_path / "out")]
    assert main(["evaluate", model, *words, "--benchmark", "lfw"]) == 0
    assert main(["evaluate", model, *words, "--benchmark", "lfw-closed-set"]) == 0  # joins them
    before = (tmp_path / "out/results.json").read_bytes()
    with monkeypatch.context() as patch:  # said before anything is embedded
        patch.setattr("unpg.embed.shared.embed", lambda *a, **k: pytest.fail("embedded"))
        assert main(["evaluate", other, *words, "--benchmark", "lfw"]) == 2
        assert "keeps results of lfw-closed-set that are not of this model (weights_digest" in capsys.readouterr().err
        assert main(["evaluate", model, *words, "--benchmark", "lfw", "--flip", "sum"]) == 2
        assert "(flip none, now sum)" in capsys.readouterr().err
        assert main(["evaluate", model, *words, "--benchmark", "lfw", "--baselines", "--name", "constant"]) == 2
        assert "are both called constant" in capsys.readouterr().err
    assert (tmp_path / "out/results.json").read_bytes() == before
    # What is replaced as a whole may be another model's.
    assert main(["evaluate", other, *words, "--benchmark", "lfw", "lfw-closed-set"]) == 0
    assert json.loads((tmp_path / "out/results.json").read_text())["weights_digest"] not in before.decode()


def test_brackets_in_names_are_text(root, model, tmp_path, capsys):
    people = tmp_path / "[old]/[/bold]"
    shutil.copytree(root / "lfw/images", people)
    words = ["--benchmark", str(people), "--name", "net[v2]", "--cache", "none", "--replicates", "40"]
    assert main(["evaluate", model, *words, "--out", str(tmp_path / "[out]")]) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert f"{people}:144genuine" in shown
    assert "net[v2]" in shown
    assert f"Wrote{tmp_path / '[out]'}" in shown
    assert main(["diagnose", model, "--data", str(people), "--batch-size", "32"]) == 0
    assert f"{people}:96images" in "".join(capsys.readouterr().out.split())


def test_results_are_kept_before_they_are_shown(root, model, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("the terminal is gone")

    monkeypatch.setattr("unpg.cli.evaluate_verb.show_results", broken)
    words = ["--data", str(root), "--benchmark", "lfw", "--cache", "none", "--intervals", "none"]
    with pytest.raises(OSError, match="terminal"):
        main(["evaluate", model, *words, "--out", str(tmp_path)])
    assert set(json.loads((tmp_path / "results.json").read_text())["results"]) == {"lfw"}
