"""The numbers of a summary against slow recomputations, and what it says when replicates are absent."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from unpg.errors import DataError
from unpg.evaluate import Sampling, diagnose_set
from unpg.evaluate.intervals import t_p_value, t_quantile
from unpg.pairs import BoxWhisker, KeepAll
from unpg.report.writers import to_markdown
from unpg.study.budget import detectable, hours, seed_spread
from unpg.study.diagnoses import DRAWN, Diagnosed, _kept, read_diagnoses
from unpg.study.figures import _gain, _over_seeds, _pushed, _ratio, study_figures
from unpg.study.job import _by_epoch
from unpg.study.summary import BOOTSTRAP, PEOPLE, SEEDS, sum_up, summary_path, write_summary
from unpg.study.tables import _relative_gap, study_tables

FIGURES = ("tar@far=1e-2", "eer")


@pytest.fixture
def made(values, planned, finish):
    """A plan of a base and two arms, nothing tuned, and what each run scored: (3 arms, 3 seeds), by figure."""
    values["arms"] = {
        "base": {"label": "Base"},
        "better": {"label": "Better", "of": "base", "set": {"loss": {"s": 8}}},
        "level": {"label": "Level", "of": "base", "set": {"loss": {"s": 4}}},
    }

    def make(replicates=True):
        plan = planned(values)
        rng = np.random.default_rng(0)
        people = {f: rng.normal(0, 0.01, 40) for f in FIGURES}  # the same draws of people for all
        scores, drawn = {f: np.empty((3, 3)) for f in FIGURES}, {f: np.empty((3, 3, 40)) for f in FIGURES}
        for a, arm in enumerate(values["arms"]):
            for s, run in enumerate(plan.finals(arm)):
                for f in FIGURES:
                    scores[f][a, s] = 0.2 + (0.05 if arm == "better" else 0) + rng.normal(0, 0.004)
                    drawn[f][a, s] = scores[f][a, s] + people[f] + rng.normal(0, 0.002, 40)
                told = {f: float(scores[f][a, s]) for f in FIGURES}
                finish(plan, run, told, {f: drawn[f][a, s] for f in FIGURES} if replicates else None)
        return plan, scores, drawn

    return make


def slow_mean(values, side):
    """(r,) replicates of a mean over seeds: people by the row, and what other seeds would change by Student's t."""
    s, r = values.shape
    deviation = np.random.default_rng((0, r, side)).standard_t(s - 1, r)
    return np.array(
        [np.mean(v) + t * np.std(v, ddof=1) / math.sqrt(s) for v, t in zip(values.T, deviation, strict=True)]
    )


@pytest.mark.parametrize("figure", FIGURES)
def test_paired_differences_equal_a_slow_recomputation(made, figure):
    plan, scores, drawn = made()
    found = {d.arm: d for d in sum_up(plan).of(f"test/{figure}")[1]}
    ps = []
    for a, arm in ((1, "better"), (2, "level")):
        values = drawn[figure].astype(np.float32).astype(np.float64)
        pairs = values[a] - values[0]
        deviation = np.random.default_rng((0, 40, 2)).standard_t(2, 40)
        replicates = np.array(
            [np.mean(d) + t * np.std(d, ddof=1) / np.sqrt(3) for d, t in zip(pairs.T, deviation, strict=True)]
        )
        low, high = np.quantile(replicates, [0.025, 0.975])
        p = min(1.0, 2 * (min((replicates <= 0).sum(), (replicates >= 0).sum()) + 1) / 41)
        assert found[arm].method == BOOTSTRAP
        assert found[arm].estimate == pytest.approx(scores[figure][a].mean() - scores[figure][0].mean(), abs=1e-12)
        assert (found[arm].low, found[arm].high) == pytest.approx((low, high), abs=1e-9)
        assert found[arm].p == pytest.approx(p)
        assert found[arm].by_seed == pytest.approx(scores[figure][a] - scores[figure][0])
        ps.append(p)
    small, large = sorted(ps)
    corrected = {small: min(2 * small, 1), large: max(min(2 * small, 1), large)}
    assert [found[arm].p_holm for arm in ("better", "level")] == pytest.approx([corrected[p] for p in ps])


def test_an_arm_is_compared_with_one_that_it_takes_nothing_from(made, values, planned):
    before = sum_up(made()[0])
    # The same settings and so the same runs: their results are found again.
    for arm in ("better", "level"):
        about = values["arms"][arm]
        about["against"] = about.pop("of")
    plan = planned(values)
    after = sum_up(plan)
    assert after.differences == before.differences
    assert after.comparisons == before.comparisons == 2
    assert "Better − Base" in to_markdown(study_tables(plan.study, after), "Study")
    values["arms"]["better"].pop("against")
    assert [d.arm for d in sum_up(planned(values)).of("test/eer")[1]] == ["level"]


