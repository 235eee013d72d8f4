import numpy as np

from unpg.evaluate import judge_all_pairs, judge_groups
from unpg.train.picture import _evaluation


def test_results_without_pairs_are_passed_over():
    """A run that is judged by groups, and by all pairs: the picture is of all pairs; of groups alone there is none."""
    rng = np.random.default_rng(0)
    scores, same = rng.uniform(-1, 1, 80).astype(np.float32), np.tile([True, False], 40)
    groups = judge_groups("groups", scores, same, np.repeat(["a", "b"], 40), target=0.5)
    bins = np.linspace(-1, 1, 21)
    assert _evaluation([groups], bins) == ("", {})
    every = judge_all_pairs("all", rng.normal(size=(20, 4)), np.repeat(np.arange(5), 4))
    name, counts = _evaluation([groups, every], bins)
    assert name == "all"
    assert sum(counts["evaluation_genuine"]) == every.genuine
