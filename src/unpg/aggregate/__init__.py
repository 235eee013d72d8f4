"""From S^p and S^n to the number that is averaged."""

from unpg.aggregate.base import AGGREGATES, Aggregate, Aggregated, Unit
from unpg.aggregate.binary import BinarySum
from unpg.aggregate.contrast import Contrast
from unpg.aggregate.hinge import Mining, PairHinge, TripletHinge
from unpg.aggregate.multi_similarity import MultiSimilarity
from unpg.aggregate.per_positive import PerPositive
from unpg.aggregate.softmax import Softmax, SoftmaxSum

__all__ = [
    "AGGREGATES",
    "Aggregate",
    "Aggregated",
    "BinarySum",
    "Contrast",
    "Mining",
    "MultiSimilarity",
    "PairHinge",
    "PerPositive",
    "Softmax",
    "SoftmaxSum",
    "TripletHinge",
    "Unit",
]
