"""Labeled images: where they lie, how they are read, and in which order they come."""

from unpg.data.folder import FolderSet
from unpg.data.image_set import ArraySet, Batch, ImageSet, SizeError
from unpg.data.loader import Fault, Loader
from unpg.data.pairs import PairImages, PairList, cfp_pairs, csv_pairs, lfw_pairs
from unpg.data.sampler import PKSampler, Sampler, SequentialSampler, UniformSampler
from unpg.data.subset import Subset, select_identities, split_identities

__all__ = [
    "ArraySet",
    "Batch",
    "Fault",
    "FolderSet",
    "ImageSet",
    "Loader",
    "PKSampler",
    "PairImages",
    "PairList",
    "Sampler",
    "SequentialSampler",
    "SizeError",
    "Subset",
    "UniformSampler",
    "cfp_pairs",
    "csv_pairs",
    "lfw_pairs",
    "select_identities",
    "split_identities",
]
