import shutil

import numpy as np
import pytest
from PIL import Image

from unpg.data import ImageSet, PairImages, SizeError, cfp_pairs, csv_pairs, lfw_pairs
from unpg.data.pairs import flat_pairs
from unpg.errors import ConfigError, DataError


def write(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


LFW = "2\t1\nAda\t1\t2\nAda\t1\tBob\t1\nBob\t1\t2\nBob\t2\tCy\t1\n"


@pytest.fixture
def lfw(tmp_path):
    for i, name in enumerate(["Ada/Ada_0001", "Ada/Ada_0002", "Bob/Bob_0001", "Bob/Bob_0002", "Cy/Cy_0001"]):
        write(tmp_path / "images" / f"{name}.jpg", i)
    (tmp_path / "pairs.txt").write_text(LFW)
    return tmp_path


def test_lfw_reads_folds_of_genuine_then_impostor_pairs(lfw):
    got = lfw_pairs(lfw / "pairs.txt", lfw / "images")
    names = [file.rpartition("/")[2].removesuffix(".jpg") for file in got.files]
    assert names == ["Ada_0001", "Ada_0002", "Bob_0001", "Bob_0002", "Cy_0001"]
    assert got.pairs.tolist() == [[0, 1], [0, 2], [2, 3], [3, 4]]
    assert got.pairs.dtype == got.folds.dtype == np.int64
    assert got.same.tolist() == [True, False, True, False]
    assert got.folds.tolist() == [0, 0, 1, 1]
    assert got.identities == ["Ada", "Ada", "Bob", "Bob", "Cy"]
    assert got.left_out == []
    assert got.summary() == "LFW: 4 pairs (2 genuine, 2 impostor) of 5 images in 2 folds"


def test_a_view_1_list_is_one_fold(lfw):
    (lfw / "pairs.txt").write_text("1\nAda 1 2\nAda 1 Bob 1\n\n")
    got = lfw_pairs(lfw / "pairs.txt", lfw / "images", name="dev")
    assert got.folds.tolist() == [0, 0]
    assert got.name == "dev"


def test_pairs_that_touch_a_missing_file_are_left_out_and_counted(lfw):
    (lfw / "images" / "Bob" / "Bob_0002.jpg").unlink()
    got = lfw_pairs(lfw / "pairs.txt", lfw / "images")
    assert got.pairs.tolist() == [[0, 1], [0, 2]]
    assert got.folds.tolist() == [0, 0]
    assert [(p.same, p.fold) for p in got.left_out] == [(True, 1), (False, 1)]
    assert all(len(p.missing) == 1 and p.missing[0].endswith("Bob_0002.jpg") for p in got.left_out)
    assert got.summary().endswith("; 2 pairs left out, which touch 1 missing files")


def test_folds_keep_their_numbers_when_one_loses_all_pairs(lfw):
    (lfw / "images" / "Ada" / "Ada_0001.jpg").unlink()
    assert lfw_pairs(lfw / "pairs.txt", lfw / "images").folds.tolist() == [1, 1]


def test_a_wrong_root_is_an_error_rather_than_an_empty_list(lfw):
    with pytest.raises(
        DataError, match=r"none of its 4 pairs has both files; .*Ada_0001.jpg is the first missing.*elsewhere"
    ):
        lfw_pairs(lfw / "pairs.txt", lfw / "elsewhere")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"pairs.txt, line 1: .* got an empty file"),
        ("ten 300\n", r"pairs.txt, line 1: .* got 'ten 300'"),
        ("1 2 3\n", r"pairs.txt, line 1"),
        (LFW[:-14], r"announces 2 folds of 2 x 1 pairs, 5 lines in all, but the file has 4"),
        (LFW + "Ada\t1\t2\n", r"5 lines in all, but the file has 6"),
        (LFW.replace("Bob\t1\t2", "Bob\t1\tCy\t1"), r"pairs.txt, line 4: expected '<name> <i> <j>' \(genuine\)"),
        (LFW.replace("Bob\t2\tCy", "Bob\tx\tCy"), r"pairs.txt, line 5: expected .* \(impostor\), got 'Bob\\tx"),
        (
            LFW.replace("Bob\t2\tCy\t1", "Bob\t2\tBob\t1"),
            r"pairs.txt, line 5: .*said to be impostor shows 'Bob' and 'Bob'",
        ),
    ],
)
def test_broken_lfw_lists_name_the_line(lfw, text, match):
    (lfw / "pairs.txt").write_text(text)
    with pytest.raises(DataError, match=match):
        lfw_pairs(lfw / "pairs.txt", lfw / "images")


