import json
import os
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unpg.data.megaface import (
    is_noise,
    read_facescrub_noises,
    read_feature,
    read_feature_list,
    read_features,
    read_megaface_noises,
    write_feature,
    write_feature_list,
)
from unpg.errors import DataError, ShapeError, UnpgError

VECTOR = np.array([0.5, -1.25, 3.0], np.float32)
BYTES = struct.pack("<4i3f", 3, 1, 4, 5, 0.5, -1.25, 3.0)


def test_a_feature_file_has_the_devkit_s_bytes(tmp_path):
    write_feature(tmp_path / "a" / "1.jpg_x.bin", VECTOR)
    assert (tmp_path / "a" / "1.jpg_x.bin").read_bytes() == BYTES
    assert read_feature(tmp_path / "a" / "1.jpg_x.bin", 3).tolist() == VECTOR.tolist()
    assert os.listdir(tmp_path / "a") == ["1.jpg_x.bin"]
    for shape in ((0,), (2, 2), ()):
        with pytest.raises(ShapeError, match="holds"):
            write_feature(tmp_path / "b.bin", np.zeros(shape))


def with_field(place, value):
    return BYTES[: 4 * place] + struct.pack("<i", value) + BYTES[4 * place + 4 :]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "ends at byte 0, inside its header of 16 bytes"),
        (BYTES[:15], "ends at byte 15, inside its header"),
        (with_field(0, 0), "byte 0: the length is 0, expected 1 to 1,048,576"),
        (with_field(0, -1), "byte 0: the length is -1"),
        (with_field(0, 2**31 - 1), "byte 0: the length is 2147483647"),
        (with_field(1, 2), "byte 4: the columns is 2, expected 1"),
        (with_field(2, 8), "byte 8: the bytes of an element is 8, expected 4"),
        (with_field(3, 6), "byte 12: the type of an element is 6, expected 5"),
        (BYTES[:-1], "is cut off at byte 27: 3 numbers end at byte 28, but it has 27 bytes"),
        (BYTES[:16], "is cut off at byte 16"),
        (BYTES + b"\0", "goes on after byte 28"),
        (BYTES[:20] + struct.pack("<f", float("nan")) + BYTES[24:], "byte 20: number 1 is nan, not finite"),
    ],
)
def test_a_broken_feature_file_names_the_byte(tmp_path, data, match):
    (tmp_path / "f.bin").write_bytes(data)
    with pytest.raises(DataError, match=f"f.bin.*{match}"):
        read_feature(tmp_path / "f.bin")


def test_features_of_a_list(tmp_path):
    for name, k in (("b/2.png", 2), ("a/1.png", 1)):
        write_feature(tmp_path / f"{name}_r.bin", k * VECTOR)
    got = read_features(tmp_path, ["b/2.png", "a/1.png"], "_r.bin")
    assert (got.dtype, got.tolist()) == (np.float32, [(2 * VECTOR).tolist(), VECTOR.tolist()])
    write_feature(tmp_path / "a/1.png_r.bin", [1.0, 2.0])
    with pytest.raises(DataError, match=r"a/1.png_r.bin, byte 0: the length is 2, expected 3"):
        read_features(tmp_path, ["b/2.png", "a/1.png"], "_r.bin")
    with pytest.raises(DataError, match=r"c.png_r.bin cannot be read: No such file"):
        read_features(tmp_path, ["c.png"], "_r.bin")
    with pytest.raises(DataError, match="is empty"):
        read_features(tmp_path, [], "_r.bin")
    for path in ("../x.png", "/x.png"):
        with pytest.raises(DataError, match="leads out of"):
            read_features(tmp_path, [path], "_r.bin")


