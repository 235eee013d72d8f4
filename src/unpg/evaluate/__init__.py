"""Judging embeddings: arrays in, plain results out. Accept means score >= threshold; ties count against the
model.
"""

from unpg.evaluate.allpairs import AllPairs, all_pairs
from unpg.evaluate.baselines import BASELINES
from unpg.evaluate.benchmark import AllPairsBenchmark, Benchmark, EmbedFunction, PairBenchmark, data_root
from unpg.evaluate.curves import Roc, TarAtFar, wilson_interval
from unpg.evaluate.diagnosis import (
    SHOWN_FILTERS,
    Sampling,
    SetDiagnosis,
    diagnose_pairs,
    diagnose_set,
    load_diagnosis,
    save_diagnosis,
)
from unpg.evaluate.distribution import Distribution
from unpg.evaluate.embedder import embedder
from unpg.evaluate.judge import judge_all_pairs, judge_pairs, pair_scores
from unpg.evaluate.label_noise import flip_labels
from unpg.evaluate.named import BENCHMARKS, open_benchmark, pair_benchmark
from unpg.evaluate.results import AllPairsResult, PairResult, Result, load_results, save_results
from unpg.evaluate.sampling import ClassWeights, FilterQuality, Sample, View, sample_negatives
from unpg.evaluate.verification import FOLD_RULES, BestThreshold, FoldAccuracy, best_threshold, fold_accuracy
from unpg.evaluate.wdfs import Wdfs

__all__ = [
    "BASELINES",
    "BENCHMARKS",
    "FOLD_RULES",
    "SHOWN_FILTERS",
    "AllPairs",
    "AllPairsBenchmark",
    "AllPairsResult",
    "Benchmark",
    "BestThreshold",
    "ClassWeights",
    "Distribution",
    "EmbedFunction",
    "FilterQuality",
    "FoldAccuracy",
    "PairBenchmark",
    "PairResult",
    "Result",
    "Roc",
    "Sample",
    "Sampling",
    "SetDiagnosis",
    "TarAtFar",
    "View",
    "Wdfs",
    "all_pairs",
    "best_threshold",
    "data_root",
    "diagnose_pairs",
    "diagnose_set",
    "embedder",
    "flip_labels",
    "fold_accuracy",
    "judge_all_pairs",
    "judge_pairs",
    "load_diagnosis",
    "load_results",
    "open_benchmark",
    "pair_benchmark",
    "pair_scores",
    "sample_negatives",
    "save_diagnosis",
    "save_results",
    "wilson_interval",
]
