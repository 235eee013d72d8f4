"""Training: one configuration in, one run folder out."""

from unpg.train.config import (
    CheckpointConfig,
    EvaluationConfig,
    InitConfig,
    OptimConfig,
    SamplerConfig,
    TrainConfig,
    UnpgConfig,
)
from unpg.train.faults import Diverged, TrainingError
from unpg.train.loop import Trained, train
from unpg.train.setup import Setup, prepare
from unpg.train.stop import Stopped
from unpg.train.summary import RunSummary

__all__ = [
    "CheckpointConfig",
    "Diverged",
    "EvaluationConfig",
    "InitConfig",
    "OptimConfig",
    "RunSummary",
    "SamplerConfig",
    "Setup",
    "Stopped",
    "TrainConfig",
    "Trained",
    "TrainingError",
    "UnpgConfig",
    "prepare",
    "train",
]
