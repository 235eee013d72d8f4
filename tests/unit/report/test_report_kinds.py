"""Every kind of result, the pictures of hard pairs, and what a page may weigh."""

import base64
import dataclasses
import io
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from unpg.errors import DataError
from unpg.evaluate import error_versus_discard
from unpg.report import RunData, load_run, report_tables, write_report
from unpg.report.checked import check_results
from unpg.report.discard import discard_drawings, discard_table
from unpg.report.groups import group_bars, group_tables, ratio_sentences
from unpg.report.hardest import HARDEST, hard_pairs, hardest_table
from unpg.report.judged import cmc_curves, verification_curves
from unpg.report.tables import gallery_table, result_tables, threshold_tables


@pytest.fixture(scope="module")
def runs(every_kind):
    return [load_run(folder) for folder in every_kind]


def table_of(runs, title):
    return next(table for table in report_tables(runs) if table.title == title)


def cells(table, group, row):
    rows = next(rows for name, _, rows in table.groups if name == group)
    found = next(r for r in rows if r[0].text == row)
    return dict(zip(table.columns[1:], found[1:], strict=True))


def test_every_kind_has_its_table(runs):
    titles = [table.title for table in result_tables(runs)]
    assert titles == [
        "Pair lists",
        "All pairs of a set",
        "Templates",
        "Identification",
        "Identification, each gallery",
        "Groups of people",
        "Results of the kind clustering",
    ]
    assert all(len(row) == len(t.columns) for t in report_tables(runs) for _, _, rows in t.groups for row in rows)
    templates = table_of(runs, "Templates")
    assert templates.groups[0][1] == (
        "900 genuine and 63,720 impostor pairs, 360 templates of 1,440 images, pooling insightface"
    )


def test_identification_shows_ranks_and_open_set_rates_with_their_limits(runs):
    table = table_of(runs, "Identification")
    told = runs[0].results["searches"]
    row = cells(table, "searches", runs[0].name)
    assert list(row) == ["Rank 1", "Rank 5", "Rank 10", "TPIR at FPIR 3·10⁻¹", "TPIR at FPIR 10⁻¹", "TPIR at FPIR 10⁻³"]
    assert row["Rank 1"].value == told["rank"]["1"]
    marked, refused = row["TPIR at FPIR 10⁻¹"], row["TPIR at FPIR 10⁻³"]
    assert (marked.value, marked.mark) == (told["tpir_at_fpir"][1]["value"], "†")
    assert (refused.text, refused.value) == ("n/r", None)
    assert "7 distractors" in table.groups[0][1]
    assert any("smallest threshold T" in note for note in table.notes)
    assert "searches: probes are made up." in table.notes
    galleries = gallery_table(runs)
    assert [row[0].text for row in galleries.groups[0][2]] == ["G1", "G2"]
    assert cells(galleries, "searches", "G1")["Rank 1"].value == told["per_gallery"]["G1"]["rank"]["1"]
    alone = dataclasses.replace(
        runs[0], results={"s": {**told, "per_gallery": {"G1": told["per_gallery"]["G1"]}, "galleries": 1}}
    )
    assert gallery_table([alone]) is None
    (drawing,) = cmc_curves(runs)
    assert drawing.caption.endswith("mean over 2 galleries.")


def test_groups_say_their_ratios_in_words_and_in_numbers(runs):
    (table,) = group_tables(runs)
    told = runs[0].results["places"]
    row = cells(table, "places", "Borneo & Bali")
    assert row["FMR, common threshold"].value == told["groups"]["Borneo & Bali"]["fmr_common"]
    assert row["TAR at FAR 10⁻², own threshold"].value == told["groups"]["Borneo & Bali"]["tar_at_far_own"]["value"]
    rates = {name: of["fmr_common"] for name, of in told["groups"].items()}
    most, least = max(rates, key=rates.get), min(rates, key=rates.get)
    ratio = rates[most] / rates[least]
    assert cells(table, "places", "Largest over smallest")["FMR, common threshold"].text == f"{ratio:.2f}×"
    words = ratio_sentences("places", "m", told)[0]
    assert words == (
        f"places, m: false matches are {ratio:.2f} times as frequent in {most} (FMR {100 * rates[most]:.2f} %) as in "
        f"{least} ({100 * rates[least]:.2f} %)."
    )
    (drawing,) = group_bars(runs)
    assert words.replace("places, m", f"places, {runs[0].name}") in drawing.caption
    assert len(group_bars([dataclasses.replace(runs[0], name=f"m{n}") for n in range(5)])) == 2


