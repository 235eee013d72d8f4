"""Weights of others as models of ours: a preset for each public form, or kind and preprocessing by hand.

A preset is a function from a foreign state dict to a :class:`ForeignModel`; a new one is registered, no list edited.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unpg.backbones import create_backbone
from unpg.embed.model import Model
from unpg.errors import ConfigError, DataError
from unpg.export.foreign import file_digest, read_state_dict
from unpg.export.state import fill, planned, require_fit
from unpg.registry import Registry
from unpg.transforms.tensor import Preprocessing

__all__ = ["IMPORTERS", "ForeignModel", "import_weights"]

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class ForeignModel:
    """What a preset has understood of a foreign state dict.

    Args:
        state: Tensors under our backbone's names.
        kind: Backbone.
        dim: Embedding size.
        preprocessing: How its authors prepare images; its ``size`` is the network's input size.
        settings: Further settings of the backbone.
    """

    state: State
    kind: str
    dim: int
    preprocessing: Preprocessing
    settings: Mapping[str, Any] = field(default_factory=dict)


IMPORTERS: Registry[Callable[[State], ForeignModel]] = Registry("importer")

INSIGHTFACE = Preprocessing(size=(112, 112), channels="rgb", mean=127.5, std=127.5)
UNPG_AUTHORS = Preprocessing(
    size=(112, 112), channels="rgb", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
)
"""ImageNet's mean and standard deviation, in units of 0..255."""