def test_missing_and_binary_lists_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone.txt cannot be read"):
        lfw_pairs(tmp_path / "gone.txt", tmp_path)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"b.txt cannot be read"):
        csv_pairs(tmp_path / "b.txt")


@pytest.fixture
def cfp(tmp_path):
    protocol = tmp_path / "protocol"
    for fold in ("01", "02"):
        for kind, same, diff in (("FF", "1,2", "1,3"), ("FP", "2,1", "2,2")):
            folder = protocol / "Split" / kind / fold
            folder.mkdir(parents=True)
            (folder / "same.txt").write_text(f"{same}\n")
            (folder / "diff.txt").write_text(f"{diff}\n\n")
    frontal = ["001/frontal/01.jpg", "001/frontal/02.jpg", "002/frontal/01.jpg"]
    profile = ["001/profile/01.jpg", "002/profile/01.jpg"]
    for letter, files in (("F", frontal), ("P", profile)):
        text = "".join(f"{i} ../Data/Images/{file}\n" for i, file in enumerate(files, start=1))
        (protocol / f"Pair_list_{letter}.txt").write_text(text)
        for file in files:
            write(tmp_path / "images" / file)
    return tmp_path


def test_cfp_maps_numbers_to_frontal_and_profile_images(cfp):
    ff, fp = (cfp_pairs(cfp / "protocol", kind) for kind in ("FF", "FP"))

    def names(got):
        return [tuple(str(got.files[i]).partition("images/")[2] for i in pair) for pair in got.pairs]

    assert names(ff)[:2] == [("001/frontal/01.jpg", "001/frontal/02.jpg"), ("001/frontal/01.jpg", "002/frontal/01.jpg")]
    assert names(fp)[:2] == [("001/frontal/02.jpg", "001/profile/01.jpg"), ("001/frontal/02.jpg", "002/profile/01.jpg")]
    assert ff.same.tolist() == fp.same.tolist() == [True, False, True, False]
    assert ff.folds.tolist() == [0, 0, 1, 1]
    assert fp.name == "CFP-FP"
    assert fp.identities == ["001", "001", "002"]


def test_cfp_takes_another_root_for_the_images(cfp):
    shutil.move(cfp / "images", cfp / "faces")
    with pytest.raises(DataError, match=r"sought in .*images"):
        cfp_pairs(cfp / "protocol", "FF")
    assert len(cfp_pairs(cfp / "protocol", "FF", cfp / "faces")) == 4


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("Split/FF/02/same.txt", "1,2\n1;2\n", r"02/same.txt, line 2: expected '<i>,<j>'.*got '1;2'"),
        ("Split/FF/01/diff.txt", "1,4\n", r"01/diff.txt, line 1: .*numbers from Pair_list_F.txt"),
        ("Split/FF/01/diff.txt", "1,2\n", r"01/diff.txt, line 1: .*said to be impostor shows '001' and '001'"),
        ("Split/FF/01/same.txt", "1,3\n", r"01/same.txt, line 1: .*said to be genuine"),
        ("Pair_list_F.txt", "1 a.jpg\n", r"Pair_list_F.txt, line 1: expected '<number> "),
        ("Pair_list_F.txt", "1 a/b/../c.jpg\n", r"Pair_list_F.txt, line 1: expected"),
        ("Pair_list_F.txt", "1 a/b/c.jpg\n1 a/b/d.jpg\n", r"line 2: the number 1 is given twice"),
    ],
)
def test_broken_cfp_lists_name_the_line(cfp, file, text, match):
    (cfp / "protocol" / file).write_text(text)
    with pytest.raises(DataError, match=match):
        cfp_pairs(cfp / "protocol", "FF")


