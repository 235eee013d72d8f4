"""Judging embeddings: arrays in, plain results out. Accept means score >= threshold; ties count against the
model.
"""

from unpg.data.label_noise import flip_labels
from unpg.evaluate import named_templates  # noqa: F401  (they register names)
from unpg.evaluate.allpairs import AllPairs, all_pairs
from unpg.evaluate.baselines import BASELINES, MODEL_BASELINES
from unpg.evaluate.benchmark import AllPairsBenchmark, Benchmark, EmbedFunction, PairBenchmark, data_root
from unpg.evaluate.bootstrap import Bootstrap, Interval, Intervals, Replicates, bootstrap
from unpg.evaluate.comparison import Difference, SeedMean, compare, compare_by_seed, holm, seed_means
from unpg.evaluate.curves import Roc, TarAtFar
from unpg.evaluate.diagnosis import (
    SHOWN_FILTERS,
    Sampling,
    SetDiagnosis,
    diagnose_pairs,
    diagnose_set,
    load_diagnosis,
    save_diagnosis,
)
from unpg.evaluate.distractors import DistractorResult, with_distractors
from unpg.evaluate.distribution import Distribution
from unpg.evaluate.embedder import embedder
from unpg.evaluate.evidence import Evidence, all_pairs_evidence, list_evidence
from unpg.evaluate.group_protocol import GroupBenchmark, GroupedResult, judge_groups
from unpg.evaluate.groups import GroupsResult, compare_groups
from unpg.evaluate.hardest import hardest_pairs
from unpg.evaluate.identification import Searches, TpirAtFpir, search
from unpg.evaluate.intervals import clopper_pearson_interval, rule_of_three, wilson_interval
from unpg.evaluate.judge import judge_all_pairs, judge_pairs, pair_scores
from unpg.evaluate.layouts import LAYOUTS
from unpg.evaluate.named import FOLDER_PROTOCOLS, OWN_DATA, open_benchmark
from unpg.evaluate.named_pairs import pair_benchmark
from unpg.evaluate.named_searches import judge_megaface_features
from unpg.evaluate.quality import DiscardCurve, error_versus_discard, pair_quality
from unpg.evaluate.registry import BENCHMARKS
from unpg.evaluate.results import AllPairsResult, PairResult, Result, load_results, save_results, stored_replicates
from unpg.evaluate.sampling import ClassWeights, FilterQuality, Sample, View, sample_negatives
from unpg.evaluate.search_benchmark import BlufrBenchmark, DistractorBenchmark, Enrolled, SearchBenchmark, closed_set
from unpg.evaluate.search_protocol import GalleryRates, IdentificationResult, gallery_rates
from unpg.evaluate.template_protocol import TemplateBenchmark, TemplateImages, TemplateResult
from unpg.evaluate.templates import POOLINGS, Pooling, Templates, pool, template_scores
from unpg.evaluate.transfer import AtThreshold, ThresholdRule, chosen_threshold, judge_at, parse_threshold_rule
from unpg.evaluate.verification import FOLD_RULES, BestThreshold, FoldAccuracy, best_threshold, fold_accuracy
from unpg.evaluate.wdfs import Wdfs

__all__ = [
    "BASELINES",
    "BENCHMARKS",
    "FOLDER_PROTOCOLS",
    "FOLD_RULES",
    "LAYOUTS",
    "MODEL_BASELINES",
    "OWN_DATA",
    "POOLINGS",
    "SHOWN_FILTERS",
    "AllPairs",
    "AllPairsBenchmark",
    "AllPairsResult",
    "AtThreshold",
    "Benchmark",
    "BestThreshold",
    "BlufrBenchmark",
    "Bootstrap",
    "ClassWeights",
    "Difference",
    "DiscardCurve",
    "DistractorBenchmark",
    "DistractorResult",
    "Distribution",
    "EmbedFunction",
    "Enrolled",
    "Evidence",
    "FilterQuality",
    "FoldAccuracy",
    "GalleryRates",
    "GroupBenchmark",
    "GroupedResult",
    "GroupsResult",
    "IdentificationResult",
    "Interval",
    "Intervals",
    "PairBenchmark",
    "PairResult",
    "Pooling",
    "Replicates",
    "Result",
    "Roc",
    "Sample",
    "Sampling",
    "SearchBenchmark",
    "Searches",
    "SeedMean",
    "SetDiagnosis",
    "TarAtFar",
    "TemplateBenchmark",
    "TemplateImages",
    "TemplateResult",
    "Templates",
    "ThresholdRule",
    "TpirAtFpir",
    "View",
    "Wdfs",
    "all_pairs",
    "all_pairs_evidence",
    "best_threshold",
    "bootstrap",
    "chosen_threshold",
    "clopper_pearson_interval",
    "closed_set",
    "compare",
    "compare_by_seed",
    "compare_groups",
    "data_root",
    "diagnose_pairs",
    "diagnose_set",
    "embedder",
    "error_versus_discard",
    "flip_labels",
    "fold_accuracy",
    "gallery_rates",
    "hardest_pairs",
    "holm",
    "judge_all_pairs",
    "judge_at",
    "judge_groups",
    "judge_megaface_features",
    "judge_pairs",
    "list_evidence",
    "load_diagnosis",
    "load_results",
    "open_benchmark",
    "pair_benchmark",
    "pair_quality",
    "pair_scores",
    "parse_threshold_rule",
    "pool",
    "rule_of_three",
    "sample_negatives",
    "save_diagnosis",
    "save_results",
    "search",
    "seed_means",
    "stored_replicates",
    "template_scores",
    "wilson_interval",
    "with_distractors",
]
