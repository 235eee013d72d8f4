import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, wasserstein_distance

from unpg.data.label_noise import flip_labels
from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.allpairs import RESOLUTION, unit_rows
from unpg.evaluate.distribution import Distribution
from unpg.evaluate.sampling import ClassWeights, sample_negatives, view
from unpg.pairs import BoxWhisker, KeepAll, Quantile, TopK

FILTERS = {"all": KeepAll(), "box": BoxWhisker(0.3), "upper": BoxWhisker(0.3, "upper"), "top": TopK(9)}
SLOW = {
    "all": lambda s: s,
    "box": lambda s: [x for x in s if whiskers(s)[0] <= x <= whiskers(s)[1]],
    "upper": lambda s: [x for x in s if x <= whiskers(s)[1]],
    "top": lambda s: sorted(s)[-9:],
}


def whiskers(s, r=0.3):
    ranked = sorted(s)
    q1, q3 = ranked[len(s) // 4], ranked[3 * len(s) // 4]
    return q1 - r * (q3 - q1), q3 + r * (q3 - q1)


def made(n=48, people=6, dim=5, seed=0, spread=0.8):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % people
    centers = rng.normal(size=(people, dim))
    unit = unit_rows(centers[labels] + spread * rng.normal(size=(n, dim)))
    batches = [rng.permutation(n)[:16] for _ in range(3)] + [rng.permutation(n)[:11]]
    return unit, labels, batches, ClassWeights(torch.tensor(centers, dtype=torch.float32))


def slow_negatives(unit, labels, batches, weights, keep, scope="batch"):
    """One list of similarities per batch with classes and with the batch, each once per anchor."""
    x, w = unit.double().numpy(), weights.vectors.double().numpy()
    classes, batch_pairs = [], []
    for batch in batches:
        classes.append([x[i] @ w[c] / np.linalg.norm(w[c]) for i in batch for c in range(len(w)) if c != labels[i]])
        if scope == "batch":
            once = [float(x[i] @ x[j]) for a, i in enumerate(batch) for j in batch[a + 1 :] if labels[i] != labels[j]]
            batch_pairs.append(list(keep(once)) * len(batch))
        else:
            rows = [keep([float(x[i] @ x[j]) for j in batch if labels[i] != labels[j]]) for i in batch]
            batch_pairs.append([s for row in rows for s in row])
    return classes, batch_pairs


def flat(lists):
    return [entry for one in lists for entry in one]


def same(found, scores):
    """Same values with the same counts, up to the rounding of cosines."""
    scores = np.array(scores)
    return (
        found.total == pytest.approx(len(scores)) and found.wasserstein(Distribution.of_scores(scores)) < 2 * RESOLUTION
    )


@pytest.mark.parametrize("scope", ["batch", "anchor"])
@pytest.mark.parametrize("name", FILTERS)
def test_samples_match_slow_loops(scope, name):
    unit, labels, batches, weights = made()
    clpg, mlpg, unpg = sample_negatives(unit, labels, batches, {name: FILTERS[name]}, weights=weights, scope=scope)
    classes, everything = slow_negatives(unit, labels, batches, weights, lambda s: s, scope)
    _, kept = slow_negatives(unit, labels, batches, weights, SLOW[name], scope)
    assert [s.name for s in (clpg, mlpg, unpg)] == ["CLPG", "MLPG", f"UNPG, {name}"]
    assert same(clpg.similarities, flat(classes))
    assert same(mlpg.similarities, flat(everything))
    assert same(unpg.similarities, flat(classes) + flat(kept))
    np.testing.assert_allclose(clpg.reach, [max(s) for s in classes], atol=1e-6)
    np.testing.assert_allclose(unpg.reach, [max(a + b) for a, b in zip(classes, kept, strict=True)], atol=1e-6)
    each = 1 if scope == "anchor" else 16
    assert unpg.kept == sum(
        len(k) // (each if len(b) == 16 or each == 1 else 11) for k, b in zip(kept, batches, strict=True)
    )
    total = len(flat(classes)) + len(flat(kept))
    assert unpg.class_share == pytest.approx(len(flat(classes)) / total)
    assert (clpg.class_share, mlpg.class_share) == (1, 0)


def test_several_centers_count_as_the_nearest_one():
    unit, labels, batches, _ = made()
    two = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(1))
    clpg = sample_negatives(unit, labels, batches, {}, weights=ClassWeights(two.flatten(0, 1), centers=2))[0]
    w = torch.nn.functional.normalize(two, dim=2)
    expected = [
        max(float(unit[i] @ w[c, k]) for k in (0, 1)) for b in batches for i in b for c in range(6) if c != labels[i]
    ]
    assert same(clpg.similarities, expected)


def test_rows_at_a_time_change_nothing(monkeypatch):
    unit, labels, batches, weights = made()
    one = sample_negatives(unit, labels, batches, {}, weights=weights)[0]
    monkeypatch.setattr("unpg.evaluate.sampling._ENTRIES", 20)  # three rows of six classes
    two = sample_negatives(unit, labels, batches, {}, weights=weights)[0]
    assert two.kept == one.kept == 0
    assert two.similarities.total == one.similarities.total
    assert two.similarities.wasserstein(one.similarities) < RESOLUTION  # products may round differently
    np.testing.assert_allclose(one.reach, two.reach, atol=1e-6)


