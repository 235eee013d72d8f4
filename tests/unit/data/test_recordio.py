import io
import multiprocessing
import pickle
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpg.data import ImageSet, Loader, SequentialSampler, SizeError
from unpg.data.index_cache import cache_folder
from unpg.data.record_set import RecordSet, _from_list, _without_gaps
from unpg.data.recordio import RecordFile, RecordWriter, pack, read_index, unpack
from unpg.errors import DataError

GOLDEN = Path(__file__).parents[2] / "fixtures" / "recordio"
MAGIC = struct.pack("<I", 0xCED7230A)
PARTS = (MAGIC, b"abcd" + MAGIC + b"efg", MAGIC + MAGIC + b"x", b"ab" + MAGIC + b"cd", b"1234" + MAGIC, b"")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def jpeg(value, size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size[::-1], (value, value, value)).save(file, "JPEG")
    return file.getvalue()


def write(path, labels, contents=None):
    with RecordWriter(path) as out:
        for key, label in enumerate(labels):
            out.write(key, pack(label, jpeg(key) if contents is None else contents[key], id=key))
    return path


@pytest.fixture
def golden(tmp_path):
    for file in GOLDEN.glob("*.[ri]*"):
        shutil.copy(file, tmp_path)
    return tmp_path


def test_the_file_of_mxnet_in_the_layout_of_insightface_is_read(golden):
    data = RecordSet(golden / "insightface.rec")
    assert isinstance(data, ImageSet)
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.identities == ["0", "1"]
    assert data.image_size == (8, 8)
    assert data.record(4).labels == (1.0, 0.5)
    assert [data.record(i).id for i in range(5)] == [1, 2, 3, 4, 5]
    # The colors that make.py paints, less what JPEG takes.
    for i in range(5):
        key = i + 1
        color = np.array([40 * key % 256, (90 + 25 * key) % 256, (200 - 30 * key) % 256])
        assert np.abs(data.read(i).astype(int) - color).max() <= 3


def test_the_multi_part_records_of_mxnet_are_joined(golden):
    file = RecordFile(golden / "plain.rec")
    keys, offsets = read_index(golden / "plain.idx")
    where = dict(zip(keys.tolist(), offsets.tolist(), strict=True))
    assert [file.record(where[key]).content for key in range(20, 26)] == list(PARTS)
    data = RecordSet(golden / "plain.rec")
    assert [data.record(i).id for i in range(len(data))] == [4, 7, 10, 20, 21, 22, 23, 24, 25]
    assert data.identities == ["3", "5", "9"]
    assert data.labels.tolist() == [2, 0, 0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("name", ["insightface", "plain"])
def test_the_writer_gives_the_bytes_of_mxnet(golden, tmp_path, name):
    file = RecordFile(golden / f"{name}.rec")
    entries = [line.split("\t") for line in (golden / f"{name}.idx").read_text().splitlines()]
    with RecordWriter(tmp_path / "ours.rec") as out:
        for key, offset in entries:
            record = unpack(file.payload(int(offset)), "")
            labels = record.labels if record.flag else record.labels[0]
            assert out.write(int(key), pack(labels, record.content, id=record.id, id2=record.id2)) == int(offset)
    for suffix in (".rec", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (golden / f"{name}{suffix}").read_bytes()


@pytest.mark.parametrize("name", ["insightface", "plain"])
def test_a_missing_index_is_rebuilt(golden, name):
    with_index = RecordSet(golden / f"{name}.rec")
    (golden / f"{name}.idx").unlink()
    scanned = RecordSet(golden / f"{name}.rec")
    assert (with_index.index, scanned.index) == ("idx", "scan")
    assert scanned.digest() == with_index.digest()


def test_an_unsorted_index_is_sorted(golden):
    digest = RecordSet(golden / "insightface.rec").digest()
    index = golden / "insightface.idx"
    index.write_text("\n".join(reversed(index.read_text().splitlines())))
    assert RecordSet(golden / "insightface.rec").digest() == digest


@pytest.mark.parametrize("name", ["insightface", "plain"])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_file_cut_off_anywhere_is_an_error_that_names_the_byte(golden, name, indexed):
    path = golden / f"{name}.rec"
    whole = path.read_bytes()
    ends = {int(line.split("\t")[1]) for line in (golden / f"{name}.idx").read_text().splitlines()}
    if not indexed:
        (golden / f"{name}.idx").unlink()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if not indexed and length in ends and length:
            # A cut between records leaves no trace but what record 0 says of the images.
            if name == "insightface" and length < 3388:
                with pytest.raises(DataError, match="byte|no record|no image"):
                    RecordSet(path)
            continue
        with pytest.raises(DataError, match=r"\.rec(, byte \d+| is empty|.* has \d+ bytes|: after byte)"):
            RecordSet(path)


def test_a_changed_byte_is_an_error_or_another_image_but_never_a_crash_or_a_lost_record(golden):
    path = golden / "insightface.rec"
    whole = path.read_bytes()
    refused = []
    for at in [*range(48), *range(708, 744), *range(3380, len(whole))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xA5]) + whole[at + 1 :])
        try:
            assert len(RecordSet(path)) == 5
        except DataError as error:
            refused.append(str(error))
    assert all("insightface" in message for message in refused)
    assert len(refused) >= 24  # magic words, lengths, record 0's flag and ranges, labels