def test_groups_without_errors_have_no_ratio():
    rates = {"fmr_common": 0.0, "fnmr_common": 0.1}
    figures = {"groups": {"a": rates, "b": {**rates, "fnmr_common": 0.0}}, "ratios": {"fmr": None, "fnmr": None}}
    none, some = ratio_sentences("x", "m", figures)
    assert none == "x, m: no false matches occur in any group, so there is no ratio."
    assert some == "x, m: false non-matches occur in a (FNMR 10.00 %) and not once in b, so their ratio has no value."


def test_a_kind_that_nobody_knows_is_shown_as_it_is(runs):
    table = table_of(runs, "Results of the kind clustering")
    shown = cells(table, "clusters", "clusters[1].size")
    assert [cell.text for cell in shown.values()] == ["5", "5"]
    assert cells(table, "clusters", "clusters[0].pure")[runs[0].name].text == "true"
    assert cells(table, "clusters", "metrics.pairwise_f")[runs[0].name].value == 0.5
    assert "'clustering'" in table.notes[0]


def test_a_foreign_threshold_has_a_table_of_its_own(runs):
    row = cells(threshold_tables(runs)[0], "list", runs[0].name)
    told = runs[0].results["list"]["at_threshold"]
    assert (row["Chosen on"].text, row["FMR"].value) == ("people:far=0.001", told["fmr"])
    assert row["FNMR"].low == told["intervals"]["fnmr"]["low"]
    assert threshold_tables([RunData("x", results={"a": {"metrics": {}}})]) == []


def test_searches_at_a_foreign_threshold_have_another_table(runs):
    ends = {"low": 0.01, "high": 0.04, "method": "percentile", "reason": ""}
    at = {"chosen": "mine:fpir=0.1@G1", "threshold": 0.5, "fpir": 0.02, "fnir": 0.3, "tpir": 0.7, "refused": ""}
    told = {**runs[0].results["searches"], "at_threshold": {**at, "intervals": {"fpir": ends}}}
    check_results("results.json", {"searches": told})
    both = dataclasses.replace(runs[0], results={**runs[0].results, "searches": told})
    pairs, searches = threshold_tables([both])
    assert [name for name, *_ in pairs.groups] == ["list"]
    row = cells(searches, "searches", both.name)
    assert (row["Chosen on"].text, row["FPIR"].value, row["FPIR"].high) == ("mine:fpir=0.1@G1", 0.02, 0.04)
    assert (row["FNIR"].value, row["TPIR"].text) == (0.3, "70.00")
    closed = {**told, "at_threshold": {**told["at_threshold"], "fpir": None, "intervals": {}}}
    assert cells(threshold_tables([RunData("x", results={"s": closed})])[0], "s", "x")["FPIR"].text == ""
    del told["at_threshold"]["fnir"]
    with pytest.raises(DataError, match="at_threshold lacks fnir"):
        check_results("results.json", {"searches": told})


def test_mean_less_deviation_follows_the_means_in_their_order():
    metrics = dict.fromkeys(("rank=1", "rank=5", "rank=10", "tpir@fpir=1e-2"), 0.5)
    metrics |= {f"{name} (mean - std)": 0.4 for name in metrics}
    figures = {"protocol": "identification", "metrics": metrics}
    (table,) = result_tables([RunData("x", results={"blufr": figures})])
    assert [c for c in table.columns if "std" in c] == [
        "Rank 1, mean − std",
        "Rank 5, mean − std",
        "Rank 10, mean − std",
        "TPIR at FPIR 10⁻², mean − std",
    ]


def test_discard_curve_is_the_function_s_and_says_what_cannot_be_drawn(runs):
    arrays = runs[0].scores["list"]
    truth = error_versus_discard(arrays["scores"], arrays["same"], arrays["quality"], fmr=0.1)
    row = cells(discard_table(runs), "list", runs[0].name)
    assert row["FMR of the threshold"].value == 0.1  # the first at which thirty false matches are expected
    assert row["FNMR, 0 % discarded"].value == truth.fnmr[0]
    at = np.flatnonzero(truth.discarded >= 0.1)[0]
    assert row["FNMR, 10 % discarded"].value == truth.fnmr[at]
    assert row["Area"].value == pytest.approx(100 * truth.area_above_ideal(0.2))
    level = {**runs[1].scores, "list": {**runs[1].scores["list"], "quality": np.ones(len(arrays["same"]))}}
    mixed = [runs[0], dataclasses.replace(runs[1], scores=level)]
    assert any("all have one length" in note for note in discard_table(mixed).notes)
    (drawing,) = discard_drawings(mixed)
    assert runs[1].name not in re.findall(r">([^<>]+)</text>", drawing.svg)
    assert discard_table([RunData("x", results={"a": {"metrics": {}}})]) is None


