"""Class weights, and where they live."""

from unpg.heads.full import FullHead

__all__ = ["FullHead"]
