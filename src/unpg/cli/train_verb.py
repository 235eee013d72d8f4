"""``unpg train --config recipe.yaml --out runs/name --optim.lr 0.2``."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, get_loader, set_loader

from unpg.cli.screen import Screen
from unpg.config import from_dict, load_yaml, read_yaml
from unpg.distributed import World
from unpg.errors import ConfigError, shown
from unpg.train import TrainConfig, train
from unpg.train.setup import device_of

__all__ = ["parse", "run"]

_BOUNDED = "bounded_yaml"
# Groups whose settings depend on a kind, and an example of one.
_KINDS = {
    "--data": "kind folder",
    "--loss": "kind arcface",
    "--backbone": "kind iresnet18",
    "--unpg": "weight balanced",
}
_OURS = ("config", "out", "resume", "resume_from", "fine_tune_from")


class _BoundedConfigFile(ActionConfigFile):
    """Reads a recipe within the bounds of :func:`read_yaml`, whose errors name it, before jsonargparse has it."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        read_yaml(Path(values))
        super().__call__(parser, cfg, values, option_string)


class _Parser(ArgumentParser):
    """Says what is wrong as the other verbs do: in one message, without a page of usage before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            unknown = next((word for word in message.split() if word.startswith("--")), "").partition("=")[0]
            near = difflib.get_close_matches(unknown, self._option_string_actions, n=1)
            message += f". Did you mean {near[0]}?" if near else "."
        if message == "the following arguments are required: data":
            message = "there is no training set. Give --config recipe.yaml (see recipes/), or --data and --out."
        if "<class 'tuple'>" in message:
            message += "\nSeveral values are written as a list: [a, b]."
        raise ConfigError(f"{message}\nAll settings: unpg train --help") from ex


def _bounded(text: str) -> Any:
    """What jsonargparse makes of a text, or of a file that a recipe names in place of a group of settings."""
    load_yaml(text, shown(text, 60))
    return get_loader("yaml")(text)


def _written_out(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the text of files (--loss arcface.yaml) in place of their names.

    jsonargparse does so itself for groups of a fixed kind (--optim FILE), but not for those that depend on a kind.
    """
    left, out = list(arguments), []
    while left:
        argument = left.pop(0)
        name, equals, value = argument.partition("=")
        if name not in _KINDS:
            out.append(argument)
            continue
        if not equals:
            if not left:
                raise ConfigError(f"{name} is the last word: {_wanted(name)}.")
            value = left.pop(0)
        is_file = Path(value).suffix in (".yaml", ".yml")
        settings: Any = read_yaml(Path(value)) if is_file else load_yaml(value, f"{name} {shown(value, 60)}")
        if not isinstance(settings, dict) and not (settings is None and name == "--unpg"):
            raise ConfigError(f"{name} {shown(value, 60)} is no settings: {_wanted(name)}.")
        out += [name, yaml.safe_dump(settings, default_flow_style=True, width=10**9).removesuffix("...\n")]
    return out


def _wanted(name: str) -> str:
    return (
        f"give a YAML file ({name} file.yaml), the settings one by one ({name}.{_KINDS[name]}), or in braces "
        f"({name} '{{{_KINDS[name].replace(' ', ': ')}}}')"
    )


def parse(arguments: Sequence[str]) -> tuple[TrainConfig, Path, bool, Path | None]:
    """The configuration, the run folder, whether to resume, and from which checkpoint if not from the newest."""
    set_loader(_BOUNDED, _bounded, exceptions=(ConfigError,))
    parser = _Parser(
        parser_mode=_BOUNDED,
        prog="unpg train",
        description="Train a face embedding. Every setting can stand in the YAML file and be overridden here; groups "
        "that depend on a kind take their settings as --loss.kind arcface --loss.s 32.",
    )
    parser.add_argument(
        "--config", action=_BoundedConfigFile, help="YAML file of settings; several are merged in order"
    )
    parser.add_argument("--out", type=str, default=None, help="run folder (default: runs/<name of the last --config>)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the run folder")
    parser.add_argument(
        "--resume-from",
        type=str,
        default=None,
        metavar="CHECKPOINT",
        help="go on from this checkpoint of the run folder; newer ones are set aside",
    )
    parser.add_argument(
        "--fine-tune-from",
        type=str,
        default=None,
        metavar="CHECKPOINT",
        help="begin a new run from this checkpoint or run folder (--init.checkpoint), possibly with other people",
    )
    parser.add_class_arguments(TrainConfig)
    found = parser.parse_args(_written_out(arguments))
    files = found.config or []
    if found.out is None and not files:
        parser.error("give --config, or --out and the settings one by one")
    out = Path(found.out) if found.out else Path("runs") / Path(str(files[-1])).stem
    # Without what jsonargparse notes of a group that came from a file of its own (--optim FILE): where it was.
    values = {name: value for name, value in found.clone(with_meta=False).as_dict().items() if name not in _OURS}
    if found.fine_tune_from is not None:
        values["init"] = {**(values.get("init") or {}), "checkpoint": found.fine_tune_from}
    resume_from = None if found.resume_from is None else Path(found.resume_from)
    return from_dict(TrainConfig, values), out, bool(found.resume) or resume_from is not None, resume_from


def run(arguments: Sequence[str]) -> None:
    """Parse and train."""
    config, out, resume, resume_from = parse(arguments)
    # A run that torchrun starts again, after one of its processes died, goes on from its newest checkpoint.
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 and (out / "config.yaml").exists()
    with World.joined(device=device_of(config.device).type, timeout=config.timeout) as world:
        train(config, out, resume=resume or again, resume_from=resume_from, console=Screen(), world=world)
