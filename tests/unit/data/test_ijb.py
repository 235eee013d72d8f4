import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unpg.data.ijb import (
    read_face_points,
    read_ijb,
    read_image_list,
    read_template_images,
    read_template_pairs,
    read_template_subjects,
)
from unpg.data.text_table import text_blocks, whole_numbers
from unpg.errors import DataError, UnpgError

FACES = "1.jpg 11 7\n2.jpg 3 7\n3.jpg 11 7\n4.jpg 11 9\n5.jpg 20 9\n"
IDS = np.array([3, 11, 20])


@pytest.fixture
def folder(tmp_path):
    """A made IJB-C of five images, three templates."""
    meta = tmp_path / "IJBC" / "meta"
    meta.mkdir(parents=True)
    (meta / "ijbc_face_tid_mid.txt").write_text(FACES)
    (meta / "ijbc_template_pair_label.txt").write_text("3 11 1\n20 3 0\n")
    points = "".join(f"{i}.jpg {' '.join(str(10 * i + j + 0.5) for j in range(10))} 0.{i}\n" for i in range(1, 6))
    (meta / "ijbc_name_5pts_score.txt").write_text(points)
    (meta / "img.list").write_text("".join(f"data/IJB/loose_crop/{i}.jpg 0\n" for i in range(1, 6)))
    (meta / "ijbc_1N_gallery_G1.csv").write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME\n3,700,a.jpg\n3,700,b.jpg\n")
    (meta / "ijbc_1N_gallery_G2.csv").write_text("TEMPLATE_ID,SUBJECT_ID\n20,701\n")
    (meta / "ijbc_1N_probe_mixed.csv").write_text("TEMPLATE_ID,SUBJECT_ID\n11,700\n20,701\n")
    return meta


def test_all_lists_of_a_set(folder):
    meta = read_ijb(folder.parent, "ijbc")
    assert meta.faces.images == [f"{i}.jpg" for i in range(1, 6)]
    assert meta.faces.template_ids.tolist() == [3, 11, 20]
    assert meta.faces.templates.tolist() == [1, 0, 1, 1, 2]
    assert meta.faces.media.tolist() == [7, 7, 7, 9, 9]
    assert meta.pairs.pairs.tolist() == [[0, 1], [2, 0]]
    assert meta.pairs.same.tolist() == [True, False]
    assert meta.points.landmarks[2].tolist() == [[30.5, 31.5], [32.5, 33.5], [34.5, 35.5], [36.5, 37.5], [38.5, 39.5]]
    assert meta.points.scores.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert meta.paths[4] == "data/IJB/loose_crop/5.jpg"
    assert list(meta.galleries) == ["G1", "G2"]
    assert meta.galleries["G1"].templates.tolist() == [0]
    assert meta.galleries["G1"].subjects.tolist() == [700]
    assert meta.probes.templates.tolist() == [1, 2]
    assert meta.probes.subjects.tolist() == [700, 701]
    assert meta.summary() == (
        "ijbc: 5 images in 3 templates; 1 genuine and 1 impostor pairs; galleries G1 1, G2 1; 2 probes"
    )
    assert [a.dtype.name for a in (meta.faces.templates, meta.pairs.pairs, meta.pairs.same)] == [
        "int64",
        "int32",
        "bool",
    ]


