import dataclasses
import html
import re

import numpy as np
import pytest

from unpg.evaluate import Bootstrap, compare, holm, judge_all_pairs, judge_pairs, save_results
from unpg.report import load_run, run_differences, write_report
from unpg.report.differences import difference_tables
from unpg.report.tables import result_tables


def judged(folder, noise, settings, *, identities=True):
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(60), 4)
    faces = rng.normal(size=(60, 12))[labels] + 0.5 * rng.normal(size=(240, 12))
    vectors = faces + noise * rng.normal(size=faces.shape)
    pairs = rng.integers(0, 240, (4000, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    pairs = np.concatenate([pairs, np.stack([np.arange(240), np.arange(240) ^ 1], 1)])
    same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    listed = judge_pairs(
        "own.csv", vectors, pairs, same, np.arange(len(same)) % 5, identities=labels if identities else None
    )
    results = [listed, judge_all_pairs("all", vectors, labels, targets=(0.01, 1e-3), evidence=True)]
    if settings is not None:
        results = [result.with_intervals(settings) for result in results]
    save_results(folder, results)
    return results


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    root = tmp_path_factory.mktemp("judged")
    results = [judged(root / name, noise, Bootstrap(100)) for name, noise in (("weak", 0.6), ("strong", 0.05))]
    return results, [load_run(root / name) for name in ("weak", "strong")]


def test_differences_are_those_of_the_results(pair):
    (weak, strong), runs = pair
    found, reasons = run_differences(runs)
    assert reasons == []
    truth = [d for a, b in zip(weak, strong, strict=True) for d in compare(a.replicates, b.replicates)]
    assert [f.difference for f in found] == truth
    assert [f.p for f in found] == list(holm([d.p for d in truth]))
    assert {(f.first, f.second) for f in found} == {("weak", "strong")}
    one = next(f for f in found if f.benchmark == "all" and f.difference.figure == "tar@far=1e-3")
    # 100 draws give no p that ten questions leave below 0.05, however far the interval is from 0.
    assert one.difference.low > 0
    assert re.fullmatch(
        r"all, TAR at FAR 10⁻³: strong beats weak by [\d.]+ points, 95 % interval [\d.]+ to [\d.]+, in every one of "
        r"100 draws, too few to be sure \(p = 0\.2 after Holm\)",
        one.sentence(),
    )
    assert re.fullmatch(
        r"all, TAR at FAR 10⁻³: strong beats weak by [\d.]+ points, 95 % interval [\d.]+ to [\d.]+ "
        r"\(p = 0\.02 after Holm\)",
        dataclasses.replace(one, p=0.02).sentence(),
    )


def test_tables_and_page_show_them(pair, tmp_path):
    _, runs = pair
    table = difference_tables(*run_differences(runs))
    assert table.columns == ("Figure", "Points", "95 % interval", "p (Holm)", "Better")
    assert [(name, about) for name, about, _ in table.groups] == [
        ("own.csv", "strong less weak"),
        ("all", "strong less weak"),
    ]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.groups[1][2]}
    assert rows["EER"][0].startswith("−")
    assert rows["TAR at FAR 10⁻³"][0].startswith("+")
    assert len(table.findings) == 2
    assert table.findings[0].startswith("own.csv, Accuracy, folds: ")
    assert table.findings[1].startswith("all, TAR at FAR 10⁻³: ")
    text = write_report(tmp_path / "r.html", runs).read_text(encoding="utf-8")
    assert 'id="differences"' in text
    assert f"<li>{html.escape(table.findings[1])}</li>" in text
    low, high = (100 * runs[0].results["all"]["intervals"]["figures"]["eer"][end] for end in ("low", "high"))
    assert f'<span class="interval">{low:.2f} to {high:.2f}</span>' in text
    assert "95 % intervals by vertex bootstrap by identity, percentile; 100 draws of 60 identities, seed 0." in text
    alone = write_report(tmp_path / "alone.html", runs[:1]).read_text(encoding="utf-8")
    assert 'id="differences"' not in alone


def test_a_run_and_itself_are_not_told_apart(pair):
    _, (run, _) = pair
    found, _ = run_differences([run, dataclasses.replace(run, name="twin")])
    table = difference_tables(found, [])
    for _, _, rows in table.groups:
        for row in rows:
            assert [cell.text for cell in row[1:]] == ["0.0", "0.0 to 0.0", "1", "not told apart"]


def test_decision_is_that_of_the_corrected_p(pair):
    _, runs = pair
    found, _ = run_differences(runs)

    def verdicts(p, corrected):
        rows = [dataclasses.replace(f, p=corrected, difference=dataclasses.replace(f.difference, p=p)) for f in found]
        return {row[-1].text for _, _, rows in difference_tables(rows, []).groups for row in rows}

    assert verdicts(0.03, 0.06) == {"not told apart"}
    assert verdicts(0.03, 0.05) == {"strong"}
    assert verdicts(2 / 101, 0.06) == {"strong, but too few draws"}  # no draw says otherwise


def test_too_few_draws_for_many_differences_are_told(pair):
    _, runs = pair
    found, _ = run_differences(runs)  # 100 draws: no p below 2 / 101
    assert len(found) == 10
    assert any("--replicates 400 or more" in note for note in difference_tables(found, []).notes)
    assert not any("--replicates" in note for note in difference_tables(found[:2], []).notes)


def test_what_cannot_be_compared_is_named(pair, tmp_path):
    _, (weak, strong) = pair
    judged(tmp_path / "bare", 0.1, None)
    judged(tmp_path / "seed", 0.1, Bootstrap(100, seed=3))
    judged(tmp_path / "blind", 0.1, Bootstrap(100), identities=False)
    bare, seed, blind = (load_run(tmp_path / name) for name in ("bare", "seed", "blind"))
    found, reasons = run_differences([weak, bare, strong])
    assert {(f.first, f.second) for f in found} == {("weak", "strong")}
    assert reasons[0] == "own.csv: bare cannot be compared; `unpg evaluate` keeps what that needs"
    assert run_differences([bare, dataclasses.replace(bare, name="other")]) == ([], [])
    found, reasons = run_differences([weak, seed])
    assert found == []
    assert "seed 0 and 100 replicates, seed 3" in reasons[0]
    found, reasons = run_differences([weak, blind])
    assert {f.benchmark for f in found} == {"all"}
    assert "different pairs" in reasons[0]
    page = write_report(tmp_path / "r.html", [weak, seed]).read_text(encoding="utf-8")
    assert "Judge them again with the same." in page
    (table, _) = result_tables([blind])
    assert any("optimistic" in note for note in table.notes)


def test_refusals_and_the_rule_of_three_are_noted(tmp_path):
    labels = np.repeat(np.arange(50), 3)
    perfect = judge_all_pairs("perfect", np.eye(50)[labels], labels, targets=(0.01,), evidence=True)
    few = judge_all_pairs("few", np.eye(5)[labels[:15]], labels[:15], targets=(0.1,), evidence=True)
    save_results(tmp_path, [r.with_intervals(Bootstrap(50)) for r in (perfect, few)])
    (table,) = result_tables([load_run(tmp_path)])
    assert any("rule of three: AUC, EER, TAR at FAR 10⁻²" in note for note in table.notes)
    assert "few: no intervals from 5 identities with genuine pairs; 20 are needed." in table.notes
    cells = {name: {cell.interval for cell in rows[0]} for name, _, rows in table.groups}
    assert cells["few"] == {""}
    assert "94.01 to 100.00" in cells["perfect"]
