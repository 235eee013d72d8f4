"""Class weights, and where they live."""

from unpg.heads.base import Head, Part, make_head, making_heads, places
from unpg.heads.full import FullHead
from unpg.heads.sampled import SampledHead
from unpg.heads.sharded import ShardedHead

__all__ = ["FullHead", "Head", "Part", "SampledHead", "ShardedHead", "make_head", "making_heads", "places"]
