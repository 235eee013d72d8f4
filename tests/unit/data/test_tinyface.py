import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unpg.data.mat5 import read_mat5
from unpg.data.tinyface import read_tinyface
from unpg.errors import DataError

scipy_io = pytest.importorskip("scipy.io")


def names(*texts):
    cell = np.empty((len(texts), 1), dtype=object)
    cell[:, 0] = texts
    return cell


def save(path, compressed=True, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy_io.savemat(path, variables, do_compression=compressed)
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_what_scipy_writes_is_read(tmp_path, compressed):
    numbers = {
        name: (np.arange(6).reshape(2, 3) * 40).astype(name)
        for name in ("uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64")
    }
    texts = names("a.jpg", "", "Zoë_1.jpg", "x" * 300)
    file = save(tmp_path / "a.mat", compressed, cell=texts, text="one", **numbers)
    found = read_mat5(file)
    assert found["cell"] == ["a.jpg", "", "Zoë_1.jpg", "x" * 300]
    assert found["text"] == ["one"]
    for name, value in numbers.items():
        assert found[name].dtype == value.dtype
        assert (found[name] == value).all()


def test_an_old_machine_s_byte_order(tmp_path):
    # As the format's document writes it: double, 1 x 2, name "x".
    body = struct.pack(">2I2I", 6, 8, 6, 0) + struct.pack(">2I2i", 5, 8, 1, 2)
    body += struct.pack(">HH4s", 1, 1, b"x\0\0\0") + struct.pack(">2I2d", 9, 16, 1.5, -2.0)
    (tmp_path / "b.mat").write_bytes(b" " * 124 + b"\x01\x00MI" + struct.pack(">2I", 14, len(body)) + body)
    assert scipy_io.loadmat(tmp_path / "b.mat")["x"].tolist() == [[1.5, -2.0]]
    assert read_mat5(tmp_path / "b.mat")["x"].tolist() == [[1.5, -2.0]]


def test_what_is_not_read_is_said(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"no")
    with pytest.raises(DataError, match=r"a.mat, byte 124: no MATLAB file of version 5"):
        read_mat5(tmp_path / "a.mat")
    with pytest.raises(DataError, match="gone.mat cannot be read"):
        read_mat5(tmp_path / "gone.mat")
    for value, fault in (({"a": 1}, "class 2"), (names(np.ones(2), "a"), "texts and numbers"), (1 + 2j, "complex")):
        save(tmp_path / "a.mat", x=value)
        with pytest.raises(DataError, match=f"variable at byte 128 .*{fault}"):
            read_mat5(tmp_path / "a.mat")
    bomb = zlib.compress(bytes(1 << 27))
    (tmp_path / "a.mat").write_bytes(b" " * 124 + b"\x00\x01IM" + struct.pack("<2I", 15, len(bomb)) + bomb)
    with pytest.raises(DataError, match="more than 67,108,864"):
        read_mat5(tmp_path / "a.mat")


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_cut_off_or_changed_anywhere_is_read_or_our_error(tmp_path, compressed):
    whole = save(tmp_path / "a.mat", compressed, cell=names("a.jpg", "bb.jpg"), n=np.arange(3.0)).read_bytes()
    first = 128 + 8 + struct.unpack_from("<I", whole, 132)[0]
    for length in range(len(whole)):
        (tmp_path / "b.mat").write_bytes(whole[:length])
        if length in (128, first):  # whole variables
            read_mat5(tmp_path / "b.mat")
            continue
        with pytest.raises(DataError, match="b.mat"):
            read_mat5(tmp_path / "b.mat")
    for at in range(124, len(whole)):
        (tmp_path / "b.mat").write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        with suppress(DataError):
            read_mat5(tmp_path / "b.mat")


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_our_error(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "fuzz.mat"
    file.write_bytes(b" " * 124 + b"\x00\x01IM" + data)
    with suppress(DataError):
        read_mat5(file)


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "tinyface" / "Testing_Set"
    save(
        inside / "gallery_match_img_ID_pairs.mat",
        gallery_set=names("g1.jpg", "g2.jpg", "g3.jpg"),
        gallery_ids=np.array([[7], [8], [8]], np.uint16),
    )
    save(inside / "probe_img_ID_pairs.mat", probe_set=names("p1.jpg"), probe_ids=np.array([[8.0]]))
    (inside / "Gallery_Distractor").mkdir()
    for name in ("d2.jpg", "d1.JPG", "note.txt"):
        (inside / "Gallery_Distractor" / name).touch()
    return inside


def test_the_protocol(folder):
    found = read_tinyface(folder.parent)
    assert found.gallery == [folder / "Gallery_Match" / f"g{i}.jpg" for i in (1, 2, 3)]
    assert found.gallery_ids.tolist() == [7, 8, 8]
    assert found.probes == [folder / "Probe" / "p1.jpg"]
    assert (found.probe_ids.tolist(), found.probe_ids.dtype) == ([8], np.int64)
    assert found.distractors == [folder / "Gallery_Distractor" / name for name in ("d1.JPG", "d2.jpg")]
    (folder / "Gallery_Distractor").rename(folder / "x")
    with pytest.raises(DataError, match="Gallery_Distractor cannot be listed"):
        read_tinyface(folder)
    (folder.parent / "aligned" / "Gallery_Distractor").mkdir(parents=True)
    moved = read_tinyface(folder, folder.parent / "aligned")
    assert (moved.probes, moved.distractors) == ([folder.parent / "aligned/Probe/p1.jpg"], [])


@pytest.mark.parametrize(
    ("variables", "match"),
    [
        ({"probe_set": names("p.jpg")}, "has no variable 'probe_ids'.*Known: probe_set"),
        ({"probe_set": names("p.jpg"), "probe_ids": [[9]]}, "probe p.jpg shows person 9, of whom the gallery has no"),
        ({"probe_set": names("p.jpg"), "probe_ids": [[8], [7]]}, "expected one name in probe_set per number"),
        ({"probe_set": np.ones(1), "probe_ids": [[8]]}, "got no names"),
        ({"probe_set": names("p.jpg"), "probe_ids": [[8.5]]}, "must be whole numbers"),
        ({"probe_set": names("../p.jpg"), "probe_ids": [[8]]}, "name 0 of probe_set is '../p.jpg'"),
    ],
)
def test_broken_lists_are_said(folder, variables, match):
    save(folder / "probe_img_ID_pairs.mat", **variables)
    with pytest.raises(DataError, match=match):
        read_tinyface(folder)
