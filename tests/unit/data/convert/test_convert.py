import hashlib
import io
import json
import os
import pickle
import signal
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unpg.cli.main import main
from unpg.data import ArraySet, BinPairs, FolderSet, Subset, csv_pairs
from unpg.data.content import content, has_files
from unpg.data.convert import FORMS, MANIFEST, convert, convert_pairs
from unpg.data.convert.journal import Journal
from unpg.data.convert.naming import safe_folders
from unpg.data.joined import JoinedSet
from unpg.data.open_source import open_source
from unpg.errors import ConfigError, DataError

NAMES = [
    "001",
    "1",
    "a/b",
    "A/B",
    "a%2Fb",
    " leads",
    "trails ",
    ".hidden",
    "tab\tand\nlines\r\n",
    'quo"ted, with comma',
    "Zoë 李",
    "con",
    "manifest.sha256",
    "identities.json",
    "x.",
    "n\u2028l\x85",
    "carriage\rreturn",
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pixels(names, n=None):
    n = n or 2 * len(names)
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return ArraySet(images, np.arange(n) * 7 % len(names), names)


def by_identity(image_set):
    found = {}
    for i, label in enumerate(image_set.labels):
        found.setdefault(image_set.identities[label], []).append(content(image_set, i))
    return found


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def root(tmp_path):
    """Images with names that a folder set knows, some in deeper folders."""
    rng = np.random.default_rng(1)
    for i, file in enumerate(["001/frontal/01.jpg", "001/profile/01.jpg", "001/x.JPG", "Zoë/李 1.png", "b/1.jpeg"] * 5):
        path = tmp_path / "f" / file.replace("1.", f"{i}1.").replace("x.", f"x{i}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "f"


@pytest.mark.parametrize("form", list(FORMS))
def test_identities_keep_their_names_exactly(tmp_path, form):
    data = pixels(NAMES)
    made = convert(data, tmp_path / "out", form)
    assert made.notes == ["The images are numbered: not all of its images have file names."]
    back = open_source(tmp_path / "out")
    assert set(back.identities) == set(NAMES)
    assert by_identity(back) == by_identity(data)
    if form in ("recordio", "lmdb", "webdataset"):
        assert back.identities == NAMES  # and the numbers of the labels


@pytest.mark.parametrize("form", list(FORMS))
def test_a_name_too_long_for_a_folder_is_refused_where_there_are_folders(tmp_path, form):
    data = pixels(["x" * 300, "y"])
    if form in ("csv", "folder"):
        with pytest.raises(DataError, match=r"folder name of 300 bytes; file systems hold 255\. Shorten the name, or"):
            convert(data, tmp_path / "out", form)
        assert not (tmp_path / "out.partial").exists()
        return
    convert(data, tmp_path / "out", form)
    assert by_identity(open_source(tmp_path / "out")) == by_identity(data)


@pytest.mark.parametrize("form", list(FORMS))
def test_a_name_that_is_no_text_is_kept_or_refused(tmp_path, form):
    data = pixels(["a", "b\udcff"])
    if form in ("csv", "parquet"):
        with pytest.raises(DataError, match=r"'b\\udcff' (cannot stand in a table|is no UTF-8)"):
            convert(data, tmp_path / "out", form)
        return
    convert(data, tmp_path / "out", form)
    assert by_identity(open_source(tmp_path / "out")) == by_identity(data)


@pytest.mark.parametrize("form", list(FORMS))
def test_files_keep_their_names_from_form_to_form(root, tmp_path, form):
    assert convert(FolderSet(root), tmp_path / "a", form).notes == []
    convert(open_source(tmp_path / "a"), tmp_path / "b", "folder")
    back = tree(tmp_path / "b")
    del back[MANIFEST]
    assert back == tree(root)


@pytest.mark.parametrize("form", list(FORMS))
def test_names_with_hashes_and_namesakes_of_the_identity_deeper_down(tmp_path, form):
    names = ["X/a#1.jpg", "X/b#1.jpg", "X/X/a#1.jpg", "X/Y/X/c.jpg", "Y/X/c.jpg", "Y/out#b.jpg"]
    for i, name in enumerate(names):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "f" / name)
    assert convert(FolderSet(tmp_path / "f"), tmp_path / "X" / "a", form).notes == []
    opened = open_source(tmp_path / "X" / "a")  # an identity's namesake above, too
    assert convert(opened, tmp_path / "b", "folder").notes == []
    back = tree(tmp_path / "b")
    del back[MANIFEST]
    assert back == tree(tmp_path / "f")
    joined = JoinedSet({"j": Subset(opened, range(len(opened)))})
    assert convert(joined, tmp_path / "c", "folder").notes == []
    assert {name.removeprefix("j%2F") for name in tree(tmp_path / "c")} >= set(names)


def test_names_of_folders_hold_on_every_file_system():
    folders = safe_folders([*NAMES, "a" * 255], reserved=("manifest.sha256", "identities.json"))
    assert len({name.lower() for name in folders}) == len(NAMES) + 1
    for name in folders:
        assert not set(name) & set('/\\:*?"<>|\t\n\r')
        assert name[0] != "."
        assert name[-1] not in ". "
    assert folders[:6] == ["001", "1", "a%2Fb", "A%2FB~2", "a%252Fb", " leads"]
    for long in ("a" * 256, "李" * 86):
        with pytest.raises(DataError, match=r"would need a folder name of (256|258) bytes; file systems hold 255"):
            safe_folders([long])


def test_images_are_numbered_where_names_cannot_stay(root, tmp_path):
    (root / "b" / "x.y.jpg").write_bytes((root / "b" / "41.jpeg").read_bytes())
    made = convert(FolderSet(root), tmp_path / "tar", "webdataset")
    assert made.notes == ["The images are numbered: the file name 'x.y.jpg' cannot be kept there."]
    assert by_identity(open_source(tmp_path / "tar")) == by_identity(FolderSet(root))
    assert convert(FolderSet(root), tmp_path / "rec").notes == []
    (root / "b" / "X.Y.jpg").write_bytes((root / "b" / "91.jpeg").read_bytes())
    made = convert(FolderSet(root), tmp_path / "again", "folder")
    assert made.notes == ["The images are numbered: two images of an identity have the same file name."]


def killed_at(data, out, form, place, **settings):
    """Convert in another process, which kills itself when ``place`` images are done."""

    def kill(done, total):
        if done == place:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            convert(data, out, form, progress=kill, **settings)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert not out.exists()


@pytest.mark.parametrize("form", list(FORMS))
def test_killed_conversions_go_on_and_give_the_same_bytes(root, tmp_path, form):
    data = FolderSet(root)
    settings = {"every": 4, "shard_images": 7}
    convert(data, tmp_path / "whole", form, **settings)
    out = tmp_path / "out"
    for place in (1, 6, 13, 22, len(data)):
        killed_at(data, out, form, place, **settings)
        for file in (tmp_path / "out.partial").glob("train.???"):
            with open(file, "ab") as torn:
                torn.write(b"\x0a\x23\xd7\xce torn")
    starts = []
    made = convert(data, out, form, progress=lambda done, total: starts.append(done), **settings)
    assert tree(out) == tree(tmp_path / "whole")
    assert made.resumed == starts[0]
    # All images stood there but those since the last mark; a folder compares each with its source.
    assert made.resumed == {"folder": 0, "csv": 0, "parquet": 21}.get(form, 24)
    assert not (tmp_path / "out.partial").exists()


def test_a_second_process_is_refused_and_harms_nothing(root, tmp_path):
    data, out = FolderSet(root), tmp_path / "out"
    convert(data, tmp_path / "whole")

    def second(done, total):
        if done == 7:
            with pytest.raises(DataError, match=r"Another process is writing .*out\.partial\. Wait until it has ended"):
                convert(data, out)

    convert(data, out, every=2, progress=second)
    assert tree(out) == tree(tmp_path / "whole")


def test_a_file_that_somebody_else_writes_to_is_noticed(root, tmp_path):
    def foreign(done, total):
        if done == 7:
            with open(tmp_path / "out.partial" / "train.rec", "ab") as file:
                file.write(b"foreign")

    with pytest.raises(DataError, match=r"train\.rec has [0-9,]+ bytes, not the [0-9,]+ written: another process"):
        convert(FolderSet(root), tmp_path / "out", every=2, progress=foreign)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", ["rename", "unlink"])
@pytest.mark.parametrize("form", list(FORMS))
def test_a_kill_at_the_very_end_strands_nothing(root, tmp_path, monkeypatch, form, call):
    data, out = FolderSet(root), tmp_path / "out"
    convert(data, tmp_path / "whole", form, every=4)
    real = getattr(os, call)

    def stop(path, *more, **options):
        if call == "rename" or Path(path).parent == out:
            raise KeyboardInterrupt
        return real(path, *more, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, stop)
        with pytest.raises(KeyboardInterrupt):
            convert(data, out, form, every=4)
    if call == "rename":
        convert(data, out, form, every=4)
        assert tree(out) == tree(tmp_path / "whole")
    else:
        assert by_identity(open_source(out)) == by_identity(data)


@pytest.mark.parametrize("form", ["recordio", "webdataset", "lmdb", "parquet"])
@pytest.mark.parametrize("fault", ["flipped", "cut", "gone", "journal"])
def test_what_is_not_whole_is_written_anew(root, tmp_path, form, fault):
    data = FolderSet(root)
    settings = {"every": 4, "shard_images": 7}
    convert(data, tmp_path / "whole", form, **settings)
    out = tmp_path / "out"
    killed_at(data, out, form, 22, **settings)
    partial = tmp_path / "out.partial"
    name = {
        "recordio": "train.rec",
        "webdataset": "train-000001.tar",
        "lmdb": "data.mdb",
        "parquet": "part-00001.parquet",
    }
    file = partial / ("journal.jsonl" if fault == "journal" else name[form])
    whole = file.read_bytes()
    if fault == "gone":
        file.unlink()
    elif fault == "flipped":
        image = content(data, 9)  # lmdb leaves older copies of a page behind: all are changed
        file.write_bytes(whole.replace(image, image[:-5] + bytes([image[-5] ^ 1]) + image[-4:]))
    else:
        file.write_bytes(whole[: len(whole) // 2])
    made = convert(data, out, form, **settings)
    # A database that is ahead of its journal is compared with the source instead.
    assert made.resumed == 20 if (form, fault) == ("lmdb", "journal") else made.resumed < 20
    assert tree(out) == tree(tmp_path / "whole")


def lines_of(folder):
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def forged(line):
    line.pop("sum", None)
    return json.dumps({**line, "sum": zlib.crc32(json.dumps(line, sort_keys=True).encode())}) + "\n"


@pytest.mark.parametrize("form", ["recordio", "webdataset", "lmdb", "parquet"])
def test_a_journal_that_a_disk_has_changed_leaves_nothing_out(root, tmp_path, form):
    data, out, settings = FolderSet(root), tmp_path / "out", {"every": 4, "shard_images": 7}
    convert(data, tmp_path / "whole", form, **settings)
    killed_at(data, out, form, 22, **settings)
    lines = lines_of(tmp_path / "out.partial")
    lines[-1]["done"] += 1  # one bit, and an image would be missing
    (tmp_path / "out.partial" / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    convert(data, out, form, **settings)
    assert tree(out) == tree(tmp_path / "whole")


@pytest.mark.parametrize("name", ["../kept", "/kept", "..", "", "a\\b", "c:x", "x\0"])
def test_a_journal_of_a_stranger_reaches_no_other_file(root, tmp_path, name):
    data, out = FolderSet(root), tmp_path / "out"
    killed_at(data, out, "recordio", 22, every=4, shard_images=7)
    (tmp_path / "kept").write_bytes(b"kept")
    name = str(tmp_path / "kept") if name == "/kept" else name
    (line, *_) = lines_of(tmp_path / "out.partial")
    for files in ({name: [0, hashlib.sha256().hexdigest()]}, {name: [9, "none"]}):  # cut off; removed
        text = forged({**line, "files": files})
        (tmp_path / "out.partial" / "journal.jsonl").write_text(text)
        Journal(tmp_path / "out.partial", 4)
        assert (tmp_path / "kept").read_bytes() == b"kept"
    assert convert(data, out, "recordio", every=4, shard_images=7).resumed == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"done": 1000}, r"journal\.jsonl says that 1,000 images are written; the set has 25"),
        ({"state": {"shard": "a", "inside": 1}}, r"journal\.jsonl: of \d+ images, it says to be in shard 'a'"),
        ({"state": {"shard": 1, "inside": -1}}, r"journal\.jsonl: .* with -1 images"),
    ],
)
def test_a_journal_that_says_what_cannot_be(root, tmp_path, change, said):
    data, out = FolderSet(root), tmp_path / "out"
    killed_at(data, out, "webdataset", 22, every=4, shard_images=7)
    *lines, last = lines_of(tmp_path / "out.partial")
    text = "".join(map(forged, [*lines, {**last, **change}]))
    (tmp_path / "out.partial" / "journal.jsonl").write_text(text)
    with pytest.raises(DataError, match=said):
        convert(data, out, "webdataset", every=4, shard_images=7)