def test_what_may_be_absent(folder):
    for name in ("ijbc_name_5pts_score.txt", "img.list", *(f"ijbc_1N_{n}.csv" for n in ("gallery_G1", "gallery_G2"))):
        (folder / name).unlink()
    with pytest.raises(DataError, match="has the 1:N protocol in part"):
        read_ijb(folder, "ijbc")
    (folder / "ijbc_1N_probe_mixed.csv").unlink()
    meta = read_ijb(folder, "ijbc")
    assert (meta.points, meta.paths, meta.galleries, meta.probes) == (None, None, {}, None)
    assert meta.summary() == "ijbc: 5 images in 3 templates; 1 genuine and 1 impostor pairs"
    with pytest.raises(DataError, match=r"lacks ijbb_face_tid_mid.txt, ijbb_template_pair_label.txt\. Expected"):
        read_ijb(folder, "ijbb")


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("ijbc_face_tid_mid.txt", "1.jpg 1\n", r"face_tid_mid.txt, line 1: expected '<image> <template> <medium>'"),
        ("ijbc_face_tid_mid.txt", FACES + "\n6.jpg 3 x7\n", r"line 7: expected a whole number from 0 on, got b'x7'"),
        ("ijbc_face_tid_mid.txt", FACES + "6.jpg -3 7\n", r"line 6: expected a whole .* got b'-3'"),
        ("ijbc_face_tid_mid.txt", FACES + "6.jpg 3 " + "9" * 19, r"line 6: expected a whole number"),
        ("ijbc_face_tid_mid.txt", "\n \n", "lists no image"),
        ("ijbc_face_tid_mid.txt", FACES + "\udcff 3 1\n", r"line 6: b'\\xff' is no UTF-8"),
        ("ijbc_template_pair_label.txt", "3 11 1\n3 4 0\n", r"pair_label.txt, line 2: the template 4 has no image"),
        ("ijbc_template_pair_label.txt", "3 11 1\n99999 3 0\n", r"line 2: the template 99999 has no image"),
        ("ijbc_template_pair_label.txt", "3 11 2\n", r"line 1: expected the answer 0 or 1, got 2"),
        ("ijbc_template_pair_label.txt", "3 11 1 0\n", r"line 1: expected '<template> <template> <0 or 1>', got"),
        ("ijbc_template_pair_label.txt", "3,11,1\n", r"line 1: expected '<template>"),
        ("ijbc_template_pair_label.txt", "", "lists no pair"),
        ("ijbc_name_5pts_score.txt", "1.jpg" + " 1" * 10 + "\n", r"5pts_score.txt, line 1: expected '<image> <x1>"),
        ("ijbc_name_5pts_score.txt", "1.jpg" + " 1" * 10 + " nan\n", r"line 1: expected a number, got b'nan'"),
        ("ijbc_name_5pts_score.txt", "\n1.jpg 1 x" + " 1" * 9, r"line 2: expected a number, got b'x'"),
        (
            "ijbc_name_5pts_score.txt",
            "1.jpg" + " 1" * 11 + "\n2.jpg x" + " 1" * 10 + "\n",
            r"line 2: expected a number, got b'x'",
        ),
        ("ijbc_name_5pts_score.txt", "1.jpg 1 " + "1" * 90 + " 1" * 9, r"line 1: expected a number"),
        ("ijbc_name_5pts_score.txt", "1.jpg" + " 1" * 11 + "\n", r"lists 5 images, but .*5pts_score.txt 1; "),
        ("ijbc_name_5pts_score.txt", "2.jpg" + " 1" * 11 + "\n", r"image 1 is '2.jpg', but '1.jpg' in "),
        ("img.list", "a/1.jpg\na/2.jpg\na/4.jpg\n", r"img.list: image 3 is '4.jpg', but '3.jpg'"),
        ("img.list", "", "img.list lists no image"),
        ("ijbc_1N_gallery_G1.csv", "3,700\n", r"G1.csv, line 1: expected a header"),
        ("ijbc_1N_gallery_G1.csv", "", r"G1.csv, line 1: expected a header"),
        ("ijbc_1N_gallery_G1.csv", "t,s\n", "lists no template"),
        ("ijbc_1N_gallery_G1.csv", "t,s\n3\n", r"G1.csv, line 2: expected '<template>,<subject>' in numbers, got '3'"),
        ("ijbc_1N_gallery_G1.csv", "t,s\n3,a\n", r"line 2: expected .* got '3,a'"),
        ("ijbc_1N_gallery_G1.csv", "t,s\n\n3,1\n3,2\n", r"line 4: template 3 shows subject 2, but 1 in line 3"),
        ("ijbc_1N_probe_mixed.csv", "t,s\n3,1\n4,2\n", r"probe_mixed.csv, line 3: the template 4 has no image"),
    ],
)
def test_broken_lists_name_file_and_line(folder, name, text, match):
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=match):
        read_ijb(folder, "ijbc")


