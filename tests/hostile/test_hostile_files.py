"""Files made by strangers: every reader gives a value or one of our errors that names the file; no crash, no hang, no
memory bomb, nothing run.

The readers are rows of ``hostile_readers.READERS``. The quick tests are hypothesis's; the long one (``make test-all``)
reads more than 100,000 damaged files. A finding says its number: ``python tests/hostile/hostile_child.py --show READER
NUMBER FOLDER > file`` makes the bytes again.
"""

import struct
import zlib

import hostile_parent
import pytest
from hostile_mutations import INTEGERS, TEXTS
from hostile_parent import Died
from hostile_readers import READERS, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAMES = [reader.name for reader in READERS]
TABLE = {reader.name: reader for reader in READERS}
LEAST = 100_000


@pytest.mark.parametrize("name", NAMES)
def test_the_sound_files_are_read(child, name):
    reply = child.ask(do="sound_file", name=name)
    assert not reply["fault"]
    assert reply["refused"] != TABLE[name].whole, reply["said"]


@pytest.mark.parametrize("name", NAMES)
def test_files_damaged_by_hypothesis(child, name):
    reader = TABLE[name]
    sound = child.ask(do="contents", name=name)

    @settings(max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        target = data.draw(st.sampled_from(sorted(set(reader.targets))))
        content = bytearray.fromhex(sound[target])
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content)))
            piece = data.draw(
                st.one_of(
                    st.binary(max_size=16),
                    st.sampled_from([*reader.tokens, *TEXTS]),
                    st.sampled_from(
                        [struct.pack(form, i) for i in INTEGERS if 0 <= i < 2**32 for form in ("<I", ">I", "<Q")]
                    ),
                )
            )
            content[at : at + data.draw(st.sampled_from([0, len(piece), len(content)]))] = piece
        reply = child.ask(do="one", name=name, target=target, data=bytes(content))
        assert not reply["fault"], reply["fault"]

    check()


def test_the_long_test_is_long_enough():
    assert sum(reader.count for reader in READERS) >= LEAST


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_thousand_damaged_files(child, name):
    count = TABLE[name].count
    reply = child.ask(do="many", name=name, first=0, last=count)
    print(f"{name}: {reply['inputs']} inputs, {reply['refused']} refused, {reply['seconds']:.1f} s of processor time")
    assert not reply["found"], reply["found"][:5]
    assert reply["inputs"] == count
    # A loop that damages nothing, or that no file survives, tests nothing.
    assert reply["refused"] > 0 or TABLE[name].mends
    assert reply["refused"] < count or not TABLE[name].whole


def huge_png(side: int) -> bytes:
    """A sound picture but for the size in its head."""
    head = struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
    sound = picture(0)
    return sound[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + sound[33:]


def huge_jpeg(side: int) -> bytes:
    sound = picture(0, "JPEG")
    at = sound.index(b"\xff\xc0") + 5
    return sound[:at] + struct.pack(">2H", side, side) + sound[at + 4 :]


def huge_bmp(side: int) -> bytes:
    return picture(0, "BMP")[:18] + struct.pack("<2i", side, side) + picture(0, "BMP")[26:]


@pytest.mark.parametrize(
    ("name", "content"),
    [("image-png", huge_png(60_000)), ("image-jpeg", huge_jpeg(60_000)), ("image-bmp", huge_bmp(60_000))],
)
def test_a_picture_of_60_000_x_60_000_is_refused_by_its_head(child, name, content):
    reply = child.ask(do="one", name=name, target="a.img", data=content)
    assert reply["refused"]
    assert not reply["fault"]  # no memory was asked for
    assert len(reply["said"]) == 3  # as a path, as bytes, and into a place of its own
    assert all("more than the 64,000,000" in said for said in reply["said"])


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("memory", "memory was asked for before the size was checked"),
        ("other", "not one of our errors"),
        ("nameless", "the message names no file"),
        ("laughs", "a message of"),
        ("slow", "of processor time"),
    ],
)
def test_the_net_itself_catches(child, what, found):
    assert found in child.ask(do="misbehave", name=what)["fault"]


def test_a_crash_and_a_hang_are_found_and_the_next_file_is_read(child, monkeypatch):
    with pytest.raises(Died, match=r"crash, input -?\d+ ended the process \(-11\)"):
        child.ask(do="misbehave", name="crash")
    child.ask(do="sound_file", name="known")  # a new process, and its imports are done
    monkeypatch.setattr(hostile_parent, "HANG", 1.0)
    with pytest.raises(Died, match="hang, input -?\\d+ hangs"):
        child.ask(do="misbehave", name="hang")
