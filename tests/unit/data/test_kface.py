import itertools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unpg.data import ImageSet, SizeError
from unpg.data.content import content
from unpg.data.kface import KFACE_VIEWS, KFaceSet, KFaceViews, kface_pairs
from unpg.data.source import SOURCES
from unpg.errors import ConfigError, DataError, UnpgError
from unpg.evaluate.named import open_benchmark

VIEWS = "s1~2 l1,8 e1 c4~6"
PEOPLE = ["19062421", "19062811", "19070541", "19101513"]


@pytest.fixture
def tree(tmp_path):
    """Four people of twelve views each; the color says who and which."""
    paths = [f"S00{s}/L{i}/E01/C{c}.jpg" for s, i, c in itertools.product((1, 2), (1, 8), (4, 5, 6))]
    for p, person in enumerate(PEOPLE):
        for v, path in enumerate(paths):
            file = tmp_path / "k" / person / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (60 * p, 20 * v, 0)).save(file, quality=100)
    (tmp_path / "test.txt").write_text("19101513\n19062811\n")
    return tmp_path


def test_the_paper_s_counts_come_out():
    # Counts of the paper, for 370 people: they pin the attribute lists.
    counts = {name: 370 * len(KFaceViews.parse(name)) for name in KFACE_VIEWS}
    assert counts == {"T1": 2_590, "T2": 46_620, "T3": 654_160, "T4": 3_862_800}
    assert KFaceViews.parse("T2").lights == (1, 2, 8, 12, 16, 19, 22, 25, 28)
    assert all(7 not in KFaceViews.parse(name).lights for name in KFACE_VIEWS)
    assert len(KFaceViews.parse("T3").lights) == 17


def test_the_attribute_grammar():
    views = KFaceViews.parse("c4~10 s1~6 l1~3,8 e2")
    assert views == KFaceViews((1, 2, 3, 4, 5, 6), (1, 2, 3, 8), (2,), (4, 5, 6, 7, 8, 9, 10))
    assert len(views) == 6 * 4 * 7
    assert views.folders()[:2] == ["S001/L1/E02", "S001/L2/E02"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("T5", "Known: T1, T2, T3, T4"),
        ("", "expected one word each"),
        ("s1 l1 e1", "expected one word each"),
        ("s1 l1 e1 c1 c2", "expected one word each"),
        ("s1~7 l1 e1 c1", r"accessory \(s\) must be distinct numbers from 1 to 6 .* got 1, 2, 3, 4, 5, 6, 7"),
        ("s1 l0 e1 c1", r"light \(l\) must be"),
        ("s1 l3~1 e1 c1", "the range '3~1' in 'l3~1' runs backwards"),
        ("s1 l1~ e1 c1", "'1~' is no number or range"),
        ("s1 l1,,2 e1 c1", "'' is no number"),
        ("s1 l2,1 e1 c1", "in rising order, got 2, 1"),
        ("s1 l1~3,2 e1 c1", "must be distinct"),
        ("s1 l² e1 c1", "no number"),
    ],
)
def test_views_that_do_not_read_are_said(text, match):
    with pytest.raises(ConfigError, match=match):
        KFaceViews.parse(text)


@given(st.text(alphabet="slec0123456789~, T²", max_size=30) | st.text(max_size=20))
def test_any_text_is_views_or_our_error(text):
    try:
        views = KFaceViews.parse(text)
    except UnpgError:
        return
    assert len(views) == len(views.folders()) * len(views.cameras) > 0


