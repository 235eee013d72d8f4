"""WebDataset's tar shards: ``<key>.jpg`` beside ``<key>.cls`` or ``<key>.json``, read at random by an index of offsets.

The shards are mapped into memory, not unpacked: an image is a slice of its shard. Names are cut as webdataset cuts
them, at the first dot after the last slash; what has no such dot, as macOS's ``._x`` files, is no part of the set.

Axes: n images.
"""

import hashlib
import json
import mmap
import re
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unpg.data.decode import decode, decode_sized, first_size
from unpg.data.dense_labels import dense_labels, number_or_name
from unpg.data.index_cache import Index, file_state, index_key, load_index, save_index
from unpg.data.mapped import require_all_there
from unpg.data.names_file import NAMES_FILE, names_for, read_names
from unpg.errors import DataError, shown

__all__ = ["TarMember", "TarSet", "tar_members"]

_BLOCK = 512
_VERSION = 2  # of what lies in the cache
_IMAGES = ("jpg", "jpeg", "png", "bmp", "webp", "ppm", "pgm", "tif", "tiff")
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_CONTENT = re.compile(rb"[^\0]")
_PLAIN = (b"0", b"\0", b"7")
# What has its content elsewhere, or not in one piece.
_ELSEWHERE = {b"1": "a hard link", b"2": "a symbolic link", b"S": "a sparse file"}
_LONGEST_NAME = 1 << 20  # bytes of an extended header
_LONGEST_LABEL = 1 << 20  # bytes of a file with the identity
_MAPS = 128  # shards mapped at a time: each map holds a file open, and a process may have 1,024 or fewer


class TarMember(NamedTuple):
    """A file in a tar archive."""

    name: str
    head: int
    """Byte where it begins, with its extended headers."""
    begin: int
    """Byte where its content begins."""
    size: int


