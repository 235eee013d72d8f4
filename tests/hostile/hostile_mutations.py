"""What strangers and broken disks do to a file, as a pure function of (name, number): every finding can be repeated."""

import json
import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence

INTEGERS = (0, 1, 2, -1, -2, 127, 128, 255, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
TEXTS = [
    *(str(value).encode() for value in (*INTEGERS, 10**18, 10**19, 10**40)),
    b"9" * 5000,  # more digits than Python turns into a number
    *(b"nan", b"inf", b"-inf", b"1e999", b"1e308", b"1_0", b"0x10", b"\xd9\xa3", b"\xc2\xb2"),
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b"\n\n",
        b"\t",
        b",",
        b'"',
        b"\x1c",
        b"\x85",
    ),
    *(b"..", b"../..", b"/", b"/etc/passwd", b"a" * 300, b"[" * 3000, b'{"a":' * 3000, b"\xe2\x80\xa8"),
]
FORMS = "bhiq"


def mutate(chance: random.Random, seed: bytes, others: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """One to four edits of ``seed``; ``others`` are files to splice with, ``tokens`` the format's own words."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        chance.choice(_EDITS)(chance, data, others, tokens)
    return bytes(data)


def integer_at(seed: bytes, number: int) -> bytes:
    """The ``number``-th of all ways to write one of :data:`INTEGERS` at one place, in 1 to 8 bytes of either order."""
    value = INTEGERS[number % len(INTEGERS)]
    form = FORMS[number // len(INTEGERS) % len(FORMS)]
    order = "<>"[number // (len(INTEGERS) * len(FORMS)) % 2]
    at = number // (len(INTEGERS) * len(FORMS) * 2) % max(len(seed), 1)
    written = _written(value, form, order)
    return seed[:at] + written + seed[at + len(written) :]


def integer_ways(seed: bytes) -> int:
    """How many numbers :func:`integer_at` tells apart."""
    return max(len(seed), 1) * len(INTEGERS) * len(FORMS) * 2


def _written(value: int, form: str, order: str) -> bytes:
    size = struct.calcsize(form)
    return (value % (1 << 8 * size)).to_bytes(size, "little" if order == "<" else "big")


def _place(chance: random.Random, data: bytearray) -> int:
    # Heads are where sizes stand: half of the edits go to the first 64 bytes.
    return chance.randrange(min(len(data), 64) + 1 if chance.random() < 0.5 else len(data) + 1)


def _span(chance: random.Random, data: bytearray) -> slice:
    begin = _place(chance, data)
    return slice(begin, begin + chance.choice((1, 2, 4, 8, 16, 64, chance.randrange(len(data) + 1))))


def _flip(chance: random.Random, data: bytearray, others: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    if data:
        data[_place(chance, data) % len(data)] ^= 1 << chance.randrange(8)


def _integer(chance: random.Random, data: bytearray, others: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    at = _place(chance, data)
    written = _written(chance.choice(INTEGERS), chance.choice(FORMS), chance.choice("<>"))
    data[at : at + len(written)] = written


def _cut(chance: random.Random, data: bytearray, others: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _remove(chance: random.Random, data: bytearray, others: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    del data[_span(chance, data)]


def _repeat(chance: random.Random, data: bytearray, others: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    piece = bytes(data[_span(chance, data)])[:4096]
    at = _place(chance, data)
    data[at:at] = piece * chance.choice((1, 1, 2, 50))


def _splice(chance: random.Random, data: bytearray, others: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    other = bytearray(chance.choice(others)) if others else data
    at = _place(chance, data)
    data[at : at + chance.choice((0, 8, len(data)))] = other[_span(chance, other)]


def _token(chance: random.Random, data: bytearray, others: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    at = _place(chance, data)
    word = chance.choice(tokens or TEXTS)
    data[at : at + chance.choice((0, len(word)))] = word


def _word(chance: random.Random, data: bytearray, others: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    """Another text in the place of a number or word."""
    found = list(re.finditer(rb"[0-9]+|[A-Za-z_]+", data[:65536]))
    if found:
        place = chance.choice(found)
        data[place.start() : place.end()] = chance.choice(TEXTS)


_EDITS: list[Callable[[random.Random, bytearray, Sequence[bytes], Sequence[bytes]], None]] = [
    *(_flip, _integer, _cut, _remove, _repeat, _splice, _token, _word)
]


def repair_png(data: bytes) -> bytes:
    """The checksums of a PNG made right, so that a change is not refused for its checksum alone."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + size > len(data):
            break
        out += data[at : at + 8 + size] + zlib.crc32(data[at + 4 : at + 8 + size]).to_bytes(4, "big")
        at += 12 + size
    return bytes(out) + data[at:]


def repair_tar(data: bytes) -> bytes:
    """The checksum of every block of a tar archive that has a head's mark made right."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        block = out[at : at + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return bytes(out)


def repair_journal(data: bytes) -> bytes:
    """The checksum of every line of a conversion's journal made right."""
    lines = data.split(b"\n")
    for i, text in enumerate(lines):
        try:
            line = json.loads(text)
            line.pop("sum", None)
            plain = json.dumps(line, sort_keys=True).encode()
        except (ValueError, RecursionError, AttributeError, TypeError):
            continue
        lines[i] = json.dumps({**line, "sum": zlib.crc32(plain)}).encode()
    return b"\n".join(lines)