def test_columns_of_a_table_are_found_by_name(tmp_path):
    (tmp_path / "g.csv").write_text("SUBJECT_ID,FILE,TEMPLATE_ID\n700,x,11\n")
    found = read_template_subjects(tmp_path / "g.csv", IDS)
    assert (found.templates.tolist(), found.subjects.tolist()) == ([1], [700])


def test_missing_files_are_named(tmp_path):
    for read in (read_template_images, read_face_points, read_image_list):
        with pytest.raises(DataError, match=r"gone cannot be read: No such file"):
            read(tmp_path / "gone")
    with pytest.raises(DataError, match=r"gone cannot be read"):
        read_template_pairs(tmp_path / "gone", IDS)
    with pytest.raises(DataError, match=r"gone cannot be read"):
        read_template_subjects(tmp_path / "gone", IDS)


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["3", "11", "020", "20"]), st.sampled_from(["3", "11", "20"]), st.booleans())
    ),
    gap=st.sampled_from([" ", "  ", "\t"]),
    end=st.sampled_from(["\n", "\r\n", "\n\n", " \n"]),
    last=st.booleans(),
    block=st.integers(16, 64),
)
def test_blocks_of_any_size_read_the_same_as_a_loop(tmp_path_factory, rows, gap, end, last, block):
    text = end.join(gap.join([a, b, str(int(y))]) for a, b, y in rows) + (end if last else "")
    file = tmp_path_factory.getbasetemp() / "pairs.txt"
    file.write_bytes(text.encode())
    if not rows:
        with pytest.raises(DataError, match="lists no pair"):
            read_template_pairs(file, IDS, block=block)
        return
    found = read_template_pairs(file, IDS, block=block)
    place = {3: 0, 11: 1, 20: 2}
    assert found.pairs.tolist() == [[place[int(a)], place[int(b)]] for a, b, _ in rows]
    assert found.same.tolist() == [y for *_, y in rows]
    whole = [row for b in text_blocks(file, 3, "", block=block) for row in whole_numbers(b).tolist()]
    assert whole == [[int(a), int(b), int(y)] for a, b, y in rows]
    lines = [n for b in text_blocks(file, 3, "", block=block) for n in b.lines.tolist()]
    assert lines == [n for n, line in enumerate(text.split("\n"), start=1) if line.strip()]


@settings(deadline=None)
@given(text=st.binary(max_size=60) | st.text(alphabet="0123 .\n,-e_jpg", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "fuzz-ijb.txt"
    file.write_bytes(text)
    for read in (
        read_template_images,
        read_face_points,
        read_image_list,
        lambda f: read_template_pairs(f, IDS, block=16),
        lambda f: read_template_subjects(f, IDS),
    ):
        with suppress(UnpgError):
            read(file)


def test_template_numbers_may_be_sparse(tmp_path):
    (tmp_path / "p.txt").write_text("5 900000000000\n".replace("\n", " 1\n"))
    ids = np.array([5, 7, 900000000000])
    assert read_template_pairs(tmp_path / "p.txt", ids).pairs.tolist() == [[0, 2]]
    (tmp_path / "p.txt").write_text("5 6 1\n")
    with pytest.raises(DataError, match="line 1: the template 6 has no image"):
        read_template_pairs(tmp_path / "p.txt", ids)
    (tmp_path / "p.txt").write_text("5 999999999999 1\n")
    with pytest.raises(DataError, match="line 1: the template 999999999999 has no image"):
        read_template_pairs(tmp_path / "p.txt", ids)


def test_memory_grows_with_the_result_only(tmp_path):
    peaks = []
    for n in (200_000, 800_000):
        (tmp_path / "p.txt").write_text("3 11 1\n20 3 0\n" * (n // 2))
        tracemalloc.start()
        assert len(read_template_pairs(tmp_path / "p.txt", IDS, block=1 << 16).same) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # A pair takes 9 bytes; parsed all at once it would take 24 and more.
    assert peaks[1] - peaks[0] < 12 * 600_000


def test_a_line_without_end_is_refused(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"3" * 100)
    with pytest.raises(DataError, match="a line of more than 16 bytes"):
        read_template_pairs(tmp_path / "p.txt", IDS, block=16)
