"""Searches and distractors against loops over probes, from the definitions of ISO/IEC 19795-1."""

import math

import numpy as np
import pytest

from unpg.errors import ConfigError, DataError, ShapeError
from unpg.evaluate.distractors import with_distractors
from unpg.evaluate.identification import Searches, search

STEP = 2**-20


def vectors(n, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def cosine(a, b):
    value = float(
        a.astype(np.float64) @ b / np.linalg.norm(a.astype(np.float64)) / np.linalg.norm(b.astype(np.float64))
    )
    return round(value / STEP) * STEP


def slow_search(probes, mine, gallery, theirs):
    rows = []
    for probe, subject in zip(probes, mine, strict=True):
        by_subject = {}
        for entry, name in zip(gallery, theirs, strict=True):
            by_subject[name] = max(by_subject.get(name, -2.0), cosine(probe, entry))
        mated = subject in by_subject
        mate = by_subject.get(subject, -math.inf)
        ahead = sum(score >= mate for name, score in by_subject.items() if name != subject)
        rows.append((mated, mate, 1 + ahead if mated else 0, max(by_subject.values())))
    return rows


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("entries", [1, 3])
def test_search_is_the_loop(block, entries):
    theirs = np.repeat(np.arange(12), entries)
    gallery = vectors(len(theirs), seed=1)
    mine = np.random.default_rng(2).integers(0, 20, 40)  # from 12 on nobody is enrolled
    probes = vectors(40, seed=3)
    found = search(probes, mine, gallery, theirs, block=block)
    for i, (mated, mate, rank, best) in enumerate(slow_search(probes, mine, gallery, theirs)):
        assert found.mated[i] == mated
        assert found.rank[i] == rank
        assert found.best[i] == pytest.approx(best, abs=2 * STEP)
        assert found.mate[i] == mate or found.mate[i] == pytest.approx(mate, abs=2 * STEP)
    assert found.subjects == 12
    for rank in (1, 2, 5, 12):
        mated = found.rank[found.mated]
        assert found.identification_rate(rank) == np.mean([r <= rank for r in mated])
        assert found.cmc()[rank - 1] == pytest.approx(found.identification_rate(rank))
    assert found.cmc()[-1] == 1


def slow_tpir(found, target, rank):
    """The smallest T on the real line with #(non-mated >= T) <= N * target, tried one by one."""
    others = found.best[~found.mated].astype(np.float64)
    candidates = np.unique(np.concatenate([others, found.mate[found.mated].astype(np.float64)]))
    tries = np.concatenate([[-2.0], candidates, np.nextafter(candidates, np.inf)])
    threshold = min(t for t in tries if (others >= t).sum() <= len(others) * target + 1e-12)
    hits = (found.mate[found.mated] >= threshold) & (found.rank[found.mated] <= rank)
    return hits.mean(), (others >= threshold).mean()


@pytest.mark.parametrize("target", [0.02, 0.1, 0.29, 0.5, 1.0])
@pytest.mark.parametrize("rank", [1, 3])
def test_tpir_is_the_loop(target, rank):
    gallery = vectors(20, seed=1)
    mine = np.random.default_rng(2).integers(0, 40, 300)
    probes = vectors(300, seed=3)
    enrolled = mine < 20
    probes[enrolled] += 2 * gallery[mine[enrolled]]
    found = search(probes, mine, gallery, np.arange(20))
    point = found.tpir_at_fpir(target, rank=rank)
    value, fpir = slow_tpir(found, target, rank)
    assert point.value == pytest.approx(value)
    assert point.fpir == pytest.approx(fpir)
    assert point.fpir <= target
    assert point.reliable == (target * (~enrolled).sum() >= 30)


def test_targets_that_cannot_be_resolved_are_refused():
    mated, mate = np.array([True, False, False]), np.array([0.5, -np.inf, -np.inf])
    found = Searches(mated, mate, np.array([1, 0, 0]), np.array([0.5, 0.4, 0.3]), 2)
    point = found.tpir_at_fpir(0.1)
    assert point.value is None
    assert "2 non-mated searches" in point.reason
    assert found.tpir_at_fpir(0.5).value == 1.0
    with pytest.raises(ConfigError, match="FPIR target"):
        found.tpir_at_fpir(0.0)
    alone = Searches(np.array([True]), np.array([0.5]), np.array([1]), np.array([0.5]), 2)
    with pytest.raises(DataError, match="non-mated"):
        alone.tpir_at_fpir(0.5)
    nobody = Searches(np.array([False]), np.array([-np.inf]), np.array([0]), np.array([0.5]), 2)
    with pytest.raises(DataError, match="mated searches"):
        nobody.identification_rate(1)


def test_a_constant_embedding_is_at_chance_or_below():
    """Everybody ties with the mate and stands before it."""
    same = np.ones((30, 4), dtype=np.float32)
    found = search(same, np.arange(30), same[:10], np.arange(10))
    assert found.identification_rate(1) == 0
    assert found.identification_rate(9) == 0
    assert found.identification_rate(10) == 1
    assert found.tpir_at_fpir(0.5).value == 0
    result = with_distractors(same, np.arange(30) // 3, np.ones((50, 4)), ranks=(1, 50), targets=(0.01,))
    assert result.rates == {1: 0.0, 50: 0.0}
    assert result.verification[0].value == 0


def test_galleries_merged_are_searches_side_by_side():
    parts = [search(vectors(9, seed=s), np.arange(9), vectors(5, seed=9), np.arange(5)) for s in (1, 2)]
    both = Searches.merged(parts)
    assert len(both.mated) == 18
    assert both.identification_rate(1) == np.mean([p.identification_rate(1) for p in parts])


@pytest.mark.parametrize("block", [1, 13, 1000])
def test_distractors_are_the_loop(block):
    subjects = np.array([0, 0, 0, 1, 1, 2, 3])
    probes, distractors = vectors(7, seed=5), vectors(200, seed=6)
    probes += vectors(4, seed=7)[subjects]
    result = with_distractors(probes, subjects, distractors, ranks=(1, 3), targets=(0.01, 0.1, 1e-6), block=block)
    hits = {1: [], 3: []}
    genuine, impostor = [], []
    for p in range(7):
        scores = sorted((cosine(probes[p], v) for v in distractors), reverse=True)
        impostor += scores
        for g in range(7):
            if g != p and subjects[g] == subjects[p]:
                for rank, found in hits.items():
                    found.append(cosine(probes[g], probes[p]) > scores[rank - 1])
                if g < p:
                    genuine.append(cosine(probes[g], probes[p]))
    assert result.pairs == len(hits[1]) == 8
    assert result.rates == {rank: pytest.approx(np.mean(found)) for rank, found in hits.items()}
    for point in result.verification[:2]:
        allowed = int(point.target * len(impostor) + 1e-9)
        above = sorted(impostor, reverse=True)[allowed]
        assert point.value == pytest.approx(np.mean([g > above for g in genuine]))
        assert point.far <= point.target
    assert result.verification[2].value is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: search(vectors(3), [0, 1], vectors(2), [0, 1]), ShapeError, "probes: one integer subject"),
        (lambda: search(vectors(3), [0, 1, 2], vectors(2, d=5), [0, 1]), ShapeError, "one model"),
        (lambda: search(vectors(2), [0.0, 1.0], vectors(2), [0, 1]), ShapeError, "integer subject"),
        (lambda: search(vectors(2), ["a", "b"], vectors(2), [0, 1]), ShapeError, "integer subject.*dtype <U1"),
        (lambda: with_distractors(vectors(2), [0, 0], vectors(9, d=5), ranks=(1,)), ShapeError, "one model"),
        (lambda: with_distractors(vectors(2), [0, 0], vectors(3), ranks=(4,)), ConfigError, "number of distractors"),
        (lambda: with_distractors(vectors(2), [0, 1], vectors(3), ranks=(1,)), DataError, "No two probes"),
        (lambda: search(vectors(2) * np.nan, [0, 1], vectors(2), [0, 1]), DataError, "NaN"),
        (lambda: search(vectors(1), [0], vectors(2), [0, 1]).identification_rate(0), ConfigError, "1 or more"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_target_that_is_none_is_said_before_the_work(monkeypatch):
    monkeypatch.setattr("unpg.evaluate.distractors.in_threads", lambda *_: pytest.fail("worked"))
    with pytest.raises(ConfigError, match=r"FAR target must lie in \(0, 1\]; got 10"):
        with_distractors(vectors(4), [0, 0, 1, 1], vectors(20), targets=(1e-2, 10))
