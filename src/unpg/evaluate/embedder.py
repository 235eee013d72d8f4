"""A model as what benchmarks ask for."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unpg.data.image_set import ImageSet
from unpg.embed import Model, embed
from unpg.evaluate.benchmark import EmbedFunction

__all__ = ["embedder"]


def embedder(model: Model, **options: Any) -> EmbedFunction:
    """The function that embeds an image set with ``model``; ``options`` are those of :func:`unpg.embed.embed`."""

    def embedded(images: ImageSet) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        embeddings = embed(model, images, **options)
        return embeddings.vectors, embeddings.norms

    return embedded
