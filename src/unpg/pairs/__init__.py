"""Which similarities a loss compares: pairs of classes, of the batch, and of both."""

from unpg.pairs.base import PairGenerator
from unpg.pairs.batch_pairs import BatchPairs, Scope
from unpg.pairs.class_pairs import ClassPairs
from unpg.pairs.feature_pairs import FeaturePairs
from unpg.pairs.memory_pairs import MemoryPairs
from unpg.pairs.noise import FILTERS, BoxWhisker, Filter, KeepAll, Quantile, Sides, TopK
from unpg.pairs.unified_pairs import UnifiedPairs

__all__ = [
    "FILTERS",
    "BatchPairs",
    "BoxWhisker",
    "ClassPairs",
    "FeaturePairs",
    "Filter",
    "KeepAll",
    "MemoryPairs",
    "PairGenerator",
    "Quantile",
    "Scope",
    "Sides",
    "TopK",
    "UnifiedPairs",
]
