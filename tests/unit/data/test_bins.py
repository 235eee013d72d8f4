import io
import os
import pickle
import pickletools
import resource

import numpy as np
import pytest
from PIL import Image

from unpg.data import ImageSet, SizeError
from unpg.data.bins import BinPairs, read_bin, write_bin
from unpg.errors import DataError


def png(value, size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size[::-1], (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


IMAGES = [png(i) for i in (1, 2, 1, 3)]
SAME = [True, False]


def dump(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def test_what_is_written_is_read(tmp_path):
    write_bin(tmp_path / "a.bin", IMAGES, SAME)
    images, same = read_bin(tmp_path / "a.bin")
    assert images == IMAGES
    assert same.tolist() == SAME
    assert pickle.loads((tmp_path / "a.bin").read_bytes()) == (IMAGES, SAME)  # by anybody
    assert os.listdir(tmp_path) == ["a.bin"]
    with pytest.raises(DataError, match="4 images for 1 answers"):
        write_bin(tmp_path / "a.bin", IMAGES, [True])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("shape", [None, (-1,), (-1, 1)])
@pytest.mark.parametrize("answers", [list, tuple, np.array, lambda s: list(np.array(s)), lambda s: [int(x) for x in s]])
def test_every_protocol_with_bytes_and_arrays(tmp_path, protocol, shape, answers):
    images = IMAGES if shape is None else [np.frombuffer(i, np.uint8).reshape(shape) for i in IMAGES]
    found, same = read_bin(dump(tmp_path / "a.bin", (images, answers(SAME)), protocol))
    assert found == IMAGES
    assert same.tolist() == SAME


def test_texts_of_python_2_are_bytes(tmp_path):
    # As Python 2 writes a str: the opcode BINSTRING, here for both images.
    strings = b"".join(b"T" + len(i).to_bytes(4, "little") + i for i in IMAGES[:2])
    (tmp_path / "a.bin").write_bytes(b"\x80\x02](" + strings + b"e]\x88a\x86.")
    assert read_bin(tmp_path / "a.bin")[0] == IMAGES[:2]


class Hostile:
    def __init__(self, call, *arguments):
        self.reduced = call, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "made",
    [
        Hostile(os.system, "touch hacked"),
        Hostile(eval, "open('hacked', 'w')"),
        Hostile(getattr, "x", "y"),
        Hostile(bytes, 10**12),
        Hostile(np.array, [1]),
        np.array([object()], dtype=object)[:0],
        np.zeros(1, dtype=[("a", "u1")]),
        np.ma.masked_array([1]),
        Hostile,
    ],
    ids=lambda made: type(made).__name__,
)
def test_a_hostile_pickle_is_refused_and_nothing_is_run(tmp_path, monkeypatch, protocol, made):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"a.bin asks for .*Nothing of it was run"):
        read_bin(dump(tmp_path / "a.bin", ([made, b""], [True]), protocol))
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cnumpy\ndtype\n(dN}S'_call'\nK\x01s\x86b.",  # a change of a function by its slots
        b"cnumpy\ndtype\n}b.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR.",
        b"cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.",
    ],
)
def test_hostile_opcodes_are_refused_and_change_nothing(tmp_path, code):
    (tmp_path / "a.bin").write_bytes(b"\x80\x02" + code)
    with pytest.raises(DataError, match=r"a.bin"):
        read_bin(tmp_path / "a.bin")
    arrays = [np.frombuffer(i, np.uint8) for i in IMAGES]
    assert read_bin(dump(tmp_path / "b.bin", (arrays, SAME)))[0] == IMAGES


def test_a_file_cut_off_or_changed_anywhere_is_an_error(tmp_path):
    arrays = [np.frombuffer(b"0123456789", np.uint8)] * 2
    whole = pickle.dumps((arrays, [True]), protocol=2)
    path = tmp_path / "a.bin"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a.bin"):
            read_bin(path)
    payload = whole.index(b"0123456789")
    for at in [*range(payload), *range(payload + 10, len(whole))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        try:
            images, same = read_bin(path)
        except DataError:
            continue
        assert len(images) == 2 * len(same)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2, 3], r"expected a pair \(images, answers\), got a list of 3"),
        ((1, [True]), "expected a list of images and one of answers, got a int"),
        (([], []), "has 0 images and 0 answers"),
        (([b"", b""], [True, True]), "has 2 images and 2 answers"),
        (([b"", "text"], [True]), "image 1 is a str of 4"),
        (([b"", np.zeros((2, 2, 3), np.uint8)], [True]), r"image 1 is an array of shape \(2, 2, 3\)"),
        (([b"", np.zeros(3)], [True]), "type float64"),
        (([b"", b""], ["yes"]), "answer 0 is 'yes'"),
        (([b"", b""], [2]), "answer 0 is 2"),
    ],
)
def test_what_is_no_verification_set_is_said(tmp_path, value, message):
    with pytest.raises(DataError, match=message):
        read_bin(dump(tmp_path / "a.bin", value))
    with pytest.raises(DataError, match="cannot be read"):
        read_bin(tmp_path / "gone.bin")


