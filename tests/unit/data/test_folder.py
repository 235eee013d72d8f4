import os
import pickle

import numpy as np
import pytest
from PIL import Image

from unpg.data import FolderSet, ImageSet, SizeError
from unpg.errors import ConfigError, DataError


def write(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def tree(root, files):
    for i, file in enumerate(files):
        write(root / file, i)
    return root


@pytest.fixture
def root(tmp_path):
    files = ["b/2.png", "b/10.png", "a/frontal/01.png", "a/profile/01.PNG", "a/01.png", "c/x.png"]
    return tree(tmp_path / "faces", files)


def inside(data, root):
    return [os.path.relpath(data.name(i), root) for i in range(len(data))]


def test_one_identity_per_folder_in_a_stable_order(root):
    data = FolderSet(root)
    assert isinstance(data, ImageSet)
    assert data.identities == ["a", "b", "c"]
    assert inside(data, root) == ["a/01.png", "a/frontal/01.png", "a/profile/01.PNG", "b/10.png", "b/2.png", "c/x.png"]
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 2]
    assert data.image_size == (8, 8)
    assert data.read(2)[0, 0].tolist() == [3, 3, 3]
    assert data.skipped == data.excluded == data.too_few == data.not_found == []


def test_it_can_be_sent_to_a_worker(root):
    data = pickle.loads(pickle.dumps(FolderSet(root)))
    assert data.read(5)[0, 0, 0] == 5


def test_what_is_not_part_of_the_set_is_listed_with_its_reason(root):
    (root / "empty").mkdir()
    (root / "only hidden").mkdir()
    (root / "only hidden" / ".x.png").write_bytes(b"")
    (root / ".cache").mkdir()
    (root / "readme.txt").write_text("")
    write(root / "loose.png")
    (root / "a" / "notes.txt").write_text("")
    data = FolderSet(root)
    assert len(data) == 6
    assert data.identities == ["a", "b", "c"]
    assert {os.path.relpath(path, root): reason for path, reason in data.skipped} == {
        "empty": "no image in this folder",
        "only hidden": "no image in this folder",
        "only hidden/.x.png": "hidden",
        ".cache": "hidden",
        "readme.txt": "not an image",
        "loose.png": "not in an identity's folder",
        "a/notes.txt": "not an image",
    }
    assert data.summary() == "3 identities, 6 images; 7 files and folders skipped"
    assert data.too_few == []


def test_min_images_leaves_out_and_lists(root):
    data = FolderSet(root, min_images=2)
    assert data.identities == ["a", "b"]
    assert data.too_few == ["c"]
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(ConfigError, match="min_images must be >= 1"):
        FolderSet(root, min_images=0)


def test_min_images_can_differ_between_roots(tmp_path):
    one = tree(tmp_path / "one", ["a/1.png", "b/1.png", "b/2.png"])
    two = tree(tmp_path / "two", ["a/1.png", "b/1.png", "b/2.png"])
    assert FolderSet([one, two], min_images={"two": 2}).identities == ["one/a", "one/b", "two/b"]
    with pytest.raises(ConfigError, match="min_images: no root is called 'three'"):
        FolderSet([one, two], min_images={"three": 2})
    with pytest.raises(ConfigError, match="must be >= 1"):
        FolderSet([one, two], min_images={"two": 0})


def test_namesakes_in_two_roots_are_two_people(tmp_path):
    one = tree(tmp_path / "one" / "images", ["001/a.png", "002/a.png"])
    two = tree(tmp_path / "two" / "images", ["001/a.png"])
    data = FolderSet([two, one])
    assert data.identities == ["two/images/001", "one/images/001", "one/images/002"]
    assert data.labels.tolist() == [0, 1, 2]
    named = FolderSet({"x": two, "y": one})
    assert named.identities == ["x/001", "y/001", "y/002"]


def test_excluded_identities_are_gone_and_listed(tmp_path, root):
    (tmp_path / "list.txt").write_text("# not these\nb\n")
    data = FolderSet(root, exclude=tmp_path / "list.txt")
    assert data.identities == ["a", "c"]
    assert data.excluded == ["b"]
    assert not any("/b/" in data.name(i) for i in range(len(data)))


def test_an_excluded_name_that_is_not_there_is_an_error_unless_allowed(tmp_path, root):
    (tmp_path / "list.txt").write_text("b\nzoe\n")
    with pytest.raises(DataError, match=r"list.txt: no identity is called 'zoe' in faces"):
        FolderSet(root, exclude=[tmp_path / "list.txt"])
    data = FolderSet(root, exclude=[tmp_path / "list.txt"], allow_missing=True)
    assert data.excluded == ["b"]
    assert data.not_found == ["zoe"]


