"""The tables of a report as Markdown, CSV and LaTeX: what the page shows, for a paper, an issue or a spreadsheet."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence

from unpg.report.table import Cell, Table

__all__ = ["WRITERS", "to_csv", "to_latex", "to_markdown"]


def to_markdown(tables: Sequence[Table], title: str) -> str:
    """Pipe tables; one for each table, whose groups are rows in bold, and the notes as a list."""
    parts = [f"# {_markdown(title)}\n"]
    for table in tables:
        lines = [f"## {_markdown(table.title)}\n"]
        lines += [f"- {_markdown(finding)}" for finding in table.findings] + ([""] if table.findings else [])
        lines.append(f"| {' | '.join(_markdown(c) or ' ' for c in table.columns)} |")
        lines.append(
            f"|---|{'---|' if table.words else '---:|'}"
            + ("---|" if table.words else "---:|") * (len(table.columns) - 2)
        )
        for name, about, rows in table.groups:
            if name:
                said = f"**{_markdown(name)}**" + (f" {_markdown(about)}" if about else "")
                lines.append(f"| {said} |" + " |" * (len(table.columns) - 1))
            lines += [f"| {' | '.join(_in_brackets(cell, _markdown) for cell in row)} |" for row in rows]
        notes = [f"- {_markdown(note)}" for note in (*table.marks(), *table.notes)]
        parts.append("\n".join([*lines, *([""] if notes else []), *notes]) + "\n")
    return "\n".join(parts)


CSV_COLUMNS = ("table", "group", "about", "row", "column", "value", "low", "high", "text", "mark", "reason")


def to_csv(tables: Sequence[Table], title: str) -> str:
    """One line for each cell that holds anything: figures in full precision (rates as fractions), and as printed.

    ``title`` is not written: a CSV file has no place for it.
    """
    del title
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for table in tables:
        for name, about, rows in table.groups:
            for first, *cells in rows:
                for column, cell in zip(table.columns[1:], cells, strict=True):
                    if cell == Cell(""):
                        continue
                    numbers = ("" if n is None else repr(n) for n in (cell.value, cell.low, cell.high))
                    writer.writerow(
                        [table.title, name, about, first.text, column, *numbers, cell.text, cell.mark, cell.reason]
                    )
    return out.getvalue()


def to_latex(tables: Sequence[Table], title: str) -> str:
    r"""One ``table`` environment for each table, with the rules of the package booktabs, to be read with ``\input``.

    Greek, CJK and other letters beyond Latin are left as they are: XeLaTeX and LuaLaTeX set them.
    """
    parts = [
        f"% {_one_line(title)}",
        "% Needs \\usepackage{booktabs}; wide tables want \\usepackage{graphicx} or a sideways page.",
    ]
    for table in tables:
        aligned = "l" + ("l" if table.words else "r") * (len(table.columns) - 1)
        lines = [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{_latex(table.title)}}}",
            rf"\begin{{tabular}}{{{aligned}}}",
        ]
        lines += [r"\toprule", " & ".join(_latex(c) for c in table.columns) + r" \\"]
        for name, about, rows in table.groups:
            lines.append(r"\midrule")
            if name:
                said = rf"\textbf{{{_latex(name)}}}" + (f" {_latex(about)}" if about else "")
                lines.append(rf"\multicolumn{{{len(table.columns)}}}{{l}}{{{said}}} \\")
            lines += [" & ".join(_in_brackets(cell, _latex) for cell in row) + r" \\" for row in rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        notes = [_latex(note) for note in (*table.findings, *table.marks(), *table.notes)]
        if notes:
            lines += [
                r"\par\smallskip",
                r"\begin{minipage}{\linewidth}\footnotesize",
                " \\\\\n".join(notes),
                r"\end{minipage}",
            ]
        parts.append("\n".join([*lines, r"\end{table}"]))
    return "\n\n".join(parts) + "\n"


WRITERS: Mapping[str, tuple[str, Callable[[Sequence[Table], str], str]]] = {
    "md": (".md", to_markdown),
    "csv": (".csv", to_csv),
    "latex": (".tex", to_latex),
}
"""Format -> end of the file's name, and who writes it."""


def _in_brackets(cell: Cell, escaped: Callable[[str], str]) -> str:
    text = escaped(cell.text) + escaped(cell.mark)
    return f"{text} [{escaped(cell.interval)}]" if cell.interval else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _markdown(text: str) -> str:
    escaped = re.sub(r"([\\`*_\[\]|<>#~])", r"\\\1", _one_line(text))
    return escaped.replace("&", "&amp;")


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",  # \textquotedbl is not in every font encoding
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "√": r"$\surd$",
    "†": r"\textdagger{}",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    "ᵖ": r"\textsuperscript{p}",
    "ⁿ": r"\textsuperscript{n}",
    "\u200b": "",
}
_SUPERSCRIPTS = str.maketrans("⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹", "-+0123456789")


def _latex(text: str) -> str:
    escaped = "".join(_LATEX.get(letter, letter) for letter in _one_line(text))
    # A bracket at the start of a row would be read as an option of the line break before it.
    escaped = re.sub(r"^\[", "{[}", escaped)
    return re.sub("[⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda found: f"$^{{{found[0].translate(_SUPERSCRIPTS)}}}$", escaped)