def import_weights(
    path: str | os.PathLike[str],
    *,
    preset: str | None = None,
    kind: str | None = None,
    dim: int | None = None,
    preprocessing: Preprocessing | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Model:
    """Read weights that others have trained.

    Args:
        path: A torch checkpoint (read with ``weights_only=True``) or a safetensors file.
        preset: A name in :data:`IMPORTERS`, which knows kind, sizes and preprocessing of a public form. Without
            one, ``kind`` and ``preprocessing`` must be given, and the tensors must have our backbone's names.
        kind: Backbone; instead of the preset's.
        dim: Embedding size; instead of the preset's. Without either 512.
        preprocessing: How to prepare images; instead of the preset's. Its ``size`` is the network's input size.
        settings: Further settings of the backbone, over those of the preset.

    Returns:
        The model in evaluation mode; ``info`` says where it comes from and what of the file was left out.

    Raises:
        ConfigError: Neither preset nor kind and preprocessing, or a setting that the backbone does not know.
        DataError: The file cannot be read safely, or its tensors are not those of the backbone, or not finite.
    """
    if preset is None and (kind is None or preprocessing is None):
        raise ConfigError(
            "import_weights needs a preset, or kind and preprocessing (how its authors prepared the images). "
            f"Presets: {', '.join(IMPORTERS)}."
        )
    read_preset = None if preset is None else IMPORTERS[preset]
    state, left_out = read_state_dict(path)
    if read_preset is None:
        assert kind is not None
        assert preprocessing is not None
        foreign = ForeignModel(state, kind, 512, preprocessing)
    else:
        try:
            foreign = read_preset(state)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    foreign = replace(
        foreign,
        kind=kind or foreign.kind,
        dim=dim or foreign.dim,
        preprocessing=preprocessing or foreign.preprocessing,
        settings={**foreign.settings, **(settings or {})},
    )
    plan = planned(
        foreign.kind,
        dim=foreign.dim,
        input_size=foreign.preprocessing.size,
        settings=foreign.settings,
        source=str(path),
    )
    tensors = _with_counters(foreign.state, plan)
    require_fit(plan, tensors, str(path))
    with torch.random.fork_rng(devices=[]):
        backbone = create_backbone(
            foreign.kind, dim=foreign.dim, input_size=foreign.preprocessing.size, **foreign.settings
        )
    fill(backbone, tensors, str(path))
    wild = [name for name, value in backbone.state_dict().items() if not value.isfinite().all()]
    if wild:
        raise DataError(
            f"{path}: {len(wild)} of the tensors are not finite in float32 (NaN, infinite or too large), the first is "
            f"{wild[0]}. Training had diverged, or the file is damaged: take an earlier checkpoint, or fetch it again."
        )
    info = {
        "imported_from": Path(path).name,
        "file_sha256": file_digest(path),
        "preset": preset,
        "left_out": left_out,
    }
    return Model(backbone.eval(), foreign.preprocessing, foreign.kind, foreign.settings, info)


def _with_counters(state: State, backbone: nn.Module) -> dict[str, Tensor]:
    """``state`` with batch norm's counters, which old checkpoints lack and nothing here uses, at 0."""
    counters = {
        k: torch.zeros_like(v, device="cpu")
        for k, v in backbone.state_dict().items()
        if k.endswith(".num_batches_tracked")
    }
    return {**counters, **state}


def _iresnet(state: State) -> tuple[str, int]:
    """Kind and embedding size of a state dict with IResNet's names."""
    blocks = tuple(
        len({found[1] for name in state if (found := re.match(rf"layer{stage}\.(\d+)\.", name))})
        for stage in (1, 2, 3, 4)
    )
    kinds: dict[tuple[int, ...], str] = {
        (2, 2, 2, 2): "iresnet18",
        (3, 4, 6, 3): "iresnet34",
        (3, 4, 14, 3): "iresnet50",
        (3, 13, 30, 3): "iresnet100",
        (6, 26, 60, 6): "iresnet200",
    }
    last = state.get("fc.weight")
    if blocks not in kinds or last is None or last.ndim != 2:
        raise DataError(
            f"not the weights of an IResNet: blocks per stage {blocks}, known {', '.join(map(str, kinds))}; fc.weight, "
            f"a matrix there, is {'missing' if last is None else f'of shape {tuple(last.shape)}'}; names begin with "
            f"{', '.join(list(state)[:3])}. Choose another preset."
        )
    return kinds[blocks], len(last)


@IMPORTERS.register("insightface-iresnet")
def insightface_iresnet(state: State) -> ForeignModel:
    """IResNet of insightface's ``arcface_torch``: RGB, 112 x 112, (x - 127.5) / 127.5; depth read off the names."""
    kind, dim = _iresnet(state)
    return ForeignModel(state, kind, dim, INSIGHTFACE, {"last_norm_weight": "frozen"})


@IMPORTERS.register("unpg-authors")
def unpg_authors(state: State) -> ForeignModel:
    """IResNet of the UNPG authors (arXiv 2203.11593): RGB, 112 x 112, ImageNet's mean and standard deviation.

    Their files are whole pickled modules; the state dict must be saved from them first (the error says how).
    """
    kind, dim = _iresnet(state)
    return ForeignModel(state, kind, dim, UNPG_AUTHORS)


@IMPORTERS.register("mobilefacenet-xiaoccer")
def mobilefacenet_xiaoccer(state: State) -> ForeignModel:
    """MobileFaceNet of Xiaoccer/MobileFaceNet_Pytorch: 128-d, the center 96 columns of 112 x 112, RGB."""
    preprocessing = Preprocessing(size=(112, 96), crop=(0, 8, 112, 96), channels="rgb", mean=127.5, std=128.0)
    return ForeignModel(state, "mobilefacenet", 128, preprocessing)


@IMPORTERS.register("insightface-mbf")
def insightface_mbf(state: State) -> ForeignModel:
    """``mbf`` and ``mbf_large`` of insightface's ``arcface_torch``; scale and blocks read off the tensors."""
    stem, last = state.get("layers.0.layers.0.weight"), state.get("features.layers.2.weight")
    if stem is None or last is None or stem.ndim != 4 or last.ndim != 2:
        raise DataError(
            "not the weights of insightface's mbf: layers.0.layers.0.weight (of a convolution) or "
            "features.layers.2.weight (a matrix) is missing or of another form; names begin with "
            f"{', '.join(list(state)[:3])}. Choose another preset."
        )
    counts = [
        len({found[1] for name in state if (found := re.match(rf"layers\.{part}\.layers\.(\d+)\.layers\.", name))})
        for part in (1, 3, 5, 7)
    ]
    blocks = [max(1, counts[0]), *counts[1:]]  # the single depthwise convolution has no level for blocks
    renamed = {_mbf_name(name, blocks): tensor for name, tensor in state.items()}
    renamed["linear1.conv.weight"] = last[:, :, None, None]  # a linear layer there, a 1 x 1 convolution here
    settings = {"scale": len(stem) // 64, "blocks": blocks}
    return ForeignModel(renamed, "mobilefacenet", len(last), INSIGHTFACE, settings)


def _mbf_name(name: str, blocks: list[int]) -> str:
    """Our name for a tensor of insightface's ``mbf``; unknown names stay, to be reported as unexpected."""
    parts = ("conv", "bn", "prelu")
    # (their layer, ours): single normalized convolutions
    singles = {"layers.0": "conv1", "layers.1": "dw_conv1", "conv_sep": "conv2", "features.layers.0": "linear7"}
    if found := re.fullmatch(r"(layers\.[01]|conv_sep|features\.layers\.0)\.layers\.([012])\.(\w+)", name):
        return f"{singles[found[1]]}.{parts[int(found[2])]}.{found[3]}"
    if found := re.fullmatch(r"features\.layers\.([23])\.(\w+)", name):
        return f"linear1.{'conv' if found[1] == '2' else 'bn'}.{found[2]}"
    if found := re.fullmatch(r"layers\.(\d)\.(?:layers\.(\d+)\.)?layers\.([012])\.layers\.([012])\.(\w+)", name):
        layer, block, within = int(found[1]), int(found[2] or 0), 3 * int(found[3]) + int(found[4])
        if layer == 1:
            return f"dw_conv1.{block}.conv.{within}.{found[5]}"
        before = sum(1 + count for count in blocks[1 : layer // 2])  # earlier halvings and their residual blocks
        return f"blocks.{before + block + layer % 2}.conv.{within}.{found[5]}"
    return name