def test_means_equal_a_slow_recomputation(made):
    plan, scores, drawn = made()
    for a, mean in enumerate(sum_up(plan).of("test/eer")[0]):
        means = slow_mean(drawn["eer"][a].astype(np.float32).astype(float), 0)
        low, high = np.quantile(means, [0.025, 0.975])
        assert mean.mean == pytest.approx(scores["eer"][a].mean())
        assert mean.spread == pytest.approx(scores["eer"][a].std(ddof=1))
        assert (mean.low, mean.high) == pytest.approx((low, high), abs=1e-9)


def test_without_replicates_seeds_are_paired_by_students_t_and_the_method_says_so(made):
    plan, scores, _ = made(replicates=False)
    summary = sum_up(plan)
    values = scores["tar@far=1e-2"]
    for a, found in enumerate(summary.of("test/tar@far=1e-2")[1], start=1):
        paired = scipy.stats.ttest_rel(values[a], values[0])
        assert found.method == SEEDS
        assert found.p == pytest.approx(paired.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(paired.confidence_interval(0.95)))
    mean = summary.of("test/tar@far=1e-2")[0][0]
    spread = scipy.stats.t.interval(0.95, 2, values[0].mean(), values[0].std(ddof=1) / math.sqrt(3))
    assert (mean.low, mean.high) == pytest.approx(spread)
    assert len(summary.without_replicates) == 9
    text = to_markdown(study_tables(plan.study, summary), "made")
    assert "Student's t over seeds" in text
    assert "Without replicates, hence by seeds alone" in text


def test_committed_numbers_stand_in_for_replicates_of_the_same_runs_and_no_others(made, planned, finish, values):
    plan, _, _ = made()
    before = sum_up(plan)
    write_summary(summary_path(plan.results.path), before)
    shutil.rmtree(plan.results.replicates_path("x").parent)
    after = sum_up(planned(values))
    assert after.differences == before.differences
    assert after.means == before.means
    # Another seed makes other runs: what was committed is not of them.
    values["seeds"] = [0, 1]
    fewer = sum_up(planned(values))
    assert {d.method for d in fewer.differences} == {SEEDS}
    assert len(fewer.differences[0].by_seed) == 2


def test_committed_intervals_come_without_the_name_that_they_had(made, planned, values):
    plan, _, _ = made()
    write_summary(summary_path(plan.results.path), sum_up(plan))
    shutil.rmtree(plan.results.replicates_path("x").parent)
    # The same runs under other names, and one run under two.
    values["arms"]["anew"] = values["arms"].pop("better")
    values["arms"]["again"] = values["arms"]["anew"] | {"label": "Again"}
    summary = sum_up(planned(values))
    means, differences = summary.of("test/tar@far=1e-2")
    assert sorted(mean.arm for mean in means) == ["again", "anew", "base", "level"]
    assert sorted(d.arm for d in differences) == ["again", "anew", "level"]
    assert {one.method for one in (*means, *differences)} == {BOOTSTRAP}
    assert len({(d.low, d.p) for d in differences}) == 2


def test_holm_corrects_for_what_the_study_asks_not_for_what_is_finished(made, planned, values):
    plan, _, _ = made()
    before = {d.arm: d for d in sum_up(plan).of("test/eer")[1]}
    for n in range(6):  # not finished
        values["arms"][f"later-{n}"] = {"of": "base", "set": {"loss": {"s": 2 + n / 8}}}
    summary = sum_up(planned(values))
    after = {d.arm: d for d in summary.of("test/eer")[1]}
    assert summary.comparisons == 8
    assert after.keys() == before.keys()
    smallest = min(after.values(), key=lambda d: d.p)
    assert smallest.p == before[smallest.arm].p
    assert smallest.p_holm == pytest.approx(min(1, 8 * smallest.p))
    assert "corrected for the 8 comparisons" in to_markdown(study_tables(plan.study, summary), "made")


def test_one_seed_says_that_training_is_not_in_the_interval(made, planned, values):
    made()
    values["seeds"] = [1]
    plan = planned(values)
    summary = sum_up(plan)
    assert {one.method for one in (*summary.means, *summary.differences)} == {PEOPLE}
    assert {(one.p, one.p_holm) for one in summary.differences} == {(None, None)}
    page = to_markdown(study_tables(plan.study, summary), "made")
    assert "no chance of training in it" in page
    assert "of one seed there is none" in page
    # Written and taken over, as where the replicates are gone; by an earlier version, which gave a p.
    tested = tuple(replace(one, p=0.5) for one in summary.differences)
    write_summary(summary_path(plan.results.path), replace(summary, differences=tested))
    for file in plan.results.path.with_suffix("").glob("*.npz"):
        file.unlink()
    assert sum_up(planned(values)).differences == summary.differences
    summary_path(plan.results.path).unlink()
    assert sum_up(planned(values)).differences == ()