def test_lists_of_the_devkit(tmp_path):
    write_feature_list(tmp_path / "probes.json", ["A/A_1.png", "B/B_2.png"], ["A", "B"])
    assert json.loads((tmp_path / "probes.json").read_text()) == {"path": ["A/A_1.png", "B/B_2.png"], "id": ["A", "B"]}
    probes = read_feature_list(tmp_path / "probes.json")
    assert (probes.paths, probes.people) == (["A/A_1.png", "B/B_2.png"], ["A", "B"])
    write_feature_list(tmp_path / "megaface_features_list.json_10_1", ["107/1@N07/1_0.jpg"])
    distractors = read_feature_list(tmp_path / "megaface_features_list.json_10_1")
    assert (distractors.paths, distractors.people) == (["107/1@N07/1_0.jpg"], None)
    with pytest.raises(DataError, match="1 ids for 2 paths"):
        write_feature_list(tmp_path / "x", ["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"path": [\n"a",,]}', r"l.json, line 2, column 5: "),
        ("", r"l.json, line 1, column 1: "),
        ("[]", "got a list without path"),
        ('{"id": []}', "got a dict without path"),
        ('{"path": "a"}', "path must be a list, got a str"),
        ('{"path": ["a", 3]}', "path 1 must be a text, got 3"),
        ('{"path": ["a", ""]}', "path 1 must be a text"),
        ('{"path": []}', "lists no image"),
        ('{"path": ["a", "b"], "id": ["x"]}', "2 paths and 1 ids"),
        ('{"path": ["a", "b"], "id": ["x", null]}', "id 1 must be a text, got None"),
        ('{"path": ["a", "b", "a"]}', "path 2 is 'a', as path 0"),
        ("[" * 200_000, "cannot be read|line 1"),
    ],
)
def test_broken_lists_are_said(tmp_path, text, match):
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(DataError, match=match):
        read_feature_list(tmp_path / "l.json")


def test_lists_of_noise(tmp_path):
    (tmp_path / "fs.txt").write_text("# names\n\nAnn_Lee_12.png\nBob_3.jpg \n")
    assert read_facescrub_noises(tmp_path / "fs.txt") == ["Ann_Lee_12.png", "Bob_3.jpg"]
    (tmp_path / "mf.txt").write_text("#\n3\t107/1@N07/1_0.jpg\n108/2@N01/5_1.jpg\n")
    noises = read_megaface_noises(tmp_path / "mf.txt")
    assert noises == ["107/1@N07/1_0.jpg", "108/2@N01/5_1.jpg"]
    assert is_noise(["107/1@N07/1_0.jpg", "107/1@N07/1_1.jpg"], noises).tolist() == [True, False]
    assert is_noise(["Bob/Bob_3.jpg", "Bob/Bob_33.jpg"], read_facescrub_noises(tmp_path / "fs.txt")).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("read", "text", "match"),
    [
        (read_facescrub_noises, "a.png\nA/a.png\n", "n.txt, line 2: expected the file name"),
        (read_facescrub_noises, "# a\n", "lists no noise"),
        (read_megaface_noises, "1/2/3.jpg\n1/3.jpg\n", "n.txt, line 2: expected '<folder>/<folder>/<image>'"),
        (read_megaface_noises, "1\t2\t1/2/3.jpg\n", "n.txt, line 1"),
        (read_megaface_noises, "1//3.jpg\n", "n.txt, line 1"),
        (read_megaface_noises, "", "lists no noise"),
    ],
)
def test_broken_noise_lists_name_the_line(tmp_path, read, text, match):
    (tmp_path / "n.txt").write_text(text)
    with pytest.raises(DataError, match=match):
        read(tmp_path / "n.txt")


@settings(deadline=None)
@given(st.binary(max_size=40) | st.binary(max_size=24).map(lambda b: struct.pack("<4i", 3, 1, 4, 5) + b))
def test_any_bytes_are_a_feature_or_our_error(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "fuzz-megaface"
    file.write_bytes(data)
    for read in (read_feature, read_feature_list, read_facescrub_noises, read_megaface_noises):
        with suppress(UnpgError):
            read(file)
