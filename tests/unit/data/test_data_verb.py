import csv
import hashlib
import os

import numpy as np
import pytest
from PIL import Image

from unpg.cli.main import main
from unpg.data import ArraySet, FolderSet
from unpg.data.bins import write_bin
from unpg.data.check import check_set, write_findings
from unpg.data.content import content
from unpg.data.convert import FORMS, MANIFEST, convert
from unpg.data.inspect import inspect_set
from unpg.data.listed import list_set
from unpg.data.open_source import open_source
from unpg.data.record_set import RecordSet
from unpg.data.split import split_to_lists
from unpg.errors import ConfigError, DataError
from unpg.evaluate.benchmark import PairBenchmark
from unpg.evaluate.named import open_benchmark


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for who, count in (("ann", 1), ("bob", 2), ("cyd", 3), ("dan", 4)):
        (tmp_path / "f" / who).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "f" / who / f"{i}.jpg")
    return tmp_path / "f"


def files(image_set):
    found = {}
    for i, label in enumerate(image_set.labels):
        found.setdefault(image_set.identities[label], []).append(content(image_set, i))
    return found


@pytest.mark.parametrize("first", list(FORMS))
@pytest.mark.parametrize("second", list(FORMS))
def test_converted_twice_every_byte_and_name_is_there(root, tmp_path, first, second):
    assert main(["data", "convert", str(root), "--out", str(tmp_path / "one"), "--to", first]) == 0
    assert main(["data", "convert", str(tmp_path / "one"), "--out", str(tmp_path / "two"), "--to", second]) == 0
    assert files(open_source(tmp_path / "two")) == files(FolderSet(root))
    lines = [line.split("  ") for line in (tmp_path / "two" / MANIFEST).read_text().splitlines()]
    there = {str(p.relative_to(tmp_path / "two")) for p in (tmp_path / "two").rglob("*") if p.is_file()}
    assert {name for _, name in lines} | {MANIFEST} == there
    for digest, name in lines:
        assert hashlib.sha256((tmp_path / "two" / name).read_bytes()).hexdigest() == digest


def test_a_converted_file_has_the_layout_of_insightface(root, tmp_path):
    convert(FolderSet(root), tmp_path / "out")
    data = RecordSet(tmp_path / "out")
    assert data.identities == ["ann", "bob", "cyd", "dan"]
    assert data._file.record(0).labels == (11, 15)
    (tmp_path / "out" / "train.idx").unlink()
    assert RecordSet(tmp_path / "out").digest() == data.digest()


def test_a_conversion_never_mixes_two_sets(root, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "job.json").write_text('{"digest": "another", "form": "folder"}')
    with pytest.raises(DataError, match="beginning of another job"):
        convert(FolderSet(root), tmp_path / "out", "folder")
    (tmp_path / "out.partial" / "job.json").rename(tmp_path / "out.partial" / "mine")
    with pytest.raises(DataError, match="nothing that was begun here"):
        convert(FolderSet(root), tmp_path / "out", "folder")
    with pytest.raises(ConfigError, match="f exists"):
        convert(FolderSet(root), root)
    with pytest.raises(ConfigError, match="No form is called 'zip'. Known: csv, folder, lmdb"):
        convert(FolderSet(root), tmp_path / "new", "zip")


def people(root, names, file="1.png"):
    for i, who in enumerate(names):
        (root / who).mkdir(parents=True)
        Image.new("RGB", (8, 8), (i, 0, 1)).save(root / who / "0.png")
        Image.new("RGB", (8, 8), (i, 0, 2)).save(root / who / "x.png")
        (root / who / "x.png").rename(root / who / file)
    return FolderSet(root)


def test_a_split_lists_links_and_names_as_they_are(tmp_path):
    names = ["a", "n\u2028l", "n\x85x", "f\x0cf", "e"]
    people(tmp_path / "f", names)
    (tmp_path / "f" / "a" / "2.png").symlink_to("1.png")
    (tmp_path / "f" / "e" / "2.png").symlink_to("1.png")
    data = FolderSet(tmp_path / "f")
    seen = []
    for list_file, count in split_to_lists(data, tmp_path / "lists", fraction=0.4, seed=0):
        side = list_set(list_file)
        assert len(side.identities) == count
        seen += [(side.name(i), side.identities[label]) for i, label in enumerate(side.labels)]
    assert sorted(seen) == sorted((data.name(i), data.identities[label]) for i, label in enumerate(data.labels))


