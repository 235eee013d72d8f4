"""A run with UNPG that begins with the base's checkpoint is the run trained whole, bit for bit."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from unpg.errors import ConfigError
from unpg.train import train
from unpg.train.checkpoint import checkpoints, load_checkpoint
from unpg.train.fork import fork
from unpg.train.setup import resolve


def weights(run):
    return load_file(run / "model.safetensors")


@pytest.mark.parametrize("loss", ["cosface", "adaface", "curricularface"])
def test_a_forked_run_is_the_whole_run_bit_for_bit(tiny, tmp_path, loss):
    kept = {"loss": {"kind": loss, "s": 16}, "checkpoint": {"keep": 3}}
    train(tiny(**kept), tmp_path / "base")
    config = tiny(**kept, unpg={"weight": 1.0, "start_epoch": 1.5})
    train(config, tmp_path / "whole")
    # Four steps an epoch: the newest checkpoint from before step 6 is that of step 4.
    assert fork(tmp_path / "base", resolve(config), tmp_path / "forked") == 4
    train(config, tmp_path / "forked", resume=True)
    whole, forked, base = (weights(tmp_path / name) for name in ("whole", "forked", "base"))
    assert whole.keys() == forked.keys()
    assert all(torch.equal(whole[name], forked[name]) for name in whole)
    assert not all(torch.equal(whole[name], base[name]) for name in whole)
    events = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "forked")
    ]
    losses = [[(event["step"], event["loss"]) for event in of if event["event"] == "step"] for of in events]
    assert losses[0] == losses[1]


def test_without_a_checkpoint_from_before_nothing_is_written(tiny, tmp_path):
    train(tiny(), tmp_path / "base")  # keeps the last two of three
    assert fork(tmp_path / "base", resolve(tiny(unpg={"start_epoch": 1})), tmp_path / "forked") == 0
    assert not (tmp_path / "forked").exists()


def test_a_forked_run_has_no_best_evaluation_yet(tiny, tmp_path):
    """Its checkpoint is in the base's folder; from there on the fork keeps its own."""
    judged = {"hold_out": 0.25, "evaluation": {"benchmarks": ["held-out"], "every_epochs": 1}}
    best = {"checkpoint": {"best": "held-out/auc"}}
    train(tiny(**judged, **best), tmp_path / "base")
    fork(tmp_path / "base", resolve(tiny(**judged, **best, unpg={"start_epoch": 2})), tmp_path / "forked")
    counters = [
        load_checkpoint(checkpoints(tmp_path / name)[0]).values["counters"]["best"] for name in ("base", "forked")
    ]
    assert counters[0] is not None
    assert counters[1] is None


def test_only_a_run_that_differs_in_unpg_alone_is_forked(tiny, tmp_path):
    train(tiny(), tmp_path / "base")
    config = resolve(tiny(unpg={"start_epoch": 2}))
    with pytest.raises(ConfigError, match="epochs was 3, is now 4"):
        fork(tmp_path / "base", dataclasses.replace(config, epochs=4), tmp_path / "forked")
    with pytest.raises(ConfigError, match="with unpg and without"):
        fork(tmp_path / "base", resolve(tiny()), tmp_path / "forked")
    with pytest.raises(ConfigError, match="with unpg and without"):
        fork(tmp_path / "base", resolve(tiny(unpg={"start_epoch": 2, "memory": {"size": 8}})), tmp_path / "forked")
