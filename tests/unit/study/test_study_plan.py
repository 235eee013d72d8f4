"""What a study runs, in which order, and what makes two runs the same."""

import copy
import json
import shutil

import numpy as np
import pytest
import yaml

from unpg.cli.main import main
from unpg.errors import ConfigError, DataError
from unpg.study import read_study
from unpg.study.recipe import merged


def names(plan, only=()):
    return [(arm, None if run is None else (run.trial, run.seed)) for arm, run in plan.wanted(only)]


def test_trials_come_first_and_choose_what_follows(values, planned, finish):
    plan = planned(values)
    assert names(plan) == [
        *[("cosface", (0, 0)), ("cosface", (1, 0)), ("unpg", None), ("unpg", None)],
        *[("cosface", None)] * 3,
        *[("unpg", None)] * 3,
    ]
    finish(plan, plan.trials("cosface")[0], {"eer": 0.2})
    assert plan.settings("cosface") is None
    finish(plan, plan.trials("cosface")[1], {"eer": 0.1})
    assert plan.chosen("cosface") == 1
    # The chosen scale is inherited by what is built on the arm, in its trials and its final runs.
    trials = plan.trials("unpg")
    assert [run.config.loss["s"] for run in trials] == [8, 8]
    assert [run.config.unpg.start_epoch for run in trials] == [0, 1]
    assert all(run.config.hold_out == 0.25 and run.config.evaluation.benchmarks == ("held-out",) for run in trials)
    for run, eer in zip(trials, (0.2, 0.1), strict=True):
        finish(plan, run, {"eer": eer})
    finals = plan.finals("unpg")
    assert [run.seed for run in finals] == [0, 1, 2]
    assert all(run.config.loss["s"] == 8 and run.config.unpg.start_epoch == 1 for run in finals)
    assert all(run.config.hold_out == 0 and run.config.evaluation.benchmarks == () for run in finals)
    assert finals[0].changes == {"loss.s": 8, "unpg.weight": 1.0, "unpg.start_epoch": 1}


def test_a_tar_is_chosen_by_the_largest_and_equals_by_the_first(values, planned, finish):
    plan = planned(values | {"tuning": {"figure": "tar@far=1e-2"}})
    for run, tar in zip(plan.trials("cosface"), (0.3, 0.3), strict=True):
        finish(plan, run, {"tar@far=1e-2": tar})
    assert plan.chosen("cosface") == 0
    for run, tar in zip(plan.trials("unpg"), (0.3, 0.4), strict=True):
        finish(plan, run, {"tar@far=1e-2": tar})
    assert plan.chosen("unpg") == 1


def test_a_trial_that_diverged_is_never_chosen(values, planned, finish):
    plan = planned(values)
    first, second = plan.trials("cosface")
    finish(plan, first, {}, diverged="Loss was not finite.")
    finish(plan, second, {"eer": 0.4})
    assert plan.chosen("cosface") == 1
    for run in plan.trials("unpg"):
        finish(plan, run, {}, diverged="Loss was not finite.")
    assert plan.chosen("unpg") is None
    assert [plan.barren(arm) for arm in ("cosface", "unpg")] == [False, True]
    assert plan.finals("unpg") == [None] * 3
    assert None not in plan.finals("cosface")


def test_a_figure_that_held_out_people_do_not_have_is_named(values, planned, finish):
    plan = planned(values | {"tuning": {"figure": "tar@far=1e-7"}})
    for run in plan.trials("cosface"):
        finish(plan, run, {"eer": 0.1})
    with pytest.raises(DataError, match=r"cannot tell tar@far=1e-7.*eer"):
        plan.chosen("cosface")


def test_only_an_arm_needs_the_trials_below_it_and_no_other_final_runs(values, planned):
    values["arms"]["other"] = {"set": {"loss": {"s": 4}}}
    plan = planned(values)
    assert {arm for arm, _ in plan.wanted(["unpg"])} == {"cosface", "unpg"}
    assert names(plan, ["other"]) == [("other", (None, seed)) for seed in (0, 1, 2)]


def test_a_base_that_keeps_its_best_checkpoint_is_studied_without(values, planned):
    plain = planned(values).trials("cosface")[0]
    values["base"] |= {
        "evaluation": {"benchmarks": ["lfw"], "every_epochs": 1},
        "checkpoint": {"best": "lfw/auc", "keep": 3},
    }
    run = planned(values).trials("cosface")[0]
    assert (run.config.checkpoint.best, run.config.checkpoint.keep) == (None, 3)
    assert run.digest == plain.digest


