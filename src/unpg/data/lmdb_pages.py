"""Whether the pages of an LMDB database hold together, found out without lmdb, which believes all that they say.

lmdb reads a database through a map of the file and follows its numbers unchecked: a damaged or hostile one ends the
process or keeps it busy for ever. Here the tree is walked once before lmdb sees it: each page is in the file and in
the tree once, of the right kind, and all that its nodes point to is inside. Values are not read.

Format: lmdb 0.9, 64 bits, little-endian (``mdb.c`` of OpenLDAP): a page begins with its number (8 bytes), 2 unused
ones, flags, the ends of the list of nodes and of the free space (2 each); a node with two halves of a size, flags and
the length of its key (2 each). Pages 0 and 1 are two versions of the head, of which the later one counts.

Axes: n nodes of a page.
"""

import mmap
import struct
from itertools import pairwise
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from unpg.errors import DataError

__all__ = ["check_lmdb_pages"]

_PAGE = struct.Struct("<QHHHH")
_META = struct.Struct("<IIQQ")  # mark, version, address, size of the map
_TREE = struct.Struct("<IHHQQQQQ")  # page size or padding, flags, depth, 3 counts of pages, entries, root
_TAIL = struct.Struct("<QQ")  # last page, transaction
_MARK, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 0x01, 0x02, 0x04, 0x08
_BIG = 0x01  # the value lies on pages of its own
_NONE = (1 << 64) - 1
_DEEPEST = 32
_LONGEST_KEY = 511  # bytes


def check_lmdb_pages(file: str | PathLike[str], *, writing: bool = False) -> None:
    """Raise unless lmdb can read the main tree of the database ``file`` safely.

    Reads the pages with keys, not those with large values.

    Args:
        file: The database.
        writing: Check too what lmdb believes when it writes: the tree of pages that it may use again.

    Raises:
        DataError: The file cannot be read, is cut off, or a page is broken, of another kind, or met twice. Names the
            byte.
    """
    try:
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Walk(str(file), data).all(writing)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is empty (0 bytes). Fetch it again.") from error
    except OSError as error:
        raise DataError(f"{file} cannot be opened as LMDB: {error.strerror or error}.") from error