def test_an_arm_of_one_seed_is_not_tested_and_its_comparison_still_counts(made, planned, values):
    plan, _, _ = made()
    three = {d.arm: d for d in sum_up(plan).of("test/eer")[1]}
    gone = {run.digest for run in plan.finals("level")[1:]}
    lines = plan.results.path.read_text().splitlines(keepends=True)
    plan.results.path.write_text("".join(line for line in lines if json.loads(line)["digest"] not in gone))
    found = {d.arm: d for d in sum_up(planned(values)).of("test/eer")[1]}
    assert (found["level"].method, found["level"].p, found["level"].p_holm) == (PEOPLE, None, None)
    assert found["level"].low < found["level"].estimate < found["level"].high
    assert found["better"].p == three["better"].p
    assert found["better"].p_holm == pytest.approx(min(1, 2 * found["better"].p))


def test_an_arm_whose_trials_all_diverged_stands_in_nobodys_way(values, planned, finish):
    plan = planned(values)
    first, second = plan.trials("cosface")
    finish(plan, first, {"eer": 0.3})
    finish(plan, second, {"eer": 0.4})
    for run in plan.trials("unpg"):
        finish(plan, run, {}, diverged="Loss was not finite.")
    for run in plan.finals("cosface"):
        finish(plan, run, {"tar@far=1e-2": 0.2, "eer": 0.1})
    summary = sum_up(plan)
    assert summary.barren == ("unpg",)
    assert summary.finals == {"cosface": (3, 3), "unpg": (0, 3)}
    assert "unpg: all trials diverged, so it has no settings." in to_markdown(study_tables(plan.study, summary), "made")
    assert plan.differences("unpg", "test/eer") == []


def test_a_summary_is_written_whole_and_read_by_anyone(made, tmp_path):
    plan, _, _ = made()
    write_summary(tmp_path / "out.json", sum_up(plan))
    told = json.loads((tmp_path / "out.json").read_text())
    assert told["primary"] == "test/tar@far=1e-2"
    assert {entry["arm"] for entry in told["differences"]} == {"better", "level"}
    assert told["finals"]["base"] == [3, 3]


def test_a_study_without_tuning_is_summed_up_too(made, values, planned):
    values["tuning"] = None
    plan, _, _ = made()
    assert plan.study.tuning is None
    assert sum_up(plan).choices == ()


def test_one_seed_without_replicates_has_no_interval_and_no_difference(made, values, planned):
    made(replicates=False)
    values["seeds"] = [1]
    summary = sum_up(planned(values))
    assert all(m.low is None and m.spread is None and m.method == "" for m in summary.means)
    assert summary.differences == ()
    assert study_tables(planned(values).study, summary)


def test_tables_and_figures_show_every_arm(made):
    plan, scores, _ = made()
    summary = sum_up(plan)
    endpoints, differences, similarities = study_tables(plan.study, summary)
    assert [row[0].text for row in endpoints.groups[0][2]] == ["Base", "Better", "Level"]
    assert [row[0].text for row in differences.groups[0][2]] == ["Better − Base", "Level − Base"]
    assert endpoints.groups[0][2][0][2].text == f"{100 * scores['tar@far=1e-2'][0].mean():.2f}"
    assert endpoints.columns[2] == "test: TAR at FAR 10⁻²"
    assert similarities.groups[0][2][0][similarities.columns.index("Share of batch")].text == "0.25"
    seen = {arm: [diagnosed(1.0)] for arm in ("base", "better", "level")}
    ends = {"robust_inf_positive": -0.1, "robust_sup_negative": 0.5, "mean_positive": 0.4, "mean_negative": 0.1}
    assert _relative_gap(ends) == pytest.approx(-2)
    assert _relative_gap({"overlap": 0.1}) is None
    figures = study_figures(plan.study, summary, plan.curves(), plan.by_epoch(), seen)
    assert list(figures) == ["endpoint", "tar-base", "training-base", "seen-base"]
    for drawing in figures.values():
        assert drawing.svg.startswith("<svg")
        assert all(f">{name}<" in drawing.svg for name in ("Base", "Better", "Level"))