def test_an_index_of_another_file_is_refused(golden):
    index = golden / "plain.idx"
    sound = index.read_text().splitlines()
    for lines, message in (
        (sound[:-1], "names no record from here on"),
        (sound[1:], "so it names another one"),
        (sound[:3] + sound[4:], "after byte 2004"),
        ([*sound, "99\t9999"], "no record begins at byte 9999"),
        ([*sound, "99\t4"], "byte 4: no record begins here"),
        ([*sound, "10\t0"], "the key 10 is given twice"),
        ([*sound, "99\t0"], "so it names another one"),
        (["1 2", *sound], "line 1: expected '<key> <tab> <byte offset>', got b'1 2'"),
        ([sound[0], "x\t1"], "line 2"),
        ([*sound[:2], "1\t2\t3", "4"], "line 3"),
        ([], "names no record"),
    ):
        index.write_text("\n".join(lines))
        with pytest.raises(DataError, match=message):
            RecordSet(golden / "plain.rec")


def test_a_set_goes_to_a_worker_process_with_its_arrays_in_the_cache(golden):
    data = RecordSet(golden / "insightface.rec")
    sent = pickle.dumps(data)
    assert b"_rows" not in sent
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_seen_there, (sent,))
    assert there == ([0, 0, 0, 1, 1], data.read(3).tolist(), data.digest())
    shutil.rmtree(cache_folder())
    assert pickle.loads(sent).digest() == data.digest()
    (golden / "insightface.idx").unlink()
    with pytest.raises(DataError, match="has changed since it was opened"):
        pickle.loads(sent)


def _seen_there(sent):
    data = pickle.loads(sent)
    return data.labels.tolist(), data.read(3).tolist(), data.digest()


def test_the_loader_gives_the_same_batches_with_and_without_workers(golden):
    data = RecordSet(golden / "insightface.rec")
    seen = []
    for workers in (0, 2):
        with Loader(data, SequentialSampler(5, 2), workers=workers) as loader:
            seen.append([(b.images.tolist(), b.labels.tolist()) for b in loader.epoch(0)])
    assert seen[0] == seen[1]
    assert [label for _, labels in seen[0] for label in labels] == [0, 0, 0, 1, 1]


def test_where_nothing_can_be_cached_the_arrays_are_sent(golden, tmp_path):
    (tmp_path / "cache").write_text("a file is no folder")
    data = RecordSet(golden / "insightface.rec")
    there = pickle.loads(pickle.dumps(data))
    assert there.digest() == data.digest()
    assert np.array_equal(there.read(2), data.read(2))


@pytest.mark.parametrize("file", ["rows.npy", "meta.json"])
def test_a_broken_cache_is_rebuilt(golden, file):
    digest = RecordSet(golden / "plain.rec").digest()
    (cached,) = cache_folder().glob(f"*/{file}")
    whole = cached.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], whole[:-9] + b"X" * 9, b"{}"):
        cached.write_bytes(broken)
        assert RecordSet(golden / "plain.rec").digest() == digest
        assert cached.read_bytes() == whole
    assert len(list(cache_folder().iterdir())) == 1


def test_the_cache_is_used_and_knows_a_changed_file(golden, monkeypatch):
    path = golden / "plain.rec"
    first = RecordSet(path)
    with monkeypatch.context() as patched:
        patched.setattr("unpg.data.record_set._build", None)  # calling it would fail
        assert RecordSet(path).digest() == first.digest()
    write(path, [7, 8])
    assert RecordSet(path).identities == ["7", "8"]


def test_labels_are_numbered_without_gaps_and_must_be_whole(tmp_path):
    path = write(tmp_path / "a.rec", [70, 3, [70.0, 0.1]])
    assert RecordSet(path).identities == ["3", "70"]
    assert RecordSet(path).labels.tolist() == [1, 0, 1]
    for label in (0.5, -1.0, float("nan"), float("inf"), 1e30, 2.0**63):
        write(path, [1, label])
        with pytest.raises(DataError, match=r"a.rec, byte \d+: record 1 has the label"):
            RecordSet(path)