def test_images_that_changed_meanwhile_are_not_joined_to_old_ones(root, tmp_path):
    for file in [*root.rglob("*.*")]:
        Image.new("RGB", (8, 8)).save(file.with_suffix(".bmp"))
        file.unlink()
    killed_at(FolderSet(root), tmp_path / "out", "recordio", 20, every=4)
    file = next(root.rglob("*.bmp"))
    Image.new("RGB", (8, 8), (9, 9, 9)).save(file)  # as many bytes, so the digest is the same
    with pytest.raises(DataError, match=r"out\.partial holds the beginning of another job"):
        convert(FolderSet(root), tmp_path / "out", every=4)


def test_a_folder_compares_what_is_there(root, tmp_path):
    data = FolderSet(root)
    killed_at(data, tmp_path / "out", "folder", 20)
    for file in [*(tmp_path / "out.partial").rglob("*.jpeg")][:2]:
        file.write_bytes(b"half")
    convert(data, tmp_path / "out", "folder")
    convert(data, tmp_path / "whole", "folder")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_database_that_outgrows_its_map_after_a_kill_is_the_same(tmp_path, monkeypatch):
    pytest.importorskip("lmdb")
    monkeypatch.setattr("unpg.data.convert.lmdb_form._FIRST_MAP", 1 << 16)
    rng = np.random.default_rng(0)
    data = ArraySet(rng.integers(0, 256, (60, 64, 64, 3), dtype=np.uint8), np.arange(60) % 3, ["a", "b", "c"])
    convert(data, tmp_path / "whole", "lmdb", every=8)
    for place in (3, 17, 18, 35, 59):
        killed_at(data, tmp_path / "out", "lmdb", place, every=8)
    assert convert(data, tmp_path / "out", "lmdb", every=8).resumed == 56
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert by_identity(open_source(tmp_path / "out")) == by_identity(data)


