"""Large tables of text with spaces between the cells, read in blocks and parsed by numpy.

The lists of IJB-C have 15.7 million lines. A Python loop over them takes minutes; here a block of a
megabyte is parsed at once: memory does not grow with the file, and a line that does not read is named.

Axes: r rows of a block, c columns.
"""

from collections.abc import Iterator
from os import PathLike
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpg.errors import DataError

__all__ = ["BLOCK", "TextBlock", "count_lines", "text_blocks", "whole_numbers"]

AnyPath = str | PathLike[str]

BLOCK = 1 << 20
"""Bytes read at a time; a line cannot be longer."""

_DIGITS = 18  # so many always fit an int64
# What bytes.split() takes for gaps, so that both ways to cut a block agree.
_GAP = np.zeros(256, dtype=np.bool_)
_GAP[list(b" \t\n\r\x0b\x0c")] = True


class TextBlock(NamedTuple):
    """Whole lines of a file, each with the same number of cells; blank lines are left out of what follows."""

    file: str
    data: bytes
    lines: NDArray[np.int64]
    """(r,) number of each row's line, from 1."""
    starts: NDArray[np.int64]
    """(r, c) first byte of each cell in ``data``."""
    ends: NDArray[np.int64]
    """(r, c) the byte after its last."""

    def column(self, at: int) -> list[str]:
        """The texts of a column.

        Raises:
            DataError: One is no UTF-8. Names its line.
        """
        cells = self.data.split()[at :: self.starts.shape[1]]
        try:
            return b"\n".join(cells).decode().split("\n") if cells else []
        except UnicodeDecodeError:
            row = next(i for i, cell in enumerate(cells) if not _is_utf8(cell))
            raise self.error(row, f"{cells[row]!r} is no UTF-8") from None

    def error(self, row: int, fault: str) -> DataError:
        """What to raise about a row."""
        return DataError(f"{self.file}, line {self.lines[row]}: {fault}.")


def text_blocks(file: AnyPath, columns: int | None, form: str, *, block: int = BLOCK) -> Iterator[TextBlock]:
    """Read ``file`` block by block.

    Args:
        file: The table.
        columns: Cells of each line; None if only the first counts and others may follow.
        form: How a line should read, for messages.
        block: Bytes to read at a time.

    Raises:
        DataError: It cannot be read, or a line has another number of cells (with its number).
    """
    first = 1
    for data in _blocks(file, block):
        codes = np.frombuffer(data, dtype=np.uint8)
        edges = np.diff(_GAP[codes].view(np.int8), prepend=1, append=1)
        starts, ends = np.flatnonzero(edges == -1), np.flatnonzero(edges == 1)
        newlines = np.flatnonzero(codes == ord("\n"))
        after = np.searchsorted(starts, newlines)
        counts = np.diff(after, prepend=0)
        rows = np.flatnonzero(counts)
        lines = rows + first
        if columns is None:
            kept = (after - counts)[rows]
            starts, ends, width = starts[kept], ends[kept], 1
        else:
            wrong = np.flatnonzero(counts[rows] != columns)
            if len(wrong):
                at = int(rows[wrong[0]])
                begin = 0 if at == 0 else int(newlines[at - 1]) + 1
                line = data[begin : int(newlines[at])].strip()[:200]
                raise DataError(f"{file}, line {at + first}: expected {form}, got {line!r}.")
            width = columns
        yield TextBlock(str(file), data, lines, starts.reshape(-1, width), ends.reshape(-1, width))
        first += len(newlines)


def whole_numbers(block: TextBlock, columns: slice = slice(None)) -> NDArray[np.int64]:
    """(r, c') int64: the cells of some columns as whole numbers from 0 on.

    Raises:
        DataError: A cell is none. Names its line.
    """
    starts, ends = block.starts[:, columns], block.ends[:, columns]
    codes = np.frombuffer(block.data, dtype=np.uint8)
    lengths = ends - starts
    values = np.zeros(starts.shape, dtype=np.int64)
    wrong = lengths > _DIGITS
    for place in range(min(int(lengths.max(initial=0)), _DIGITS)):
        inside = lengths > place
        digits = codes[np.where(inside, starts + place, starts)] - np.uint8(ord("0"))
        wrong |= inside & (digits > 9)
        values = np.where(inside, values * 10 + digits, values)
    if wrong.any():
        row, at = (int(place) for place in np.argwhere(wrong)[0])
        cell = block.data[int(starts[row, at]) : int(ends[row, at])][:80]
        raise block.error(row, f"expected a whole number from 0 on, got {cell!r}")
    return values


def count_lines(file: AnyPath, *, block: int = BLOCK) -> int:
    """How many lines a file has, blank ones too: an upper bound of its rows.

    Raises:
        DataError: It cannot be read.
    """
    return sum(data.count(b"\n") for data in _blocks(file, block))


def _blocks(file: AnyPath, block: int) -> Iterator[bytes]:
    """The file in pieces that end with a line."""
    rest = b""
    try:
        with open(file, "rb") as opened:
            while data := opened.read(block):
                whole, end, after = (rest + data).rpartition(b"\n")
                rest = after
                if len(rest) > block:
                    raise DataError(f"{file} has a line of more than {block:,} bytes; it is no list of this kind.")
                if end:
                    yield whole + end
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
    if rest:
        yield rest + b"\n"


def _is_utf8(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True