def test_a_difference_of_curves_is_one_of_the_same_seeds():
    base = {0: {"far": [1e-4, 1e-3], "tar": [0.1, 0.2]}, 1: {"far": [1e-4, 1e-3], "tar": [0.5, 0.6]}}
    far, gain = _gain({0: {"far": [1e-4, 1e-3, 1e-2], "tar": [0.11, 0.3, 0.4]}}, base)
    assert far.tolist() == [1e-4, 1e-3]
    assert gain == pytest.approx([10, 50])
    far, gain = _gain({s: {"far": [1e-3], "tar": [0.3]} for s in (0, 1)}, base)
    assert gain == pytest.approx([-25])
    assert [len(found) for found in _gain({2: base[0]}, base)] == [0, 0]


def diagnosed(density: float) -> Diagnosed:
    """A run whose classes draw only below zero, and whose batch draws what there is."""
    names = ("CLPG", "MLPG", DRAWN)
    there = (200.0,) * 120 + (50.0,) * 8
    return Diagnosed(
        {"robust_inf_positive": 0.1, "robust_sup_negative": 0.5, "overlap": 0.25, "violation": 0.125},
        {name: {"tail_density": density, "class_share": 0.5} for name in names},
        {"negatives": there, "CLPG": (3.0,) * 64 + (0.0,) * 64, "MLPG": tuple(2 * n for n in there), DRAWN: there},
    )


def test_diagnoses_are_means_over_seeds_and_only_of_what_is_there(made):
    plan, _, _ = made()
    summary = sum_up(plan, {"better": [diagnosed(1.0), diagnosed(4.0)], "level": []})
    assert summary.seen.keys() == summary.training.keys() == {"better"}
    assert summary.seen["better"]["CLPG"]["tail_density"] == 2.5
    *_, table = study_tables(plan.study, summary)
    ((label, *cells),) = table.groups[0][2]
    told = dict(zip(table.columns[1:], (cell.text for cell in cells), strict=True))
    assert label.text == "Better"
    assert told["Overlap"] == "0.25"
    assert told["Classes: tail density"] == "2.5"
    assert told["Union, unfiltered: tail density"] == ""


def test_a_filter_is_held_against_planted_noise(made):
    generator = torch.Generator().manual_seed(0)
    people = torch.arange(60) // 6
    vectors = torch.randn(10, 8, generator=generator)[people] + 0.5 * torch.randn(60, 8, generator=generator)
    labels = people.clone()
    labels[3:6], labels[9:12] = 10, 11  # two people go by two names each
    batches = [np.arange(0, 60, 2), np.arange(1, 60, 2)]
    filters = {"r = 1.5": BoxWhisker(), "all kept": KeepAll()}
    sampling = Sampling(batches, filters, drawn="r = 1.5")
    found = diagnose_set("made", vectors, labels.numpy(), sampling, clean=people.numpy())
    samples = _kept(found).samples
    quality = next(sample.quality for sample, _ in found.samples if sample.name == "MLPG, r = 1.5")
    assert quality.noise_cut > 0
    assert samples[DRAWN]["cut"] == pytest.approx(quality.cut / quality.offered, rel=1e-4)
    assert samples[DRAWN]["precision"] == pytest.approx(quality.noise_cut / quality.cut, rel=1e-4)
    assert samples[DRAWN]["recall"] == pytest.approx(quality.noise_cut / quality.noise, rel=1e-4)
    assert "twins_kept" not in samples[DRAWN]
    assert samples["MLPG"]["cut"] == samples["MLPG"]["recall"] == 0
    assert "precision" not in samples["MLPG"]

    plan, _, _ = made()
    clean = replace(_kept(found), samples={name: dict(one) for name, one in samples.items()})
    del clean.samples[DRAWN]["precision"]
    summary = sum_up(plan, {"base": [_kept(found)], "better": [_kept(found), clean], "level": [diagnosed(1.0)]})
    *_, table = study_tables(plan.study, summary)
    rows = {label.text: [cell.text for cell in cells] for label, *cells in table.groups[0][2]}
    shares = [f"{100 * samples[DRAWN][name]:.2f}" for name in ("cut", "precision", "recall")]
    assert rows == {"Base": [*shares, ""], "Better": [shares[0], "", shares[2], ""]}


