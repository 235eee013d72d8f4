"""A run as training left it: its network and its loss, with the data they were trained on."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from unpg.config import from_yaml
from unpg.errors import DataError
from unpg.train.checkpoint import latest_checkpoint, load_checkpoint
from unpg.train.config import EvaluationConfig, TrainConfig
from unpg.train.parallel import catch_up
from unpg.train.resume import require_same_data
from unpg.train.setup import Setup, prepare
from unpg.train.snapshot import put_back_weights

__all__ = ["open_trained"]


def open_trained(run: Path, *, benchmarks: Sequence[str] = (), device: str = "auto") -> Setup:
    """The objects of a run with the weights of its newest checkpoint, class weights among them.

    Args:
        run: A run folder of ``unpg train``, finished or not.
        benchmarks: Test sets to open, in place of the run's own; ``held-out`` is known if the run holds people out.
        device: Where network and loss go; the run's own machine may have had another.

    Returns:
        The set-up; network and loss in evaluation mode.

    Raises:
        DataError: The folder holds no run or no checkpoint, it is damaged, or the training data are missing.
        ConfigError: The training set is not the one that the checkpoint was trained on.
    """
    saved = run / "config.yaml"
    newest = latest_checkpoint(run)
    if not saved.is_file() or newest is None:
        raise DataError(
            f"{run} has no {'config.yaml' if newest else 'checkpoint'}; class weights are in checkpoints alone. Give a "
            f"run folder of `unpg train`; for a model alone give its model.safetensors with --benchmark or --data."
        )
    config = from_yaml(TrainConfig, saved)
    # Test sets of the run may be absent here, and threads are this process's affair.
    wanted = EvaluationConfig(benchmarks=tuple(benchmarks))
    unjudged = dataclasses.replace(config.checkpoint, best=None)  # the figure that it goes by may not be among them
    setup = prepare(dataclasses.replace(config, evaluation=wanted, checkpoint=unjudged, device=device, threads=None))
    checkpoint = load_checkpoint(newest, wanted=lambda name: name.startswith(("backbone/", "loss/")))
    require_same_data(checkpoint.identities, checkpoint.values["data"], setup.images, newest)
    put_back_weights(checkpoint, setup)
    catch_up(setup.loss)
    setup.model.backbone.eval()
    setup.loss.eval()
    return setup
