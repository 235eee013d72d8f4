import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest

from unpg.cli.main import main
from unpg.cli.report_verb import run as report
from unpg.errors import DataError
from unpg.evaluate import compare, holm
from unpg.report import RunData, load_run, recipes, run_differences, write_report
from unpg.report.differences import difference_tables
from unpg.report.recipes import looks, replicates, seed_table


@pytest.fixture(scope="module")
def runs(seeds):
    return [load_run(folder) for folder in seeds]


def bare(name, config="", recipe=""):
    return RunData(name, config=config, recipe=recipe)


def test_runs_that_differ_in_the_seed_alone_are_one_recipe(runs):
    found = recipes(runs)
    assert [(r.name, r.label, len(r.runs)) for r in found] == [
        ("base", "base (3 seeds)", 3),
        ("ours", "ours (3 seeds)", 3),
    ]
    assert [run.name for r in found for run in r.runs] == [run.name for run in runs]
    assert {(look.style, look.label) for look in looks(runs).values()} == {(0, "base (3 seeds)"), (1, "ours (3 seeds)")}


def test_what_changes_no_weight_makes_no_other_recipe():
    one, two = bare("a1", "seed: 1\nworkers: 0\nlr: 0.1"), bare("a2", "seed: 2\nworkers: 4\nlr: 0.1")
    assert [r.name for r in recipes([one, two])] == ["a"]
    other = bare("a3", "seed: 3\nlr: 0.2")
    assert [len(r.runs) for r in recipes([one, two, other])] == [2, 1]
    where = [
        bare(
            f"b{n}",
            f"seed: {n}\ndevice: 'cuda:{n}'\ncheckpoint: {{keep: {n}}}\nevaluation: {{flip: none, every_epochs: {n}}}",
        )
        for n in (1, 2)
    ]
    assert [len(r.runs) for r in recipes(where)] == [2]
    mirrored = bare("b3", "seed: 3\ndevice: cuda\ncheckpoint: {keep: 2}\nevaluation: {flip: sum, every_epochs: 1}")
    assert [len(r.runs) for r in recipes([*where, mirrored])] == [2, 1]


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (("arcface-seed1", "arcface-seed2"), "arcface"),
        (("arcface_s10", "arcface_s11"), "arcface"),
        (("run10", "run11"), "run"),
        (("classes1", "classes2"), "classes"),
        (("ir18-a", "ir18-b"), "ir18"),
        (("1", "2"), "1 and others"),
    ],
)
def test_name_of_a_recipe(names, shared):
    (found,) = recipes([bare(name, f"seed: {n}") for n, name in enumerate(names)])
    assert found.name == shared


def test_two_recipes_never_share_a_name():
    runs = [bare(f"x{n}", f"seed: {n}\nlr: {n // 2}") for n in range(4)] + [bare("x")]
    names = [r.name for r in recipes(runs)]
    assert len(set(names)) == 3


def test_the_same_run_twice_is_no_second_seed():
    one, copy = bare("one", "seed: 1"), bare("copy", "seed: 1")
    assert [len(r.runs) for r in recipes([one, copy])] == [1, 1]
    with pytest.raises(DataError, match="Two runs of 'x' have the seed 1"):
        recipes([bare("one", "seed: 1", "x"), bare("copy", "seed: 1", "x")])
    with pytest.raises(DataError, match=r"one name 'x'.*differ in lr"):
        recipes([bare("one", "seed: 1\nlr: 1", "x"), bare("other", "seed: 2\nlr: 2", "x")])
    # Without configurations somebody's word is all there is.
    assert [r.label for r in recipes([bare("a", recipe="x"), bare("b", recipe="x")])] == ["x (2 seeds)"]


def test_means_and_spreads_are_those_of_the_runs(runs):
    table = seed_table(runs)
    assert table.columns == ("Figure", "base (3 seeds)", "ours (3 seeds)")
    groups = {name: {row[0].text: row[1:] for row in rows} for name, _, rows in table.groups}
    base, _ = groups["people"]["EER"]
    values = [run.results["people"]["metrics"]["eer"] for run in runs[:3]]
    assert base.value == pytest.approx(np.mean(values), rel=1e-12)
    assert base.text == f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"
    assert base.low < base.value < base.high
    assert "Accuracy, mean of the groups" in groups["places"]
    assert groups["places"]["Ratio of FMR"][0].text.endswith("×")
    assert groups["clusters"]["pairwise_f"][0].text == "50.00"  # a kind that nobody knows has means, too
    assert seed_table(runs[:1]) is None


def test_interval_of_a_mean_holds_seeds_and_people(runs):
    # By hand: the draws of people are those of the runs; on top of them seeds deviate.
    of = [replicates(run, "people") for run in runs[:3]]
    column = np.stack([r.values[:, r.figures.index("eer")] for r in of])
    people = np.quantile(column.mean(axis=0), [0.025, 0.975])
    table = seed_table(runs)
    cell = next(rows for name, _, rows in table.groups if name == "people")[1][1]
    assert cell.high - cell.low > 0.8 * (people[1] - people[0])
    far = [dataclasses.replace(r, values=r.values + 0.2 * n) for n, r in enumerate(of)]
    wide = compare(far, of)
    assert wide[0].high - wide[0].low > 0.1


