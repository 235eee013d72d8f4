"""What all tests share: where the real faces are, and one thread per test process."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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


@pytest.fixture(scope="session", autouse=True)
def _caches_of_their_own(tmp_path_factory):
    """Tests neither find what a user has cached nor leave anything there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def patterns(tmp_path_factory) -> Path:
    """Eight "people" of eight images, 32 x 32: each a coloured pattern, each image a noisy one of it."""
    root = tmp_path_factory.mktemp("patterns")
    rng = np.random.default_rng(0)
    for identity in range(8):
        (root / f"id{identity}").mkdir()
        pattern = np.kron(rng.integers(40, 215, (4, 4, 3)), np.ones((8, 8, 1)))
        for i in range(8):
            noisy = np.clip(pattern + rng.normal(0, 12, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / f"id{identity}" / f"{i}.png")
    return root
