"""Embeddings of several image sets of one model, in which each image is embedded once."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from unpg.data.folder import FolderSet
from unpg.data.image_set import ImageSet
from unpg.data.listed import ListedSet
from unpg.data.pairs import PairImages
from unpg.data.stretched import StretchedSet
from unpg.distributed import ALONE, World, everyones
from unpg.embed.digest import embedding_key
from unpg.embed.embed import Flip, embed
from unpg.embed.embeddings import Embeddings
from unpg.embed.model import Model

__all__ = ["SharedEmbeddings"]

Progress = Callable[[int, int], None]


class SharedEmbeddings:
    """Embeds the image sets that it is given, and no image file twice.

    Two sets may hold the same files (the pairs of LFW, all of LFW); what was embedded for one serves the other. On disk
    each set has its own file, named by :func:`unpg.embed.embedding_key`: other weights, other data or another
    preprocessing never meet an old one.

    Args:
        model: Network and preprocessing.
        cache: The folder of the files; None keeps embeddings in memory only.
        flip: See :func:`unpg.embed.embed`.
        world: Processes that embed a part each; all ask for the same sets in the same order, and get the whole.
        batch_size: See :func:`unpg.embed.embed`.
        device: Likewise.
        workers: Likewise.

    Attributes:
        embedded: Images that went through the network so far.
    """

    def __init__(
        self,
        model: Model,
        cache: str | os.PathLike[str] | None = None,
        *,
        flip: Flip = "none",
        world: World = ALONE,
        batch_size: int = 128,
        device: str | torch.device | None = None,
        workers: int = 0,
    ) -> None:
        self.model, self.flip, self.world = model, flip, world
        self.batch_size, self.device, self.workers = batch_size, device, workers
        self.cache = None if cache is None else Path(cache)
        self.embedded = 0
        self._sets: dict[str, Embeddings] = {}
        self._files: dict[str, tuple[str, int]] = {}  # path -> the set that has it, and its row there

    def __call__(self, images: ImageSet, progress: Progress | None = None) -> Embeddings:
        """The embeddings of a set, one row an image.

        Raises:
            DataError: As :func:`unpg.embed.embed`, or a file of the cache is broken (remove it).
        """
        key = embedding_key(self.model, images, flip=self.flip)
        if key in self._sets:
            return self._sets[key]
        path = None if self.cache is None else self.cache / f"{key}.safetensors"
        if path is not None and all(everyones(path.exists(), self.world)):
            found = Embeddings.load(path).called(images)
        else:
            found = self._assembled(images, progress)
            if path is not None and self.world.first:
                found.save(path)
        self._sets[key] = found
        if _holds_files(images):
            for row in range(len(images)):
                self._files.setdefault(images.name(row), (key, row))
        return found

    def _assembled(self, images: ImageSet, progress: Progress | None) -> Embeddings:
        names = [images.name(i) for i in range(len(images))]
        known = [self._files.get(name) if _holds_files(images) else None for name in names]
        missing = np.array([i for i, place in enumerate(known) if place is None], dtype=np.int64)
        self.embedded += len(missing)
        dim = self.model.backbone.dim * (2 if self.flip == "concat" else 1)
        vectors, norms = np.empty((len(names), dim), np.float32), np.empty(len(names), np.float32)
        info = {"kind": self.model.kind, "flip": self.flip, "precision": "fp32"}
        if len(missing):
            first, last = self.world.part(len(missing))
            # A process without a part embeds one image for nothing: all then know the shape of the rest.
            own = missing[first:last] if last > first else missing[:1]
            new = embed(
                self.model,
                images,
                flip=self.flip,
                batch_size=self.batch_size,
                device=self.device,
                workers=self.workers,
                progress=progress,
                indices=own,
            )
            parts = [(new.vectors[: last - first], new.norms[: last - first])]
            parts = [part for found in everyones(parts, self.world) for part in found]
            vectors[missing], norms[missing] = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        for i, place in enumerate(known):
            if place is not None:
                held = self._sets[place[0]]
                vectors[i], norms[i] = held.vectors[place[1]], held.norms[place[1]]
        return Embeddings(
            vectors=vectors,
            norms=norms,
            labels=np.asarray(images.labels, dtype=np.int64),
            names=names,
            readable=np.ones(len(names), dtype=np.bool_),
            info=info,
        )


def _holds_files(images: ImageSet) -> bool:
    """Whether ``name`` is the path of a file, and ``read`` gives that file's image as it is."""
    return isinstance(images, FolderSet | PairImages | ListedSet) and not isinstance(images, StretchedSet)