def test_a_run_that_two_arms_have_is_made_once(values, planned):
    values["arms"] = {"a": {"set": {"loss": {"s": 8}}}, "b": {"of": "a"}, "c": {"of": "a", "set": {"loss": {"s": 4}}}}
    plan = planned(values)
    assert [arm for arm, _ in plan.wanted()] == ["a"] * 3 + ["c"] * 3
    assert [run.digest for run in plan.finals("a")] == [run.digest for run in plan.finals("b")]


def digest(planned, values):
    return planned(values).trials("cosface")[0].digest


CHANGES = [
    {"loss": {"m": 0.3}},
    {"streaming": {"products": "bfloat16"}},
    {"epochs": 4},
    {"unpg": {"weight": 1.0}},
    {"precision": "bf16"},
    {"head": {"init_std": 0.05}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_another_setting_is_another_run(values, planned, change):
    other = copy.deepcopy(values)
    other["base"] = merged(other["base"], change)
    assert digest(planned, values) != digest(planned, other)


@pytest.mark.parametrize(
    "change",
    [
        {"device": "auto"},
        {"threads": 3},
        {"compile": True},
        {"log_every": 5},
        {"checkpoint": {"keep": 5}},
        {"streaming": {"kernel": "plain", "chunk": 7, "keep_mib": 0}},
    ],
)
def test_where_and_how_it_is_computed_is_not_another_run(values, planned, change):
    other = copy.deepcopy(values)
    other["base"] = merged(other["base"], change)
    assert digest(planned, values) == digest(planned, other)


def test_the_data_count_and_not_their_place(values, planned, patterns, tmp_path):
    shutil.copytree(patterns, tmp_path / "elsewhere")
    moved = copy.deepcopy(values)
    moved["base"]["data"]["roots"] = str(tmp_path / "elsewhere")
    assert digest(planned, values) == digest(planned, moved)
    shutil.copytree(patterns, tmp_path / "fewer")
    next((tmp_path / "fewer" / "id0").iterdir()).unlink()
    moved["base"]["data"]["roots"] = str(tmp_path / "fewer")
    assert digest(planned, values) != digest(planned, moved)


def test_what_a_run_begins_with_counts_by_its_content(values, planned, tmp_path):
    found = []
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
        values["base"]["init"] = {"model": str(tmp_path / name)}
        found.append(digest(planned, values))
    assert found[0] == found[1] != found[2]


def test_how_a_final_run_is_judged_counts_but_its_training_stays(values, planned):
    values["arms"] = {"cosface": {}}
    before = planned(values).finals("cosface")[0]
    values["intervals"] = {"replicates": 50}
    after = planned(values).finals("cosface")[0]
    assert before.trained == after.trained
    assert before.digest != after.digest


def changed(values, path, value):
    found = copy.deepcopy(values)
    *groups, last = path
    at = found
    for group in groups:
        at = at[group]
    at[last] = value
    return found


FAULTS = [
    (("arms", "unpg", "of"), "cosfase", r"arms\.unpg\.of: no arm is called 'cosfase'\. Did you mean 'cosface'"),
    (("arms", "cosface", "against"), "unpq", r"arms\.cosface\.against: no arm is called 'unpq'\. Did you mean 'unpg'"),
    (("arms", "cosface", "against"), "cosface", r"arms\.cosface\.against names the arm itself"),
    (("arms", "unpg", "against"), "cosface", r"arms\.unpg has both of and against"),
    (("arms", "cosface", "of"), "unpg", r"circle: cosface -> unpg -> cosface"),
    (("arms", "unpg", "trials"), [{"unpg": {"wieght": 1}}], r"arms\.unpg\.trials\[0\].*unpg\.wieght.*'weight'"),
    (("arms", "unpg", "set"), {"loss": {"t": 1}}, r"arms\.unpg\.set.*no setting 't'"),
    (("base", "epochz"), 3, r"epochz.*Did you mean 'epochs'"),
    (("tuning",), None, r"arms\.cosface has trials, but the study has no tuning"),
    (("tuning", "hold_out"), 1.5, r"tuning\.hold_out .* got 1\.5"),
    (("tuning", "figure"), "accuracy", r"tuning\.figure must be eer, auc or"),
    (("base", "hold_out"), 0.5, r"trials\[0\]: hold_out is 0\.5"),
    (("primary",), "tst/eer", r"endpoint 'tst/eer'.*Did you mean 'test'"),
    (("seeds",), [0, 0], r"seeds must differ"),
    (("seeds",), [], r"needs one entry or more"),
    (("name",), "a/b", r"name: 'a/b' must be of letters"),
    (("spread",), 0, r"spread must be"),
    (("images_per_second",), -1, r"images_per_second must be > 0"),
    (("arm",), {}, r"arm: no such setting\. Did you mean 'arms'"),
]


@pytest.mark.parametrize(("path", "value", "said"), FAULTS, ids=lambda p: str(p)[:30])
def test_faults_are_named_before_anything_is_trained(values, tmp_path, path, value, said):
    file = tmp_path / "faulty.yaml"
    file.write_text(yaml.safe_dump(changed(values, path, value)), encoding="utf-8")
    with pytest.raises(ConfigError, match=said) as found:
        read_study(file)
    assert str(file) in str(found.value)


def test_the_verb_names_unknown_arms_and_seeds(values, tmp_path, capsys):
    file = tmp_path / "made.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    for options, said in (
        (["--only", "cosfase"], "Did you mean 'cosface'"),
        (["--seeds", "7"], "the study has the seeds 0, 1, 2; got 7"),
        (["--jobs", "0"], "--jobs must be 1 or more"),
    ):
        assert main(["study", "run", str(file), *options]) == 2
        assert said in capsys.readouterr().err
    assert main(["study", "summary", str(file)]) == 2
    assert "No final run" in capsys.readouterr().err


def test_a_dry_run_makes_nothing_and_tells_the_budget(values, tmp_path, monkeypatch, capsys):
    file = tmp_path / "made.yaml"
    file.write_text(yaml.safe_dump(values | {"spread": 0.01, "images_per_second": 10}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["study", "run", str(file), "--dry-run", "--jobs", "2"]) == 0
    told = capsys.readouterr().out
    # 64 images x 3 epochs at 10 a second, three quarters of them in trials: the mean of known runs for all ten.
    assert "Budget: 10 runs to make, 8 of them with settings that trials choose; about 0.0 hours" in told
    assert "Smallest effect that can be detected" in told
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made.yaml"]


def test_with_only_some_arms_the_data_of_others_need_not_be_there(values, tmp_path, monkeypatch, capsys):
    away = {"of": "cosface", "set": {"data": {"roots": str(tmp_path / "nowhere")}}}
    values = {name: value for name, value in values.items() if name != "tuning"}
    values["arms"] = {"cosface": {}, "elsewhere": away}
    file = tmp_path / "made.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["study", "run", str(file), "--dry-run", "--only", "cosface"]) == 0
    assert "Budget: 3 runs to make" in capsys.readouterr().out
    assert main(["study", "run", str(file), "--dry-run"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_groups_are_merged_and_replaced_by_their_kind():
    assert merged({"a": {"kind": "x", "p": 1}}, {"a": {"kind": "x", "q": 2}}) == {"a": {"kind": "x", "p": 1, "q": 2}}
    assert merged({"a": {"kind": "x", "p": 1}}, {"a": {"kind": "y"}}) == {"a": {"kind": "y"}}
    assert merged({"a": {"p": 1}}, {"a": None}) == {"a": None}


def test_results_of_two_writers_are_both_kept(values, planned, finish):
    one, two = planned(values), planned(values)  # both read the empty file
    finish(one, one.trials("cosface")[0], {"eer": 0.1})
    finish(two, two.trials("cosface")[1], {"eer": np.float64(0.2)})
    both = planned(values)
    assert [line["scores"]["held-out"]["eer"] for line in both.results.lines.values()] == [0.1, 0.2]


def test_a_run_of_another_study_beside_it_is_not_made_again(values, planned, finish, tmp_path):
    other = planned(values, "other.jsonl")
    scores = {"tar@far=1e-2": 0.5, "eer": 0.1}
    draws = {figure: np.full(40, value) for figure, value in scores.items()}
    first, second = other.trials("cosface")
    finish(other, first, {"eer": 0.1})
    finish(other, second, {"eer": 0.2})
    final = other.finals("cosface")[0]
    finish(other, final, scores, draws)
    plan = planned(values)
    assert not plan.results.lines
    assert plan.chosen("cosface") == 0
    assert plan.results.get(final.digest)["scores"] == {"test": scores}
    assert plan.results.replicates_path(final.digest) == tmp_path / "other" / f"{final.digest}.npz"
    assert plan.results.replicates(final.digest, "test").values.shape == (40, 2)
    # What is made now goes to the study's own file.
    finish(plan, plan.finals("cosface")[1], scores, draws)
    assert len(plan.results.lines) == 1
    assert (tmp_path / "made" / f"{plan.finals('cosface')[1].digest}.npz").exists()
    lines = (tmp_path / "other.jsonl").read_text()
    (tmp_path / "other.jsonl").write_text("{'\n" + lines, encoding="utf-8")
    with pytest.raises(DataError, match=r"other\.jsonl, line 1"):
        planned(values)


def test_other_files_of_lines_are_no_results(values, planned, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"event": "step", "loss": 1.0}\n', encoding="utf-8")
    assert planned(values).results.lines == {}
    with pytest.raises(ConfigError, match=r"ends in \.jsonl; got .*out"):
        planned(values, "out")


def test_a_line_is_added_below_one_that_an_editor_left_without_its_end(values, planned, finish, tmp_path):
    plan = planned(values)
    first, second = plan.trials("cosface")
    finish(plan, first, {"eer": 0.1})
    path = tmp_path / "made.jsonl"
    path.write_text(path.read_text().rstrip("\n"), encoding="utf-8")
    finish(plan, second, {"eer": 0.2})
    assert planned(values).results.lines.keys() == {first.digest, second.digest}


def test_a_trial_judged_otherwise_has_a_folder_of_its_own_and_a_final_run_has_not(values, planned, finish):
    plain, mirrored = planned(values), planned(values | {"flip": "sum"})
    assert plain.trials("cosface")[0].name != mirrored.trials("cosface")[0].name
    for plan in (plain, mirrored):
        for run in plan.trials("cosface"):
            finish(plan, run, {"eer": 0.1})
    assert plain.finals("cosface")[0].name == mirrored.finals("cosface")[0].name
    assert plain.finals("cosface")[0].digest != mirrored.finals("cosface")[0].digest


SOUND = {"digest": "a", "arm": "x", "seed": 0, "diverged": "", "scores": {"lfw": {"eer": 0.2}}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'", "is not JSON"),
        ('{"dig', "is not JSON"),
        ("[]", "must be a JSON object"),
        (json.dumps(SOUND | {"arm": 3}), "arm must be a text, got 3"),
        (json.dumps(SOUND | {"scores": {"lfw": {"eer": "low"}}}), "scores.lfw must be numbers by name"),
        (json.dumps(SOUND | {"curves": []}), "curves must be an object"),
        (json.dumps(SOUND | {"intervals": {"lfw": {"figures": []}}}), "intervals.lfw must have figures, replicates"),
    ],
)
def test_a_line_that_is_no_result_is_named(values, planned, tmp_path, line, message):
    (tmp_path / "made.jsonl").write_text(f"{json.dumps(SOUND)}\n{line}", encoding="utf-8")
    with pytest.raises(DataError, match=rf"line 2:? {message}.* Delete the line"):
        planned(values)


def test_runs_that_differ_in_unpg_alone_share_what_comes_before(values, planned, finish):
    values["arms"]["unpg"]["trials"].append({"unpg": {"start_epoch": 1}, "loss": {"m": 0.3}})
    plan = planned(values | {"share_prefix": True})
    bases = plan.trials("cosface")
    for run, eer in zip(bases, (0.2, 0.1), strict=True):
        finish(plan, run, {"eer": eer})
    from_start, later, other_margin = plan.trials("unpg")
    assert plan.prefix(from_start) is None
    assert plan.prefix(later).digest == bases[1].digest
    assert plan.prefix(other_margin) is None
    assert plan.prefix(bases[0]) is None
    for run, eer in zip(plan.trials("unpg"), (0.2, 0.1, 0.3), strict=True):
        finish(plan, run, {"eer": eer})
    for base, run in zip(plan.finals("cosface"), plan.finals("unpg"), strict=True):
        assert plan.prefix(run).digest == base.digest
    assert planned(values).prefix(later) is None
