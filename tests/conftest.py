"""What all tests share: where the real faces are, and one thread per test process."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def faces() -> Path:
    """The folder of real faces: UNPG_DATA, else shared/data beside the checkout, else the test is skipped."""
    named = os.environ.get("UNPG_DATA")
    for folder in [Path(named)] if named else [ROOT.parent / "shared" / "data"]:
        if (folder / "lfw" / "images").is_dir():
            return folder
    pytest.skip("no real faces: set UNPG_DATA to a folder laid out as docs/data.md says")