def test_cfp_without_its_files(cfp):
    with pytest.raises(ConfigError, match="'FF' and 'FP', got 'PP'"):
        cfp_pairs(cfp / "protocol", "PP")
    (cfp / "protocol" / "Split" / "FP" / "02" / "diff.txt").unlink()
    with pytest.raises(DataError, match=r"02/diff.txt cannot be read"):
        cfp_pairs(cfp / "protocol", "FP")
    shutil.rmtree(cfp / "protocol" / "Split" / "FF")
    with pytest.raises(DataError, match="FF has no folds"):
        cfp_pairs(cfp / "protocol", "FF")


def table(folder, text):
    for name in "abc":
        write(folder / f"{name}.png")
    (folder / "my pairs.csv").write_text(text)
    return folder / "my pairs.csv"


def test_a_csv_with_the_least(tmp_path):
    got = csv_pairs(table(tmp_path, f"path_a,path_b,same\na.png,b.png,1\n\n{tmp_path}/a.png,c.png,FALSE\n"))
    assert got.name == "my pairs"
    assert got.pairs.tolist() == [[0, 1], [0, 2]]
    assert got.same.tolist() == [True, False]
    assert got.folds.tolist() == [0, 0]
    assert got.identities == [None, None, None]


def test_a_csv_with_all_columns_in_any_order(tmp_path):
    text = "fold,identity_b,identity_a,same, path_a,path_b\n7,x,x,true,a.png,b.png\n3,y,x,0,a.png,c.png\n"
    got = csv_pairs(table(tmp_path, text), tmp_path, name="mine")
    assert got.name == "mine"
    assert got.folds.tolist() == [1, 0]
    assert got.identities == ["x", "x", "y"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "line 1: expected the columns path_a, path_b, same.*got none"),
        ("path_a,path_b\n", "got path_a, path_b"),
        ("path_a,path_b,same,same\n", "each once"),
        ("path_a,path_b,same,folds\n", "line 1: no column .* 'folds'. Did you mean 'fold'"),
        ("path_a,path_b,same,identity_a\n", "identity_a with identity_b"),
        ("path_a,path_b,same\na.png,b.png\n", "line 2: expected 3 values, got 2"),
        ("path_a,path_b,same\na.png,b.png,yes\n", "line 2: same must be 1, 0, true or false, got 'yes'"),
        ("path_a,path_b,same\na.png,b.png,1\na.png,,1\n", "line 3: a path is empty"),
        ("path_a,path_b,same,fold\na.png,b.png,1,one\n", "line 2: fold must be a whole number, got 'one'"),
        ("path_a,path_b,same\n", "the list has no pairs"),
        ('path_a,path_b,same\na.png,"b.png,1\na.png,c.png,0\n', "line 2: the record that begins here does not read"),
        ("path_a,path_b,same\nx.png,y.png,1\n", "none of its 1 pairs has both files"),
        (
            "path_a,path_b,same,identity_a,identity_b\na.png,b.png,1,x,y\n",
            "line 2: a pair that is said to be genuine shows 'x' and 'y'",
        ),
        (
            "path_a,path_b,same,identity_a,identity_b\na.png,b.png,1,x,x\na.png,c.png,0,z,y\n",
            "line 3: .*a.png shows 'z', but 'x' in an earlier line",
        ),
    ],
)
def test_broken_tables_name_the_line(tmp_path, text, match):
    with pytest.raises(DataError, match=match):
        csv_pairs(table(tmp_path, text))


