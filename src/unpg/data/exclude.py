"""Lists of identities to leave out of a set, so that nobody is trained on who is tested on."""

import re
from os import PathLike
from pathlib import Path

from unpg.errors import DataError, did_you_mean

__all__ = ["read_identity_list"]


def read_identity_list(source: str | PathLike[str]) -> list[str]:
    """Names of identities, in order of first appearance, each once.

    Two kinds of file, told apart by their ending:

    - ``*.tsv``: a table with tabs, whose first line names the columns. The names are in the first column, or
      in the one called ``<column>`` if ``source`` is ``"<file>.tsv#<column>"``.
    - anything else: one name per line, the whole line less the spaces around it.

    In both, blank lines and lines that start with ``#`` are comments; the text is UTF-8.

    Raises:
        DataError: No such file or column, a line with too few columns or an empty name (with its number),
            or no name at all.
    """
    table = re.fullmatch(r"(.*\.tsv)#([^#]+)", str(source), flags=re.IGNORECASE | re.DOTALL)
    path, column = table.groups() if table else (str(source), "")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The identity list {path} cannot be read: {error}.") from error
    lines = [
        (number, line)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    is_table = path.lower().endswith(".tsv")
    names = _column(path, lines, column) if is_table else [line.strip() for _, line in lines]
    if not names:
        raise DataError(f"The identity list {path} names nobody. Add a name per line, or do not give the list.")
    return list(dict.fromkeys(names))


def _column(path: str, lines: list[tuple[int, str]], column: str) -> list[str]:
    if not lines:
        return []
    header = [name.strip() for name in lines[0][1].split("\t")]
    if column and column not in header:
        raise DataError(f"{path}: no column is called {column!r}.{did_you_mean(column, header)}")
    at = header.index(column) if column else 0
    names = []
    for number, line in lines[1:]:
        cells = line.split("\t")
        if len(cells) <= at or not cells[at].strip():
            raise DataError(f"{path}, line {number}: no value in column {header[at]!r}: {line!r}.")
        names.append(cells[at].strip())
    return names
