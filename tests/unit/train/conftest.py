"""A configuration that trains in a second."""

import pytest

from unpg.config import from_dict
from unpg.train import TrainConfig


@pytest.fixture(scope="session")
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