def test_pairs_point_into_distinct_images(tmp_path):
    write_bin(tmp_path / "a.bin", IMAGES, SAME)
    found = BinPairs(tmp_path / "a.bin")
    assert isinstance(found.images, ImageSet)
    assert found.pairs.tolist() == [[0, 1], [0, 2]]
    assert len(found.images) == 3
    assert found.images.read(2)[0, 0].tolist() == [3, 0, 0]
    assert found.folds.tolist() == [0, 0]
    assert pickle.loads(pickle.dumps(found.images)).digest() == found.images.digest()
    write_bin(tmp_path / "b.bin", [*IMAGES[:3], png(4)], SAME)
    assert BinPairs(tmp_path / "b.bin").images.digest() != found.images.digest()
    write_bin(tmp_path / "c.bin", [png(1), png(2, (9, 8))], [True])
    with pytest.raises(SizeError, match=r"c.bin#1 is 9 x 8"):
        BinPairs(tmp_path / "c.bin").images.read(1)


def test_folds_are_ten_runs_of_neighbors(tmp_path):
    write_bin(tmp_path / "a.bin", [png(i) for i in range(46)], [True] * 23)
    assert np.bincount(BinPairs(tmp_path / "a.bin").folds).tolist() == [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]
    assert (np.diff(BinPairs(tmp_path / "a.bin").folds) >= 0).all()


@pytest.mark.data
def test_the_real_sample(faces):
    path = faces / "fixtures" / "small_lfw_bin" / "small_lfw.bin"
    assert any(op.name == "GLOBAL" for op, _, _ in pickletools.genops(path.read_bytes()))
    found = BinPairs(path)
    assert found.same.tolist() == [True] * 10
    assert found.images.image_size == (112, 112)
    for i in range(len(found.images)):
        assert found.images.content(i)[:2] == b"\xff\xd8"
        assert found.images.read(i).std() > 10


def test_a_small_pickle_cannot_take_the_memory(tmp_path):
    """Numbers in a pickle announce sizes; what is not there must not be made room for."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bomb in (
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a place in the memo: 2**31
        b"\x80\x04\x8e" + (1 << 35).to_bytes(8, "little") + b"x.",  # bytes of 32 GiB
        b"\x80\x05\x96" + (1 << 35).to_bytes(8, "little") + b"x.",  # a bytearray
        b"\x80\x04\x95" + (1 << 35).to_bytes(8, "little") + b"N.",  # a frame
        b"\x80\x02\x8b\xff\xff\xff\x7f1.",  # a number of 2 GiB
    ):
        (tmp_path / "a.bin").write_bytes(bomb)
        with pytest.raises(DataError, match=r"a.bin"):
            read_bin(tmp_path / "a.bin")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


def doubled(levels):
    """A tuple that holds twice the one below: 2**levels leaves in a few bytes a level."""
    return b")\x94" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(levels))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        # The table of an unpickler grows to the place that is named: 2**31 entries for five bytes.
        (b"\x80\x04Nr\xff\xff\xff\x7f.", "byte 3: place 2147483647 in a table of 2 values at most"),
        (b"\x80\x02Np2147483647\n.", "byte 3: place 2147483647"),
        (b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f" + b"N.", "a frame of 9223372036854775807 bytes"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f" + b"abc.", "no sound pickle"),
        (b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f" + b"abc.", "no sound pickle"),
        # To hash such a tuple takes 2**50 steps.
        (b"\x80\x04" + doubled(50) + b"}h\x32Ns.", "a set or dictionary"),
        (b"\x80\x04\x8f(" + doubled(50) + b"\x90.", "a set or dictionary"),
        (b"\x80\x04(" + doubled(50) + b"\x91.", "a set or dictionary"),
        # And to write it out for a message as much memory.
        (b"\x80\x04" + doubled(50) + b"h\x00h\x00\x86h\x00\x86.", r"b\.bin"),
        (b"\x80\x04" + doubled(50) + b"cnumpy\ndtype\nh\x32\x85R.", "an array of type"),
        (b"\x80\x04I" + b"9" * 5000 + b"\n.", "no sound pickle"),
    ],
)
def test_a_small_pickle_that_asks_for_much_is_refused_at_once(tmp_path, data, said):
    (tmp_path / "b.bin").write_bytes(data)
    with pytest.raises(DataError, match=said) as caught:
        read_bin(tmp_path / "b.bin")
    assert len(str(caught.value)) < 1000


def test_an_answer_that_is_a_bomb_is_shown_in_short(tmp_path):
    image = b"C\x01x"
    (tmp_path / "b.bin").write_bytes(b"\x80\x04" + doubled(50) + b"](" + image + image + b"e](h\x32e\x86.")
    with pytest.raises(DataError, match="answer 0 is .*expected True or False") as caught:
        read_bin(tmp_path / "b.bin")
    assert len(str(caught.value)) < 1000
