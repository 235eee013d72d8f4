"""Templates against loops, in each of the field's ways; groups and quality on sets with known answers."""

import numpy as np
import pytest

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.groups import compare_groups
from unpg.evaluate.quality import error_versus_discard, pair_quality
from unpg.evaluate.templates import POOLINGS, Pooling, pool, template_scores


def images(n=60, d=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32) * rng.uniform(0.5, 3, (n, 1)).astype(np.float32)
    return x, rng.integers(0, 8, n) * 7 + 3, rng.integers(0, 5, n), rng.uniform(0.1, 1, n).astype(np.float32)


def unit(v):
    return v / np.linalg.norm(v)


def slow_pool(x, templates, media, pooling, scores):
    """Image by image: mean within the medium, sum over media, length one."""
    found = {}
    for t in sorted(set(templates)):
        total = np.zeros(x.shape[1])
        for m in sorted({medium for medium, owner in zip(media, templates, strict=True) if owner == t}):
            members = []
            for vector, owner, medium, score in zip(x, templates, media, scores, strict=True):
                if owner == t and medium == m:
                    v = vector.astype(np.float64)
                    members.append({"keep": v, "one": unit(v), "detector": v * score}[pooling.lengths])
            mean = np.mean(members, axis=0)
            total += unit(mean) if pooling.unit_media else mean
        found[t] = unit(total)
    return found


@pytest.mark.parametrize("name", list(POOLINGS))
def test_pooling_is_the_loop(name):
    pooling = POOLINGS[name]
    x, templates, media, scores = images()
    found = pool(x, templates, media, pooling, detector_scores=scores)
    slow = slow_pool(x, templates, media, pooling, scores)
    assert found.ids.tolist() == sorted(slow)
    for row, t in enumerate(found.ids):
        np.testing.assert_allclose(found.vectors[row], slow[t], rtol=1e-5, atol=1e-6)
    lengths = np.linalg.norm(x, axis=1)
    unit_rows = pool(x / lengths[:, None], templates, media, pooling, lengths=lengths, detector_scores=scores)
    np.testing.assert_allclose(unit_rows.vectors, found.vectors, rtol=1e-5, atol=1e-6)
    order = np.random.default_rng(1).permutation(len(x))
    again = pool(x[order], templates[order], media[order], pooling, detector_scores=scores[order])
    np.testing.assert_allclose(again.vectors, found.vectors, rtol=1e-5, atol=1e-6)


def test_pair_scores_are_cosines_of_templates():
    x, templates, media, _ = images()
    found = pool(x, templates, media)
    first, second = found.ids[[0, 1, 2, 2]], found.ids[[3, 1, 0, 5]]
    expected = [found.vectors[a] @ found.vectors[b] for a, b in [(0, 3), (1, 1), (2, 0), (2, 5)]]
    np.testing.assert_allclose(template_scores(found, first, second), expected, atol=2e-6)
    with pytest.raises(DataError, match="first is template 999"):
        template_scores(found, [999], [3])
    assert template_scores(found, [], []).shape == (0,)
    with pytest.raises(ShapeError, match="two templates each"):
        template_scores(found, found.ids[:2], found.ids[:1])


