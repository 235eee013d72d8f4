"""Judging embeddings: arrays in, plain results out. Accept means score >= threshold; ties count against the
model.
"""

from unpg.evaluate.allpairs import AllPairs, all_pairs
from unpg.evaluate.baselines import BASELINES
from unpg.evaluate.benchmark import AllPairsBenchmark, Benchmark, EmbedFunction, PairBenchmark, data_root
from unpg.evaluate.curves import Roc, TarAtFar
from unpg.evaluate.embedder import embedder
from unpg.evaluate.intervals import clopper_pearson_interval, rule_of_three, wilson_interval
from unpg.evaluate.judge import judge_all_pairs, judge_pairs, pair_scores
from unpg.evaluate.named import BENCHMARKS, open_benchmark, pair_benchmark
from unpg.evaluate.results import AllPairsResult, PairResult, Result, load_results, save_results
from unpg.evaluate.verification import FOLD_RULES, BestThreshold, FoldAccuracy, best_threshold, fold_accuracy

__all__ = [
    "BASELINES",
    "BENCHMARKS",
    "FOLD_RULES",
    "AllPairs",
    "AllPairsBenchmark",
    "AllPairsResult",
    "Benchmark",
    "BestThreshold",
    "EmbedFunction",
    "FoldAccuracy",
    "PairBenchmark",
    "PairResult",
    "Result",
    "Roc",
    "TarAtFar",
    "all_pairs",
    "best_threshold",
    "clopper_pearson_interval",
    "data_root",
    "embedder",
    "fold_accuracy",
    "judge_all_pairs",
    "judge_pairs",
    "load_results",
    "open_benchmark",
    "pair_benchmark",
    "pair_scores",
    "rule_of_three",
    "save_results",
    "wilson_interval",
]
