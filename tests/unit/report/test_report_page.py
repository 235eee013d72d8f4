import dataclasses
import html
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from unpg.errors import DataError
from unpg.evaluate import (
    SHOWN_FILTERS,
    ClassWeights,
    Sampling,
    diagnose_pairs,
    diagnose_set,
    judge_pairs,
    load_diagnosis,
    save_diagnosis,
    save_results,
)
from unpg.evaluate.curves import Roc
from unpg.report import RunData, load_run, write_report, write_tables
from unpg.report.figures import COLORS, Curve, Line, curve, line_style, lines, own_ids
from unpg.report.mismatch import mismatches
from unpg.report.tables import differing_settings, result_tables, run_facts
from unpg.report.wdfs import quantile_bars, sampling_table, wdfs_table
from unpg.report.writers import WRITERS


@pytest.fixture(scope="module")
def runs(made_runs):
    return [load_run(folder) for folder in made_runs]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("page") / "deep" / "report.html", runs, title="ArcFace & UNPG")


class Reader(HTMLParser):
    """Collects what the tests look at, and fails on elements that are not closed in order."""

    VOID = frozenset({"meta", "br", "path", "use", "rect", "line", "stop", "image", "img"})

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.targets, self.words, self.tags = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag, attrs):
        self._note(attrs)

    def _note(self, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "xlink:href", "src"):
                self.targets.append(value)
            self.targets += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def read(page):
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def test_page_needs_nothing_from_outside(page, read):
    text = page.read_text(encoding="utf-8")
    assert read.targets
    assert all(target.startswith("#") for target in read.targets)
    assert "<script" not in text
    assert "@import" not in text
    assert "<link" not in text
    assert len(text) < 1_000_000


def test_ids_are_unique_and_every_reference_has_its_target(read):
    assert len(set(read.ids)) == len(read.ids)
    assert {t[1:] for t in read.targets} <= set(read.ids)


def test_page_says_what_it_must(read):
    words = " ".join(" ".join(read.words).split())
    for expected in (
        "ArcFace & UNPG",
        "grey pixels <32 x 32>",
        "3,000 genuine and 3,000 impostor pairs, 29 left out for missing images",
        "n/r: not resolvable",
        "below one expected false accept at FAR 1e-4",
        "fewer than thirty false accepts",
        "This loss takes no negatives from the batch",
        "fences of the filter",
        "batch negatives, filtered",
        "resolved configuration",
        "2.13.0+cpu",
        "unreadable images",
        "TAR at FAR 10⁻⁶",
    ):
        assert expected in words, expected


def test_names_cannot_inject_markup(runs, tmp_path):
    evil = '<img src=x onerror="a()">$x_1'
    renamed = [dataclasses.replace(runs[1], name=evil, config=f"a: {evil!r}")]
    text = write_report(tmp_path / "r.html", renamed, title=evil).read_text(encoding="utf-8")
    assert "<img" not in text
    assert html.escape(evil) in text.replace("&#34;", "&quot;")


def test_odd_names_do_not_break_figures(runs, tmp_path):
    names = ["_hidden", "臉部 $\\alpha$", "a" * 200]
    renamed = [dataclasses.replace(runs[2], name=name) for name in names]
    text = write_report(tmp_path / "r.html", renamed).read_text(encoding="utf-8")
    assert "\u200b_hidden" in text


def test_page_is_the_same_twice(runs, tmp_path):
    one, two = (write_report(tmp_path / name, runs[:1]) for name in ("one.html", "two.html"))
    assert one.read_bytes() == two.read_bytes()


def test_run_without_results_and_model_without_run(runs, tmp_path):
    young = RunData("young", steps=runs[0].steps[:5], config="a: 1")
    text = write_report(tmp_path / "r.html", [young]).read_text(encoding="utf-8")
    assert 'id="training"' in text
    assert 'id="results"' not in text
    assert "No histograms of similarities (similarities.json) in: young." in text
    only = write_report(tmp_path / "o.html", [runs[2]]).read_text(encoding="utf-8")
    assert 'id="results"' in only
    assert 'id="training"' not in only


