"""``unpg import weights.ckpt --as mobilefacenet-xiaoccer --out model.safetensors``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from unpg.cli.model_option import presets
from unpg.errors import ConfigError
from unpg.export import import_weights, save_model

__all__ = ["run"]


def run(arguments: Sequence[str]) -> None:
    """Parse, import and save."""
    parser = argparse.ArgumentParser(prog="unpg import", description="Turn weights of others into a model file.")
    parser.add_argument("weights", help="torch checkpoint or safetensors file; nothing in it is executed")
    parser.add_argument("--as", dest="preset", required=True, help=f"its form: {presets()}")
    parser.add_argument("--out", required=True, help="model file to write (.safetensors)")
    found = parser.parse_args(list(arguments))
    if Path(found.out).suffix != ".safetensors":  # by which other verbs know a model file
        raise ConfigError(f"--out is the name of a model file, which ends in .safetensors; got {found.out}.")
    model = import_weights(found.weights, preset=found.preset)
    save_model(found.out, model)
    print(f"Wrote {found.out}: {model.kind}, {model.backbone.dim}-d, input {model.preprocessing.size}")
