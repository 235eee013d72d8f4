"""A tiny folder of faces that are not faces: each identity a colored pattern, each image a noisy one of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpg.config import from_dict
from unpg.train import TrainConfig


@pytest.fixture(scope="session")
def patterns(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("patterns")
    rng = np.random.default_rng(0)
    for identity in range(8):
        (root / f"id{identity}").mkdir()
        pattern = np.kron(rng.integers(40, 215, (4, 4, 3)), np.ones((8, 8, 1)))
        for i in range(8):
            noisy = np.clip(pattern + rng.normal(0, 12, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / f"id{identity}" / f"{i}.png")
    return root


@pytest.fixture
def tiny(patterns):
    """A function from changed settings to a configuration that trains in a second."""

    def make(**changes) -> TrainConfig:
        values = {
            "data": {"kind": "folder", "roots": str(patterns)},
            "backbone": {"kind": "small_iresnet", "dim": 16, "widths": [4, 4, 8, 8], "blocks": [1, 1, 1, 1]},
            "preprocessing": {"size": [32, 32]},
            "loss": {"kind": "cosface", "s": 16, "m": 0.2},
            "sampler": {"batch_size": 16},
            "optim": {"lr": 0.05},
            "epochs": 3,
            "log_every": 2,
            "device": "cpu",
        }
        return from_dict(TrainConfig, values | changes)

    return make
