"""What a run is set up with: sizes of batches, devices, what processes have in common."""

import pytest
import torch

from unpg.distributed import ALONE, World
from unpg.errors import ConfigError
from unpg.train import setup
from unpg.train.setup import prepare, resolve

BOTH = [World(rank, 2, None, rank) for rank in range(2)]


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        # There are 64 images.
        (
            {"sampler": {"batch_size": 63, "drop_last": False}},
            ALONE,
            "batch of 1 images .*leaves batch normalization 1 image.*drop_last",
        ),
        (
            {"sampler": {"batch_size": 60, "drop_last": False}, "accumulate": 4},
            ALONE,
            "batch of 4 images .*in 4 micro-batches",
        ),
        ({"sampler": {"batch_size": 61, "drop_last": False}}, BOTH[0], None),
        ({"sampler": {"batch_size": 61, "drop_last": False}, "global_batch_norm": False}, BOTH[0], "batch of 3"),
        ({"sampler": {"batch_size": 62, "drop_last": False}, "accumulate": 2}, BOTH[0], "leaves 1 images"),
        ({"sampler": {"batch_size": 62, "drop_last": False}}, ALONE, None),
        ({"sampler": {"batch_size": 63}}, ALONE, None),
        ({"sampler": {"batch_size": 4}, "accumulate": 4}, ALONE, "batch of 4"),
    ],
)
def test_a_batch_too_small_to_normalize_is_said_before_training(tiny, changes, world, message):
    config = resolve(tiny(**changes))
    if message is None:
        prepare(config, world)
    else:
        with pytest.raises(ConfigError, match=message):
            prepare(config, world)


def test_the_layer_of_batch_normalization_is_chosen_where_the_network_is(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(setup, "device_of", lambda name, world: torch.device("meta"))
    monkeypatch.setattr(setup, "global_batch_norm", lambda network, world: seen.extend(network.parameters()))
    prepare(resolve(tiny()), BOTH[0])
    assert {p.device.type for p in seen} == {"meta"}


def test_processes_have_the_same_weights_and_draw_their_own_dropout(tiny):
    config = resolve(tiny())
    weights, drawn = [], []
    for world in (ALONE, *BOTH):
        weights.append(list(prepare(config, world).model.backbone.parameters()))
        drawn.append(float(torch.rand(())))
    for of_all in zip(*weights, strict=True):
        assert all(torch.equal(w, of_all[0]) for w in of_all)
    assert len(set(drawn)) == 3
