import io
import json
import os
import pickle
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unpg.cli.main import main
from unpg.data import FolderSet, ImageSet, SizeError
from unpg.data.content import content
from unpg.data.open_source import open_source
from unpg.data.source import SOURCES
from unpg.data.tar_set import TarSet, tar_members
from unpg.errors import DataError, UnpgError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def jpg(value, size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size[::-1], (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(path, members, form="ustar"):
    with tarfile.open(path, "w", format=FORMATS[form]) as out:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


SAMPLES = [
    ("a/0001.jpg", jpg(1)),
    ("a/0001.cls", b"7"),
    ("a/0002.cls", b"3\n"),
    ("a/0002.JPG", jpg(2)),
    ("a/0003.json", b'{"label": 7, "who": "ann"}'),
    ("a/0003.seg.png", jpg(9)),
    ("a/0003.png", jpg(3)),
]


def test_samples_of_a_shard(tmp_path):
    data = TarSet(write(tmp_path / "a.tar", SAMPLES))
    assert isinstance(data, ImageSet)
    assert data.identities == ["3", "7"]
    assert data.labels.tolist() == [1, 0, 1]
    assert [int(data.read(i)[0, 0, 0]) for i in range(3)] == [1, 2, 3]
    assert [content(data, i) for i in range(3)] == [jpg(1), jpg(2), jpg(3)]
    assert data.name(1) == f"{tmp_path / 'a.tar'}#a/0002.JPG"
    assert data.image_size == (8, 8)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.digest() == data.digest()
    assert copy.read(2)[0, 0, 0] == 3


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("length", [1, 99, 100, 101, 154, 155, 200, 255])
def test_archives_as_python_writes_them(tmp_path, form, length):
    deep = "/".join("d" * 40 for _ in range(6))[: max(length - 6, 0)]
    names = [f"{deep}/x{i}.jpg".lstrip("/") if length > 8 else f"{i}" for i in range(3)]
    with suppress(ValueError):  # ustar cannot name everything
        write(tmp_path / "a.tar", [(name, b"x" * (511 + i)) for i, name in enumerate(names)], form)
        with tarfile.open(tmp_path / "a.tar") as truth:
            expected = [(m.name, m.offset, m.offset_data, m.size) for m in truth]
        found = list(tar_members((tmp_path / "a.tar").read_bytes(), "a.tar"))
        assert [tuple(member) for member in found] == expected
        assert len(found) == 3


def test_names_beyond_latin_and_links_and_folders(tmp_path):
    for form in ("gnu", "pax"):
        with tarfile.open(tmp_path / "a.tar", "w", format=FORMATS[form]) as out:
            folder = tarfile.TarInfo("d")
            folder.type = tarfile.DIRTYPE
            out.addfile(folder)
            link = tarfile.TarInfo("l.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            out.addfile(link)
            out.addfile(tarfile.TarInfo("Zoë/李.jpg"))
        assert [m.name for m in tar_members((tmp_path / "a.tar").read_bytes(), "")] == ["Zoë/李.jpg"]


def test_a_zeroed_header_or_archives_end_to_end_lose_no_sample_in_silence(tmp_path):
    path = write(tmp_path / "a.tar", SAMPLES)
    whole = path.read_bytes()
    place = next(member.head for member in tar_members(whole, "") if member.name == "a/0002.cls")
    path.write_bytes(whole[:place] + bytes(512) + whole[place + 512 :])
    match = rf"a.tar, byte {place + 512}: content after the end of the archive, the block of zeros at byte {place}\."
    with pytest.raises(DataError, match=match):
        TarSet(path)
    path.write_bytes(whole + whole)
    with pytest.raises(DataError, match=f"a.tar, byte {len(whole)}: content after the end"):
        TarSet(path)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
    ],
)
def test_samples_whose_content_is_elsewhere_are_refused(tmp_path, kind, what):
    path = write(tmp_path / "a.tar", SAMPLES)
    with tarfile.open(path, "a") as out:
        for name, type_of in (("notes", kind), ("b/1.jpg", kind)):  # the first is no part of a sample
            info = tarfile.TarInfo(name)
            info.type, info.linkname = type_of, "a/0001.jpg"
            out.addfile(info)
    with pytest.raises(DataError, match=rf"a.tar, byte \d+: b/1.jpg is {what}, so its content is not there"):
        TarSet(path)


def test_sparse_files_as_gnu_tar_writes_them_are_refused(tmp_path):
    info = tarfile.TarInfo("GNUSparseFile.1/b.jpg")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "b.jpg"}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as out:
        out.addfile(info)
    with pytest.raises(DataError, match=r"a.tar, byte 0: b.jpg is a sparse file"):
        TarSet(tmp_path / "a.tar")


