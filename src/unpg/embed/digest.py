"""Digests that say whether two runs of a network over data would give the same embeddings."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unpg.data.image_set import ImageSet
from unpg.data.stamp import stamp
from unpg.embed.model import Model

__all__ = ["embedding_key", "weights_digest"]


def weights_digest(module: nn.Module) -> str:
    """SHA-256 (hex) over names, types, shapes and values of all weights and buffers; order does not count."""
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        plain = tensor.detach().cpu().contiguous(memory_format=torch.contiguous_format)
        sha.update(f"{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode())
        sha.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def embedding_key(
    model: Model,
    images: ImageSet,
    *,
    flip: str = "none",
    precision: str = "fp32",
    indices: Sequence[int] | NDArray[np.int64] | None = None,
) -> str:
    """SHA-256 (hex) over all that the embeddings depend on, up to rounding.

    That is the network (kind, settings, sizes, weights), the preprocessing, the data and which of it, flip and
    precision; and size and time of each file of the data, since the data's own digest does not see an image that was
    replaced by one of the same size. Not among it: batch size and device, which change the last bits only, and free
    notes.
    """
    parts: dict[str, Any] = {
        "kind": model.kind,
        "settings": dict(model.settings),
        "dim": model.backbone.dim,
        "input_size": list(model.backbone.input_size),
        "weights": weights_digest(model.backbone),
        "preprocessing": model.preprocessing.to_dict(),
        "data": images.digest(),
        "files": stamp(images),
        "indices": None if indices is None else hashlib.sha256(np.asarray(indices, np.int64).tobytes()).hexdigest(),
        "flip": flip,
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
