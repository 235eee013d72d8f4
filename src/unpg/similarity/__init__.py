"""Similarities of two sets of unit vectors, as lazy sets with reductions instead of matrices."""

from unpg.similarity.anchors import Anchors
from unpg.similarity.class_set import ClassSet, OwnClassSet, Shard
from unpg.similarity.logsumexp import log_add_exp, softplus
from unpg.similarity.mask import DifferentLabel, DifferentSample, EachPairOnce, MaskRule, SameLabel
from unpg.similarity.normalize import Unit, normalize
from unpg.similarity.reduction import HingeSum, LogSumExp, Reduction, Sum, SumSoftplus
from unpg.similarity.reshape import HardenedNegative, SelfPacedNegative
from unpg.similarity.similarity_set import Fences, Reducible, SimilaritySet
from unpg.similarity.stream import Kernel, Reshape, Streaming
from unpg.similarity.union import Negatives, Pairs
from unpg.similarity.weight import Balanced, Constant, Scheduled, Share, Weight, as_weight

__all__ = [
    "Anchors",
    "Balanced",
    "ClassSet",
    "Constant",
    "DifferentLabel",
    "DifferentSample",
    "EachPairOnce",
    "Fences",
    "HardenedNegative",
    "HingeSum",
    "Kernel",
    "LogSumExp",
    "MaskRule",
    "Negatives",
    "OwnClassSet",
    "Pairs",
    "Reducible",
    "Reduction",
    "Reshape",
    "SameLabel",
    "Scheduled",
    "SelfPacedNegative",
    "Shard",
    "Share",
    "SimilaritySet",
    "Streaming",
    "Sum",
    "SumSoftplus",
    "Unit",
    "Weight",
    "as_weight",
    "log_add_exp",
    "normalize",
    "softplus",
]