def test_several_shards(tmp_path):
    for i in range(3):
        write(tmp_path / f"s-{i:03d}.tar", [("0.jpg", jpg(i)), ("0.cls", str(10 - i).encode())])
    every = TarSet(tmp_path)
    assert every.identities == ["8", "9", "10"]
    assert every.labels.tolist() == [2, 1, 0]
    assert [int(every.read(i)[0, 0, 0]) for i in range(3)] == [0, 1, 2]
    assert TarSet(f"{tmp_path}/s-{{001..002}}.tar").identities == ["8", "9"]
    assert open_source(f"{tmp_path}/s-{{001..002}}.tar").identities == ["8", "9"]
    assert open_source(tmp_path).digest() == every.digest()
    assert SOURCES.build("webdataset", {"path": str(tmp_path)}).digest() == every.digest()
    with pytest.raises(DataError, match=r"s-003.tar cannot be read"):
        TarSet(f"{tmp_path}/s-{{001..003}}.tar")
    with pytest.raises(DataError, match="counts from 002 to 001, which names no shard"):
        TarSet(f"{tmp_path}/s-{{002..001}}.tar")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none has no .tar files"):
        TarSet(tmp_path / "none")
    (tmp_path / "s-003.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"s-003.tar is empty"):
        TarSet(tmp_path)


def test_identities_by_name_and_another_key(tmp_path):
    samples = [("1.jpg", jpg(1)), ("1.json", b'{"who": "bob"}'), ("2.jpg", jpg(2)), ("2.json", b'{"who": "ann"}')]
    data = TarSet(write(tmp_path / "a.tar", samples), label_key="who")
    assert (data.identities, data.labels.tolist()) == (["bob", "ann"], [0, 1])
    with pytest.raises(DataError, match=r"\(1.json\): no identity under 'label' is to be found"):
        TarSet(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("ending", "texts", "identities", "labels"),
    [
        ("cls", ["01", "1", "001"], ["01", "1", "001"], [0, 1, 2]),
        ("cls", ["10", "9", "0"], ["0", "9", "10"], [2, 1, 0]),
        ("json", ['{"label": "01"}', '{"label": "1"}', '{"label": "001"}'], ["01", "1", "001"], [0, 1, 2]),
        ("json", ['{"label": "7"}', '{"label": "3"}', '{"label": "7"}'], ["7", "3"], [0, 1, 0]),
        ("json", ['{"label": 7}', '{"label": 3}', '{"label": 7}'], ["3", "7"], [1, 0, 1]),
    ],
)
def test_names_of_digits_stay_apart(tmp_path, ending, texts, identities, labels):
    samples = [(f"{i}.{e}", d) for i, text in enumerate(texts) for e, d in (("jpg", jpg(i)), (ending, text.encode()))]
    data = TarSet(write(tmp_path / "a.tar", samples))
    assert (data.identities, data.labels.tolist()) == (identities, labels)


@pytest.mark.parametrize(
    ("samples", "match"),
    [
        ([("1.cls", b"1")], r"a.tar, byte 0: the sample '1' has 0 images \(cls\)"),
        ([("1.jpg", b""), ("1.png", b""), ("1.cls", b"1")], "has 2 images"),
        ([("1.jpg", b"")], r"the sample '1' \(jpg\) has no identity"),
        ([("1.jpg", b""), ("1.cls", b"")], r"byte 1024 \(1.cls\): expected a number or name, got ''"),
        ([("1.jpg", b""), ("1.cls", b"\xff")], "no identity under"),
        ([("1.jpg", b""), ("1.json", b"[1]")], "no identity under 'label'"),
        ([("1.jpg", b""), ("1.json", b'{"label": 1.5}')], "expected a number or name, got 1.5"),
        ([("1.jpg", b""), ("1.json", b'{"label": true}')], "expected a number or name, got True"),
        ([*SAMPLES, ("a/0001.jpg", jpg(1))], "a/0001.jpg belongs to a sample that was met before"),
        ([("1.jpg", b""), ("1.jpg", b"")], "met before"),
        (
            [("1.jpg", b""), ("1.cls", b"7" + b" " * (1 << 20))],
            "1,048,577 bytes, more than the 1,048,576 that an identity",
        ),
        ([("._1.jpg", b""), ("readme", b"")], r"has no samples: 2 files"),
        ([("1.jpg", b"no"), ("1.cls", b"1")], "none of the 1 images can be read"),
    ],
)
def test_broken_samples_are_named(tmp_path, samples, match):
    with pytest.raises(DataError, match=match):
        TarSet(write(tmp_path / "a.tar", samples))


def test_another_size_is_refused(tmp_path):
    samples = [("1.jpg", jpg(1)), ("1.cls", b"1"), ("2.jpg", jpg(1, (9, 8))), ("2.cls", b"2")]
    with pytest.raises(SizeError, match=r"a.tar, byte 2560 is 9 x 8 .*but .*a.tar, byte 512 of the same set"):
        TarSet(write(tmp_path / "a.tar", samples)).read(1)


def test_a_shard_cut_off_after_it_was_opened_is_an_error(tmp_path):
    """Reading mapped bytes that are gone would end the process with SIGBUS."""
    path = write(tmp_path / "a.tar", [(f"{i}.{e}", d) for i in range(40) for e, d in (("jpg", jpg(i)), ("cls", b"1"))])
    data = TarSet(path)
    size = path.stat().st_size
    os.truncate(path, 512)
    with pytest.raises(DataError, match=f"a.tar had {size} bytes when it was opened, now 512"):
        data.read(39)


def test_a_shard_replaced_after_the_set_was_opened_is_an_error(tmp_path):
    for shard in range(3):
        write(tmp_path / f"{shard}.tar", [(f"{shard}.jpg", jpg(shard)), (f"{shard}.cls", b"1")])
    TarSet(tmp_path)
    data = TarSet(tmp_path)  # by the index, so that only the first shard is open
    os.replace(tmp_path / "2.tar", tmp_path / "1.tar")
    assert content(data, 0) == jpg(0)
    with pytest.raises(DataError, match=r"1.tar has changed since it was opened. Start anew"):
        data.read(1)


def test_threads_hold_no_more_shards_open_than_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr("unpg.data.tar_set._MAPS", 3)
    switch = sys.getswitchinterval()
    for shard in range(12):
        write(tmp_path / f"{shard:02d}.tar", [("1.jpg", jpg(shard)), ("1.cls", b"1")])
    data, most = TarSet(tmp_path), []

    def read(i):
        value = int(data.read(i)[0, 0, 0])
        most.append(len(data._maps))
        return value

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            order = np.random.default_rng(0).integers(0, 12, 2000).tolist()
            assert list(pool.map(read, order)) == order
    finally:
        sys.setswitchinterval(switch)
    assert max(most) == 3


def test_an_archive_cut_off_anywhere_is_an_error(tmp_path):
    whole = write(tmp_path / "a.tar", SAMPLES, "pax").read_bytes().rstrip(b"\0")
    end = -(-len(whole) // 512) * 512
    for length in [*range(0, end, 97), end]:
        with pytest.raises(DataError, match=r"b.tar.* (cut off at byte|byte)"):
            list(tar_members(whole[:length].ljust(min(length, end), b"\0"), "b.tar"))
    sound = whole.ljust(end + 512, b"\0")
    assert len(list(tar_members(sound, "b.tar"))) == len(SAMPLES)
    long = write(tmp_path / "c.tar", [("x" * 300, b"")], "gnu").read_bytes()
    with pytest.raises(DataError, match="has no end"):
        list(tar_members(long[:1024] + bytes(1024), "c.tar"))
    for at in range(0, 512, 7):
        broken = bytearray(sound)
        broken[1024 + at] ^= 0x15
        with pytest.raises(DataError, match=r"b.tar, byte 1024: no header"):
            list(tar_members(bytes(broken), "b.tar"))


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 12), st.sampled_from(list(FORMATS)))
def test_any_change_is_read_or_our_error(tmp_path_factory, junk, place, form):
    base = tmp_path_factory.getbasetemp()
    whole = bytearray(
        write(
            base / "whole.tar", [(f"{'x' * 120}.jpg", b"12"), ("1.cls", b"1")], "gnu" if form == "ustar" else form
        ).read_bytes()
    )
    at = place * 256
    whole[at : at + len(junk)] = junk
    (base / "fuzz.tar").write_bytes(whole)
    with suppress(UnpgError):
        TarSet(base / "fuzz.tar")