def test_what_is_drawn_is_a_multiple_of_what_there_is():
    at, classes = _ratio([diagnosed(1.0), diagnosed(1.0)], "CLPG")
    assert at[0] == -1 + 1 / 128
    assert len(at) == 128  # fifty pairs a run are a hundred
    there = 200 * 120 + 50 * 8
    assert np.allclose(classes[:64], (1 / 64) / (200 / there))
    assert np.all(classes[64:] == 0)
    at, batch = _ratio([diagnosed(1.0)], "MLPG")
    assert len(at) == 120
    assert np.allclose(batch, 1)
    assert len(_ratio([diagnosed(1.0)], "UNPG, all kept")[0]) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(samples=3), "samples"),
        (lambda d: d.pop("similarities"), "similarities"),
        (lambda d: d["histograms"].pop("negatives"), "must have negatives"),
        (lambda d: d["histograms"]["CLPG"].pop(), "128 counts each"),
    ],
)
def test_a_damaged_diagnosis_is_named(tmp_path, change, said):
    path = tmp_path / "made.diagnosis.json"
    plain = json.loads(json.dumps(vars(diagnosed(1.0))))
    path.write_text(json.dumps({"abc": plain}))
    assert read_diagnoses(path)["abc"] == diagnosed(1.0)
    change(plain)
    path.write_text(json.dumps({"abc": plain}))
    with pytest.raises(DataError, match=rf"(?s)made.diagnosis.json, abc: .*{said}.*unpg study diagnose"):
        read_diagnoses(path)


def test_an_epoch_without_a_logged_step_keeps_its_place(tmp_path):
    # Seven steps an epoch, of which every tenth is logged.
    events = [{"event": "start"}]
    events += [
        {"event": "step", "epoch": step / 7, "loss": step / 10, "grad_norm": 1.0, "statistics": {"share/batch": 0.5}}
        for step in range(10, 71, 10)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    found = _by_epoch(tmp_path)
    assert found["loss"] == [None, 1.0, 2.0, None, 3.0, 4.0, None, 5.0, 6.0, 7.0]
    assert found["share/batch"] == [None, 0.5, 0.5, None, 0.5, 0.5, None, 0.5, 0.5, 0.5]


def test_what_the_batch_pushes_is_its_part_of_the_negatives():
    run = {"share/target": [0.5, 0.5], "share/classes": [0.5, 0.1], "share/batch": [None, 0.4]}
    assert _pushed(run) == [0.0, pytest.approx(80)]
    assert _pushed({"share/classes": [0.9, 0.5]}) == [0.0, 0.0]
    epochs, values = _over_seeds([[1.0, 3.0], [2.0, 5.0, 7.0]])
    assert epochs.tolist() == [1, 2]
    assert values.tolist() == [1.5, 4.0]


@pytest.mark.parametrize("freedom", [1, 2, 4, 8, 30, 2.5])
def test_students_t_agrees_with_scipy(freedom):
    for p in (0.001, 0.025, 0.5, 0.8, 0.995):
        assert t_quantile(p, freedom) == pytest.approx(scipy.stats.t.ppf(p, freedom), rel=1e-9, abs=1e-12)
    for t in (-3.0, 0.0, 4e-14, 0.5, 12.0, 1e200, math.inf):
        assert t_p_value(t, freedom) == pytest.approx(2 * scipy.stats.t.sf(abs(t), freedom), rel=1e-9)


def test_the_smallest_effect_is_that_of_the_formula():
    t = scipy.stats.t(4)
    wanted = (t.ppf(1 - 0.05 / 6 / 2) + t.ppf(0.8)) * 0.0034 / math.sqrt(5)
    assert detectable(0.0034, 5, 6) == pytest.approx(wanted)


def test_the_smallest_effect_is_found_as_often_as_it_says():
    rng = np.random.default_rng(0)
    effect = detectable(1.0, 5, 1)
    share = (scipy.stats.ttest_1samp(rng.normal(effect, 1, (20000, 5)), 0, axis=1).pvalue < 0.05).mean()
    assert share == pytest.approx(0.8, abs=0.03)


def test_the_spread_is_pooled_by_degrees_of_freedom():
    assert seed_spread([[1.0, 3.0], [5.0, 5.0, 5.0], [7.0]]) == pytest.approx(math.sqrt(2 / 3))
    assert seed_spread([[1.0], []]) is None


def test_hours_follow_the_results_that_are_there(values, planned, finish):
    values["arms"] = {"a": {}}
    plan = planned(values)
    assert hours(plan) == (None, 3, 0)
    first = plan.finals("a")[0]
    # 64 images x 3 epochs took 30 + 6 seconds: two such runs are left, two at once.
    told = {"images": 64, "epochs": 3, "seconds": 30.0, "evaluation_seconds": 6.0, "machine": {"device": "cpu"}}
    plan.results.append({"digest": first.digest, "diverged": "", "scores": {}, **told})
    assert hours(plan, jobs=2) == (pytest.approx(36 / 3600), 2, 0)