def test_hardest_pairs_are_the_extremes(runs):
    found = {one.benchmark: one for one in hard_pairs(runs[:1])}
    arrays, names = runs[0].scores["list"], runs[0].images["list"]
    scores, same = arrays["scores"], arrays["same"]
    assert [p.score for p in found["list"].false_matches] == sorted(scores[~same].tolist(), reverse=True)[:HARDEST]
    assert [p.score for p in found["list"].false_non_matches] == sorted(scores[same].tolist())[:HARDEST]
    worst = arrays["pairs"][np.flatnonzero(~same)[np.argmax(scores[~same])]]
    assert found["list"].false_matches[0].first.name == "/".join(names[worst[0]].split("/")[-2:])
    told = runs[0].results["people"]["hardest"]
    assert [p.score for p in found["people"].false_matches] == [s for *_, s, same in told if not same][:HARDEST]
    assert not any(p.first.jpeg for one in found.values() for p in one.false_matches)
    assert hardest_table([]) is None
    assert len(hardest_table(list(found.values())).groups) == 2


def test_pictures_are_small_jpegs_and_only_on_request(runs, every_kind, tmp_path):
    shown = write_report(tmp_path / "with.html", runs, thumbnails=True).read_text(encoding="utf-8")
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', shown)
    assert len(pictures) == 2 * 2 * 2 * 2 * HARDEST  # models, benchmarks, kinds, images of a pair
    for picture in set(pictures):
        image = Image.open(io.BytesIO(base64.b64decode(picture)))
        assert (image.format, max(image.size)) == ("JPEG", 96)
    assert 'alt="person' in shown
    without = write_report(tmp_path / "without.html", runs).read_text(encoding="utf-8")
    assert "data:image" not in without
    assert "unpg report --thumbnails" in without
    assert str(every_kind[0].parent) not in shown  # where someone keeps the set is nobody's business


def test_pictures_that_are_not_there_are_counted(runs):
    lost = dataclasses.replace(
        runs[0],
        images={"list": [f"gone/{n}.png" for n in range(len(runs[0].images["list"]))]},
        results={"list": runs[0].results["list"]},
    )
    (found,) = hard_pairs([lost], thumbnails=True)
    names = {p.name for pair in (*found.false_matches, *found.false_non_matches) for p in (pair.first, pair.second)}
    assert found.unread == len(names)
    cut = dataclasses.replace(lost, images={"list": ["one.png"]})
    with pytest.raises(DataError, match=r"point to image \d+ and only 1 names"):
        hard_pairs([cut])