def test_the_number_of_workers_changes_nothing(tmp_path):
    form = "recordio"
    data = pixels(["a", "b", "c"], 150)
    assert not has_files(data)
    assert not has_files(JoinedSet({"x": Subset(data, [1, 2])}))
    for workers in (1, 2):
        convert(data, tmp_path / str(workers), form, workers=workers)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_the_archives_are_read_by_others(root, tmp_path):
    data = FolderSet(root)
    convert(data, tmp_path / "tar", "webdataset", shard_images=7)
    found = []
    for shard in sorted((tmp_path / "tar").glob("*.tar")):
        with tarfile.open(shard) as archive:
            found += [(m.name, archive.extractfile(m).read()) for m in archive]
    assert len(found) == 2 * len(data)
    images = [body for name, body in found if not name.endswith(".cls")]
    labels = [int(body) for name, body in found if name.endswith(".cls")]
    assert images == [content(data, i) for i in range(len(data))]
    assert labels == data.labels.tolist()
    assert found[0][0] == "001/frontal/001.jpg"


@pytest.mark.filterwarnings("ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_itself_reads_the_shards(root, tmp_path):
    wds = pytest.importorskip("webdataset")
    data = FolderSet(root)
    convert(data, tmp_path / "tar", "webdataset", shard_images=100)
    found = list(wds.WebDataset(str(tmp_path / "tar" / "train-000000.tar"), shardshuffle=False))
    assert [int(sample["cls"]) for sample in found] == data.labels.tolist()


def test_the_database_is_read_as_copies_of_folder2lmdb_do(root, tmp_path):
    lmdb = pytest.importorskip("lmdb")
    data = FolderSet(root)
    convert(data, tmp_path / "db", "lmdb")
    with lmdb.open(str(tmp_path / "db"), readonly=True, lock=False) as env, env.begin() as reading:
        assert pickle.loads(reading.get(b"__len__")) == len(data)
        keys = pickle.loads(reading.get(b"__keys__"))
        records = [pickle.loads(reading.get(key)) for key in keys]
    assert [record[0] for record in records] == [content(data, i) for i in range(len(data))]
    assert [record[1] for record in records] == data.labels.tolist()


def test_pairs_become_a_bin(root, tmp_path, capsys):
    lines = ["001/x21.JPG,001/x71.JPG,1,0", "001/x21.JPG,b/41.jpeg,0,1", "b/41.jpeg,b/91.jpeg,1,0"]
    names = sorted(str(p.relative_to(root)) for p in root.rglob("*.*"))
    first, second, third = names[0], names[1], names[-1]
    lines = [f"{first},{second},1,0", f"{first},{third},0,1", f"{second},{third},0,0", f"{first},gone.jpg,1,0"]
    (tmp_path / "pairs.csv").write_text("path_a,path_b,same,fold\n" + "\n".join(lines) + "\n")
    words = ["data", "convert", str(root), "--to", "bin", "--pairs", str(tmp_path / "pairs.csv"), "--out"]
    assert main([*words, str(tmp_path / "a.bin")]) == 0
    out = capsys.readouterr().out
    assert "1 pairs are left out" in out
    assert "these folds are others" in out
    back = BinPairs(tmp_path / "a.bin")
    assert back.same.tolist() == [True, False, False]  # by fold
    order = [(first, second), (second, third), (first, third)]
    for (a, b), pair in zip(order, back.pairs.tolist(), strict=True):
        assert [back.images.content(i) for i in pair] == [(root / a).read_bytes(), (root / b).read_bytes()]
    assert main([*words, str(tmp_path / "a.bin")]) == 2
    assert "a.bin exists" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"ends in .bin, got"):
        convert_pairs(csv_pairs(tmp_path / "pairs.csv", root), tmp_path / "a.pkl")
    assert main(["data", "convert", str(root), "--to", "bin", "--out", str(tmp_path / "b.bin")]) == 2
    assert "--to bin and --pairs go together" in capsys.readouterr().err
    assert main([*words[:-2], str(tmp_path / "x.zip"), "--out", str(tmp_path / "b.bin")]) == 2
    assert "expected LFW's pairs.txt, a .csv" in capsys.readouterr().err


