"""The verbs of the command line."""

import re
from pathlib import Path

import unpg
from unpg.cli.main import VERBS


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
