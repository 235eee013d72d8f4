"""Which similarities a loss compares: pairs of classes, of the batch, and of both."""

from unpg.pairs.base import Negatives, PairGenerator, Pairs
from unpg.pairs.batch_pairs import BatchPairs, Scope
from unpg.pairs.class_pairs import ClassPairs
from unpg.pairs.noise import FILTERS, BoxWhisker, Filter, KeepAll
from unpg.pairs.unified_pairs import UnifiedPairs
from unpg.pairs.weight import Balanced, Constant, Scheduled, Share, Weight, as_weight

__all__ = [
    "FILTERS",
    "Balanced",
    "BatchPairs",
    "BoxWhisker",
    "ClassPairs",
    "Constant",
    "Filter",
    "KeepAll",
    "Negatives",
    "PairGenerator",
    "Pairs",
    "Scheduled",
    "Scope",
    "Share",
    "UnifiedPairs",
    "Weight",
    "as_weight",
]