def test_the_files_of_a_list_are_an_image_set(lfw):
    pair_list = lfw_pairs(lfw / "pairs.txt", lfw / "images")
    data = PairImages(pair_list)
    assert isinstance(data, ImageSet)
    assert len(data) == 5
    assert data.identities == ["Ada", "Bob", "Cy"]
    assert data.labels.tolist() == [0, 0, 1, 1, 2]
    for (a, b), same in zip(pair_list.pairs, pair_list.same, strict=True):
        assert (data.labels[a] == data.labels[b]) == same
    assert data.read(4)[0, 0].tolist() == [4, 4, 4]
    assert data.name(4) == pair_list.files[4]
    write(lfw / "images" / "Cy" / "Cy_0001.jpg", size=(9, 8))
    with pytest.raises(SizeError, match=r"Cy_0001.jpg is 9 x 8"):
        data.read(4)


def test_unknown_people_are_not_taken_for_one(tmp_path):
    data = PairImages(csv_pairs(table(tmp_path, "path_a,path_b,same\na.png,b.png,1\na.png,c.png,0\n")))
    assert data.labels.tolist() == [0, 1, 2]


def test_digests_know_content_but_not_place(lfw, tmp_path):
    one = lfw_pairs(lfw / "pairs.txt", lfw / "images")
    shutil.copytree(lfw / "images", tmp_path / "moved")
    two = lfw_pairs(lfw / "pairs.txt", tmp_path / "moved")
    assert one.digest() == two.digest()
    assert PairImages(one).digest() == PairImages(two).digest()
    (lfw / "pairs.txt").write_text(LFW.replace("Bob\t1\t2", "Bob\t2\t1"))
    assert lfw_pairs(lfw / "pairs.txt", lfw / "images").digest() != one.digest()
    (tmp_path / "moved" / "Cy" / "Cy_0001.jpg").write_bytes(b"x")
    assert PairImages(two).digest() != PairImages(one).digest()


@pytest.mark.data
def test_the_official_lists_have_their_official_counts(faces):
    lfw = lfw_pairs(faces / "lfw" / "pairs.txt", faces / "lfw" / "images")
    assert np.bincount(lfw.folds, weights=lfw.same).tolist() == [300] * 10
    assert np.bincount(lfw.folds).tolist() == [600] * 10
    assert (len(lfw.files), lfw.left_out) == (7701, [])
    ff, fp = (cfp_pairs(faces / "cfp" / "protocol", kind) for kind in ("FF", "FP"))
    assert np.bincount(ff.folds, weights=ff.same).tolist() == [350] * 10
    assert (len(ff), len(ff.left_out)) == (7000, 0)
    assert (len(fp), len(fp.left_out)) == (6971, 29)
    assert len({file for pair in fp.left_out for file in pair.missing}) == 8
    assert all("/profile/" in file for pair in fp.left_out for file in pair.missing)
    assert sorted(set(fp.folds.tolist())) == list(range(10))


@pytest.mark.parametrize("name", ["x" * 3000, "a\0b", "x" * 300])
def test_a_name_that_no_file_can_have_is_a_missing_file(tmp_path, name):
    (tmp_path / "p.csv").write_text(f"path_a,path_b,same\n{name},{name},1\n")
    with pytest.raises(DataError, match="none of its 1 pairs has both files"):
        csv_pairs(tmp_path / "p.csv")


def test_a_list_without_pairs_is_named(tmp_path):
    (tmp_path / "p.csv").write_text("path_a,path_b,same\n")
    with pytest.raises(DataError, match=r"the list has no pairs: .*p\.csv"):
        csv_pairs(tmp_path / "p.csv")


@pytest.mark.parametrize("text", ["9" * 5000, f"1\n{'a ' + '9' * 5000 + ' 1'}\n"])
def test_numbers_of_thousands_of_digits(tmp_path, text):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(DataError, match=r"pairs\.txt, line 1"):
        lfw_pairs(tmp_path / "pairs.txt", tmp_path)


@pytest.mark.parametrize("number", ["9" * 5000, "00", "01", "\u0663", "-1", "12345"])
def test_a_fold_of_a_flat_list_is_zero_or_a_plain_number(tmp_path, number):
    (tmp_path / "list.txt").write_text(f"A_0001.png {number}\nA_0002.png {number}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"list\.txt, line 1: expected '<person>_<number>\.<ending> <0 or fold>'"):
        flat_pairs(tmp_path / "list.txt", tmp_path, name="mine")
