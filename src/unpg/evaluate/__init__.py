"""Judging embeddings: arrays in, plain results out. Accept means score >= threshold; ties count against the
model.
"""

from unpg.evaluate.allpairs import AllPairs, all_pairs
from unpg.evaluate.baselines import BASELINES
from unpg.evaluate.benchmark import AllPairsBenchmark, Benchmark, EmbedFunction, PairBenchmark, data_root
from unpg.evaluate.bootstrap import Bootstrap, Interval, Intervals, Replicates, bootstrap
from unpg.evaluate.comparison import Difference, compare, holm
from unpg.evaluate.curves import Roc, TarAtFar
from unpg.evaluate.embedder import embedder
from unpg.evaluate.evidence import Evidence, all_pairs_evidence, list_evidence
from unpg.evaluate.intervals import clopper_pearson_interval, rule_of_three, wilson_interval
from unpg.evaluate.judge import judge_all_pairs, judge_pairs, pair_scores
from unpg.evaluate.named import BENCHMARKS, open_benchmark, pair_benchmark
from unpg.evaluate.results import AllPairsResult, PairResult, Result, load_results, save_results, stored_replicates
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
    "Bootstrap",
    "Difference",
    "EmbedFunction",
    "Evidence",
    "FoldAccuracy",
    "Interval",
    "Intervals",
    "PairBenchmark",
    "PairResult",
    "Replicates",
    "Result",
    "Roc",
    "TarAtFar",
    "all_pairs",
    "all_pairs_evidence",
    "best_threshold",
    "bootstrap",
    "clopper_pearson_interval",
    "compare",
    "data_root",
    "embedder",
    "fold_accuracy",
    "holm",
    "judge_all_pairs",
    "judge_pairs",
    "list_evidence",
    "load_results",
    "open_benchmark",
    "pair_benchmark",
    "pair_scores",
    "rule_of_three",
    "save_results",
    "stored_replicates",
    "wilson_interval",
]