def test_a_diagnosis_takes_the_place_of_the_simple_picture(runs, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(240) % 12)
    vectors = rng.normal(size=(12, 16))[labels] + 0.4 * rng.normal(size=(240, 16))
    weights = ClassWeights(torch.randn(12, 16))
    sampling = Sampling(np.split(np.arange(240), 4), SHOWN_FILTERS, weights, drawn="r = 2")
    found = [
        diagnose_set("people & <others>", vectors, labels, sampling),
        diagnose_pairs("list", vectors, [[0, 1], [0, 2]], [True, False]),
    ]
    save_diagnosis(tmp_path, found)
    diagnosed = dataclasses.replace(runs[1], diagnosis=load_diagnosis(tmp_path))
    drawn = mismatches(diagnosed.diagnosis, "run")
    assert "class negatives (CLPG)" in drawn[0].svg
    assert "UNPG, r = 2" in drawn[0].svg
    assert "CLPG" not in drawn[1].svg
    assert "240 images of 12 people" in drawn[0].caption
    text = write_report(tmp_path / "r.html", [diagnosed]).read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert len(set(reader.ids)) == len(reader.ids)
    assert "<others>" not in text
    assert "robust sup" in text
    assert "similarities that the loss compares" not in text
    told = diagnosed.diagnosis["sets"]
    gaps, samples = wdfs_table([diagnosed]), sampling_table([diagnosed])
    assert [name for name, _, _ in gaps.groups] == ["people & <others>", "list"]
    row = dict(zip(gaps.columns, gaps.groups[0][2][0], strict=True))
    assert row["robust gap"].value == told[0]["wdfs"]["robust_gap"]
    assert row["P(p ≤ n), %"].value == told[0]["wdfs"]["violation"]
    assert row["median Sⁿ"].value == told[0]["wdfs"]["negatives"]["quantiles"]["0.5"]
    ((name, model, rows),) = samples.groups  # a list has no samples
    assert (name, model) == ("people & <others>", diagnosed.name)
    assert [r[0].text for r in rows] == [one["name"] for one in told[0]["samples"]]
    assert [r[6].value for r in rows] == [one["tail_density"] for one in told[0]["samples"]]
    assert "filter: recall, %" not in samples.columns  # no noise was planted
    assert len(quantile_bars([diagnosed, dataclasses.replace(diagnosed, name="twin")])) == 2
    assert wdfs_table([runs[0]]) is sampling_table([runs[0]]) is None


def test_nothing_to_show_is_an_error(runs, tmp_path):
    with pytest.raises(DataError, match="one run or more"):
        write_report(tmp_path / "r.html", [])
    with pytest.raises(DataError, match="nothing to show for bare"):
        write_report(tmp_path / "r.html", [RunData("bare")])
    with pytest.raises(DataError, match="Two models of the report are called 'arcface'"):
        write_report(tmp_path / "r.html", [runs[0], runs[0]])


def test_table_shows_marks_and_reasons(runs):
    pairs, every = result_tables(runs)
    assert pairs.columns[-3:] == ("TAR at FAR 10⁻²", "TAR at FAR 10⁻³", "TAR at FAR 10⁻⁴")
    ((name, _, rows),) = pairs.groups
    assert (name, [row[0].text for row in rows]) == ("lfw", [run.name for run in runs])
    fine, marked, refused = rows[0][-3:]
    metrics = runs[0].results["lfw"]["metrics"]
    assert (fine.text, fine.mark) == (f"{100 * metrics['tar@far=1e-2']:.2f}", "")
    assert (marked.text, marked.mark) == (f"{100 * metrics['tar@far=1e-3']:.2f}", "†")
    assert (refused.text, refused.mark) == ("n/r", "")
    assert "3,000 impostor pairs" in refused.reason
    assert rows[0][1].text == f"{100 * metrics['accuracy']:.2f} ± {100 * metrics['accuracy_std']:.2f}"
    assert every.title == "All pairs of a set"
    assert all(len(row) == len(every.columns) for _, _, rows in every.groups for row in rows)


def test_benchmarks_that_some_models_lack():
    one = RunData("one", results={"a": {"metrics": {"accuracy": 0.5, "eer": None}}})
    two = RunData("two", results={"b": {"metrics": {"eer": 0.25, "new": 1.0}}})
    (table,) = result_tables([one, two])
    assert table.columns == ("Model", "Accuracy, folds", "EER", "new")
    assert [[c.text for c in row] for _, _, rows in table.groups for row in rows] == [
        ["one", "50.00", "", ""],
        ["two", "", "25.00", "100.00"],
    ]


def test_settings_that_differ(runs):
    table = differing_settings(runs)
    rows = {row[0].text: [c.text for c in row[1:]] for _, _, rows in table.groups for row in rows}
    assert rows == {
        "loss.unpg": ["null", "not set"],
        "loss.unpg.r": ["not set", "1.5"],
        "loss.unpg.start": ["not set", "8"],
    }
    assert differing_settings(runs[:1]) is None
    assert differing_settings([runs[0], dataclasses.replace(runs[0], name="twin")]) is None