def test_people_train_by_name_and_test_by_list(tree):
    train = KFaceSet(tree / "k", VIEWS, tree / "test.txt")
    test = KFaceSet(tree / "k", VIEWS, tree / "test.txt", part="test")
    assert isinstance(train, ImageSet)
    assert train.identities == ["19062421", "19070541"]
    assert test.identities == ["19101513", "19062811"]
    assert train.labels.tolist() == [0] * 12 + [1] * 12
    assert train.labels.dtype == np.int64
    assert train.name(0) == str(tree / "k" / "19062421/S001/L1/E01/C4.jpg")
    assert train.name(23) == str(tree / "k" / "19070541/S002/L8/E01/C6.jpg")
    for i in range(24):
        red, green = train.read(i)[0, 0, :2].astype(int)
        assert abs(red - 120 * (i // 12)) < 6
        assert abs(green - 20 * (i % 12)) < 6
    assert content(train, 3) == (tree / "k" / "19062421/S001/L8/E01/C4.jpg").read_bytes()
    assert pickle.loads(pickle.dumps(train)).digest() == train.digest() != test.digest()


def test_labels_are_the_same_in_every_process(tree):
    program = (
        "from unpg.data.kface import KFaceSet\n"
        f"s = KFaceSet({str(tree / 'k')!r}, {VIEWS!r}, {str(tree / 'test.txt')!r})\n"
        "print(s.identities, s.digest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


def test_a_missing_image_is_an_error_or_counted(tree):
    for path in ("19070541/S001/L8/E01/C5.jpg", "19070541/S002/L1/E01/C4.jpg"):
        (tree / "k" / path).unlink()
    with pytest.raises(DataError, match=r"lacks 2 of 24 images; the first is 19070541/S001/L8/E01/C5.jpg"):
        KFaceSet(tree / "k", VIEWS, tree / "test.txt")
    left = KFaceSet(tree / "k", VIEWS, tree / "test.txt", allow_missing=True)
    assert (len(left), left.missing) == (22, 2)
    assert left.name(16).endswith("19070541/S001/L8/E01/C6.jpg")
    with pytest.raises(DataError, match="has 0 people of the train part with images"):
        KFaceSet(tree / "k", VIEWS, tree / "test.txt", ext="png", allow_missing=True)


def test_lists_and_trees_that_do_not_fit(tree):
    (tree / "other.txt").write_text("19990101\n19101513\n")
    with pytest.raises(DataError, match=r"other.txt: 1 of 2 test people have no folder .* '19990101'"):
        KFaceSet(tree / "k", VIEWS, tree / "other.txt")
    with pytest.raises(DataError, match="gone cannot be listed"):
        KFaceSet(tree / "gone", VIEWS, tree / "test.txt")
    (tree / "all.txt").write_text("\n".join(PEOPLE))
    with pytest.raises(DataError, match="nobody for the train part: 4 folders, 4 test people"):
        KFaceSet(tree / "k", VIEWS, tree / "all.txt")
    with pytest.raises(ConfigError, match="'train' or 'test', got 'both'"):
        KFaceSet(tree / "k", VIEWS, tree / "test.txt", part="both")
    Image.new("RGB", (9, 8)).save(tree / "k" / "19070541/S001/L8/E01/C5.jpg")
    with pytest.raises(SizeError, match=r"C5.jpg is 8 x 9"):
        KFaceSet(tree / "k", VIEWS, tree / "test.txt").read(16)


def test_a_recipe_may_name_it(tree):
    settings = {"root": str(tree / "k"), "views": VIEWS, "test_ids": str(tree / "test.txt")}
    built = SOURCES.build("kface", settings)
    assert built.digest() == KFaceSet(tree / "k", VIEWS, tree / "test.txt").digest()


Q = (
    "19101513/S001/L1/E01/C4.jpg 19101513/S002/L8/E01/C5.jpg 1\n"
    "19101513/S001/L1/E01/C4.jpg 19062811/S002/L8/E01/C6.jpg 0\n"
)


def test_a_pair_list(tree):
    (tree / "q.txt").write_text(Q + "19101513/S001/L30/E01/C4.jpg 19062811/S002/L8/E01/C6.jpg 0\n")
    got = kface_pairs(tree / "q.txt", tree / "k")
    assert got.name == "q"
    assert got.pairs.tolist() == [[0, 1], [0, 2]]
    assert got.same.tolist() == [True, False]
    assert got.identities == ["19101513", "19101513", "19062811"]
    assert [pair.missing for pair in got.left_out] == [(str(tree / "k" / "19101513/S001/L30/E01/C4.jpg"),)]


def test_a_list_of_cameras_needs_the_condition(tree):
    (tree / "q.txt").write_text("19101513 C4 19101513 C5 1\n19101513 C4 19062811 C6 0\n")
    got = kface_pairs(tree / "q.txt", tree / "k", condition="s2 l8 e1")
    assert got.files[0] == str(tree / "k" / "19101513/S002/L8/E01/C4.jpg")
    assert got.same.tolist() == [True, False]
    with pytest.raises(ConfigError, match=r"q.txt, line 1 names people and cameras only"):
        kface_pairs(tree / "q.txt", tree / "k")
    for condition in ("s1~2 l1 e1", "s1 l1", "x"):
        with pytest.raises(ConfigError):
            kface_pairs(tree / "q.txt", tree / "k", condition=condition)
    (tree / "q.txt").write_text(Q)
    with pytest.raises(ConfigError, match="names whole paths"):
        kface_pairs(tree / "q.txt", tree / "k", condition="s1 l1 e1")


@pytest.mark.parametrize(
    "line",
    [
        "19101513/S001/L1/E01/C4.jpg 1",
        "19101513/S001/L1/E01/C4.jpg 19101513/S001/L1/E01/C5.jpg 2",
        "19101513/S001/L31/E01/C4.jpg 19101513/S001/L1/E01/C5.jpg 1",
        "19101513/S001/L1/E01/C0.jpg 19101513/S001/L1/E01/C5.jpg 1",
        "../S001/L1/E01/C4.jpg ../S001/L1/E01/C5.jpg 1",
        "../../etc/passwd 19101513/S001/L1/E01/C5.jpg 1",
        "19101513/S001/L1/E01/C4.jpg 19062811/S001/L1/E01/C4.jpg 1",
        "a b c d",
    ],
)
def test_a_broken_line_is_named(tree, line):
    (tree / "q.txt").write_text(f"{Q}\n{line}\n")
    with pytest.raises(DataError, match=r"q.txt, line 4"):
        kface_pairs(tree / "q.txt", tree / "k")


@given(st.text(alphabet="19/SLEC0.jpg \n", max_size=80) | st.text(max_size=40))
def test_any_list_is_pairs_or_our_error(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "fuzz-kface.txt"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(UnpgError):
        kface_pairs(file, "nowhere")


def test_named_benchmarks_say_the_layout(tree):
    with pytest.raises(DataError, match=r"kface/kface.Q1.txt, kface/images in "):
        open_benchmark("kface-q1", tree)
    (tree / "k").rename(tree / "images")
    (tree / "kface").mkdir()
    (tree / "images").rename(tree / "kface" / "images")
    (tree / "kface" / "kface.Q1.txt").write_text(Q)
    found = open_benchmark("kface-q1", tree)
    vectors = np.eye(3, dtype=np.float32)
    result = found.run(lambda images: (vectors, np.ones(3, np.float32))).to_dict()
    assert (result["genuine"], result["impostor"]) == (1, 1)


@pytest.mark.data
def test_the_real_lists(faces, tmp_path):
    folder = faces / "fixtures" / "kface"
    ids = (folder / "kface-test-identity30.txt").read_text().split()
    assert len(set(ids)) == 30
    # No photographs are to be had; empty files stand for those that the lists name.
    lists = [folder / "kface.Q1.txt", folder / "effects_of_unseen_conditions_config/A/s4-l1-e1-pair10k.txt"]
    for path in {cell for file in lists for line in file.read_text().splitlines() for cell in line.split()[:2]}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    q1, accessory = (kface_pairs(file, tmp_path) for file in lists)
    assert (len(q1), int(q1.same.sum()), q1.left_out) == (1_000, 500, [])
    assert (len(accessory), int(accessory.same.sum())) == (10_000, 5_000)
    assert len(q1.files) <= 30 * len(KFaceViews.parse("T1"))
    assert set(q1.identities) == set(accessory.identities) == set(ids)
    # The authors' rule: both images differ in every attribute that varies.
    assert all(q1.files[a].rpartition("/")[2] != q1.files[b].rpartition("/")[2] for a, b in q1.pairs)
    by_camera = kface_pairs(folder / "kface_analysis_pair.txt", tmp_path, condition="s4 l1 e1")
    assert len(by_camera) + len(by_camera.left_out) == 6_000
    assert by_camera.files[0].endswith("19082641/S004/L1/E01/C17.jpg")
