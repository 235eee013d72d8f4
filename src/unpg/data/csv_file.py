"""Tables with commas, record by record, with the line where each begins."""

import csv
from collections.abc import Iterator
from os import PathLike

from unpg.errors import DataError

__all__ = ["csv_rows"]


def csv_rows(file: str | PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """(number of the line where it begins, cells) of each record; blank lines are left out.

    A quoted cell may hold line ends. One whose quote is never closed would take the rest of the table for its text,
    so the reader is strict.

    Args:
        file: The table, UTF-8.

    Raises:
        DataError: It cannot be read, or a record does not read as CSV (with its line).
    """
    line = 1
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            table = csv.reader(opened, strict=True)
            for cells in table:
                if cells:
                    yield line, cells
                line = table.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{file}, line {line}: the record that begins here does not read as CSV: {error}. Is a quote not closed?"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list {file} cannot be read: {error}.") from error
