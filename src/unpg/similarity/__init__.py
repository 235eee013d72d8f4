"""Similarities of two sets of unit vectors, as lazy sets with reductions instead of matrices."""

from unpg.similarity.logsumexp import log_add_exp, masked_logsumexp, softplus
from unpg.similarity.mask import DifferentLabel, EachPairOnce, MaskRule, NotOwnClass, SameLabel
from unpg.similarity.normalize import Unit, normalize
from unpg.similarity.similarity_set import Fences, OwnClassSet, Reducible, SimilaritySet

__all__ = [
    "DifferentLabel",
    "EachPairOnce",
    "Fences",
    "MaskRule",
    "NotOwnClass",
    "OwnClassSet",
    "Reducible",
    "SameLabel",
    "SimilaritySet",
    "Unit",
    "log_add_exp",
    "masked_logsumexp",
    "normalize",
    "softplus",
]
