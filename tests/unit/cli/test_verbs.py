"""The verbs of the command line."""

import errno
import json
import os
import re
from pathlib import Path

import pytest

import unpg
import unpg.cli.import_verb
from unpg.cli.main import VERBS, main


def test_texts_name_verbs_that_exist():
    """Advice in a message, or in a docstring, is what somebody will type."""
    package = Path(unpg.__file__).parent
    named = {
        (file.name, verb)
        for file in package.rglob("*.py")
        for verb in re.findall(r"`unpg ([a-z]+)", file.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert [(file, verb) for file, verb in sorted(named) if verb not in VERBS] == []


def test_a_place_that_cannot_be_written_is_one_message(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("no folder")
    for place in (file, file / "below"):
        assert main(["demo", "--out", str(place), "--identities", "8", "--views", "2"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"unpg demo: {place}")
        assert "Not a directory. Mend that, or name another place." in said


def test_a_file_where_a_folder_goes_is_said_before_anything_is_embedded(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("no folder")
    assert main(["diagnose", "no-model", "--out", str(file)]) == 2
    assert f"unpg diagnose: {file}: is there already, and is no folder." in capsys.readouterr().err


def test_a_name_that_nobody_could_open_is_refused_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study/run").mkdir(parents=True)
    (tmp_path / "study/run/config.yaml").write_text("epochs: 1\n")
    for words, said in (
        (["report", "run", "--out", "page.pdf"], "let its name end in .html"),
        (["report", "run", "--out", "page.md", "--format", "html", "md"], "let its name end in .html"),
        (["import", "w.ckpt", "--as", "insightface-mbf", "--out", "w.pth"], "ends in .safetensors"),
        (["data", "synth", "--protocol", "plain", "--identities", "2", "--sheet", "sheet"], "is named .png or .jpg"),
        (["evaluate", "study", "--benchmark", "lfw"], "study is no run folder"),
        (["evaluate", "study/run", "--benchmark", "lfw"], "--config study/run/config.yaml --out study/run --resume"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["study"]


def test_tables_keep_a_dot_in_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    steps = [{"event": "step", "step": i, "epoch": i / 2, "loss": 2.0, "lr": 0.1} for i in (1, 2)]
    (tmp_path / "run/metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    (tmp_path / "run/config.yaml").write_text("epochs: 1\n")
    for out, written in (("report-26.11", "report-26.11.md"), ("page.html", "page.md"), ("table.md", "table.md")):
        assert main(["report", "run", "--out", out, "--format", "md"]) == 0
        assert (tmp_path / written).exists()


def test_a_set_is_not_converted_into_itself(patterns, capsys):
    for out in (patterns / "packed", patterns):
        assert main(["data", "convert", str(patterns), "--to", "folder", "--out", str(out)]) == 2
        assert "would become a part of that set" in capsys.readouterr().err
    assert not (patterns / "packed").exists()


def test_so_is_a_full_disk_and_other_faults_of_the_system_are_not_hidden(capsys, monkeypatch):
    def raising(number: int):
        def run(arguments):
            raise OSError(number, os.strerror(number))

        return run

    monkeypatch.setattr(unpg.cli.import_verb, "run", raising(errno.ENOSPC))
    assert main(["import"]) == 2
    assert "unpg import: No space left on device." in capsys.readouterr().err
    monkeypatch.setattr(unpg.cli.import_verb, "run", raising(errno.EBADF))
    with pytest.raises(OSError, match="Bad file descriptor"):
        main(["import"])