def test_a_broken_picture_does_not_stop_the_report(runs, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no picture")
    odd = dataclasses.replace(
        runs[0],
        results={"people": {**runs[0].results["people"], "hardest": [[str(broken), str(tmp_path), 0.5, False]]}},
    )
    (found,) = hard_pairs([odd], thumbnails=True)
    assert found.unread == 2


def weight_allowed(runs, thumbnails):
    """Bytes: the bound that the documentation states."""
    kept = 200_000 + 45_000 * sum(len(run.results) for run in runs) + 120_000 * sum(bool(run.steps) for run in runs)
    hard = sum(name in run.images or "hardest" in of for run in runs for name, of in run.results.items())
    return kept + (130_000 * hard if thumbnails else 0)


def test_page_keeps_to_its_size(runs, made_runs, seeds, tmp_path):
    for number, (some, thumbnails) in enumerate(
        ((runs, False), (runs, True), ([load_run(f) for f in made_runs], False), ([load_run(f) for f in seeds], False))
    ):
        page = write_report(tmp_path / f"{number}.html", some, thumbnails=thumbnails)
        assert page.stat().st_size <= weight_allowed(some, thumbnails)


def test_histograms_of_many_models_are_spread_over_drawings(runs):
    one = dataclasses.replace(runs[0], results={"list": runs[0].results["list"]})
    many = [dataclasses.replace(one, name=f"m{n}") for n in range(9)]
    drawings = verification_curves(many)
    assert [d.caption.split(":")[1][:10] for d in drawings] == [" genuine p", " detection", " densities", " densities"]


def test_digests_and_versions_are_on_the_page(runs, tmp_path):
    text = write_report(tmp_path / "r.html", runs).read_text(encoding="utf-8")
    assert "ab" * 32 in text
    row = cells(table_of(runs, "Versions, digests and other facts"), "", "data digests · list")
    assert row[runs[0].name].text == "c0"
    pairs = cells(table_of(runs, "Versions, digests and other facts"), "", "pairs digest · people")
    assert {cell.text for cell in pairs.values()} == {runs[0].results["people"]["intervals"]["digest"]}


def test_arrays_of_a_known_kind_must_be_whole(every_kind, tmp_path):
    folder = shutil.copytree(every_kind[0], tmp_path / "copy")
    np.savez(folder / "scores" / "searches.npz", sizes=np.ones(2))
    with pytest.raises(DataError, match=r"searches\.npz holds sizes; needed are cmc"):
        load_run(folder)
    np.savez(folder / "scores" / "searches.npz", cmc=np.ones(2))
    (folder / "scores" / "list.names.txt").write_bytes(b"\xff\xfe")  # a file may be called so
    assert load_run(folder).images["list"] == [os.fsdecode(b"\xff\xfe")]
    results = json.loads((folder / "results.json").read_text())
    assert results["versions"] == {"unpg": "0.1.0"}


def set_in(tree, path, value):
    *way, last = path
    for key in way:
        tree = tree[key]
    if value is None:
        del tree[last]
    else:
        tree[last] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["list", "metrics", "eer"], "low", r"metrics\.eer must be a number, but is 'low'"),
        (["list", "tar_at_far"], {}, r"tar_at_far must be a list"),
        (["people", "tar_at_far", 0, "reason"], None, r"a point of tar_at_far lacks reason"),
        (["people", "tar_at_far", 0, "value"], "x", r"a value of tar_at_far must be a number"),
        (["people", "hardest", 0], ["a", "b"], r"an entry of hardest is \['a', 'b'\]"),
        (["people", "intervals", "figures", "eer", "low"], None, r"the interval of eer lacks low"),
        (["people", "intervals", "seed"], None, r"intervals lacks seed"),
        (["searches", "per_gallery", "G1", "rank"], None, r"gallery G1 lacks rank"),
        (["places", "ratios"], None, r"the results lack ratios"),
        (["places", "groups", "Aland", "fmr_common"], None, r"group Aland lacks fmr_common"),
        (["places", "groups", "Aland", "fnmr_common"], "x", r"fnmr_common of group Aland must be a number"),
        (["list", "at_threshold", "fmr"], None, r"at_threshold lacks fmr"),
    ],
)
def test_results_that_are_not_whole_are_named(every_kind, tmp_path, path, value, words):
    folder = shutil.copytree(every_kind[0], tmp_path / "copy")
    told = json.loads((folder / "results.json").read_text())
    set_in(told["results"], path, value)
    (folder / "results.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=rf"results\.json: of .*{words}.*Run `unpg evaluate` again"):
        load_run(folder)


def test_few_false_matches_do_not_look_like_none():
    at = {"chosen": "lfw:eer", "threshold": 0.5, "fmr": 3.2e-6, "fnmr": 0.02, "accuracy": 0.99999}
    at["intervals"] = {"fmr": {"low": 0.0, "high": 4.1e-5, "method": "percentile", "reason": ""}}
    (table,) = threshold_tables([RunData("x", results={"all": {"metrics": {}, "at_threshold": at}})])
    row = cells(table, "all", "x")
    assert (row["FMR"].text, row["FMR"].interval) == ("0.00032", "0.00 to 0.0041")
    assert (row["FNMR"].text, row["Accuracy"].text) == ("2.00", "100.00")


def test_a_figure_with_a_strange_name_is_shown_last():
    metrics = {"tar@far=strict": 0.25, "tar@far=1e-3": 0.5}
    (table,) = result_tables([RunData("x", results={"mine": {"protocol": "pairs", "metrics": metrics}})])
    assert [cell.text for cell in cells(table, "mine", "x").values()] == ["50.00", "25.00"]
