"""Class weights, and where they live."""

from unpg.heads.base import Head, Part, make_head, making_heads, places
from unpg.heads.full import FullHead
from unpg.heads.sampled import SampledHead, caught_up
from unpg.heads.sharded import ShardedHead

__all__ = ["FullHead", "Head", "Part", "SampledHead", "ShardedHead", "caught_up", "make_head", "making_heads", "places"]