class TarSet:
    """Images of tar shards, in the order of the shards and of the files in them.

    A sample is a run of files with one key: an image (``.jpg``, ``.jpeg``, ``.png``, ``.bmp``, ``.webp``, ``.ppm``,
    ``.pgm``, ``.tif``, ``.tiff``) and its identity, in ``.cls`` as a number or name, or in ``.json`` under
    ``label_key``. A file ``identities.json`` beside the first shard, a JSON list, names the labels 0, 1, ...

    The first opening walks through all headers and labels; what it found is kept in the user's cache folder for as long
    as paths, sizes and times of the shards stay, and is mapped from there, by workers too.

    Args:
        path: A ``.tar`` file, a folder of them (by name), or a pattern such as ``train-{000000..000127}.tar``.
        label_key: Where the identity stands in a ``.json`` file.

    Attributes:
        labels: (n,) int64, numbered from 0 without gaps: numbers in rising order, names as they appear.
        identities: Name of each label: that in the names file, else the number or name in the shards.
        skipped: Files in the shards that are no part of a sample.
        image_size: (height, width) of the first readable image; :meth:`read` refuses others.

    Raises:
        DataError: A shard is missing, cut off or broken (with the byte); a sample has no image, no identity, or two;
            a key comes twice in a shard; a file of a sample is a link or sparse.
    """

    def __init__(self, path: str | PathLike[str], label_key: str = "label") -> None:
        self.path = str(path)
        self.shards = _shards(self.path)
        self._states = [file_state(shard) for shard in self.shards]
        self._maps: OrderedDict[int, mmap.mmap] = OrderedDict()
        self._lock = Lock()  # several threads may read
        self._label_key = label_key
        self._key = self._index_key()
        found = load_index("tar", self._key, check=True)
        self._cached = found is not None
        if found is None:
            built = self._build()
            found = save_index("tar", self._key, built)
            self._cached = found is not None
            found = found or built
        self._take(found)
        self.image_size, self._like = first_size(len(self), self._decoded, self._described, self.path)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """``<shard>#<name of the image in it>``."""
        return f"{self.shards[self._places[i, 0]]}#{self.own_path(i)}"

    def own_path(self, i: int) -> str:
        """The name of image ``i`` in its shard."""
        shard, head = (int(value) for value in self._places[i, :2])
        return next(tar_members(self._map(shard), str(self.shards[shard]), start=head)).name

    def content(self, i: int) -> bytes:
        """The image file of image ``i``, untouched."""
        shard, _, begin, size = self._places[i].tolist()
        data = self._map(shard)
        require_all_there(self.shards[shard], len(data))
        return data[begin : begin + size]

    def read(self, i: int) -> NDArray[np.uint8]:
        """Image ``i``, (h, w, 3) uint8 RGB.

        Raises:
            DataError: It cannot be read.
            SizeError: It is not of the size of the set's first readable image.
        """
        return decode_sized(self.content(i), self.image_size, lambda: self._described(i), self._like)

    def read_into(self, i: int, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Image ``i`` in ``out`` (h, w, 3), which is returned. Raises as :meth:`read`."""
        return decode_sized(self.content(i), self.image_size, lambda: self._described(i), self._like, out)

    def sources(self) -> Iterable[str]:
        """The files that the images come from."""
        return map(str, self.shards)

    def digest(self) -> str:
        """From places and sizes in the shards, labels and identities, not from where the shards lie."""
        sha = hashlib.sha256(json.dumps([[shard.name for shard in self.shards], self.identities]).encode())
        sha.update(np.ascontiguousarray(self._places).data)
        sha.update(np.ascontiguousarray(self.labels).data)
        return sha.hexdigest()

    def _decoded(self, i: int) -> NDArray[np.uint8]:
        return decode(self.content(i), name=self._described(i))

    def _described(self, i: int) -> str:
        # Its name would have to be read from the shard for every image.
        shard, _, begin, _ = self._places[i].tolist()
        return f"{self.shards[shard]}, byte {begin}"

    def _index_key(self) -> str:
        return index_key([*self.shards, self._names_file], "tar", _VERSION, self._label_key)

    @property
    def _names_file(self) -> Path:
        return self.shards[0].with_name(NAMES_FILE)

    def _build(self) -> Index:
        people: list[int | str] = []
        places = array("q")
        skipped = 0
        for shard in range(len(self.shards)):
            for found in self._samples(shard):
                if found is None:
                    skipped += 1
                else:
                    member, who = found
                    people.append(who)
                    places.extend((shard, member.head, member.begin, member.size))
        if not people:
            raise DataError(f"{self.path} has no samples: {skipped} files, none called <key>.jpg beside <key>.cls.")
        labels, identities = dense_labels(people)
        names = read_names(self._names_file)
        if names is not None:
            identities = names_for(identities, names, str(self._names_file))
        table = np.array(places, dtype=np.int64).reshape(-1, 4)
        return Index({"places": table, "labels": labels}, {"identities": identities, "skipped": skipped})

    def _take(self, index: Index) -> None:
        self._places: NDArray[np.int64] = index.arrays["places"]
        self.labels: NDArray[np.int64] = index.arrays["labels"]
        self.identities: list[str] = index.about["identities"]
        self.skipped: int = index.about["skipped"]

    def _map(self, shard: int) -> mmap.mmap:
        with self._lock:
            if shard in self._maps:
                self._maps.move_to_end(shard)
            else:
                while len(self._maps) >= _MAPS:
                    self._maps.popitem(last=False)  # closed when nobody reads from it any more
                self._maps[shard] = _mapped(self.shards[shard], self._states[shard])
            return self._maps[shard]

    def _samples(self, shard: int) -> Iterator[tuple[TarMember, int | str] | None]:
        """Image and identity of each sample of a shard, and None for each file that is part of none."""
        file, data = str(self.shards[shard]), self._map(shard)
        key, parts = "", dict[str, TarMember]()
        seen: set[str] = set()
        for member, kind in _entries(data, file):
            found = _NAME.fullmatch(member.name)
            if found is None:
                yield None
                continue
            if kind in _ELSEWHERE:
                raise DataError(
                    f"{file}, byte {member.head}: {member.name} is {_ELSEWHERE[kind]}, so its content is not there. "
                    "Pack the shard again with GNU tar's --dereference and --hard-dereference, without --sparse."
                )
            if found[1] != key and parts:
                yield _sample(data, file, key, parts, self._label_key)
                parts = {}
            key, ending = found[1], found[2].lower()
            if ending in parts or (not parts and key in seen):
                raise DataError(
                    f"{file}, byte {member.head}: {member.name} belongs to a sample that was met before. The files of "
                    "a sample follow each other, and each key is in a shard once."
                )
            seen.add(key)
            parts[ending] = member
        if parts:
            yield _sample(data, file, key, parts, self._label_key)

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_maps": OrderedDict()}  # each process maps for itself
        del state["_lock"]
        if self._cached:
            del state["_places"], state["labels"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()
        if self._index_key() != self._key:
            raise DataError(f"{self.path} has changed since it was opened. Start anew.")
        if "_places" not in state:
            self._take(load_index("tar", self._key, check=False) or self._build())


def tar_members(data: mmap.mmap | bytes, file: str, start: int = 0) -> Iterator[TarMember]:
    """The plain files of a tar archive: POSIX ustar and pax, GNU, and old ones.

    Args:
        data: The archive.
        file: What to call it in errors.
        start: Byte to begin at.

    Raises:
        DataError: It is cut off or broken. Names the byte.
    """
    return (member for member, kind in _entries(data, file, start) if kind in _PLAIN)


def _entries(data: mmap.mmap | bytes, file: str, start: int = 0) -> Iterator[tuple[TarMember, bytes]]:
    """Plain files, links and sparse files, with their type. Raises as :func:`tar_members`."""
    at, head = start, start
    long_name: str | None = None
    pax: dict[str, str] = {}
    while True:
        block = data[at : at + _BLOCK]
        if not block.strip(b"\0"):
            if len(block) < _BLOCK or head != at:
                raise DataError(f"{file} is cut off at byte {at + len(block)}: the archive has no end. Fetch it again.")
            more = _CONTENT.search(data, at)
            if more:
                raise DataError(
                    f"{file}, byte {more.start()}: content after the end of the archive, the block of zeros at byte "
                    f"{at}. Archives put end to end have to be shards of their own; any other file is broken: fetch it "
                    "again."
                )
            return
        if len(block) < _BLOCK or not _sum_holds(block):
            raise DataError(f"{file}, byte {at}: no header of a tar archive. The file is broken or compressed.")
        size = _number(block[124:136], file, at + 124)
        if "size" in pax and not re.fullmatch("[0-9]{1,18}", pax["size"]):
            raise DataError(f"{file}, byte {head}: the size {pax['size'][:40]!r} in an extended header is no number.")
        size = int(pax["size"]) if "size" in pax else size
        begin = at + _BLOCK
        if begin + size > len(data):
            raise DataError(
                f"{file} is cut off at byte {len(data)}: the file at byte {at} ends at byte {begin + size}. Fetch it "
                "again."
            )
        kind = block[156:157]
        at = begin + -(-size // _BLOCK) * _BLOCK
        if kind in (b"L", b"x", b"K", b"g"):
            if size > _LONGEST_NAME:
                raise DataError(f"{file}, byte {head}: an extended header of {size:,} bytes.")
            body = data[begin : begin + size]
            if kind == b"L":
                long_name = _text(body.rstrip(b"\0"))
            elif kind == b"x":
                pax = _pax(body, file, begin)
            continue
        name = pax.get("path") or long_name or _short_name(block)
        if any(key.startswith("GNU.sparse.") for key in pax):
            name, kind = pax.get("GNU.sparse.name", name), b"S"
        if kind in (*_PLAIN, *_ELSEWHERE) and not name.endswith("/"):
            yield TarMember(name, head, begin, size), kind
        head, long_name, pax = at, None, {}


def _sample(
    data: mmap.mmap, file: str, key: str, parts: dict[str, TarMember], label_key: str
) -> tuple[TarMember, int | str]:
    images = [member for ending, member in parts.items() if ending in _IMAGES]
    first = next(iter(parts.values()))
    if len(images) != 1:
        raise DataError(
            f"{file}, byte {first.head}: the sample {key!r} has {len(images)} images ({', '.join(parts)}); expected "
            f"one of {', '.join(_IMAGES)}."
        )
    source = parts.get("cls") or parts.get("json")
    if source is None:
        raise DataError(
            f"{file}, byte {first.head}: the sample {key!r} ({', '.join(parts)}) has no identity; expected .cls or "
            ".json."
        )
    where = f"{file}, byte {source.begin} ({source.name})"
    if source.size > _LONGEST_LABEL:
        raise DataError(f"{where}: {source.size:,} bytes, more than the {_LONGEST_LABEL:,} that an identity may take.")
    text = data[source.begin : source.begin + source.size]
    try:
        value: Any = text.decode().strip()
        value = number_or_name(value) if "cls" in parts else json.loads(value)[label_key]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise DataError(f"{where}: no identity under {label_key!r} is to be found: {error!r}.") from error
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(f"{where}: expected a number or name, got {shown(value, 80)}.")
    return images[0], value


def _shards(path: str) -> list[Path]:
    braces = re.fullmatch(r"(.*)\{([0-9]+)\.\.([0-9]+)\}(.*)", path)
    if braces:
        before, first, last, after = braces.groups()
        numbers = range(int(first), int(last) + 1)
        if not numbers:
            raise DataError(f"{path} counts from {first} to {last}, which names no shard. Give the lower number first.")
        return [Path(f"{before}{number:0{len(first)}d}{after}") for number in numbers]
    if Path(path).is_dir():
        found = sorted(Path(path).glob("*.tar"))
        if not found:
            raise DataError(f"{path} has no .tar files.")
        return found
    return [Path(path)]


def _mapped(file: Path, state: tuple[int, int] | None) -> mmap.mmap:
    """The file, mapped, if it is still as when the set was opened."""
    try:
        with open(file, "rb") as opened:
            now, found = file_state(opened.fileno()), mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"{file} is empty (0 bytes). Restore or remove it.") from error
    if now != state:
        raise DataError(f"{file} has changed since it was opened. Start anew.")
    return found


def _sum_holds(block: bytes) -> bool:
    try:
        said = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return said == sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _number(field: bytes, file: str, at: int) -> int:
    if field[0] == 0x80:  # GNU: beyond 8 GiB, in bytes instead of octal digits
        return int.from_bytes(field[1:], "big")
    try:
        value = int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        value = -1
    if value < 0:
        raise DataError(f"{file}, byte {at}: the size {field!r} is no octal number.")
    return value


def _short_name(block: bytes) -> str:
    name = block[:100].split(b"\0")[0]
    prefix = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _pax(body: bytes, file: str, at: int) -> dict[str, str]:
    """Lines ``<length> <key>=<value>`` of an extended header."""
    found: dict[str, str] = {}
    place = 0
    while place < len(body):
        length = re.match(rb"([0-9]{1,7}) ", body[place:])
        end = place + int(length[1]) if length else 0
        key, equals, value = body[place + length.end() : end - 1].partition(b"=") if length else (b"", b"", b"")
        if not equals or not place < end <= len(body) or body[end - 1 : end] != b"\n":
            raise DataError(f"{file}, byte {at + place}: an extended header that does not read.")
        found[_text(key)] = _text(value)
        place = end
    return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
