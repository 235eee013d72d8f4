import io
import multiprocessing
import os
import pickle
import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unpg.cli.main import main
from unpg.data import FolderSet, ImageSet, SizeError
from unpg.data.content import content
from unpg.data.lmdb_set import LmdbSet, _open, _plain_pickle
from unpg.data.open_source import open_source
from unpg.data.source import SOURCES
from unpg.errors import ConfigError, DataError, UnpgError

lmdb = pytest.importorskip("lmdb")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(value, size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size[::-1], (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(path, records, subdir=True):
    with lmdb.open(str(path), map_size=1 << 24, subdir=subdir) as env, env.begin(write=True) as out:
        for key, value in records.items():
            out.put(key if isinstance(key, bytes) else str(key).encode(), value)
    return path


def pickled(n=12, protocol=4, image=lambda i: png(i)):
    """As folder2lmdb.py writes them."""
    records = {i: pickle.dumps((image(i), 5 + i % 3), protocol=protocol) for i in range(n)}
    keys = [str(i).encode() for i in range(n + 1)]  # one too many, as many copies of the script have it
    return {**records, "__keys__": pickle.dumps(keys), "__len__": pickle.dumps(len(keys))}


def datum(image, label):
    def varint(value):
        out = b""
        while value > 127:
            out += bytes([value & 127 | 128])
            value >>= 7
        return out + bytes([value])

    # channels, height and width, data, label, encoded: fields 1 to 5 and 7 of caffe.proto.
    head = b"\x08" + varint(3) + b"\x10" + varint(8) + b"\x18" + varint(8)
    return head + b"\x22" + varint(len(image)) + image + b"\x28" + varint(label) + b"\x38\x01"


def check(data):
    assert isinstance(data, ImageSet)
    assert data.identities == ["5", "6", "7"]
    assert data.labels.tolist() == [i % 3 for i in range(12)]
    assert [int(data.read(i)[0, 0, 0]) for i in range(12)] == list(range(12))
    assert content(data, 11) == png(11)
    assert pickle.loads(pickle.dumps(data)).digest() == data.digest()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("image", [png, lambda i: np.frombuffer(png(i), np.uint8)], ids=["bytes", "array"])
def test_pickles_in_the_order_of_their_numbers(tmp_path, protocol, image):
    data = LmdbSet(write(tmp_path / "db", pickled(12, protocol, image)))
    check(data)
    assert data.name(10) == f"{tmp_path / 'db'}#10"


def test_one_file_without_a_folder(tmp_path):
    check(LmdbSet(write(tmp_path / "a.lmdb", pickled(), subdir=False)))
    check(open_source(tmp_path / "a.lmdb"))


def test_keys_that_are_no_numbers_come_as_listed(tmp_path):
    names = [f"{p}/{i}.png".encode() for i in range(6) for p in "ba"]
    records = {key: pickle.dumps((png(i), 5 + i % 3)) for i, key in enumerate(names)}
    check(LmdbSet(write(tmp_path / "db", {**records, "__keys__": pickle.dumps(names)})))
    assert LmdbSet(write(tmp_path / "other", records)).name(0).endswith("#a/0.png")
    records["__keys__"] = pickle.dumps(names[:-1])
    with pytest.raises(DataError, match="__keys__ names 11 records, but there are 12"):
        LmdbSet(write(tmp_path / "few", records))


def test_datum_and_parts(tmp_path):
    check(LmdbSet(write(tmp_path / "datum", {f"{i:08d}_x": datum(png(i), 5 + i % 3) for i in range(12)})))
    parts = {"num-samples": b"12"}
    for i in range(12):
        parts[f"image-{i + 1:09d}"], parts[f"label-{i + 1:09d}"] = png(i), str(5 + i % 3).encode()
    check(LmdbSet(write(tmp_path / "parts", parts)))
    del parts["label-000000003"]
    with pytest.raises(DataError, match="#label-000000003 is not there"):
        LmdbSet(write(tmp_path / "gap", parts))


@pytest.mark.parametrize("source", ["__keys__", "__len__"])
def test_records_that_are_counted_but_not_there(tmp_path, source):
    whole = pickled()
    for other in {"__keys__", "__len__"} - {source}:
        del whole[other]
    check(LmdbSet(write(tmp_path / "db", whole)))
    # The last alone may be missing: the script counts one too many.
    for gone in ((5,), (0, 5), (10, 11)):
        records = {key: value for key, value in whole.items() if key not in gone}
        first = gone[0] if source == "__keys__" or 0 not in gone else 5  # a database may count from any number on
        match = rf"#{first} is not there, though {source} counts it: the database was not written to its end"
        with pytest.raises(DataError, match=match):
            LmdbSet(write(tmp_path / f"{gone}", records))
    for i, unknown in enumerate((b"\x93 of another library", pickle.dumps([[1], b"x"]), pickle.dumps("12"))):
        check(LmdbSet(write(tmp_path / f"unknown{i}", whole | {source: unknown})))


def test_samples_that_are_counted_but_not_there(tmp_path):
    parts = {"num-samples": b"9" * 18}
    for i in range(1, 4):
        parts[f"image-{i:09d}"], parts[f"label-{i:09d}"] = png(i), b"1"
    with pytest.raises(DataError, match=r"#image-000000004 is not there, though num-samples counts it"):
        LmdbSet(write(tmp_path / "parts", parts))
    assert len(LmdbSet(write(tmp_path / "sound", parts | {"num-samples": b"3"}))) == 3


def test_names_as_labels(tmp_path):
    data = LmdbSet(
        write(tmp_path / "db", {i: pickle.dumps((png(i), who)) for i, who in enumerate(["bob", "ann", b"bob"])})
    )
    assert (data.identities, data.labels.tolist()) == (["bob", "ann"], [0, 1, 0])


@pytest.mark.parametrize(
    "names",
    [["01", "1", "001"], [b"01", b"1", b"001"], [b"\xff", b"\xfe", b"1"], ["9" * 18 + str(i) for i in range(3)]],
)
def test_names_of_digits_or_of_no_text_stay_apart(tmp_path, names):
    data = LmdbSet(write(tmp_path / "db", {i: pickle.dumps((png(i), who)) for i, who in enumerate(names)}))
    assert data.identities == [os.fsdecode(who) for who in names]
    assert data.labels.tolist() == [0, 1, 2]
    parts = {f"label-{i + 1:09d}": os.fsencode(who) for i, who in enumerate(names)}
    parts |= {f"image-{i + 1:09d}": png(i) for i in range(3)}
    assert LmdbSet(write(tmp_path / "parts", parts)).identities == data.identities


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (pickle.dumps((Hostile(), 1)), r"db#0 asks for .*system while it is unpickled.* Nothing of it was run"),
        (pickle.dumps([b"x"]), "db#0: expected a pickle of .image, label., got a list"),
        (pickle.dumps({"image": b"x"}), "asks for a set or dictionary"),
        (pickle.dumps((3, 1)), "db#0 is a int; expected bytes"),
        (pickle.dumps((b"x", 1.5)), "db#0: expected a number or name as label, got 1.5"),
        (pickle.dumps((b"x", True)), "got True"),
        (pickle.dumps((b"x", 1))[:-3], "db#0 is no sound pickle"),
        (png(1), "db#0 holds an image without a label"),
        (b"\x93\x01\x02", r"db#0 holds bytes that begin with b'\\x93"),
        (datum(b"raw", 1), "a Datum without an encoded image"),
        (datum(png(1), 1)[:40], "db#0: byte .* of the Datum does not read"),
        (b"\x08" + b"\xff" * 20, "of the Datum does not read"),
        (pickle.dumps((b"x", 1)), "none of the 1 images can be read"),
    ],
)
def test_broken_records_name_the_key(tmp_path, monkeypatch, value, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=match):
        LmdbSet(write(tmp_path / "db", {0: value}))
    assert not (tmp_path / "hacked").exists()


