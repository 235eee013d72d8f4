"""From S^p and S^n to the number that is averaged."""

from unpg.aggregate.softmax import Aggregated, Softmax

__all__ = ["Aggregated", "Softmax"]
