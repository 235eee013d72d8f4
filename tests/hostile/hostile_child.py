"""The process that reads hostile files, so that a crash, a hang or a memory bomb takes no test run with it.

    python hostile_child.py FOLDER       reads commands from stdin: lines of JSON
    python hostile_child.py --show READER NUMBER      one input of the long test: its bytes go to stdout

Every reply is a line of JSON: inputs read, how many of them were refused, what went wrong, the slowest.
"""

import base64
import ctypes
import faulthandler
import json
import mmap
import os
import random
import resource
import shutil
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hostile_mutations import integer_at, integer_ways, mutate
from hostile_readers import READERS, Reader, suppress_ours

from unpg.errors import DataError, UnpgError

MEMORY = 1 << 30
"""Bytes of address space that a reader may take beyond what the process has."""
SECONDS = 5.0
"""Of processor time, for one input."""
LONGEST = 20_000
"""Characters of a message beyond four times the file: one may quote a line, but not spell out what is nested."""
TABLE = {reader.name: reader for reader in READERS}
MEMORY_WORDS = ("can't allocate memory", "Unable to allocate", "bad_alloc", "malloc of size", "realloc of size")


def prepared(reader: Reader, folder: Path) -> dict[str, bytes]:
    """The sound files in ``folder``, and the bytes of those to damage."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reader.make(folder)
    return {target: (folder / target).read_bytes() for target in reader.targets}


def damaged(reader: Reader, sound: dict[str, bytes], number: int) -> tuple[str, bytes]:
    """Which file the ``number``-th input replaces, and by what; a pure function of name and number."""
    chance = random.Random(f"{reader.name}/{number}")
    target = chance.choice(list(reader.targets))
    seed = sound[target]
    if number % 4 == 0:  # a quarter walks over all integers at all places, in steps that meet every place
        ways = integer_ways(seed)
        data = integer_at(seed, (number // 4) * 7919 % ways)
    else:
        data = mutate(chance, seed, list(sound.values()), reader.tokens)
    if reader.repair is not None and chance.random() < 0.7:
        data = reader.repair(data)
    return target, data


def judged(error: UnpgError, folder: Path, size: int) -> str:
    """What is wrong with one of our errors; empty if nothing."""
    message = str(error)
    # A list may name an absolute path, and the fault may be of that file.
    if str(folder) not in message and "cannot be read" not in message:
        return f"the message names no file: {type(error).__name__}: {message[:300]}"
    if len(message) > LONGEST + 4 * size:
        return f"a message of {len(message)} characters: {message[:200]}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or any(word in str(cause) for word in MEMORY_WORDS):
            return f"memory was asked for before the size was checked: {cause!r:.300}"
        cause = cause.__cause__ or cause.__context__
    return ""


def attempt(reader: Reader, folder: Path, size: int = 0, limit: float = SECONDS) -> tuple[bool, str]:
    """Read; whether it was refused, and what went wrong."""
    suppress_ours.seen = []
    begin = time.process_time()
    try:
        reader.read(folder)
    except UnpgError as error:
        suppress_ours.seen.append(error)
    except Exception:
        return False, "not one of our errors: " + "".join(traceback.format_exc().splitlines(keepends=True)[-14:])
    seconds = time.process_time() - begin
    if seconds > limit:
        return False, f"{seconds:.1f} s of processor time, more than {limit}"
    faults = list(filter(None, (judged(error, folder, size) for error in suppress_ours.seen)))
    return bool(suppress_ours.seen), faults[0] if faults else ""


def _nameless(place: Path) -> None:
    raise DataError("wrong")


def _laughs(place: Path) -> None:
    raise DataError(f"{place}: {'ha' * LONGEST}")


def _memory(place: Path) -> None:
    try:
        bytearray(4 * MEMORY)
    except MemoryError as error:
        raise DataError(f"{place} is broken.") from error


def _slow(place: Path) -> None:
    begin = time.process_time()
    while time.process_time() - begin < 0.2:
        pass


FAULTS: dict[str, Callable[[Path], object]] = {
    "crash": lambda place: ctypes.string_at(0),
    "other": lambda place: {}["a"],
    "nameless": _nameless,
    "laughs": _laughs,
    "memory": _memory,
    "slow": _slow,
    "hang": lambda place: time.sleep(60),
}
"""What a reader may do wrong, one each."""


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))


def free_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Session:
    """One reader after another in this process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = ""
        self.folder = root / "none"
        self.sound: dict[str, bytes] = {}
        with open(root / "progress", "r+b") as file:
            self.progress = mmap.mmap(file.fileno(), 8)

    def open(self, name: str) -> Reader:
        reader = TABLE[name]
        if self.name != name:
            free_memory()
            self.name, self.folder = name, self.root / name
            self.sound = prepared(reader, self.folder)
            reader.read(self.folder)  # what is imported late must not count as the file's
            limit_memory()
        return reader

    def sound_file(self, name: str) -> dict[str, Any]:
        """The sound files must be read without any error."""
        reader = self.open(name)
        refused, fault = attempt(reader, self.folder)
        return {"refused": refused, "fault": fault, "said": [str(e)[:500] for e in suppress_ours.seen]}

    def contents(self, name: str) -> dict[str, str]:
        """The sound files to damage, in hexadecimal digits."""
        self.open(name)
        return {target: data.hex() for target, data in self.sound.items()}

    def misbehave(self, name: str) -> dict[str, Any]:
        """A reader with a known fault, to see that it is found."""
        folder = self.root / name
        fault = FAULTS[name]
        TABLE[name] = Reader(name, lambda place: (place / "a").write_bytes(b""), lambda place: None, ["a"])
        self.open(name)
        wrong = Reader(name, TABLE[name].make, lambda place: fault(place), ["a"])
        refused, said = attempt(wrong, folder, limit=0.1)
        return {"refused": refused, "fault": said}

    def one(self, name: str, target: str, data: bytes) -> dict[str, Any]:
        reply = self._read(self.open(name), target, data)
        return {**reply, "said": [str(error)[:500] for error in suppress_ours.seen]}

    def many(self, name: str, first: int, last: int) -> dict[str, Any]:
        reader = self.open(name)
        found: list[dict[str, Any]] = []
        refused, slowest, begin = 0, 0.0, time.process_time()
        number = first
        for number in range(first, last):
            self.progress[:8] = struct.pack("<q", number)
            before = time.process_time()
            reply = self._read(reader, *damaged(reader, self.sound, number))
            slowest = max(slowest, time.process_time() - before)
            refused += reply["refused"]
            if reply["fault"]:
                found.append({"number": number, "fault": reply["fault"]})
                if len(found) >= 20:
                    break
        return {
            "inputs": number - first + 1,
            "refused": refused,
            "slowest": slowest,
            "seconds": time.process_time() - begin,
            "found": found,
        }

    def _read(self, reader: Reader, target: str, data: bytes) -> dict[str, Any]:
        # A new file each time: some libraries keep a file open, and must not see it change under them.
        file = self.folder / target
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        try:
            refused, fault = attempt(reader, self.folder, len(data))
        finally:
            # A reader may have written beside or over the other files.
            for name, sound in self.sound.items():
                place = self.folder / name
                if name == target or not place.is_file() or place.stat().st_size != len(sound):
                    place.unlink(missing_ok=True)
                    place.write_bytes(sound)
        return {"refused": refused, "fault": fault}


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1] == "--show":
        reader = TABLE[sys.argv[2]]
        sound = prepared(reader, Path(sys.argv[4]) if len(sys.argv) > 4 else Path("shown"))
        target, data = damaged(reader, sound, int(sys.argv[3]))
        print(target, file=sys.stderr)
        sys.stdout.buffer.write(data)
        return
    os.fsync = lambda file: None  # conversions bring each mark to the disk; none is pulled out here
    faulthandler.enable()
    warnings.simplefilter("ignore")
    session = Session(Path(sys.argv[1]))
    for line in sys.stdin:
        command = json.loads(line)
        what = command.pop("do")
        if what == "one":
            command["data"] = base64.b64decode(command["data"])
        reply = getattr(session, what)(**command)
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