def test_a_name_in_two_roots_is_excluded_only_where_the_list_belongs(tmp_path):
    one = tree(tmp_path / "one", ["001/a.png", "002/a.png"])
    two = tree(tmp_path / "two", ["001/a.png", "003/a.png"])
    (tmp_path / "list.txt").write_text("001\n")
    with pytest.raises(DataError, match="'001' is an identity in one and in two"):
        FolderSet([one, two], exclude=tmp_path / "list.txt")
    for key in ("two", str(two)):
        data = FolderSet([one, two], exclude={key: tmp_path / "list.txt"})
        assert data.identities == ["one/001", "one/002", "two/003"]
        assert data.excluded == ["two/001"]
    with pytest.raises(ConfigError, match=r"no root is called 'tow'. Did you mean 'two'"):
        FolderSet([one, two], exclude={"tow": tmp_path / "list.txt"})
    (tmp_path / "list.txt").write_text("003\n")
    assert FolderSet([one, two], exclude=tmp_path / "list.txt").excluded == ["two/003"]


def test_roots_within_each_other_are_refused(root):
    with pytest.raises(ConfigError, match="lies in"):
        FolderSet([root, root / "a"])
    with pytest.raises(ConfigError, match="lies in"):
        FolderSet([root, root])
    with pytest.raises(ConfigError, match="roots is empty"):
        FolderSet([])


def test_fewer_than_two_identities_is_an_error_that_says_so(tmp_path, root):
    one = tree(tmp_path / "one", ["a/1.png", "a/2.png"])
    with pytest.raises(DataError, match=r"one has 1 identities with images, but a set needs two or more"):
        FolderSet(one)
    flat = tree(tmp_path / "flat", ["1.png", "2.png"])
    with pytest.raises(DataError, match=r"has 0 identities .*2 images lie in the root itself.*<root>/<identity>"):
        FolderSet(flat)
    (tmp_path / "list.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="2 left out by the exclude list"):
        FolderSet(root, exclude=tmp_path / "list.txt")
    with pytest.raises(DataError, match="2 with fewer images than min_images asks for"):
        FolderSet(root, min_images=3)


def test_a_root_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="gone does not exist"):
        FolderSet(tmp_path / "gone")
    write(tmp_path / "file.png")
    with pytest.raises(DataError, match=r"file.png is not a folder"):
        FolderSet(tmp_path / "file.png")


def test_an_image_of_another_size_is_refused_when_read(root):
    write(root / "b" / "2.png", size=(9, 8))
    data = FolderSet(root)
    with pytest.raises(SizeError, match=r"b/2.png is 9 x 8 .*a/01.png of the same set is 8 x 8.*align the faces"):
        data.read(4)


def test_broken_images_are_part_of_the_set_and_fail_when_read(root):
    (root / "a" / "01.png").write_bytes(b"broken")
    data = FolderSet(root)
    assert len(data) == 6
    with pytest.raises(DataError, match=r"a/01.png"):
        data.read(0)
    assert data.image_size == (8, 8)
    for i in range(6):
        open(data.name(i), "wb").close()
    with pytest.raises(DataError, match=r"^[^_].*: none of the 6 images can be read. The first: .*01.png is empty"):
        FolderSet(root)


def test_links_are_followed_but_not_in_circles(tmp_path, root):
    (root / "d").symlink_to(root / "c")
    assert FolderSet(root).identities == ["a", "b", "c", "d"]
    (root / "c" / "up").symlink_to(root / "c")
    with pytest.raises(DataError, match="is a link to a folder around it"):
        FolderSet(root)


def test_digest_knows_the_content_but_not_the_place(tmp_path, root):
    digest = FolderSet(root).digest()
    root.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert FolderSet(moved).digest() == digest
    (moved / "a" / "01.png").rename(moved / "b" / "01.png")
    assert FolderSet(moved).digest() != digest
    (moved / "b" / "01.png").rename(moved / "a" / "01.png")
    assert FolderSet(moved).digest() == digest
    os.truncate(moved / "c" / "x.png", 10)
    data = FolderSet(moved)
    assert data.digest() != digest
    truncated = data.digest()
    os.remove(data.name(5))
    assert data.digest() != truncated


@pytest.mark.data
def test_split_a_has_the_counts_of_its_description(faces):
    data = FolderSet(
        {"celeba": faces / "celeba288", "cfp": faces / "cfp" / "images"},
        exclude={"cfp": faces / "cfp" / "overlap_with_lfw.tsv"},
    )
    assert (len(data.identities), len(data)) == (567, 9803)
    assert len(data.excluded) == 221
    assert data.image_size == (112, 112)
    assert data.skipped == []


@pytest.mark.data
def test_split_b_takes_the_other_column_of_the_list(faces):
    data = FolderSet(
        {"celeba": faces / "celeba288", "lfw": faces / "lfw" / "images"},
        exclude=f"{faces / 'cfp' / 'overlap_with_lfw.tsv'}#lfw_name",
        min_images={"lfw": 2},
    )
    names = {line.split("\t")[1] for line in (faces / "cfp" / "overlap_with_lfw.tsv").read_text().splitlines()[1:]}
    assert {f"lfw/{name}" for name in names} == set(data.excluded)
    expected = sum(
        len(list(person.iterdir())) >= 2 and person.name not in names for person in (faces / "lfw" / "images").iterdir()
    )
    assert len(data.identities) == 288 + expected
