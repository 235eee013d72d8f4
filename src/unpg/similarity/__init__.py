"""Similarities of two sets of unit vectors, as lazy sets with reductions instead of matrices."""

from unpg.similarity.logsumexp import log_add_exp, masked_logsumexp, softplus
from unpg.similarity.mask import DifferentLabel, EachPairOnce, MaskRule, NotOwnClass, SameLabel
from unpg.similarity.normalize import Unit, normalize
from unpg.similarity.similarity_set import Fences, OwnClassSet, Reducible, SimilaritySet
from unpg.similarity.union import Negatives, Pairs
from unpg.similarity.weight import Balanced, Constant, Scheduled, Share, Weight, as_weight

__all__ = [
    "Balanced",
    "Constant",
    "DifferentLabel",
    "EachPairOnce",
    "Fences",
    "MaskRule",
    "Negatives",
    "NotOwnClass",
    "OwnClassSet",
    "Pairs",
    "Reducible",
    "SameLabel",
    "Scheduled",
    "Share",
    "SimilaritySet",
    "Unit",
    "Weight",
    "as_weight",
    "log_add_exp",
    "masked_logsumexp",
    "normalize",
    "softplus",
]