def test_facts_tell_faults_and_unfinished_runs(runs):
    table = run_facts([runs[1], dataclasses.replace(runs[0], summary={}, finished=False)])
    rows = {row[0].text: [c.text for c in row[1:]] for _, _, rows in table.groups for row in rows}
    assert rows["unreadable images"] == ["1", "0"]
    assert rows["parameters"] == ["1,234,567", ""]
    assert rows["state"] == ["", "not finished: there is no summary.json"]
    assert run_facts([RunData("x")]) is None


def test_own_ids_reach_every_reference():
    svg = '<svg><clipPath id="a"/><g clip-path="url(#a)"/><use xlink:href="#a"/><use href="#other"/></svg>'
    found = own_ids(svg, "f1-")
    assert 'id="f1-a"' in found
    assert "url(#f1-a)" in found
    assert 'xlink:href="#f1-a"' in found
    assert 'href="#other"' in found


def test_drawings_of_extreme_data():
    perfect = Roc.from_scores([1.0, 0.0], [True, False])
    assert curve([Curve("only", perfect)], "c").svg.startswith('<svg role="img" aria-label="c"')
    flat = lines([Line(f"line {i}", *([[1.0]] * 2), style=i) for i in range(12)], "many", x="x", y="y", log_y=True)
    assert flat.svg.count("line 11") == 1


def test_tables_and_figures_can_be_heard(read):
    tables = [n for n, (tag, _) in enumerate(read.tags) if tag == "table"]
    assert len(tables) >= 4
    assert all(read.tags[n + 1][0] == "caption" for n in tables)
    headings = [attributes for tag, attributes in read.tags if tag == "th"]
    assert {attributes.get("scope") for attributes in headings} == {"col", "row", "rowgroup"}
    drawings = [attributes for tag, attributes in read.tags if tag == "svg"]
    assert len(drawings) >= 15
    assert all(a.get("role") == "img" and len(a.get("aria-label", "")) > 10 for a in drawings)
    assert next(attributes for tag, attributes in read.tags if tag == "html")["lang"] == "en"


def test_lines_differ_in_more_than_color():
    looks = [line_style(n) for n in range(7)]
    assert len({look["marker"] for look in looks}) == 7
    assert len({str(look["linestyle"]) for look in looks[:5]}) == 5
    assert len({look["color"] for look in looks}) == 7
    assert len({line_style(n)["marker"] for n in range(12)}) == 12  # where colors come again, shapes do not


def test_colors_differ_for_readers_without_the_green_cone():
    # Vienot, Brettel and Mollon 1999: linear RGB to LMS, M rebuilt from L and S so that white and blue stay.
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    lose_m = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    linear = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLORS]) ** 2.2
    seen = np.linalg.inv(to_lms) @ lose_m @ to_lms @ linear.T
    # Lightness and the blue-yellow axis, all that is left; the sRGB primaries' luminance.
    light = 116 * np.cbrt(np.clip(np.array([0.2126, 0.7152, 0.0722]) @ seen, 0, 1)) - 16
    blue = 100 * np.cbrt(np.clip(seen[2], 0, 1)) - 100 * np.cbrt(np.clip(seen[:2].mean(axis=0), 0, 1))
    for a in range(len(COLORS)):
        for b in range(a):
            assert np.hypot(light[a] - light[b], blue[a] - blue[b]) > 8, (COLORS[a], COLORS[b])


def test_names_of_files_that_are_no_text_are_shown_escaped(tmp_path):
    folder = os.fsdecode(b"f\xe9")  # Latin-1, as old file systems have it
    names = [f"{tmp_path}/{folder}/{i}.png" for i in range(40)]
    vectors = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    pairs = np.arange(40).reshape(20, 2)
    result = judge_pairs(f"{folder}/pairs.csv", vectors, pairs, np.arange(20) % 2 == 0)
    result = dataclasses.replace(
        result, names=names, pairs=pairs.astype(np.int32), quality=np.linspace(1, 2, 20, dtype=np.float32)
    )
    save_results(tmp_path / "out", [result], model=folder)
    run = load_run(tmp_path / "out")
    assert next(iter(run.images.values())) == names
    page = write_report(tmp_path / "page.html", [run], figures=tmp_path / "figures").read_text(encoding="utf-8")
    assert re.search(r"f\\udce9/\d+\.png", page)
    for form in WRITERS:
        assert "udce9" in write_tables(tmp_path / form, [run], form).read_text(encoding="utf-8")
