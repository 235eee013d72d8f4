"""Labeled images: where they lie, how they are read, and in which order they come."""

from unpg.data.bins import BinPairs
from unpg.data.folder import FolderSet
from unpg.data.image_set import ArraySet, Batch, ImageSet, SizeError
from unpg.data.joined import JoinedSet
from unpg.data.listed import ListedSet, csv_set, list_set
from unpg.data.loader import Fault, Loader
from unpg.data.pairs import PairImages, PairList, cfp_pairs, csv_pairs, lfw_pairs
from unpg.data.record_set import RecordSet
from unpg.data.recordio import RecordFile, RecordWriter
from unpg.data.sampler import PKSampler, Sampler, SequentialSampler, UniformSampler
from unpg.data.subset import Subset, select_identities, split_identities

__all__ = [
    "ArraySet",
    "Batch",
    "BinPairs",
    "Fault",
    "FolderSet",
    "ImageSet",
    "JoinedSet",
    "ListedSet",
    "Loader",
    "PKSampler",
    "PairImages",
    "PairList",
    "RecordFile",
    "RecordSet",
    "RecordWriter",
    "Sampler",
    "SequentialSampler",
    "SizeError",
    "Subset",
    "UniformSampler",
    "cfp_pairs",
    "csv_pairs",
    "csv_set",
    "lfw_pairs",
    "list_set",
    "select_identities",
    "split_identities",
]
