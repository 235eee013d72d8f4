"""Backbone and data to embeddings, in memory and on disk."""

from unpg.embed.cache import cached_embed, default_cache
from unpg.embed.digest import embedding_key, weights_digest
from unpg.embed.embed import FLIPS, Flip, embed, normalize
from unpg.embed.embeddings import Embeddings
from unpg.embed.model import Model
from unpg.embed.shared import SharedEmbeddings

__all__ = [
    "FLIPS",
    "Embeddings",
    "Flip",
    "Model",
    "SharedEmbeddings",
    "cached_embed",
    "default_cache",
    "embed",
    "embedding_key",
    "normalize",
    "weights_digest",
]
