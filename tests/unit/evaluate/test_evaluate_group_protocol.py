"""Groups against counts from the definitions; draws against pairs that are really repeated."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from unpg.data.bins import write_bin
from unpg.data.rfw import RFW_GROUPS
from unpg.errors import DataError, ShapeError
from unpg.evaluate import BASELINES, Bootstrap, GroupBenchmark, judge_groups, open_benchmark, rule_of_three
from unpg.evaluate.curves import Roc
from unpg.evaluate.group_protocol import _GroupEvidence
from unpg.evaluate.verification import fold_accuracy


def pairs_of_groups(n=200, people=30, seed=0):
    rng = np.random.default_rng(seed)
    scores, same, groups, folds, who = [], [], [], [], []
    for g, group in enumerate("ab"):
        truth = np.arange(n) % 2 == 0
        first = rng.integers(0, people, n)
        second = np.where(truth, first, (first + rng.integers(1, people, n)) % people)
        scores.append((rng.normal(size=n) + 1.5 * truth + 0.4 * g).round(1))
        same.append(truth)
        groups += [group] * n
        folds.append(np.arange(n) // 20)
        who.append(np.stack([first, second], axis=1) + 1000 * g)
    return (
        *(np.concatenate(part) for part in (scores, same)),
        np.array(groups),
        *(np.concatenate(p) for p in (folds, who)),
    )


def test_rates_are_counts():
    scores, same, groups, folds, who = pairs_of_groups()
    scores = scores.astype(np.float32)
    result = judge_groups("mine", scores, same, groups, folds, who, target=0.1)
    told = result.to_dict()
    candidates = [t for t in np.unique(scores) if np.mean(scores[~same] >= t) <= 0.1]
    threshold = min(candidates)
    assert told["common_threshold"] == threshold
    errors = {}
    for group in "ab":
        member = groups == group
        s, t = scores[member], same[member]
        ours = told["groups"][group]
        assert ours["fmr_common"] == np.mean(s[~t] >= threshold)
        assert ours["fnmr_common"] == pytest.approx(np.mean(s[t] < threshold))
        assert ours["tar_at_far_common"] == pytest.approx(np.mean(s[t] >= threshold))
        assert ours["tar_at_far_own"]["value"] == Roc.from_scores(s, t).tar_at_far(0.1).value
        assert ours["accuracy"] == fold_accuracy(s, t, folds[member]).mean
        assert ours["accuracy_common"] == pytest.approx(np.mean((s >= threshold) == t))
        assert ours["eer"] == Roc.from_scores(s, t).eer
        errors[group] = 1 - ours["accuracy"]
    assert told["ratios"]["skewed_error"] == pytest.approx(max(errors.values()) / min(errors.values()))
    a, b = (told["groups"][g]["fmr_common"] for g in "ab")
    assert told["ratios"]["fmr"] == pytest.approx(b / a)
    assert told["accuracy_rule"] == "folds"
    assert set(result.arrays()) == {"scores/a", "same/a", "scores/b", "same/b"}
    without = judge_groups("mine", scores, same, groups, target=0.1).to_dict()
    assert without["accuracy_rule"] == "common threshold"
    assert without["groups"]["a"]["accuracy"] == told["groups"]["a"]["accuracy_common"]
    with pytest.raises(ShapeError, match="one entry per pair"):
        judge_groups("mine", scores, same, groups, folds[:3])


def test_a_ratio_without_errors_is_said_and_not_infinite_in_json():
    scores = np.array([0.9, 0.1] * 20 + [0.9, 0.8] * 20, dtype=np.float32)
    same, groups = np.tile([True, False], 40), np.repeat(["a", "b"], 40)
    told = judge_groups("mine", scores, same, groups, target=0.5, threshold=0.5, chosen="lfw:eer").to_dict()
    assert told["ratios"]["fmr"] is None
    assert told["chosen"] == "lfw:eer"
    assert told["groups"]["b"]["fmr_common"] == 1.0


def test_draws_are_repeated_pairs():
    scores, same, groups, _, who = pairs_of_groups()
    scores = scores.astype(np.float32)
    result = judge_groups("mine", scores, same, groups, None, who, target=0.1)
    evidence = _GroupEvidence(result)
    metrics = result.metrics()
    plain = evidence.figures(np.ones(evidence.units, dtype=np.int64), [0.1])
    assert plain == pytest.approx({name: value for name, value in metrics.items() if name in plain})
    assert set(metrics) - set(plain) == {"ratio/fmr", "ratio/fnmr", "ratio/skewed_error"}
    names = np.concatenate([np.unique(who[groups == g]) for g in "ab"])
    for seed in range(4):
        weights = np.random.default_rng(seed).integers(0, 3, evidence.units)
        of = dict(zip(names.tolist(), weights.tolist(), strict=True))
        times = [of[a] if a == b else of[a] * of[b] for a, b in who.tolist()]
        rows = np.repeat(np.arange(len(scores)), times)
        expected = judge_groups("mine", scores[rows], same[rows], groups[rows], target=0.1).metrics()
        figures = evidence.figures(weights, [0.1])
        assert figures == pytest.approx({name: expected[name] for name in figures})


def test_rfw_by_its_lists_and_by_its_bins(every_set, tmp_path):
    listed = open_benchmark("rfw", every_set)
    result = listed.run(BASELINES["grey-pixels"]).with_intervals(Bootstrap(replicates=40))
    assert list(result.to_dict()["groups"]) == list(RFW_GROUPS)
    assert (result.intervals.unit, result.intervals.units) == ("identity", 96)
    assert listed.identities is not None
    # Namesakes of two groups are two people.
    assert len(np.unique(listed.identities)) == 4 * 24
    rng = np.random.default_rng(0)
    for group in RFW_GROUPS:
        contents = []
        for same in [True, False] * 30:
            one, two = (rng.integers(0, 255, (2, 2, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1) for _ in range(2))
            for pixels in (one, np.clip(one + rng.integers(0, 9, one.shape), 0, 255).astype(np.uint8) if same else two):
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "PNG")
                contents.append(stream.getvalue())
        (tmp_path / "rfw").mkdir(exist_ok=True)
        write_bin(tmp_path / "rfw" / f"{group}_test.bin", contents, [True, False] * 30)
    packed = open_benchmark("rfw", tmp_path).run(BASELINES["grey-pixels"]).with_intervals(Bootstrap(replicates=40))
    assert packed.intervals.optimistic  # nobody says who is on the images
    assert packed.to_dict()["groups"]["Asian"]["accuracy"] > 0.9
    (tmp_path / "rfw" / "Indian_test.bin").unlink()
    with pytest.raises(DataError, match=r"(?s)needs rfw/Indian_test\.bin, or rfw/txts.*whdeng\.cn/RFW"):
        open_benchmark("rfw", tmp_path)


def test_own_groups_as_a_table_and_as_folders(every_set, tmp_path):
    rows = ["path_a,path_b,same,group"]
    for g, group in enumerate(("north", "south")):
        for p in range(4):
            for i in (1, 2, 3):
                target = tmp_path / "set" / group / f"id{p}" / f"{i}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(every_set / f"rfw/data/Asian/m.{4 * g + p}/m.{4 * g + p}_{i:04d}.jpg", target)
            base, other = f"set/{group}/id{p}", f"set/{group}/id{(p + 1) % 4}"
            rows += [f"{base}/1.jpg,{base}/2.jpg,1,{group}", f"{base}/1.jpg,{other}/2.jpg,0,{group}"]
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(rows))
    found = open_benchmark(str(table))
    assert isinstance(found, GroupBenchmark)
    wide = GroupBenchmark(**{**vars(found), "target": 0.5})
    assert list(wide.run(BASELINES["grey-pixels"]).to_dict()["groups"]) == ["north", "south"]
    folder = open_benchmark(f"{tmp_path / 'set'}:groups")
    counts = folder.run(BASELINES["grey-pixels"]).to_dict()["groups"]["south"]
    assert (counts["genuine"], counts["impostor"]) == (4 * 3, 6 * 9)
    table.write_text("\n".join([*rows, rows[1].replace("north", "")]))
    with pytest.raises(DataError, match="line 18: group is empty"):
        open_benchmark(str(table))
    shutil.rmtree(tmp_path / "set" / "south")
    with pytest.raises(DataError, match="has 1 groups"):
        open_benchmark(f"{tmp_path / 'set'}:groups")


def separable_groups(people):
    """Groups of so many people: a genuine pair of each, all above its impostor pairs with the next two people."""
    scores, same, groups, who = [], [], [], []
    for g, (group, n) in enumerate(people.items()):
        ids = 1000 * g + np.arange(n)
        pairs = [ids, ids], [ids, np.roll(ids, 1)], [ids, np.roll(ids, 2)]
        who.append(np.concatenate([np.stack(pair, axis=1) for pair in pairs]))
        scores += [*np.linspace(0.6, 0.9, n), *np.linspace(-0.5, 0.2, 2 * n)]
        same += [True] * n + [False] * 2 * n
        groups += [group] * 3 * n
    return np.array(scores), np.array(same), np.array(groups), None, np.concatenate(who)


def test_a_group_without_errors_goes_by_its_own_people():
    result = judge_groups(
        "mine", *separable_groups({"few": 25, "many": 200}), target=0.1, threshold=0.4, chosen="x:eer"
    )
    found = result.with_intervals(Bootstrap(60)).intervals
    for group, people in (("few", 25), ("many", 200)):
        for figure in ("fmr", "fnmr", "eer"):
            interval = found.figures[f"{figure}/{group}"]
            assert (interval.low, interval.high) == (0.0, pytest.approx(rule_of_three(people)))
        assert found.figures[f"tar/{group}"].low == pytest.approx(1 - rule_of_three(people))
    assert found.figures["accuracy"].low == pytest.approx(1 - rule_of_three(225))


def test_a_group_of_few_people_has_no_intervals():
    result = judge_groups("mine", *separable_groups({"few": 19, "many": 60}), target=0.1, threshold=0.4, chosen="x:eer")
    result = result.with_intervals(Bootstrap(60))
    kept = {figure for figure in result.intervals.figures if figure.endswith("/few")}
    assert (kept, result.intervals.refused) == (set(), "")
    assert {"accuracy", "fmr/many", "fnmr/many", "eer/many"} <= set(result.intervals.figures)
    assert result.replicates.figures == tuple(result.intervals.figures)
    assert result.intervals.notes == ("no intervals of 'few' from 19 identities with genuine pairs; 20 are needed",)
