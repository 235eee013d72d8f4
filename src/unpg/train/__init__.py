"""Training: one configuration in, one run folder out."""

from unpg.train.config import EvaluationConfig, OptimConfig, SamplerConfig, TrainConfig, UnpgConfig
from unpg.train.loop import Trained, TrainingError, train
from unpg.train.setup import Setup, prepare
from unpg.train.summary import RunSummary

__all__ = [
    "EvaluationConfig",
    "OptimConfig",
    "RunSummary",
    "SamplerConfig",
    "Setup",
    "TrainConfig",
    "Trained",
    "TrainingError",
    "UnpgConfig",
    "prepare",
    "train",
]
