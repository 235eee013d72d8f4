"""Embeddings kept on disk, so that each network goes over each data set once."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unpg.data.image_set import ImageSet
from unpg.data.index_cache import cache_folder
from unpg.embed.digest import embedding_key
from unpg.embed.embed import Flip, OnError, Precision, embed
from unpg.embed.embeddings import Embeddings
from unpg.embed.model import Model

__all__ = ["cached_embed", "default_cache"]


def default_cache() -> Path:
    """Where embeddings are kept that belong to no run: ``$XDG_CACHE_HOME/unpg/embeddings``, else under ``~/.cache``."""
    return cache_folder("embeddings")


def cached_embed(
    folder: str | os.PathLike[str],
    model: Model,
    images: ImageSet,
    *,
    flip: Flip = "none",
    batch_size: int = 128,
    device: str | torch.device | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
    precision: Precision = "fp32",
    on_error: OnError = "raise",
) -> Embeddings:
    """As :func:`unpg.embed.embed`, but from ``folder`` if the same was embedded before.

    A file is named by :func:`unpg.embed.embedding_key`, so other weights, other data or another preprocessing
    never meet an old file. Embeddings with unreadable images are not kept: the images may be back next time.

    Raises:
        DataError: As :func:`unpg.embed.embed`, or the file in the cache is broken (remove it).
    """
    key = embedding_key(model, images, flip=flip, precision=precision, indices=indices)
    path = Path(folder) / f"{key}.safetensors"
    if path.exists():
        return Embeddings.load(path).called(images, indices)
    embeddings = embed(
        model,
        images,
        flip=flip,
        batch_size=batch_size,
        device=device,
        workers=workers,
        progress=progress,
        indices=indices,
        precision=precision,
        on_error=on_error,
    )
    if embeddings.readable.all():
        embeddings.save(path)
    return embeddings