@pytest.mark.parametrize("bad", ["t\tt", "n\nl", " leads", "trails\u2028", "b\udcff", "t\tt.png", "b\udcff.png"])
def test_a_split_refuses_names_that_a_list_cannot_hold(tmp_path, bad):
    is_file = bad.endswith(".png")
    data = people(tmp_path / "f", ["a", "b", "c", "d" if is_file else bad], bad if is_file else "1.png")
    with pytest.raises(DataError, match="cannot stand in a list. Rename it"):
        split_to_lists(data, tmp_path / "lists", fraction=0.5, seed=0)
    assert not list((tmp_path / "lists").iterdir())


def test_check_names_files_that_are_no_text(tmp_path, capfdbinary):
    people(tmp_path / "f", ["a", "b"], "\udcff.png")
    with open(os.fsencode(tmp_path / "f" / "a") + b"/\xff.png", "wb") as file:
        file.write(b"broken")
    with pytest.raises(SystemExit):
        main(["data", "check", str(tmp_path / "f"), "--out", str(tmp_path / "faults.csv")])
    assert rb"broken: " + os.fsencode(tmp_path / "f" / "a") + rb"/\udcff.png" in capfdbinary.readouterr().out
    assert b"/\xff.png" in (tmp_path / "faults.csv").read_bytes()