def test_weight_of_the_batch():
    unit, labels, batches, weights = made()
    draw = lambda **how: sample_negatives(unit, labels, batches, {"all": KeepAll()}, weights=weights, **how)  # noqa: E731
    clpg, mlpg, plain = draw()
    for weight in (0.25, 3.0):
        found = draw(batch_weight=weight)[2].similarities
        assert found.total == pytest.approx(clpg.similarities.total + weight * mlpg.similarities.total)
        expected = clpg.similarities.total * clpg.similarities.mean
        expected += weight * mlpg.similarities.total * mlpg.similarities.mean
        assert found.mean * found.total == pytest.approx(expected)
    assert plain.class_share < 0.5
    assert draw(balanced=True)[2].class_share == pytest.approx(0.5)
    assert draw(balanced=True, batch_weight=3.0)[2].class_share == pytest.approx(0.25)
    for weight in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="finite number > 0"):
            draw(batch_weight=weight)


def test_without_class_weights_there_are_batches_alone():
    unit, labels, batches, _ = made()
    found = sample_negatives(unit, labels, batches, FILTERS)
    assert [s.name for s in found] == ["MLPG", "MLPG, box", "MLPG, upper", "MLPG, top"]
    assert {s.kind for s in found} == {"batch"}


def test_view_against_scipy_and_loops():
    unit, labels, batches, weights = made(n=200, people=10, seed=3)
    x = unit.double().numpy()
    truth = [float(x[i] @ x[j]) for i in range(200) for j in range(i) if labels[i] != labels[j]]
    samples = sample_negatives(unit, labels, batches, FILTERS, weights=weights)
    # In the batches' own rounding, so that the edge of the tail means the same.
    rounded = np.round(np.array(truth) / RESOLUTION) * RESOLUTION
    all_negatives = Distribution.of_scores(rounded)
    tail = np.sort(rounded)[-int(np.ceil(0.001 * len(truth))) :]
    for sample in samples:
        found, seen = view(sample, all_negatives), sample.similarities
        assert found.wasserstein == pytest.approx(wasserstein_distance(seen.values, rounded, seen.counts), abs=1e-9)
        assert found.reach == seen.maximum
        assert found.tail_coverage == pytest.approx(np.mean(tail <= seen.maximum))
        assert found.tail_coverage_step == pytest.approx(np.mean([np.mean(tail <= r + 1e-7) for r in sample.reach]))
        often = seen.counts[seen.values >= tail[0]].sum() / seen.total
        assert found.tail_density == pytest.approx(often / np.mean(rounded >= tail[0]))
    mlpg = samples[1].similarities
    spread = np.repeat(mlpg.values, mlpg.counts.astype(int))
    assert view(samples[1], all_negatives).kolmogorov_smirnov == pytest.approx(ks_2samp(spread, rounded).statistic)


def test_the_whole_set_as_one_batch_sees_everything():
    unit, labels, _, _ = made(n=60, people=5)
    (mlpg,) = sample_negatives(unit, labels, [np.arange(60)], {})
    x = unit @ unit.T
    truth = [float(x[i, j]) for i in range(60) for j in range(i) if labels[i] != labels[j]]
    seen = view(mlpg, Distribution.of_scores(np.round(np.array(truth) / RESOLUTION) * RESOLUTION))
    assert seen.wasserstein < RESOLUTION
    assert (seen.tail_coverage, seen.tail_coverage_step) == (1, 1)
    assert seen.tail_density == pytest.approx(1)


def test_class_weights_that_are_spread_miss_the_hard_negatives():
    """The paper's point, in small: weights stand across each other, so that one feature scatters in a cosine with a
    weight, and two do in a pair of features.
    """
    labels = np.arange(1500) % 50
    weights = np.eye(64)[:50]
    unit = unit_rows(weights[labels] + 0.15 * np.random.default_rng(5).normal(size=(1500, 64)))
    batches = np.split(np.random.default_rng(0).permutation(1500), 10)
    of = ClassWeights(torch.tensor(weights, dtype=torch.float32))
    found = sample_negatives(unit, labels, batches, {"all": KeepAll()}, weights=of)
    (whole,) = sample_negatives(unit, labels, [np.arange(1500)], {})
    clpg, mlpg, unpg = (view(sample, whole.similarities) for sample in found)
    assert clpg.tail_density < 0.1
    assert mlpg.tail_density == pytest.approx(1, abs=0.15)
    assert unpg.tail_density == pytest.approx(1, abs=0.3)
    assert clpg.wasserstein > 5 * mlpg.wasserstein
    assert clpg.tail_coverage_step < mlpg.tail_coverage_step <= unpg.tail_coverage_step