class _Walk:
    def __init__(self, file: str, data: mmap.mmap) -> None:
        self.file, self.data = file, data
        first = self._head(0)
        self.size = first[0]
        second = self._head(self.size)
        if second[0] != self.size:
            raise self._broken(self.size, f"its two heads have pages of {self.size} and {second[0]} bytes")
        _, _, self.main, self.free, self.last = max(first, second, key=lambda head: head[1])
        self.writing = False
        self.used: set[int] = set()
        self.listed: list[bytes] | None = None
        if (self.last + 1) * self.size > len(data):
            raise DataError(
                f"{file} is cut off at byte {len(data)}: its pages end at byte {(self.last + 1) * self.size}. Fetch it "
                "again."
            )

    def all(self, writing: bool) -> None:
        """Walk from the roots, without recursion."""
        self.writing = writing
        self._tree(*self.main)
        if not writing:
            return
        self.listed = []
        self._tree(*self.free)
        for content in self.listed:
            count, *numbers = np.frombuffer(content, "<u8").tolist() if len(content) % 8 == 0 and content else [_NONE]
            falling = all(a > b for a, b in pairwise(numbers))
            if count != len(numbers) or not falling or any(not 2 <= n <= self.last or n in self.used for n in numbers):
                raise self._broken(self.free[1] * self.size, "a list of free pages that does not read, or of used ones")
            self.used.update(numbers)

    def _tree(self, depth: int, root: int) -> None:
        self.depth = depth
        if root == _NONE:
            return
        ahead = [(root, 1)]
        while ahead:
            number, level = ahead.pop()
            at = number * self.size
            if not 2 <= number <= self.last:
                raise self._broken(0, f"a page {number} is named, of pages 2 to {self.last}")
            if number in self.used or level > min(self.depth, _DEEPEST):
                raise self._broken(at, "the page is in a tree twice, or deeper than the tree is")
            self.used.add(number)
            ahead += [(child, level + 1) for child in self._page(at, level)]

    def _head(self, at: int) -> tuple[int, int, tuple[int, int], tuple[int, int], int]:
        """Page size, transaction, (depth, root) of the trees of records and of free pages, last page of a head."""
        place = at + _PAGE.size
        if place + _META.size + 2 * _TREE.size + _TAIL.size > len(self.data):
            raise self._broken(at, f"the file ends at byte {len(self.data)}, inside its head")
        flags = _PAGE.unpack_from(self.data, at)[2]
        mark, version, *_ = _META.unpack_from(self.data, place)
        size, _, free_depth, *_, free_root = _TREE.unpack_from(self.data, place + _META.size)
        _, kind, depth, *_, root = _TREE.unpack_from(self.data, place + _META.size + _TREE.size)
        last, transaction = _TAIL.unpack_from(self.data, place + _META.size + 2 * _TREE.size)
        if not flags & _META_PAGE or (mark, version) != (_MARK, _VERSION):
            raise DataError(
                f"{self.file} cannot be opened as LMDB: at byte {at} is no head of version 0.9, little-endian."
            )
        if size not in (1 << power for power in range(9, 17)):
            raise self._broken(at, f"pages of {size} bytes")
        if kind:
            raise self._broken(at, f"a database with several values a key, or keys of numbers (flags {kind:#x})")
        return size, transaction, (depth, root), (free_depth, free_root), last

    def _page(self, at: int, level: int) -> list[int]:
        """The pages below the one at byte ``at``."""
        _, _, flags, lower, upper = _PAGE.unpack_from(self.data, at)
        wanted = _LEAF if level == self.depth else _BRANCH
        if flags != wanted:
            raise self._broken(at, f"a page of kind {flags:#x} where {wanted:#x} should be")
        if not _PAGE.size < lower <= upper <= self.size or lower % 2:
            raise self._broken(at, f"a list of nodes to byte {lower}, and nodes from byte {upper} of {self.size}")
        # A copy: the map cannot be closed while an array looks into it.
        page = np.frombuffer(self.data[at : at + self.size], dtype=np.uint8)
        starts = page[_PAGE.size : lower].view("<u2").astype(np.int64)
        if (starts < upper).any() or (starts > self.size - 8).any():
            raise self._broken(at, "a node outside of its page")
        low, high, kinds, keys = page[starts[:, None] + np.arange(8)].view("<u2").astype(np.int64).T
        after = starts + 8 + keys
        if wanted == _BRANCH:
            if (after > self.size).any() or len(starts) < 2:
                raise self._broken(at, "a key that leaves its page, or a single one")
            below: list[int] = (low | high << 16 | kinds << 32).tolist()
            return below
        if not ((keys >= 1) & (keys <= _LONGEST_KEY)).all():
            raise self._broken(at, f"a key of no or more than {_LONGEST_KEY} bytes")
        self._leaf(at, page, after, low | high << 16, kinds)
        return []

    def _leaf(
        self,
        at: int,
        page: NDArray[np.uint8],
        after: NDArray[np.int64],
        sizes: NDArray[np.int64],
        kinds: NDArray[np.int64],
    ) -> None:
        if ((kinds != 0) & (kinds != _BIG)).any():
            raise self._broken(at, "a node that is neither a value nor points to one; databases in it are not read")
        big = kinds == _BIG
        if (after + np.where(big, 8, sizes) > self.size).any():
            raise self._broken(at, "a key or value that leaves its page")
        far = page[after[big][:, None] + np.arange(8)].view("<u8")[:, 0] if big.any() else np.zeros(0, "<u8")
        if self.listed is not None:  # the values themselves are believed
            for place, size, far_away in zip(after.tolist(), sizes.tolist(), big.tolist(), strict=True):
                if not far_away:
                    self.listed.append(page[place : place + size].tobytes())
        for number, size in zip(far.tolist(), sizes[big].tolist(), strict=True):
            if not 2 <= number <= self.last or number * self.size + _PAGE.size + size > (self.last + 1) * self.size:
                raise self._broken(at, f"a value of {size} bytes on page {number}, of {self.last + 1} pages")
            pages = -(-(size + _PAGE.size) // self.size)
            if self.listed is not None:
                begin = number * self.size + _PAGE.size
                self.listed.append(self.data[begin : begin + size])
            if self.writing:
                overlap = not self.used.isdisjoint(range(number, number + pages))
                _, _, kind, *counted = _PAGE.unpack_from(self.data, number * self.size)
                if overlap or kind != _OVERFLOW or counted[0] | counted[1] << 16 != pages:
                    raise self._broken(number * self.size, f"no {pages} pages of one value, or used twice")
                self.used.update(range(number, number + pages))

    def _broken(self, at: int, fault: str) -> DataError:
        return DataError(f"{self.file}, byte {at}: {fault}. The database is broken; fetch it or write it again.")
