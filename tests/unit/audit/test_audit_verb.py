import json
import shutil
import sys

import pytest
import torch
from test_audit_files import COLUMNS

from unpg.cli.main import main
from unpg.embed import Model
from unpg.export import save_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    made = Model.create("small_iresnet", dim=16, input_size=(32, 32), widths=(4, 4, 4, 4))
    save_model(tmp_path / "model.safetensors", made)
    return str(tmp_path / "model.safetensors")


@pytest.fixture
def people(patterns, tmp_path):
    """The patterns, and a byte copy of one under another name."""
    shutil.copytree(patterns, tmp_path / "people")
    shutil.copy(tmp_path / "people/id3/0.png", tmp_path / "people/id5/copy.png")
    return str(tmp_path / "people")


# An untrained network says nothing about people; a copy has cosine 1 for it too.
STRICT = ["--threshold", "1", "--far", "-1", "--near", "1"]


def test_a_copy_is_found_and_the_exit_status_is_1(people, model, tmp_path, capsys):
    words = ["data", "audit", people, "--model", model, "--out", str(tmp_path / "out"), *STRICT]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 1
    out = capsys.readouterr().out
    for line in (
        "65 images of 8 identities",
        "One person from cosine 1.0000, as given.",
        "0 likely wrong labels (0 near another identity, 0 near nobody)",
        "1 pairs of images that are one picture (0 within an identity, 1 in two)",
        f"Wrote {tmp_path / 'out'}",
    ):
        assert line in out
    assert "shared" not in out
    told = (tmp_path / "out/near_duplicates.csv").read_text().splitlines()
    assert told[0].split(",") == COLUMNS["near_duplicates"].split()
    assert "id3/0.png,id3," in told[1]
    assert "id5/copy.png,id5,set,1.000000,1.000000,no" in told[1]
    assert 'src="data:image/jpeg' in (tmp_path / "out/audit.html").read_text()
    assert len(json.loads((tmp_path / "out/audit.json").read_text())["model"]["weights"]) == 64


def test_a_sound_set_ends_well_and_is_embedded_once(patterns, model, tmp_path, monkeypatch):
    words = ["data", "audit", str(patterns), "--model", model, "--out", str(tmp_path / "out"), *STRICT]
    assert main(words) == 0
    kept = list((tmp_path / "cache/unpg/embeddings").iterdir())
    assert len(kept) == 1
    monkeypatch.setattr("unpg.embed.cache.embed", None)
    assert main(words) == 0


def test_the_threshold_is_set_from_strangers_and_said(people, patterns, model, tmp_path, capsys):
    out = str(tmp_path / "out")
    words = [
        "data",
        "audit",
        people,
        "--model",
        model,
        "--out",
        out,
        "--near",
        "1",
        "--fmr",
        "1e-2",
        "--far-fmr",
        "0.5",
    ]
    for extra, source in (
        ([], people),
        (["--calibrate", str(patterns)], patterns),
        (["--against", str(patterns)], patterns),
    ):
        with pytest.raises(SystemExit):
            main(words + extra)
        limits = json.loads((tmp_path / "out/audit.json").read_text())["limits"]
        assert limits["match"]["source"] == limits["far"]["source"] == str(source)
        assert limits["match"]["strangers"] == (64 * 7 * 8 // 2 if source == patterns else 65 * 64 // 2 - 7 * 28 - 36)
        assert limits["match"]["accepted"] <= 0.01 * limits["match"]["strangers"]
        assert f"pairs of different identities in {source} (FMR 1e-2 or less" in capsys.readouterr().out


def test_known_matches_and_misses_are_said(people, patterns, model, tmp_path, capsys):
    (tmp_path / "known.tsv").write_text("a\tb\thow\nid1\tid1\tname\nid0\tid7\tguess\n")
    words = ["data", "audit", people, "--against", str(patterns), "--model", model, "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main([*words, *STRICT, "--known", str(tmp_path / "known.tsv")])
    out = capsys.readouterr().out
    assert "Of 1 known matches (name), 1 were found: 100.0 %" in out
    assert "Of 1 known matches (guess), 0 were found: 0.0 %" in out
    assert "missed: id0 and id7, guess: centers " in out
    assert f"7 pairs of identities shared with {patterns}" in out  # all but the one with the copy
    assert (tmp_path / "out/known.csv").read_text().count("\n") == 3


def test_errors_of_use_are_one_message(people, model, tmp_path, capsys, monkeypatch):
    words = ["data", "audit", people, "--model", model, "--out", str(tmp_path / "out")]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "1,848 pairs of different identities, which resolves FMR 5.4e-04 and above: FMR 1e-6 cannot be set" in err
    assert not (tmp_path / "out").exists()
    # Said before the model is read and anything embedded: it follows from the labels.
    assert main(["data", "audit", people, "--model", "gone", "--out", str(tmp_path / "out"), "--threshold", "0.9"]) == 2
    assert "gone" in capsys.readouterr().err  # FMR 1e-2 for the other threshold can be told
    assert main(["data", "audit", people, "--model", "gone", "--out", str(tmp_path / "out")]) == 2
    assert "FMR 1e-6 cannot be set" in capsys.readouterr().err
    assert main([*words, "--threshold", "0.2", "--far", "0.5"]) == 2
    assert "must be less alike than a match" in capsys.readouterr().err
    assert main([*words, "--against", str(tmp_path / "gone")]) == 2
    assert "gone does not exist" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "unpg.report.audit_page", None)
    assert main([*words, *STRICT]) == 2
    assert "pip install 'unpg[report]'" in capsys.readouterr().err


def test_an_unreadable_image_is_said_and_left_out(people, model, tmp_path, capsys):
    (tmp_path / "people/id2/1.png").write_bytes(b"broken")
    with pytest.raises(SystemExit):
        main(["data", "audit", people, "--model", model, "--out", str(tmp_path / "out"), *STRICT])
    assert "64 images of 8 identities; 1 could not be read (see unpg data check)" in capsys.readouterr().out
    (broken,) = json.loads((tmp_path / "out/audit.json").read_text())["set"]["unreadable"]
    assert broken.endswith("id2/1.png")