def test_files_that_are_no_database(tmp_path):
    with pytest.raises(DataError, match="gone cannot be opened"):
        LmdbSet(tmp_path / "gone")
    (tmp_path / "a.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match=r"a.mdb cannot be opened as LMDB"):
        LmdbSet(tmp_path / "a.mdb")
    with pytest.raises(DataError, match="has no records"):
        LmdbSet(write(tmp_path / "empty", {}))
    file = write(tmp_path / "db", pickled()) / "data.mdb"
    whole = file.read_bytes()
    for length in (0, 100, 4096, len(whole) - 4096):
        (tmp_path / str(length)).mkdir()
        (tmp_path / str(length) / "data.mdb").write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"{tmp_path / str(length)}"):
            LmdbSet(tmp_path / str(length))


def test_another_size_is_refused(tmp_path):
    records = {i: pickle.dumps((png(i, (8 + i, 8)), i)) for i in range(2)}
    with pytest.raises(SizeError, match="db#1 is 9 x 8"):
        LmdbSet(write(tmp_path / "db", records)).read(1)


def test_without_lmdb_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ConfigError, match=r"pip install 'unpg\[interop\]'"):
        LmdbSet(tmp_path)


def _first_pixel(data, i, out):
    pixel = int(data.read(i)[0, 0, 0])
    # What a fork inherits is not to be used; the process must have opened the file itself.
    out.put((pixel, [process for process, *_ in _open.values()][-1] == os.getpid()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_worker_processes_read_too(tmp_path, method):
    data = LmdbSet(write(tmp_path / "db", pickled()))
    context = multiprocessing.get_context(method)
    out = context.Queue()
    worker = context.Process(target=_first_pixel, args=(data, 3, out))
    worker.start()
    assert out.get(timeout=60) == (3, True)
    worker.join()
    assert data.read(5)[0, 0, 0] == 5


def test_a_recipe_and_the_command_line(tmp_path, capsys):
    path = str(write(tmp_path / "db", pickled()))
    check(SOURCES.build("lmdb", {"path": path}))
    assert main(["data", "info", path]) == 0
    assert "12 images of 3 identities" in capsys.readouterr().out
    assert main(["data", "check", str(write(tmp_path / "sound", pickled(image=lambda i: png(i + 1))))]) == 0
    assert main(["data", "convert", path, "--out", str(tmp_path / "out"), "--to", "folder"]) == 0
    assert FolderSet(tmp_path / "out").identities == ["5", "6", "7"]
    assert main(["data", "convert", path, "--out", str(tmp_path / "rec")]) == 0
    assert len(open_source(tmp_path / "rec")) == 12


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=40), st.sampled_from([b"", b"\x80\x04", b"\x08\x03"]))
def test_any_record_is_read_or_our_error(tmp_path_factory, value, start):
    path = tmp_path_factory.mktemp("fuzz")
    with suppress(UnpgError):
        LmdbSet(write(path, {0: start + value}))


NUMBERS = st.integers(-300, 300) | st.integers(0, 70_000) | st.integers(-(2**40), 2**40)


@settings(deadline=None)
@given(st.binary(max_size=700), NUMBERS, st.none() | st.text(max_size=300), st.integers(2, 5), st.integers(0, 40))
def test_plain_pickles_are_read_as_the_parser_reads_them(image, label, name, protocol, cut):
    values = (image, label) if name is None else (image, label, name)
    whole = pickle.dumps(values, protocol)
    found = _plain_pickle(whole)
    assert found in (None, (image, label, name))
    if protocol == 4 and len(image) > 0 and abs(label) < 2**31 and len(str(name).encode("utf-8", "replace")) < 256:
        assert found == (image, label, name)
    assert _plain_pickle(whole[: len(whole) - 1 - cut]) is None
    assert _plain_pickle(whole + b"x") is None