def test_images_after_the_records_of_identities_are_not_lost_in_silence(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as out:
        out.write(0, pack([3, 4], b""))
        for key in (1, 2):
            out.write(key, pack(0, jpeg(key), id=key))
        out.write(3, pack([1, 3], b"", id=3))
    assert len(RecordSet(tmp_path / "a.rec")) == 2
    with RecordWriter(tmp_path / "b.rec") as out:
        out.write(0, pack([3, 4], b""))
        for key in (1, 2):
            out.write(key, pack(0, jpeg(key), id=key))
        out.write(3, pack([1, 3], b"", id=3))
        out.write(4, pack(2, jpeg(4), id=4))
    for _ in range(2):
        with pytest.raises(DataError, match=r"b.rec, byte \d+: record 4 is an image, though .* before record 3"):
            RecordSet(tmp_path / "b.rec")
        (tmp_path / "b.idx").unlink(missing_ok=True)  # then by a scan


def test_a_list_names_images_and_identities(tmp_path):
    path = write(tmp_path / "a.rec", [0, 1, 1])
    (tmp_path / "a.lst").write_text("2\t1.0\tmen/bob/2.jpg\n0\t0\twomen/ann/1.jpg\n1\t1\tmen/bob/1.jpg\n")
    data = RecordSet(path)
    assert data.identities == ["ann", "bob"]
    assert [data.name(i) for i in range(3)] == ["women/ann/1.jpg", "men/bob/1.jpg", "men/bob/2.jpg"]
    (tmp_path / "a.lst").write_text("0\t1\tx/1.jpg\n")
    with pytest.raises(DataError, match=r"a.lst, line 1: label 1, but record 0 of .*a.rec has 0"):
        RecordSet(path)
    (tmp_path / "a.lst").write_text("0\t0\tx/1.jpg\n\nnonsense\n")
    with pytest.raises(DataError, match=r"a.lst, line 3: expected .* got b'nonsense"):
        RecordSet(path)


def test_a_list_may_have_more_records_and_takes_little_memory(tmp_path):
    n = 20_000
    lines = [f"{key}\t{(key - 1) // 20}\tperson{(key - 1) // 20}/{key}.jpg\n" for key in range(n, 0, -1)]
    more = [f"{key}\t7\tx/{key}.jpg\n" for key in (0, n + 1, -1, 2**63, 10**30)]
    (tmp_path / "a.lst").write_text("".join(more + lines))
    keys = np.arange(1, n + 1)
    labels = (keys - 1) // 20
    names = [str(label) for label in range(n // 20)]
    tracemalloc.start()
    places, identities = _from_list(tmp_path / "a.rec", keys, labels.astype(np.float32), labels, names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert identities == [f"person{label}" for label in range(n // 20)]
    whole = (tmp_path / "a.lst").read_bytes()
    assert all(whole[places[i] :].startswith(lines[n - 1 - i].encode()) for i in (0, 1, 777, n - 1))
    assert peak < 60 * n


def test_the_list_of_insightface_counts_from_one(golden):
    rows = [f"1\tp{label}/{i}.jpg\t{label}" for i, label in enumerate([0, 0, 0, 1, 1])]
    (golden / "insightface.lst").write_text("\n".join(rows))
    data = RecordSet(golden / "insightface.rec")
    assert data.identities == ["p0", "p1"]
    assert data.name(3) == "p1/3.jpg"


def test_faults_of_single_images_are_found_when_they_are_read(tmp_path):
    path = write(tmp_path / "a.rec", [0, 0, 1, 1], [jpeg(1), b"", b"no image", jpeg(2, (9, 8))])
    data = RecordSet(path)
    with pytest.raises(DataError, match=r"a.rec, record 1 at byte \d+ is empty"):
        data.read(1)
    with pytest.raises(DataError, match=r"record 2 at byte \d+ is not an image"):
        data.read(2)
    with pytest.raises(SizeError, match=r"record 3 at byte \d+ is 9 x 8 pixels"):
        data.read(3)
    write(path, [0], [b"x"])
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        RecordSet(path)


def test_a_folder_stands_for_its_only_file(golden, tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=r"set has 0 .rec files"):
        RecordSet(tmp_path / "set")
    write(tmp_path / "set" / "a.rec", [0, 1])
    assert len(RecordSet(tmp_path / "set")) == 2
    write(tmp_path / "set" / "train.rec", [0, 1, 2])
    assert len(RecordSet(tmp_path / "set")) == 3
    with pytest.raises(DataError, match=r"gone.rec cannot be read"):
        RecordSet(tmp_path / "gone.rec")


def test_the_writer_leaves_no_half_file(tmp_path):
    path = write(tmp_path / "a.rec", [0, 1])
    before = path.read_bytes()
    with pytest.raises(DataError, match="key 0 is given twice"):
        write_twice(path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.glob("a.*")) == ["a.idx", "a.rec"]
    with pytest.raises(DataError, match=r"ends in .rec"):
        RecordWriter(tmp_path / "a.bin")


@pytest.mark.parametrize("seed", range(5))
def test_any_bytes_come_back(tmp_path, seed):
    rng = np.random.default_rng(seed)
    pieces = [MAGIC, MAGIC[:2], b"\0", b"abcd", b"xyz"]
    contents = [b"".join(pieces[i] for i in rng.integers(0, 5, rng.integers(0, 12))) for _ in range(40)]
    with RecordWriter(tmp_path / "a.rec") as out:
        at = [out.write(key, content) for key, content in enumerate(contents)]
    file = RecordFile(tmp_path / "a.rec")
    assert file.scan().tolist() == at
    assert [file.payload(offset) for offset in at] == contents
    file.require_chain(np.array(at[::-1]), "index")


def write_twice(path):
    with RecordWriter(path) as out:
        out.write(0, b"x")
        out.write(0, b"y")


def test_a_record_shorter_than_its_header_says(tmp_path):
    with pytest.raises(DataError, match="has 5 bytes, fewer than the 24"):
        unpack(b"12345", "it")
    with pytest.raises(DataError, match="announces 9 labels, 60 bytes"):
        unpack(struct.pack("<IfQQ", 9, 0, 0, 0), "it")
    with pytest.raises(DataError, match="label array is empty"):
        pack([], b"")
    with RecordWriter(tmp_path / "a.rec") as out:
        out.write(0, b"")
    with pytest.raises(DataError, match=r"a.rec, byte 0: the record has 0 bytes"):
        RecordSet(tmp_path / "a.rec")


@pytest.mark.data
def test_the_real_sample_is_what_its_list_says(faces, tmp_path):
    folder = faces / "fixtures" / "tiny_recordio"
    data = RecordSet(folder)
    assert data.identities == ["man", "woman"]
    assert np.bincount(data.labels).tolist() == [4, 4]
    for i in range(8):
        assert data.content(i)[:3] == b"\xff\xd8\xff"
        assert data.identities[data.labels[i]] in data.name(i)
        assert data.read(i).shape == (112, 112, 3)
    shutil.copy(folder / "train.rec", tmp_path)
    scanned = RecordSet(tmp_path)
    assert scanned.labels.tolist() == data.labels.tolist()
    assert [scanned.content(i) for i in range(8)] == [data.content(i) for i in range(8)]


@pytest.mark.parametrize("block", [1, 7, 40, 1 << 25])
def test_an_index_is_read_in_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr("unpg.data.recordio._INDEX_BLOCK", block)
    lines = [f"{key}\t{key * key}" for key in range(200)]
    for text in ("\n".join(lines), "\n".join(lines) + "\n", "\r\n".join(lines) + "\r\n", "\n\n".join(lines)):
        (tmp_path / "a.idx").write_bytes(text.encode())
        if "\n\n" in text:
            with pytest.raises(DataError, match=r"a.idx, line 2: expected .* got b''"):
                read_index(tmp_path / "a.idx")
            continue
        keys, offsets = read_index(tmp_path / "a.idx")
        assert keys.tolist() == list(range(200))
        assert offsets.tolist() == [key * key for key in range(200)]
    (tmp_path / "a.idx").write_text("\n".join([*lines[:150], "x\t1", *lines[150:]]))
    with pytest.raises(DataError, match=r"a.idx, line 151: .* got b'x"):
        read_index(tmp_path / "a.idx")
    (tmp_path / "a.idx").write_bytes(b"")
    assert [len(part) for part in read_index(tmp_path / "a.idx")] == [0, 0]


@pytest.mark.parametrize("most", [3, 40, 10**9])
def test_labels_without_gaps_are_what_sorting_gives(most):
    raw = np.random.default_rng(most).integers(0, most, 50)
    numbers, labels = np.unique(raw, return_inverse=True)
    ours = _without_gaps(raw)
    assert ours[0].tolist() == numbers.tolist()
    assert ours[1].tolist() == labels.tolist()
    assert (ours[0].dtype, ours[1].dtype) == (np.int64, np.int64)


def test_a_first_record_that_says_no_number(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as out:
        out.write(0, pack([float("nan"), 3.0], b""))
        out.write(1, pack([0.0], jpeg(1)))
    with pytest.raises(DataError, match=r"a\.rec, byte 0: record 0 says that nan"):
        RecordSet(tmp_path / "a.rec")
