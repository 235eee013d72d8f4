import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest

from unpg.data import ArraySet
from unpg.data.content import content
from unpg.data.convert import convert
from unpg.data.index_cache import Index, cache_folder, index_key, load_index, save_index
from unpg.data.lmdb_set import LmdbSet
from unpg.data.tar_set import TarSet
from unpg.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


SETS = {"lmdb": ("lmdb", LmdbSet, "data.mdb"), "webdataset": ("tar", TarSet, "train-000001.tar")}


@pytest.fixture(params=list(SETS))
def made(request, tmp_path):
    """(kind of cache, set's class, folder, a file in it), of ten images of three people."""
    pytest.importorskip("lmdb")
    images = np.arange(10 * 8 * 8 * 3, dtype=np.uint8).reshape(10, 8, 8, 3)
    data = ArraySet(images, np.arange(10) % 3, ["ann", "bob", "c/d"])
    convert(data, tmp_path / "set", request.param, shard_images=4)
    kind, opened, file = SETS[request.param]
    return kind, opened, tmp_path / "set", tmp_path / "set" / file


def test_what_is_kept_comes_back_mapped(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array([1, 2], np.uint8), "none": np.zeros(0, np.int64)}
    index = Index(arrays, {"names": ["x", "\udcff"]})
    key = index_key([tmp_path / "gone"], "settings")
    assert load_index("kind", key, check=True) is None
    found = save_index("kind", key, index)
    assert found is not None
    for check in (True, False):
        loaded = load_index("kind", key, check=check)
        assert loaded.about == index.about
        assert {name: array.tolist() for name, array in loaded.arrays.items()} == {
            name: array.tolist() for name, array in arrays.items()
        }
    (tmp_path / "gone").write_text("here")
    assert index_key([tmp_path / "gone"], "settings") != key
    assert index_key([tmp_path / "gone"], "others") != index_key([tmp_path / "gone"], "settings")


def test_the_second_opening_reads_no_record(made, monkeypatch):
    kind, opened, folder, _ = made
    first = opened(folder)
    assert len(list(cache_folder(kind).iterdir())) == 1
    monkeypatch.setattr(opened, "_build", None)  # calling it would fail
    again = opened(folder)
    assert again.digest() == first.digest()
    assert again.identities == ["ann", "bob", "c/d"]
    assert [content(again, i) for i in range(10)] == [content(first, i) for i in range(10)]
    assert [again.name(i) for i in range(10)] == [first.name(i) for i in range(10)]


def test_a_broken_index_is_built_again(made):
    kind, opened, folder, _ = made
    digest = opened(folder).digest()
    for cached in list(cache_folder(kind).glob("*/*")):
        whole = cached.read_bytes()
        for broken in (b"", whole[: len(whole) // 2], whole[:-3] + b"XYZ", b"[]", b"{}", b"[{}, {}]"):
            cached.write_bytes(broken)
            assert opened(folder).digest() == digest
            assert cached.read_bytes() == whole


def test_a_file_that_changed_is_read_anew_and_refused_to_those_who_opened_it_before(made):
    kind, opened, folder, file = made
    first = opened(folder)
    sent = pickle.dumps(first)
    assert first.read(9).shape == (8, 8, 3)
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(DataError, match="has changed since it was opened. Start anew"):
        pickle.loads(sent)
    assert opened(folder).digest() == first.digest()
    assert len(list(cache_folder(kind).iterdir())) == 2


def _seen(sent):
    data = pickle.loads(sent)
    return data.labels.tolist(), data.read(3).tolist(), data.digest()


def test_workers_map_the_index(made):
    kind, opened, folder, _ = made
    data = opened(folder)
    sent = pickle.dumps(data)
    assert len(sent) < 2000
    assert b"numpy" not in sent
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_seen, (sent,))
    assert there == (data.labels.tolist(), data.read(3).tolist(), data.digest())
    shutil.rmtree(cache_folder(kind))
    assert _seen(sent) == there


def test_where_nothing_can_be_kept_all_is_sent(made, tmp_path):
    _, opened, folder, _ = made
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    (tmp_path / "cache").write_text("a file is no folder")
    data = opened(folder)
    assert _seen(pickle.dumps(data)) == _seen(pickle.dumps(opened(folder)))


def test_a_database_that_is_replaced_while_open_gives_no_other_images(tmp_path):
    pytest.importorskip("lmdb")
    for value, name in ((1, "a"), (2, "b")):
        convert(
            ArraySet(np.full((3, 8, 8, 3), value, np.uint8), np.arange(3), ["x", "y", "z"]), tmp_path / name, "lmdb"
        )
    first = LmdbSet(tmp_path / "a")
    os.replace(tmp_path / "b" / "data.mdb", tmp_path / "a" / "data.mdb")
    second = LmdbSet(tmp_path / "a")
    assert second.read(0)[0, 0, 0] == 2
    with pytest.raises(DataError, match="has changed since it was opened"):
        first.read(0)
    assert second.read(1)[0, 0, 0] == 2


def test_more_shards_than_may_be_open(tmp_path, monkeypatch):
    images = np.arange(30 * 8 * 8 * 3, dtype=np.uint8).reshape(30, 8, 8, 3)
    convert(ArraySet(images, np.arange(30) % 3, ["a", "b", "c"]), tmp_path / "set", "webdataset", shard_images=1)
    monkeypatch.setattr("unpg.data.tar_set._MAPS", 4)
    data = TarSet(tmp_path / "set")
    assert all(np.array_equal(data.read(i), images[i]) for i in [*range(30), 0, 1, 29, 3])
    assert len(data._maps) == 4


def test_an_index_that_another_process_saved_meanwhile_stays(monkeypatch):
    index = Index({"a": np.arange(6)}, {"names": ["x"]})
    write, theirs = np.save, []

    def slow(*given, **options):
        if not theirs:
            theirs.append(None)
            theirs.append(save_index("kind", "key", index))
            theirs.append((cache_folder("kind") / "key").stat().st_ino)
        write(*given, **options)

    monkeypatch.setattr(np, "save", slow)
    found = save_index("kind", "key", index)
    assert found.arrays["a"].tolist() == list(range(6))
    assert (cache_folder("kind") / "key").stat().st_ino == theirs[2]
    assert [path.name for path in cache_folder("kind").iterdir()] == ["key"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("meta.json", b"[" * 100_000),
        ("meta.json", b"[" + b"9" * 5000 + b", 1]"),
        # An array's head that Python's own parser stumbles over.
        ("a.npy", b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<i8', 'fortran_order': False, 'shape': (1L".ljust(118)),
        ("a.npy", b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<i8', 'shape': (99999999999999999999,), ".ljust(118)),
    ],
)
def test_whatever_is_wrong_with_an_index_it_is_none(file, content):
    save_index("kind", "key", Index({"a": np.arange(3)}, {}))
    assert load_index("kind", "key", check=True) is not None
    (cache_folder("kind") / "key" / file).write_bytes(content)
    assert load_index("kind", "key", check=True) is None
    assert load_index("kind", "key", check=False) is None