def test_a_group_without_any_error_is_bounded_by_its_own_people(runs, monkeypatch):
    # Aland's people say less about an error that nobody saw than the people of all groups.
    name, bound = "fmr/Aland", 0.31

    def without_errors(run, benchmark):
        found = replicates(run, benchmark)
        if found is None or name not in found.figures:
            return found
        column = found.figures.index(name)
        values, estimates = found.values.copy(), list(found.estimates)
        values[:, column], estimates[column] = 0.0, 0.0
        return dataclasses.replace(found, values=values, estimates=tuple(estimates))

    clean = []
    for run in runs[:3]:
        places = json.loads(json.dumps(run.results["places"]))
        places["metrics"][name] = 0.0
        places["intervals"]["figures"][name] = {"low": 0.0, "high": bound, "method": "rule of three", "reason": ""}
        clean.append(dataclasses.replace(run, results={**run.results, "places": places}))
    monkeypatch.setattr(sys.modules[replicates.__module__], "replicates", without_errors)
    rows = next(rows for benchmark, _, rows in seed_table(clean).groups if benchmark == "places")
    cell = next(row[1] for row in rows if row[0].text == "FMR, Aland")
    assert (cell.value, cell.low, cell.high) == (0.0, 0.0, bound)


def test_groups_are_compared_with_groups(runs):
    found, reasons = run_differences(runs)
    assert reasons == []
    assert {(d.first, d.second, d.difference.seeds) for d in found} == {("base", "ours", (3, 3))}
    of = [[replicates(run, "people") for run in part] for part in (runs[:3], runs[3:])]
    truth = compare(*of)
    assert [d.difference for d in found if d.benchmark == "people"] == list(truth)
    assert [d.p for d in found] == list(holm([d.difference.p for d in found]))
    notes = " ".join(difference_tables(found, []).notes)
    assert "Means over training seeds (base 3, ours 3)" in notes
    assert "One training run" not in notes
    mixed, _ = run_differences(runs[2:])
    notes = " ".join(difference_tables(mixed, []).notes)
    assert "Means over training seeds (ours 3)" in notes
    assert "One training run only: base-seed3" in notes


def test_a_recipe_of_which_some_runs_were_not_judged_says_so(runs):
    results = {name: of for name, of in runs[0].results.items() if name != "people"}
    part = [dataclasses.replace(runs[0], results=results), *runs[1:]]
    _, reasons = run_differences(part)
    assert "people: of base only 2 of the 3 runs can be compared" in reasons
    assert "people: only 2 of the 3 runs of base were judged." in seed_table(part).notes


def test_less_error_is_better_for_groups_too(runs):
    found, _ = run_differences(runs)
    fnmr = next(d for d in found if d.difference.figure == "fnmr/Aland")
    assert fnmr.difference.gain[0] == -fnmr.difference.estimate > 0
    sure = dataclasses.replace(fnmr, p=0.01)
    assert sure.sentence().startswith("places, FNMR, Aland: ours beats base by ")
    # An interval beside 0 does not outvote the corrected p.
    beside = dataclasses.replace(fnmr.difference, low=-0.2, high=-0.1, p=0.04)
    clear = dataclasses.replace(fnmr, difference=beside, p=0.2)
    assert "ours and base are not told apart: " in clear.sentence()


def test_one_name_for_several_folders_makes_a_recipe(seeds, tmp_path, capsys):
    folders = [shutil.copytree(seeds[n], tmp_path / f"judged{n}") for n in (0, 1, 3, 4)]
    for folder in folders:  # models that were only judged
        (folder / "config.yaml").unlink()
        (folder / "metrics.jsonl").unlink()
    names = ["before", "before", "after", "after"]
    out = tmp_path / "page.html"
    report([*map(str, folders), "--names", *names, "--out", str(out), "--format", "html", "md"])
    printed = capsys.readouterr().out
    assert f"Wrote {out}, {tmp_path / 'page.md'}" in printed
    assert "people, EER: " in printed
    text = out.read_text(encoding="utf-8")
    assert "before (2 seeds)" in text
    assert "before, 1" in text
    assert "## Means over training seeds" in (tmp_path / "page.md").read_text(encoding="utf-8")
    report([*map(str, seeds[:2]), "--names", "b", "b", "--out", str(out)])
    assert "b, seed 2" in out.read_text(encoding="utf-8")


def test_options_that_do_not_fit_are_refused(seeds, capsys):
    with pytest.raises(SystemExit):
        report([str(seeds[0]), "--format", "md", "--thumbnails"])
    assert "belong to the page" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        report([str(seeds[0]), "--names", "a", "b"])
    assert "2 names for 1 runs" in capsys.readouterr().err
    assert main(["report", "nowhere"]) != 0
    assert "nowhere is no folder" in capsys.readouterr().err


def test_runs_of_a_recipe_look_alike_and_share_a_legend(runs, tmp_path):
    text = write_report(tmp_path / "r.html", runs, figures=tmp_path / "figures").read_text(encoding="utf-8")
    rows = difference_tables(*run_differences(runs)).length
    assert f"<details><summary>All {rows} rows of the table</summary>" in text  # 37 rows are not what a phone wants
    first = (tmp_path / "figures" / "figure-01.svg").read_text(encoding="utf-8")
    assert first.count(">base (3 seeds)<") == 1
    assert json.dumps("base (3 seeds)")[1:-1] in text
