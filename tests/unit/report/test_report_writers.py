import csv
import io
import re

import pytest

from unpg.errors import ConfigError
from unpg.report import Cell, Table, load_run, report_tables, write_tables
from unpg.report.writers import CSV_COLUMNS, to_csv, to_latex, to_markdown

NASTY = Table(
    "50 % & more_#1",
    ("Model", "TAR at FAR 10⁻³", "a|b"),
    (
        (
            "lfw_$x$",
            "3,000 pairs",
            ((Cell("[x] {y}~^\\"), Cell("97.20", "†", "few", "96.10 to 98.00", 0.972, 0.961, 0.98), Cell("−1.0 ± 2")),),
        ),
        ("", "", ((Cell("*bold* <b>"), Cell("n/r", reason="too few"), Cell("")),)),
    ),
    ("one\nnote with |pipes| & 100 %",),
)


@pytest.fixture(scope="module")
def runs(every_kind):
    return [load_run(folder) for folder in every_kind]


def rows_of_pipes(text):
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def test_markdown_has_as_many_cells_in_every_row_whatever_the_names():
    text = to_markdown([NASTY], "A <title>")
    rows = rows_of_pipes(text)
    assert {len(row) for row in rows} == {3}
    assert "# A \\<title\\>" in text
    assert r"\*bold\* \<b\>" in text
    assert "97.20† [96.10 to 98.00]" in text
    assert "- † fewer than thirty" in text
    assert "- one note with \\|pipes\\| &amp; 100 %" in text


def test_csv_holds_full_precision(runs):
    lines = list(csv.DictReader(io.StringIO(to_csv(report_tables(runs), ""))))
    assert tuple(lines[0]) == CSV_COLUMNS
    metrics, found = runs[0].results["list"]["metrics"], {}
    for line in lines:
        if (line["table"], line["group"], line["row"]) == ("Pair lists", "list", runs[0].name):
            found[line["column"]] = line
    assert float(found["EER"]["value"]) == metrics["eer"]
    assert float(found["TAR at FAR 10⁻²"]["value"]) == metrics["tar@far=1e-2"]
    ends = runs[0].results["list"]["intervals"]["figures"]["eer"]
    assert (float(found["EER"]["low"]), float(found["EER"]["high"])) == (ends["low"], ends["high"])
    refused = next(line for line in lines if line["text"] == "n/r")
    assert (refused["value"], refused["low"]) == ("", "")
    assert "below one expected" in refused["reason"] or "resolve" in refused["reason"]


def test_csv_keeps_line_breaks_and_quotes():
    odd = Table("t", ("a", "b"), (("g", "", ((Cell('say "x",\ny'), Cell("1", value=1 / 3)),)),))
    ((line),) = list(csv.DictReader(io.StringIO(to_csv([odd], ""))))
    assert line["row"] == 'say "x",\ny'
    assert float(line["value"]) == 1 / 3


def plain(text):
    """LaTeX without what is escaped, so that any special letter left is meant as one."""
    return re.sub(r"\\[{}$&#%_]", "", text)


def check_latex(text):
    body = re.sub(r"(?m)^%.*$", "", text)
    bare = plain(body)
    depth = 0
    for letter in bare:
        depth += (letter == "{") - (letter == "}")
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"[#%~<>|]", bare)
    assert not re.search("[⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹−±†√ᵖⁿ×≤]", bare)
    assert bare.count("$") % 2 == 0
    outside = re.sub(r"\$[^$]*\$", "", bare)
    assert "^" not in outside
    assert "_" not in outside
    for name in ("table", "tabular", "minipage"):
        assert body.count(rf"\begin{{{name}}}") == body.count(rf"\end{{{name}}}")
    for tabular in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", bare, re.S):
        columns, inside = tabular
        assert inside.count(r"\toprule") == inside.count(r"\bottomrule") == 1
        rows = [row for row in inside.split(r"\\") if "&" in row or "multicolumn" in row]
        for row in rows:
            wide = re.search(r"\\multicolumn\{(\d+)\}", row)
            assert (int(wide[1]) if wide else row.count("&") + 1) == len(columns)


def test_latex_is_escaped_and_whole():
    text = to_latex([NASTY], "50 % of\n\\input{x}")
    check_latex(text)
    assert r"\caption{50 \% \& more\_\#1}" in text
    assert "TAR at FAR 10$^{-3}$" in text
    assert r"97.20\textdagger{} [96.10 to 98.00]" in text
    assert r"{[}x] \{y\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    assert r"$-$1.0 $\pm$ 2" in text
    assert text.startswith("% 50 % of \\input{x}\n")  # a title cannot leave its comment


def test_all_formats_of_a_whole_report(runs, tmp_path):
    for form, name in (("md", "r.md"), ("csv", "r.csv"), ("latex", "r.tex")):
        text = write_tables(tmp_path / "deep" / name, runs, form, "Whole").read_text(encoding="utf-8")
        for table in report_tables(runs):
            if form != "latex":
                assert table.title in text
        if form == "latex":
            check_latex(text)
            assert text.count(r"\begin{tabular}") == len(report_tables(runs))
    with pytest.raises(ConfigError, match="md, csv, latex; got 'docx'"):
        write_tables(tmp_path / "r.docx", runs, "docx")


def test_latex_quotes_need_no_font_encoding():
    table = Table("T", ("a", "b"), (("", "", ((Cell('say "x"'), Cell("1")),)),))
    assert r"say \char34{}x\char34{} & 1" in to_latex([table], "t")
