import json
import shutil
import zipfile

import numpy as np
import pytest

from unpg.errors import DataError
from unpg.report import load_run
from unpg.report.run import settings


@pytest.fixture
def copy(made_runs, tmp_path):
    return shutil.copytree(made_runs[1], tmp_path / "run")


def test_run_is_read_whole(made_runs):
    run = load_run(made_runs[1])
    assert (run.name, run.faults, run.finished) == ("arcface-unpg", 1, True)
    assert len(run.steps) == 450
    assert [e["epoch"] for e in run.evaluations] == [0, 4, 8, 12, 16, 20]
    assert list(run.results) == ["lfw", "lfw-allpairs"]
    assert set(run.scores["lfw"]) == {"scores", "same"}
    assert set(run.scores["lfw-allpairs"]) == {"genuine", "impostor", "edges"}
    assert run.similarities["fences"] == [-0.36, 0.4]
    assert settings(run)["loss.unpg.r"] == 1.5
    assert settings(run)["data.train"] == ["celeba288", "cfp"]


def test_model_without_a_run(made_runs):
    run = load_run(made_runs[2])
    assert (run.name, run.faults, run.config, run.steps) == ("grey pixels <32 x 32>", None, "", [])
    assert run.finished
    assert load_run(made_runs[2], "pixels").name == "pixels"
    assert settings(run) == {}


def test_run_that_has_not_ended_shows_its_last_evaluation(copy):
    for file in ("summary.json", "results.json", "similarities.json", "faults.jsonl"):
        (copy / file).unlink()
    run = load_run(copy)
    assert not run.finished
    assert run.similarities is None
    assert run.faults == 0
    assert run.results["lfw"]["protocol"] == "pairs"
    assert run.results["lfw"]["metrics"] == run.evaluations[-1]["results"]["lfw"]


def test_missing_files_are_named_with_what_to_do(copy, tmp_path):
    with pytest.raises(DataError, match="nowhere is no folder"):
        load_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"(?s)config.yaml.*metrics.jsonl.*unpg train.*results.json.*unpg evaluate"):
        load_run(tmp_path / "empty")
    (copy / "config.yaml").unlink()
    with pytest.raises(DataError, match=r"run lacks config\.yaml"):
        load_run(copy)


def cut_line(folder):
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])


def spoil(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def short_histogram(folder):
    path = folder / "similarities.json"
    content = json.loads(path.read_text())
    content["counts"]["positives"].pop()
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_line, r"metrics\.jsonl, line 456 is not JSON.*delete the line"),
        (spoil("metrics.jsonl", b"{}\n\n[1]\n"), r"metrics\.jsonl, line 3 is not a JSON object"),
        (spoil("faults.jsonl", b"oops\n"), r"faults\.jsonl, line 1"),
        (spoil("summary.json", b"{"), r"summary\.json is not JSON"),
        (spoil("summary.json", b"[]"), r"summary\.json must hold a JSON object; got list"),
        (spoil("similarities.json", b"{}"), r'similarities\.json needs "bins"'),
        (short_histogram, r"counts\.positives has 199 entries for 201 edges; needed are 200"),
        (spoil("scores/lfw.npz", b"nothing"), r"lfw\.npz is not a file of scores"),
        (lambda folder: np.savez(folder / "scores/lfw.npz", x=np.ones(2)), r"lfw\.npz holds x; needed are scores"),
    ],
)
def test_broken_files_are_named(copy, damage, words):
    damage(copy)
    with pytest.raises(DataError, match=words):
        load_run(copy)


@pytest.mark.parametrize(("text", "words"), [("a: [", "cannot be read as YAML"), ("- 1", "must hold settings")])
def test_broken_configuration_is_named(copy, text, words):
    (copy / "config.yaml").write_text(text)
    with pytest.raises(DataError, match=f"config.yaml of .*run {words}|config.yaml of .*run.*{words}"):
        settings(load_run(copy))


def zipped(path, members, packing=zipfile.ZIP_DEFLATED):
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", packing) as out:
        for name, data in members.items():
            out.writestr(name, data)


def npy(shape):
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"scores.npy": npy("(1099511627776,)") + bytes(80)}, "an array of shape"),
        ({"scores.npy": npy("(-1,)") + bytes(80)}, "an array of shape"),
        ({"scores.npy": b"\x80\x04N."}, "not a file of scores"),
        ({f"{i}.npy": bytes(1 << 28) for i in range(5)}, "would unpack to 1,342,177,280 bytes"),
    ],
)
def test_scores_that_declare_more_than_they_have(tmp_path, members, said):
    (tmp_path / "results.json").write_text('{"results": {}}')
    zipped(tmp_path / "scores" / "a.npz", members)
    with pytest.raises(DataError, match=rf"a\.npz.*{said}"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.jsonl", b'{"event": "step"}\n\xff\n', "metrics.jsonl, line 2 is not JSON"),
        ("metrics.jsonl", b"[" * 100_000, "metrics.jsonl, line 1 is not JSON"),
        ("config.yaml", b"\xff", "config.yaml cannot be read"),
        ("results.json", b"9" * 5000, "results.json is not JSON"),
        ("results.json", b'{"results": {"a": 1}}', "results.json has no object"),
        ("diagnosis.json", b'{"sets": [3]}', "diagnosis.json has no list"),
        ("diagnosis.json", b'{"sets": [{"name": 1, "wdfs": 1, "samples": 1, "histograms": 3}]}', "histograms must be"),
        (
            "similarities.json",
            b'{"bins": [0, 1], "counts": {"positives": 3}}',
            "counts.positives must be a list of numbers",
        ),
    ],
)
def test_hostile_files_of_a_run(tmp_path, file, content, said):
    (tmp_path / "config.yaml").write_text("epochs: 1\n")
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_run(tmp_path)