def test_a_template_that_cancels_scores_zero():
    x = np.array([[1.0, 0], [-1.0, 0], [0, 1.0]], dtype=np.float32)
    found = pool(x, [1, 1, 2], [0, 1, 0])
    assert not found.vectors[0].any()
    assert template_scores(found, [1], [2]) == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, t, m: pool(x, t, m, "arcface"), ConfigError, "Known: equal, insightface"),
        (lambda x, t, m: pool(x, t, m, "insightface"), ConfigError, "detector_scores"),
        (lambda x, t, m: pool(x, t[:-1], m), ShapeError, "template and a medium"),
        (lambda x, t, m: pool(x[:0], t[:0], m[:0]), DataError, "no images"),
        (lambda x, t, m: pool(x * np.nan, t, m), DataError, "Vector 0"),
        (lambda x, t, m: pool(x, t, m, "insightface", detector_scores=t[:3]), ShapeError, "each of the 60 images"),
        (lambda x, t, m: pool(x, t, m, "insightface", detector_scores=t * np.inf), DataError, "not finite"),
        (lambda x, t, m: pool(x, t, m, lengths=t[:3]), ShapeError, "lengths must have one entry for each"),
        (lambda x, t, m: pool(np.sign(x) * np.float32(3e38), t * 0, m), DataError, "overflow float32"),
        (lambda x, t, m: Pooling("norm"), ConfigError, "keep, one, detector"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    x, templates, media, _ = images()
    with pytest.raises(error, match=message):
        call(x, templates, media)


def test_groups_at_one_threshold():
    """Group b's impostors score higher: at the common threshold it has all the false matches."""
    genuine, impostor = np.full(20, 0.9), np.linspace(0, 0.5, 100)
    scores = np.concatenate([genuine, impostor, genuine - 0.3, impostor + 0.2])
    same = np.tile(np.repeat([True, False], [20, 100]), 2)
    groups = np.repeat(["a", "b"], 120)
    result = compare_groups(scores, same, groups, target=0.1)
    a, b = result.groups
    tries = [t for t in np.unique(scores) if np.mean(scores[~same] >= t) <= 0.1]
    assert result.common.threshold == min(tries)
    assert a.fmr == np.mean(impostor >= result.common.threshold)
    assert b.fmr == np.mean(impostor + 0.2 >= result.common.threshold)
    assert result.fmr_ratio == (b.fmr / a.fmr if a.fmr else np.inf)
    assert b.own.threshold == pytest.approx(a.own.threshold + 0.2)  # each group's own
    assert (a.own.value, b.own.value) == (1.0, 0.0)
    assert a.accuracy == pytest.approx((20 * (1 - a.fnmr) + 100 * (1 - a.fmr)) / 120)
    assert (a.accuracy, result.skewed_error_ratio) == (1.0, np.inf)  # the whole burden is b's
    fixed = compare_groups(scores, same, groups, target=0.1, threshold=0.4)
    assert fixed.groups[0].fmr == np.mean(impostor >= 0.4)
    errors = [1 - g.accuracy for g in fixed.groups]
    assert fixed.skewed_error_ratio == pytest.approx(max(errors) / min(errors))
    assert fixed.fmr_ratio == pytest.approx(np.mean(impostor + 0.2 >= 0.4) / np.mean(impostor >= 0.4))
    swapped = compare_groups(scores, same, np.where(groups == "a", "z", groups), target=0.1)
    assert [g.fmr for g in swapped.groups] == [b.fmr, a.fmr]
    constant = compare_groups(np.zeros(240), same, groups, target=0.1)
    assert [g.fnmr for g in constant.groups] == [1.0, 1.0]
    for bad, message in [((scores, same, groups[:3]), "one entry"), ((scores, same, np.zeros(240)), "two or more")]:
        with pytest.raises((ShapeError, DataError), match=message):
            compare_groups(*bad)
    with pytest.raises(DataError, match="pairs of one kind"):
        compare_groups(scores, same, np.where(same, "a", "b"), target=0.1)
    with pytest.raises(DataError, match="No common threshold"):
        compare_groups(scores, same, groups, target=1e-5)


def test_discarding_by_quality():
    rng = np.random.default_rng(0)
    genuine = rng.uniform(0, 1, 400)
    scores = np.concatenate([genuine, rng.uniform(0, 0.5, 1000)])
    same = np.arange(1400) < 400
    knows = np.concatenate([genuine, np.zeros(1000)])
    curve = error_versus_discard(scores, same, knows, fmr=0.01)
    assert curve.discarded[0] == 0
    assert curve.fnmr[0] == np.mean(genuine < curve.threshold)
    assert curve.area_above_ideal() == pytest.approx(0, abs=1e-9)  # the score itself is the best quality there is
    blind = error_versus_discard(scores, same, rng.permutation(1400), fmr=0.01)
    assert blind.area_above_ideal() > 0.01
    tied = error_versus_discard(scores, same, np.zeros(1400), fmr=0.01)
    assert tied.discarded.tolist() == [0.0]  # equal qualities go together: there is nothing to discard first
    for share, rate in zip(blind.discarded, blind.fnmr, strict=True):
        assert 0 <= share < 1
        assert 0 <= rate <= 1
    assert pair_quality([1, 5], [3, 2]).tolist() == [1, 2]
    with pytest.raises(DataError, match="No threshold"):
        error_versus_discard(scores, same, knows, fmr=1e-5)
    with pytest.raises(ShapeError, match="one entry per pair"):
        error_versus_discard(scores, same, knows[:5])
    with pytest.raises(DataError, match="Quality 0"):
        error_versus_discard(scores, same, knows * np.nan)
    with pytest.raises(DataError, match="Fewer than two points"):
        tied.area_above_ideal()


def test_discard_curve_is_the_loop():
    rng = np.random.default_rng(3)
    scores, same = rng.normal(size=300).round(2), rng.random(300) < 0.5
    quality = rng.integers(0, 12, 300)
    curve = error_versus_discard(scores, same, quality, fmr=0.1, steps=1000)
    genuine, good = scores[same], quality[same]
    for share, rate in zip(curve.discarded, curve.fnmr, strict=True):
        level = np.sort(good)[round(share * len(good))]
        rest = genuine[good >= level]
        assert share == pytest.approx(np.mean(good < level))
        assert rate == pytest.approx(np.mean(rest < curve.threshold))
    assert len(curve.discarded) == len(np.unique(good))


def test_many_partners_and_few_give_the_same_scores(monkeypatch):
    x, templates, media, _ = images(200)
    found = pool(x, templates, media)
    rng = np.random.default_rng(0)
    first, second = rng.choice(found.ids, (2, 500))
    many = template_scores(found, first, second)
    monkeypatch.setattr("unpg.evaluate.templates._BLOCK", 3)
    np.testing.assert_allclose(template_scores(found, first, second), many, atol=2e-6)
    monkeypatch.setattr("unpg.evaluate.templates._DENSE", 0)
    few = template_scores(found, first, second)
    np.testing.assert_allclose(many, few, atol=2e-6)
    rows = [(found.rows([a])[0], found.rows([b])[0]) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(many, [found.vectors[a] @ found.vectors[b] for a, b in rows], atol=2e-6)


def test_the_area_ends_where_it_is_asked_to():
    # Cuts at 0, 0.1 and 0.6 of the genuine pairs: half of what lies up to 0.2 is between two of them.
    quality = np.repeat([0, 1, 2, 9], [10, 50, 40, 100])
    same = np.arange(200) < 100
    scores = np.where(same, np.where(np.arange(200) % 5 == 0, 0.0, 1.0), 0.0)
    curve = error_versus_discard(scores, same, quality, fmr=0.01)
    assert curve.discarded.tolist() == [0.0, 0.1, 0.6]
    shares = np.linspace(0, 0.2, 2001)
    gap = np.interp(shares, curve.discarded, curve.fnmr - curve.ideal)
    assert curve.area_above_ideal(0.2) == pytest.approx(np.mean((gap[1:] + gap[:-1]) / 2) * 0.2)
    assert curve.area_above_ideal(1.0) == curve.area_above_ideal(0.6)  # there is no curve beyond the last cut
