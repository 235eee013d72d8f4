"""Every recipe of the project is read, and its loss and network build."""

from pathlib import Path

import pytest

from unpg.backbones import create_backbone
from unpg.config import from_yaml
from unpg.distributed import ALONE
from unpg.train import TrainConfig
from unpg.train.setup import _loss, resolve

FOLDER = Path(__file__).resolve().parents[3] / "recipes"
RECIPES = [*sorted(FOLDER.glob("*.yaml")), *sorted((FOLDER / "study").glob("split-*.yaml"))]


def test_there_are_recipes():
    assert len(RECIPES) >= 8


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_builds(path):
    config = resolve(from_yaml(TrainConfig, path))
    settings = {name: value for name, value in config.backbone.items() if name != "kind"}
    network = create_backbone(config.backbone["kind"], input_size=config.preprocessing.size, **settings)
    loss = _loss(config, 50, network.dim, 10, ALONE)
    assert loss.pairs is not None
    assert (config.unpg is not None) == ("unpg" in path.stem)
    head = path.read_text(encoding="utf-8").split("\ndata:")[0]
    assert all(line.startswith("#") for line in head.splitlines()), "a header first: command, machine, time, result"