def test_filter_quality_on_planted_noise_against_a_loop():
    unit, clean, batches, _ = made(n=80, people=5, dim=16, spread=0.15, seed=6)
    given = flip_labels(clean, 0.15, seed=3)
    keep = BoxWhisker(0.3, "upper")
    found = sample_negatives(unit, given, batches, {"upper": keep, "top": TopK(9)}, clean=clean)
    x = unit.double().numpy()
    offered = cut = noise = hit = 0
    for batch in batches:
        pairs = [(i, j) for a, i in enumerate(batch) for j in batch[a + 1 :] if given[i] != given[j]]
        fence = whiskers([float(x[i] @ x[j]) for i, j in pairs])[1]
        for i, j in pairs:
            out, wrong = float(x[i] @ x[j]) > fence, clean[i] == clean[j]
            offered, cut, noise, hit = offered + 1, cut + out, noise + wrong, hit + (out and wrong)
    quality = found[1].quality
    assert (quality.offered, quality.cut, quality.noise, quality.noise_cut) == (offered, cut, noise, hit)
    assert quality.precision == hit / cut
    assert quality.recall == hit / noise
    assert quality.recall == 1  # tight clouds: all noise lies beyond the whisker
    assert found[2].quality.recall < 0.5  # the hardest are kept, the noise among them
    unfiltered = found[0].quality
    assert (unfiltered.cut, unfiltered.precision, unfiltered.recall) == (0, None, 0)
    assert sample_negatives(unit, clean, batches, {"upper": keep})[1].quality is None


def test_pairs_of_near_twins_are_counted_apart_from_noise():
    unit, clean, batches, _ = made(n=80, people=5, dim=16, spread=0.15, seed=6)
    twin_of = np.where(clean == 4, 1, -1)  # person 4 is the near-twin of person 1
    keep = BoxWhisker(0.1, "upper")
    sample = sample_negatives(unit, clean, batches, {"upper": keep}, clean=clean, twin_of=twin_of)[1]
    x = unit.double().numpy()
    twins = hit = 0
    for batch in batches:
        pairs = [(i, j) for a, i in enumerate(batch) for j in batch[a + 1 :] if clean[i] != clean[j]]
        fence = whiskers([float(x[i] @ x[j]) for i, j in pairs], 0.1)[1]
        for i, j in pairs:
            if {int(clean[i]), int(clean[j])} == {1, 4}:
                twins, hit = twins + 1, hit + (float(x[i] @ x[j]) > fence)
    quality = sample.quality
    assert (quality.twins, quality.twins_cut) == (twins, hit)
    assert twins > 0
    assert quality.noise == 0
    assert quality.twins_kept == 1 - hit / twins
    assert quality.to_dict()["twins_kept"] == quality.twins_kept
    assert sample_negatives(unit, clean, batches, {"upper": keep}, clean=clean)[1].quality.twins_kept is None
    with pytest.raises(ShapeError, match="one entry per true label"):
        sample_negatives(unit, clean, batches, {"upper": keep}, clean=clean, twin_of=[1, 2])


def test_flipped_labels():
    labels = np.repeat([3, 7, 9], 50)
    flipped = flip_labels(labels, 0.1, seed=1)
    assert np.count_nonzero(flipped != labels) == 15
    assert set(flipped) == {3, 7, 9}
    np.testing.assert_array_equal(flipped, flip_labels(labels, 0.1, seed=1))
    assert np.any(flipped != flip_labels(labels, 0.1, seed=2))
    np.testing.assert_array_equal(flip_labels(labels, 0, seed=1), labels)
    everyone = flip_labels(labels, 1, seed=1)
    assert np.all(everyone != labels)
    # Each of the two other names as often: 25 of 50 expected, four deviations are 14.
    assert all(11 <= np.sum(everyone[labels == who] == other) <= 39 for who, other in ((3, 7), (3, 9), (7, 3), (9, 3)))
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        flip_labels(labels, 1.1, seed=0)
    with pytest.raises(DataError, match="the set has 1"):
        flip_labels([4, 4], 0.5, seed=0)


def test_batches_without_negatives():
    unit, labels, _, weights = made()
    alone = np.flatnonzero(labels == 0)
    with pytest.raises(DataError, match="no batch negatives"):
        sample_negatives(unit, labels, [alone], {"all": KeepAll()}, weights=weights)
    # One such batch among others shows nothing, hence reaches nothing.
    mlpg = sample_negatives(unit, labels, [alone, np.arange(48)], {})[0]
    assert mlpg.reach[0] == -np.inf
    seen = view(mlpg, mlpg.similarities)
    assert (seen.tail_coverage, seen.tail_coverage_step) == (1, 0.5)


def test_bad_input_is_refused():
    unit, labels, batches, weights = made()
    with pytest.raises(ShapeError, match="one entry per embedding"):
        sample_negatives(unit, labels[:-1], batches, {})
    with pytest.raises(ShapeError, match="embedding size"):
        sample_negatives(unit[:, :4], labels, batches, {}, weights=weights)
    with pytest.raises(DataError, match="weights of another set"):
        sample_negatives(unit, labels + 1, batches, {}, weights=weights)
    with pytest.raises(DataError, match="no batch negatives"):
        sample_negatives(unit, labels * 0, batches, {"q": Quantile()}, weights=ClassWeights(weights.vectors[:1]))
