"""Draws of MegaFace and BLUFR against explicit copies of people, and whether their intervals cover a known truth."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from unpg.data import ArraySet
from unpg.data.blufr import draw_blufr_trials
from unpg.evaluate import BlufrBenchmark, Bootstrap, Roc, compare, with_distractors
from unpg.evaluate.search_benchmark import judge_distractors

STEP = 2**-20


def people(n, each, rng, dim=8):
    """People differ in how well they are recognised, so that what one does varies together."""
    labels = np.repeat(np.arange(n), each)
    spread = rng.uniform(0.5, 1.1, n)[labels, None]
    return (rng.normal(size=(n, dim))[labels] + spread * rng.normal(size=(len(labels), dim))).astype(np.float32), labels


def blufr(vectors, labels, trials=3, evidence=True):
    images = ArraySet(np.zeros((len(labels), 2, 2, 3), np.uint8), labels, [str(i) for i in range(labels.max() + 1)])
    made = BlufrBenchmark("made", images, draw_blufr_trials(labels, trials=trials), evidence=evidence)
    return made, made.run(lambda _: (vectors, np.ones(len(vectors), np.float32)))


def test_megaface_draws_are_copies_of_people():
    """A person drawn twice is two persons with the same images, and the threshold is that of their probes."""
    rng = np.random.default_rng(0)
    x, labels = people(12, 3, rng)
    distractors = rng.normal(size=(90, 8)).astype(np.float32)
    result = judge_distractors("m", x, labels * 5 + 2, distractors, far=0.01)
    evidence = result._evidence()
    once = evidence.figures(np.ones(12, dtype=np.int64), ())
    assert once == pytest.approx(result.metrics())
    for weights in itertools.islice(Bootstrap(seed=1).draws(12), 12):
        rows = [
            (row, 100 * who + c)
            for who, w in enumerate(weights)
            for c in range(w)
            for row in np.where(labels == who)[0]
        ]
        images, names = np.array(rows).T
        explicit = with_distractors(x[images], names, distractors, targets=(0.01,))
        found = evidence.figures(weights, ())
        assert found == pytest.approx(
            {f"rank={k}": rate for k, rate in explicit.rates.items()} | {"tar@far=1e-2": explicit.verification[0].value}
        )


def test_megaface_tail_that_a_draw_exhausts_makes_no_tar_too_high():
    """One probe makes the whole tail that is kept; without its person only the bound is known, and it is strict."""
    rng = np.random.default_rng(0)
    x, labels = people(12, 3, rng)
    near = x[0] + 0.01 * rng.normal(size=(60, 8)).astype(np.float32)
    distractors = np.concatenate([near, rng.normal(size=(60, 8)).astype(np.float32)])
    evidence = judge_distractors("m", x, labels, distractors, far=1e-3)._evidence()
    weights = np.arange(12) > 0
    explicit = with_distractors(x[3:], labels[3:], distractors, targets=(1e-3,))
    assert evidence.figures(weights.astype(np.int64), ())["tar@far=1e-3"] <= explicit.verification[0].value


def test_blufr_draws_are_weighted_pairs_and_repeated_searches(monkeypatch):
    monkeypatch.setattr("unpg.evaluate.search_benchmark.BLUFR_FAR", 0.05)
    monkeypatch.setattr("unpg.evaluate.search_benchmark.BLUFR_FPIR", 0.2)
    x, labels = people(30, 3, np.random.default_rng(3))
    benchmark, result = blufr(x, labels, trials=6)
    evidence = result._evidence()
    assert evidence.units == 30
    metrics = {name: value for name, value in result.metrics().items() if "std" not in name}
    assert evidence.figures(np.ones(30, dtype=np.int64), ()) == pytest.approx(metrics)
    unit = x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    cosines = np.round(unit @ unit.T / STEP) * STEP
    for weights in itertools.islice(Bootstrap(seed=2).draws(30), 4):
        slow = []
        for trial in benchmark.trials:
            a, b = (trial.test[side] for side in np.triu_indices(len(trial.test), 1))
            scores, same = cosines[a, b], labels[a] == labels[b]
            weight = np.where(same, weights[labels[a]], weights[labels[a]] * weights[labels[b]])
            rates = [
                weight[same & (scores >= t)].sum() / weight[same].sum()
                for t in scores
                if weight[~same & (scores >= t)].sum() <= 0.05 * weight[~same].sum()
            ]
            slow.append({"tar@far=5e-2": max(rates)} | slow_search(cosines, labels, trial, weights))
        expected = {name: np.mean([of[name] for of in slow]) for name in slow[0]}
        found = evidence.figures(weights, ())
        assert {name: found[name] for name in expected} == pytest.approx(expected)


def slow_search(cosines, labels, trial, weights):
    """Each probe as often as its person was drawn, one after the other."""
    mated, others = [], []
    for probe in trial.probes:
        scores = {labels[g]: cosines[probe, g] for g in trial.gallery}
        for _ in range(weights[labels[probe]]):
            if labels[probe] in scores:
                own = scores[labels[probe]]
                mated.append((own, sum(score >= own for score in scores.values())))
            else:
                others.append(max(scores.values()))
    above = min(t for t in [-9, *others] if sum(o > t for o in others) <= 0.2 * len(others))
    return {
        "rank=1": np.mean([rank == 1 for _, rank in mated]),
        "tpir@fpir=2e-1": np.mean([own > above and rank == 1 for own, rank in mated]),
    }


def test_two_models_are_compared_in_the_same_draws():
    rng = np.random.default_rng(0)
    x, labels = people(60, 4, rng)
    worse = x + 0.5 * rng.normal(size=x.shape).astype(np.float32)
    distractors = rng.normal(size=(400, 8)).astype(np.float32)
    settings = Bootstrap(replicates=100)
    found = [judge_distractors("m", v, labels, distractors, far=1e-3).with_intervals(settings) for v in (worse, x)]
    differences = {d.figure: d for d in compare(found[0].replicates, found[1].replicates)}
    assert set(differences) == {"rank=1", "rank=5", "rank=10", "tar@far=1e-3"}
    apart = [one.intervals.figures["rank=1"] for one in found]
    together = differences["rank=1"]
    assert together.low > 0
    assert together.high - together.low < np.hypot(*(i.high - i.low for i in apart))  # people hard for both cancel
    trials = [blufr(v, labels)[1].with_intervals(settings) for v in (worse, x)]
    compared = compare(*(t.replicates for t in trials))
    assert {d.figure for d in compared} == {"rank=1", "rank=5", "rank=10", "tpir@fpir=1e-2", "tar@far=1e-3"}
    assert all(d.low == d.high == 0 for d in compare(trials[0].replicates, trials[0].replicates))


@pytest.mark.slow
def test_coverage_of_megaface():
    """200 sets of 60 people among the same 500 distractors; intervals of 95 % and the figures of 3,000 people."""
    rng = np.random.default_rng(0)
    distractors = rng.normal(size=(500, 8)).astype(np.float32)
    truth = judge_distractors("m", *people(3000, 4, rng), distractors, far=1e-2).metrics()
    covered = dict.fromkeys(truth, 0)
    for _ in range(200):
        result = judge_distractors("m", *people(60, 4, rng), distractors, far=1e-2)
        for name, interval in result.with_intervals(Bootstrap(200)).intervals.figures.items():
            covered[name] += interval.low <= truth[name] <= interval.high
    assert all(180 <= count <= 198 for count in covered.values()), covered


@pytest.mark.slow
def test_coverage_of_blufr(monkeypatch):
    """200 sets of 80 people, three trials each; the truth is the mean figure of 600 trials of other people."""
    monkeypatch.setattr("unpg.evaluate.search_benchmark.BLUFR_FAR", 0.01)
    monkeypatch.setattr("unpg.evaluate.search_benchmark.BLUFR_FPIR", 0.1)
    monkeypatch.setattr("unpg.evaluate.search_benchmark.all_pairs", few_pairs)
    rng = np.random.default_rng(0)
    trials = [blufr(*people(80, 4, rng), 1, evidence=False)[1].per_gallery["trial 1"] for _ in range(600)]
    truth = {
        "rank=1": np.mean([t.rank[1] for t in trials]),
        "tpir@fpir=1e-1": np.mean([t.tpir_at_fpir[0].value for t in trials]),
        "tar@far=1e-2": np.mean([t.tar_at_far[0].value for t in trials]),
    }
    covered = dict.fromkeys(truth, 0)
    for _ in range(200):
        figures = blufr(*people(80, 4, rng))[1].with_intervals(Bootstrap(100)).intervals.figures
        for name, value in truth.items():
            covered[name] += figures[name].low <= value <= figures[name].high
    assert all(180 <= count <= 198 for count in covered.values()), covered


def few_pairs(vectors, labels):
    """All pairs without the histogram of 2^21 bins, which takes nearly all of the time of a small set."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    a, b = np.triu_indices(len(labels), 1)
    return SimpleNamespace(roc=Roc.from_scores((unit @ unit.T)[a, b], labels[a] == labels[b]))