def test_check_finds_each_kind_of_fault(root, capsys):
    assert check_set(FolderSet(root)) == []
    assert main(["data", "check", str(root)]) == 0
    assert "10 images; no fault" in capsys.readouterr().out
    (root / "bob" / "0.jpg").write_bytes((root / "ann" / "0.jpg").read_bytes())
    (root / "cyd" / "0.jpg").write_bytes(b"")
    (root / "cyd" / "1.jpg").write_bytes(b"broken")
    Image.new("L", (8, 8), 7).save(root / "cyd" / "2.jpg")
    Image.fromarray(np.arange(9 * 8 * 3, dtype=np.uint8).reshape(9, 8, 3)).save(root / "dan" / "0.jpg")
    (root / "dan" / "2.jpg").write_bytes((root / "dan" / "1.jpg").read_bytes())
    found = [(f.kind, f.name.removeprefix(f"{root}/")) for f in check_set(FolderSet(root))]
    assert found == [
        ("duplicate", "bob/0.jpg"),
        ("empty", "cyd/0.jpg"),
        ("broken", "cyd/1.jpg"),
        ("grey", "cyd/2.jpg"),
        ("size", "dan/0.jpg"),
        ("duplicate", "dan/2.jpg"),
    ]
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", str(root)])
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "same bytes as" in out
    assert "of identity 'ann'" in out
    assert "10 images; 2 duplicate, 1 empty, 1 broken, 1 grey, 1 size" in out
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", str(root), "--out", str(root.parent / "lists" / "faults.csv")])
    assert ended.value.code == 1
    with open(root.parent / "lists" / "faults.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["kind", "image", "detail"]
    assert [(kind, name.removeprefix(f"{root}/")) for kind, name, _ in rows[1:]] == found
    write_findings(root.parent / "none.csv", [])
    assert (root.parent / "none.csv").read_text() == "kind,image,detail\n"
    with pytest.raises(DataError, match=r"none.csv/x.csv cannot be written"):
        write_findings(root.parent / "none.csv" / "x.csv", [])


def test_info_counts(root, capsys):
    info = inspect_set(FolderSet(root))
    assert info.rate > 0
    assert info[:4] == (10, 4, {(8, 8): 10}, 0)
    assert info.histogram == [(1, 1, 1), (2, 3, 2), (4, 7, 1)]
    (root / "cyd" / "1.jpg").write_bytes(b"broken")
    assert main(["data", "info", str(root)]) == 0
    out = capsys.readouterr().out
    for text in ("10 images of 4 identities", "8 x 8: ", "of 9 images", "1 others", "2-3         2 ####"):
        assert text in out


def test_info_of_pairs_counts_no_identities(root, tmp_path):
    files = [path.read_bytes() for path in sorted(root.glob("*/*.jpg"))][:4]
    write_bin(tmp_path / "a.bin", [files[0], files[1], files[0], files[2], files[3], files[0]], [True, False, False])
    info = inspect_set(open_source(str(tmp_path / "a.bin")))
    assert "4 images in 3 pairs, 1 of them genuine; the file does not say whom they show" in info.text()
    assert "identit" not in info.text()


@pytest.mark.parametrize(
    ("color", "hint"),
    [
        ((180, 120, 100), "red is above blue (means 180, 120, 100), as in photographs of faces"),
        ((100, 120, 180), "written with red and blue exchanged (BGR)"),
        ((90, 90, 90), "all three are equal (means 90, 90, 90): grey"),
        ((90, 200, 90), "red and blue are alike (means 90, 200, 90), which tells nothing"),
    ],
)
def test_info_tells_the_channels_apart_and_estimates_an_epoch(color, hint):
    pixels = np.broadcast_to(np.array(color, np.uint8), (6, 8, 8, 3))
    data = ArraySet(pixels, np.zeros(6, np.int64), ["a"])
    info = inspect_set(data, workers=3)
    assert hint in info.text()
    text = info._replace(images=36_000_000, rate=1000.0).text()
    assert "an epoch takes about 3.3 h to read and decode in 3 processes: an estimate from 1,000 images/s" in text
    assert "about 0.10 s" in info._replace(images=300, rate=1000.0).text()
    with pytest.raises(ConfigError, match="workers must be >= 1, got 0"):
        inspect_set(data, workers=0)


def test_split_shares_no_identity(root, tmp_path):
    for out in ("a", "b", "c"):
        seed = {"a": 0, "b": 0, "c": 1}[out]
        words = ["data", "split", str(root), "--out", str(tmp_path / out), "--fraction", "0.5", "--seed", str(seed)]
        assert main(words) == 0
    rest, held = (list_set(tmp_path / "a" / name) for name in ("rest.txt", "held_out.txt"))
    assert set(rest.identities) | set(held.identities) == {"ann", "bob", "cyd", "dan"}
    assert len(rest.identities) == len(held.identities) == 2
    assert {**files(rest), **files(held)} == files(FolderSet(root))
    texts = [(tmp_path / out / "rest.txt").read_text() for out in "abc"]
    assert texts[0] == texts[1] != texts[2]


def test_another_split_is_not_written_over(root, tmp_path, capsys):
    words = ["data", "split", str(root), "--out", str(tmp_path / "a"), "--fraction", "0.5"]
    assert main(words) == main(words) == 0  # the same one again
    before = (tmp_path / "a" / "rest.txt").read_text(), (tmp_path / "a" / "held_out.txt").read_text()
    assert main([*words, "--seed", "1"]) == 2
    assert "rest.txt is there already, and of another split. Delete it" in capsys.readouterr().err
    assert before == ((tmp_path / "a" / "rest.txt").read_text(), (tmp_path / "a" / "held_out.txt").read_text())


def test_errors_of_use_are_one_message(tmp_path, capsys):
    assert main(["data", "info", str(tmp_path / "gone")]) == 2
    assert "unpg data: " in (err := capsys.readouterr().err)
    assert "gone does not exist" in err
    (tmp_path / "a.zip").write_text("")
    assert main(["data", "info", str(tmp_path / "a.zip")]) == 2
    assert "known are a folder, .bin, .csv, .lmdb" in capsys.readouterr().err


def test_a_bin_is_a_benchmark_of_pairs(root, tmp_path):
    from unpg.data.bins import write_bin

    images = [content(FolderSet(root), i % 10) for i in range(40)]
    write_bin(tmp_path / "a.bin", images, [True, False] * 10)
    found = open_benchmark(str(tmp_path / "a.bin"))
    assert isinstance(found, PairBenchmark)
    assert (len(found.images), len(found.pairs), len(np.unique(found.folds))) == (10, 20, 10)
    vectors = np.eye(10, dtype=np.float32)
    assert found.run(lambda images: (vectors, np.ones(10, np.float32))).to_dict()["genuine"] == 10


def test_images_of_other_sizes_are_told_from_broken_ones(root, capsys):
    Image.new("RGB", (6, 8), (200, 100, 50)).save(root / "dan" / "narrow.png")
    (root / "dan" / "torn.jpg").write_bytes(b"\xff\xd8torn")
    assert main(["data", "info", str(root)]) == 0
    said = capsys.readouterr().out
    assert "8 x 8 (10), 8 x 6 (1): height x width in pixels of 11 images spread over the set; 1 others" in said
    assert "must have one size: align the faces to one template first" in said
    with pytest.raises(SystemExit, match="1"):
        main(["data", "check", str(root)])
    said = capsys.readouterr().out
    assert f"broken: {root}/dan/torn.jpg: " in said
    assert said.count("torn.jpg") == 1


def test_a_folder_above_the_people_is_told_where_they_are(root, capsys):
    above = root.parent / "set"
    above.mkdir()
    root.rename(above / "images")
    assert main(["data", "info", str(above)]) == 2
    assert f"do you mean {above / 'images'}?" in capsys.readouterr().err
