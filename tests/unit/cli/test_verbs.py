"""The verbs of the command line."""

import errno
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
