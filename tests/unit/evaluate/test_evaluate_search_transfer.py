"""Searches at thresholds from elsewhere, and thresholds taken from searches, against counting probe by probe."""

from dataclasses import replace

import numpy as np
import pytest

from unpg.errors import ConfigError, DataError
from unpg.evaluate import Bootstrap, IdentificationResult, gallery_rates
from unpg.evaluate import parse_threshold_rule as parse
from unpg.evaluate.identification import Searches


def made(seed, n=600, people=80, mated_share=0.5, lifted=0.0):
    """Searches with ties, by people half of whom are enrolled."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, people, n)
    mated = who < people * mated_share
    best = (rng.normal(size=n) + lifted).round(1).astype(np.float32)
    mate = np.where(mated, best - rng.integers(0, 3, n) / 10, -np.inf).astype(np.float32)
    rank = np.where(mated, np.where(mate == best, 1, 2), 0)
    return Searches(mated, mate, rank, best, 50), who


def result(**galleries):
    rates = {name: gallery_rates(*one, fpirs=(0.1,)) for name, one in galleries.items()}
    return IdentificationResult("mine", rates)


@pytest.mark.parametrize("fpir", [0.013, 0.1, 0.5, 1.0])
def test_threshold_by_trying_every_score(fpir):
    """The smallest float32 at which no more than N * FPIR non-mated searches return a candidate."""
    searches, who = made(0)
    threshold = result(g=(searches, who)).threshold(parse(f"mine:fpir={fpir}"))
    others = searches.best[~searches.mated]
    assert np.sum(others >= threshold) <= fpir * len(others)
    below = np.nextafter(np.float32(threshold), np.float32(-np.inf))
    assert fpir == 1.0 or np.sum(others >= below) > fpir * len(others)
    at_home = result(g=(searches, who)).with_threshold(threshold, "mine").at_threshold
    assert at_home.tpir == searches.tpir_at_fpir(fpir).value


def test_rates_at_a_foreign_threshold_are_counts():
    parts = {"G1": made(1), "G2": made(2)}
    for threshold in (-9.0, -0.5, 0.3, np.nextafter(np.float32(0.3), np.float32(1)), 9.0):
        found = result(**parts).with_threshold(float(threshold), "lfw:eer").at_threshold
        slow = {"fpir": [], "fnir": []}
        for searches, _ in parts.values():
            rows = list(zip(searches.mated, searches.mate, searches.rank, searches.best, strict=True))
            slow["fpir"].append(np.mean([best >= threshold for mated, _, _, best in rows if not mated]))
            slow["fnir"].append(np.mean([not (rank == 1 and s >= threshold) for mated, s, rank, _ in rows if mated]))
        assert found.fpir == pytest.approx(np.mean(slow["fpir"]))
        assert (found.fnir, found.tpir) == pytest.approx((np.mean(slow["fnir"]), 1 - np.mean(slow["fnir"])))
        assert [g["fpir"] for g in found.galleries.values()] == pytest.approx(slow["fpir"])
        assert found.mated == sum(s.mated.sum() for s, _ in parts.values())
        assert found.mated + found.nonmated == 1200


def test_one_gallery_chooses_for_the_other():
    both = result(G1=made(1), G2=made(2, lifted=0.3))
    threshold = both.threshold(parse("mine:fpir=0.1@G1"))
    assert threshold != both.threshold(parse("mine:fpir=0.1@G2"))
    found = both.with_threshold(threshold, "mine:fpir=0.1@G1", without="G1").at_threshold
    alone = result(G2=made(2, lifted=0.3)).with_threshold(threshold, "mine:fpir=0.1@G1").at_threshold
    assert list(found.galleries) == ["G2"]
    assert found == alone
    told = both.with_threshold(threshold, "mine:fpir=0.1@G1", without="G1").to_dict()["at_threshold"]
    assert (told["fpir"], told["chosen"]) == (alone.fpir, "mine:fpir=0.1@G1")


def test_intervals_hold_the_rates_and_never_seen_errors_get_the_rule_of_three():
    settings = Bootstrap(replicates=200)
    one = result(g=made(3))
    found = one.with_threshold(0.3, "lfw:eer", settings).at_threshold
    for name in ("fpir", "fnir", "tpir"):
        interval = found.intervals[name]
        assert interval.low < getattr(found, name) < interval.high < interval.low + 0.3
    assert found.intervals["tpir"].low == pytest.approx(1 - found.intervals["fnir"].high)
    never = one.with_threshold(9.0, "lfw:eer", settings).at_threshold
    assert never.fpir == 0
    assert never.intervals["fpir"].method == "rule of three"
    assert 3 / 45 < never.intervals["fpir"].high < 3 / 30  # some 40 people who are not enrolled
    few = result(g=made(3, people=30)).with_threshold(0.3, "lfw:eer", settings).at_threshold
    assert few.refused == "no intervals from 15 people with mated searches; 20 are needed"


def test_closed_sets_have_no_fpir():
    searches, who = made(0, mated_share=1.0)
    closed = result(g=(searches, who))
    found = closed.with_threshold(0.3, "lfw:eer", Bootstrap(replicates=50)).at_threshold
    assert (found.fpir, found.nonmated) == (None, 0)
    assert set(found.intervals) == {"fnir", "tpir"}
    with pytest.raises(DataError, match="FPIR needs non-mated searches"):
        closed.threshold(parse("mine:fpir=0.1"))


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        ("mine:far=0.1", ConfigError, "as mine:fpir=0.01; got 'mine:far=0.1'"),
        ("mine:eer", ConfigError, "has searches and no pairs"),
        ("mine:fpir=0.1", ConfigError, "galleries G1, G2, each with a threshold of its own"),
        ("mine:fpir=0.1@G3", ConfigError, "as mine:fpir=0.1@G1; got 'mine:fpir=0.1@G3'"),
        ("mine:fpir=1e-4@G1", DataError, "non-mated searches resolve FPIR"),
    ],
)
def test_what_gives_no_threshold_is_said(rule, error, words):
    with pytest.raises(error, match=words):
        result(G1=made(1), G2=made(2)).threshold(parse(rule))


def test_searches_that_were_not_kept_are_said():
    one = result(g=made(0))
    bare = replace(one, per_gallery={"g": replace(one.per_gallery["g"], people=None)})
    with pytest.raises(ConfigError, match="'g' was judged without keeping its searches"):
        bare.with_threshold(0.3, "lfw:eer")


def test_rates_that_rest_on_few_strangers_have_no_intervals():
    some = result(g=made(4, people=60, mated_share=0.75))  # 15 people who are not enrolled
    rates = some.with_threshold(0.3, "lfw:eer", Bootstrap(60)).at_threshold
    assert rates.intervals["fpir"].low is rates.intervals["fpir"].high is None
    assert rates.intervals["fpir"].reason == "15 people with non-mated searches; 20 are needed"
    assert rates.intervals["fnir"].low is not None
    found = some.with_intervals(Bootstrap(60)).intervals
    assert set(found.figures) == {"rank=1", "rank=5", "rank=10"}
    assert found.notes[-1].startswith("no intervals of rates at an FPIR from 15 people")
    enough = result(g=made(4, people=80, mated_share=0.75)).with_intervals(Bootstrap(60)).intervals
    assert "tpir@fpir=1e-1" in enough.figures
    assert not any("FPIR" in note for note in enough.notes)