def test_the_command_line_works_on_shards(tmp_path, capsys):
    shard = str(write(tmp_path / "a.tar", [*SAMPLES, ("b.jpg", b"broken"), ("b.cls", b"3")]))
    assert main(["data", "info", shard]) == 0
    assert "4 images of 2 identities" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["data", "check", shard])
    assert f"broken: {shard}#b.jpg" in capsys.readouterr().out
    shard = str(write(tmp_path / "c.tar", SAMPLES))
    assert main(["data", "convert", shard, "--out", str(tmp_path / "out"), "--to", "folder"]) == 0
    assert FolderSet(tmp_path / "out").identities == ["3", "7"]
    packed = [("big.json", json.dumps({"label": 1}).encode()), ("big.jpg", jpg(1))]
    assert TarSet(write(tmp_path / "d.tar", packed)).labels.dtype == np.int64


@pytest.mark.parametrize("size", ["9" * 5000, "9" * 19, "-1", "\u0663", "1e3"])
def test_sizes_in_extended_headers_are_plain_numbers(tmp_path, size):
    info = tarfile.TarInfo("1.jpg")
    info.pax_headers = {"size": size}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as out:
        out.addfile(info)
    with pytest.raises(DataError, match=r"a.tar, byte 0: the size '.* in an extended header is no number"):
        TarSet(tmp_path / "a.tar")