def test_settings_of_a_recipe_are_a_source(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNPG_DATA", str(root.parent))
    joined = "{kind: joined, sources: {x: {kind: folder, roots: $UNPG_DATA/f}, y: {kind: folder, roots: $UNPG_DATA/f}}}"
    (tmp_path / "a.yaml").write_text(joined)
    (tmp_path / "b.yaml").write_text(f"data: {joined}\nepochs: 3\n")
    assert main(["data", "convert", str(tmp_path / "a.yaml"), "--out", str(tmp_path / "rec")]) == 0
    assert open_source(tmp_path / "rec").identities == ["x/001", "x/Zoë", "x/b", "y/001", "y/Zoë", "y/b"]
    assert by_identity(open_source(tmp_path / "b.yaml")) == by_identity(open_source(tmp_path / "rec"))
    monkeypatch.delenv("UNPG_DATA")
    with pytest.raises(DataError, match=r"names \$UNPG_DATA, which is not set"):
        open_source(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("epochs: 3\n")
    with pytest.raises(ConfigError, match="expected the settings of a source with its kind"):
        open_source(tmp_path / "c.yaml")


def test_faults_of_use(root, tmp_path, monkeypatch):
    data = FolderSet(root)
    for settings, message in (
        ({"every": 0}, "every and shard_images must be >= 1, got 0 and 10000"),
        ({"shard_images": 0}, "got 2048 and 0"),
        ({"workers": 0}, "workers must be >= 1, got 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            convert(data, tmp_path / "out", **settings)
    twice = ArraySet(np.zeros((2, 8, 8, 3), np.uint8), np.arange(2), ["a", "a"])
    with pytest.raises(DataError, match="two identities of one name"):
        convert(twice, tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(DataError, match=r"out.partial cannot be written: No space left.* the same command goes on"):
            convert(data, tmp_path / "out")
    convert(data, tmp_path / "out")
    for form, module in (("lmdb", "lmdb"), ("parquet", "pyarrow")):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(ConfigError, match=r"pip install 'unpg\[interop\]'"):
            convert(data, tmp_path / form, form)


def test_a_names_file_of_another_set_is_refused(tmp_path):
    data = pixels(["a", "b", "c"])
    for form, name in (("recordio", "train.identities.json"), ("webdataset", "identities.json")):
        convert(data, tmp_path / form, form)
        file = tmp_path / form / name
        for text, message in (
            ('["x", "y"]', "names the labels 0 to 1, but the set has the label '2'"),
            ('["x", "y", "x"]', "the name 'x' is given twice"),
            ('{"a": "b"}', "expected a JSON list of names"),
            ("[1, 2, 3]", "expected a JSON list of names"),
            ('["x", "", "y"]', "none of them empty"),
            ('["x"', r"is not JSON: Expecting ',' delimiter in line 1, column 5"),
        ):
            file.write_text(text)
            with pytest.raises(DataError, match=message):
                open_source(tmp_path / form)
        file.write_text('["x", "y", "z"]')
        assert open_source(tmp_path / form).identities == ["x", "y", "z"]
    convert(pixels(["a/", "b", "c"]), tmp_path / "folder", "folder")
    file = tmp_path / "folder" / "identities.json"
    assert FolderSet(tmp_path / "folder").identities == ["a/", "b", "c"]
    for text, message in (
        ('["a"]', "expected a JSON object from folder to name"),
        ('{"a%2F": 3}', "expected a JSON object"),
        ('{"gone": "g"}', "names the folder 'gone', which is not there"),
        ('{"b": "c"}', "two folders are called 'c'"),
        ("{", "is not JSON: Expecting property name"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            FolderSet(tmp_path / "folder")


def test_bytes_that_are_no_image_are_carried_where_that_can_be(tmp_path):
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "PNG")
    for who, body in (("0", b""), ("a", image.getvalue()), ("b", b""), ("c", b"broken")):
        (tmp_path / "f" / who).mkdir(parents=True)
        (tmp_path / "f" / who / "1.png").write_bytes(body)
    data = FolderSet(tmp_path / "f")
    for form in FORMS:
        convert(data, tmp_path / form, form)
        back = open_source(tmp_path / form)
        assert by_identity(back) == by_identity(data)
        assert back.image_size == (8, 8)
        with pytest.raises(DataError, match="empty"):
            back.read(back.labels.tolist().index(back.identities.index("b")))
    (tmp_path / "f" / "c" / "2.PNG").write_bytes(b"x")
    (tmp_path / "f" / "c" / "2.png").write_bytes(b"x")
    if len(list(Path(tmp_path / "f" / "c").iterdir())) == 3:
        with pytest.raises(DataError, match=r"0/1.png is no JPEG, PNG"):
            convert(FolderSet(tmp_path / "f"), tmp_path / "x", "folder")
