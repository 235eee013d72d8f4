import csv
import pickle

import numpy as np
import pytest
from PIL import Image

from unpg.data import ArraySet, FolderSet, ImageSet, SizeError, Subset
from unpg.data.content import content
from unpg.data.joined import JoinedSet
from unpg.data.listed import csv_set, list_set
from unpg.data.parquet import ParquetSet
from unpg.data.record_set import RecordSet
from unpg.data.recordio import RecordWriter, pack
from unpg.data.source import SOURCES
from unpg.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    for i, file in enumerate(["a/1.png", "a/2 x.png", "b/1.png"]):
        (tmp_path / "f" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "f" / file)
    return tmp_path / "f"


ROWS = [("b/1.png", "bob"), ("a/1.png", "ann"), ("a/2 x.png", "ann")]


def check(data, root):
    assert isinstance(data, ImageSet)
    assert data.identities == ["bob", "ann"]
    assert data.labels.tolist() == [0, 1, 1]
    assert [int(data.read(i)[0, 0, 0]) for i in range(3)] == [2, 0, 1]
    assert [content(data, i) for i in range(3)] == [(root / path).read_bytes() for path, _ in ROWS]
    assert pickle.loads(pickle.dumps(data)).digest() == data.digest()


@pytest.mark.parametrize("gap", ["\t", " "])
def test_a_list(root, gap):
    (root / "list.txt").write_text("# path, name\n" + "\n\n".join(f"{path}{gap}{who}" for path, who in ROWS))
    check(list_set(root / "list.txt"), root)


def test_a_table_with_commas(root, tmp_path):
    (tmp_path / "a.csv").write_text("sex,identity,path\n" + "\n".join(f"?,{who},{path}" for path, who in ROWS))
    check(csv_set(tmp_path / "a.csv", root), root)


def test_cells_of_a_table_are_kept_as_they_are(root, tmp_path):
    names = ["two\nlines", " a, b ", 'quo"te', "n\u2028l\x85\x0b", "cr\r"]
    for i in range(2):
        Image.new("RGB", (8, 8)).save(root / f"{i} ,x.png")
    rows = [*(path for path, _ in ROWS), "0 ,x.png", "1 ,x.png"]
    with open(tmp_path / "a.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["path", "identity"], *zip(rows, names, strict=True)])
    data = csv_set(tmp_path / "a.csv", root)
    assert data.identities == names
    assert [data.name(i) for i in range(5)] == [str(root / path) for path in rows]


def test_parquet_parts_in_a_folder(root, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    with pytest.raises(DataError, match=r"has no .parquet files"):
        ParquetSet(tmp_path)
    for number, (path, who) in enumerate(ROWS):
        image = {"bytes": (root / path).read_bytes(), "path": path if number else None}
        parquet.write_table(pyarrow.table({"image": [image], "identity": [who]}), tmp_path / f"{number}.parquet")
    data = ParquetSet(tmp_path)
    check(data, root)
    assert [data.name(i) for i in range(3)] == [f"{tmp_path}#0", f"{tmp_path}#a/1.png", f"{tmp_path}#a/2 x.png"]
    parquet.write_table(pyarrow.table({"image": ["x.png"], "identity": ["y"]}), tmp_path / "9.parquet")
    with pytest.raises(DataError, match="some parts hold image files and others paths"):
        ParquetSet(tmp_path)


@pytest.mark.parametrize("kind", ["bytes", "paths", "structure"])
def test_parquet(root, kind):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    files = [(root / path).read_bytes() for path, _ in ROWS]
    cells = {"bytes": files, "paths": [p for p, _ in ROWS], "structure": [{"bytes": f, "path": None} for f in files]}
    table = pyarrow.table({"image": cells[kind], "identity": [who for _, who in ROWS]})
    parquet.write_table(table, root / "a.parquet")
    check(ParquetSet(root / "a.parquet"), root)
    with pytest.raises(DataError, match=r"no column is called 'imag'. Did you mean 'image'"):
        ParquetSet(root / "a.parquet", image_column="imag")
    whole = (root / "a.parquet").read_bytes()
    for length in range(0, len(whole), 7):
        (root / "a.parquet").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a.parquet cannot be read as Parquet"):
            ParquetSet(root / "a.parquet")
    for column, bad in (("image", [None]), ("identity", [None]), ("identity", [1.5])):
        broken = {"image": [files[0]], "identity": ["x"], column: bad}
        parquet.write_table(pyarrow.table(broken), root / "a.parquet")
        with pytest.raises(DataError, match=rf"a.parquet, row 0: .*'{column}'"):
            ParquetSet(root / "a.parquet")
    parquet.write_table(table.slice(0, 0), root / "a.parquet")
    with pytest.raises(DataError, match="has no rows"):
        ParquetSet(root / "a.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no image"),
        ("a/1.png\n", "line 1: expected '<path> <tab> <identity>', got 'a/1.png'"),
        ("a/1.png\tann\nb/1.png\t\n", "line 2"),
        ("a/1.png\tann\tx\n", "line 1"),
        ("a/1.png x\n\na/1.png y\n", "line 3: a/1.png is in line 1 already"),
        ("gone.png x\n", "none of the 1 images can be read. The first: .*gone.png"),
    ],
)
def test_faults_of_a_list_name_the_line(root, text, message):
    (root / "list.txt").write_text(text)
    with pytest.raises(DataError, match=r"list.txt.*" + message):
        list_set(root / "list.txt")
    with pytest.raises(DataError, match="cannot be read"):
        list_set(root / "gone.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column is called 'path'"),
        ("path,identiy\n", "no column is called 'identity'. Did you mean 'identiy'"),
        ("path;identity\n", "Columns are separated by commas; path_column and identity_column"),
        ("path,identity\n", "lists no image"),
        ("path,identity\na/1.png\n", "line 2: expected 2 cells"),
        ("path,identity\na/1.png,ann\n,ann\n", "line 3"),
        ('path,identity\na/1.png,ann\nb/1.png,"bob\n' + "x.png,y\n" * 3, "line 3: the record that begins here"),
        ('path,identity\na/1.png,ann\nb/1.png,"bob\n' + "x.png,y\n" * 30_000, "line 3: the record .* quote not closed"),
        ('path,identity\n"a\n/1.png",ann,3\n', "line 2: expected 2 cells"),
    ],
)
def test_faults_of_a_table_name_the_line(root, text, message):
    (root / "a.csv").write_text(text)
    with pytest.raises(DataError, match=r"a.csv.*" + message):
        csv_set(root / "a.csv")


def test_an_image_of_another_size_is_refused(root):
    Image.new("RGB", (9, 8)).save(root / "c.png")
    (root / "list.txt").write_text("a/1.png x\nc.png y\n")
    with pytest.raises(SizeError, match=r"c.png is 8 x 9"):
        list_set(root / "list.txt").read(1)


def test_joined_sets_keep_their_people_apart(root):
    folder = FolderSet(root)
    data = JoinedSet({"x": folder, "y": Subset(folder, [2, 0])})
    assert data.identities == ["x/a", "x/b", "y/a", "y/b"]
    assert data.labels.tolist() == [0, 0, 1, 3, 2]
    assert [int(data.read(i)[0, 0, 0]) for i in range(5)] == [0, 1, 2, 2, 0]
    assert content(data, 3) == (root / "b" / "1.png").read_bytes()
    assert data.name(4) == folder.name(0)
    assert JoinedSet({"x": folder}).digest() != JoinedSet({"y": folder}).digest()
    with pytest.raises(IndexError):
        data.read(5)
    with pytest.raises(DataError, match="no parts"):
        JoinedSet({})


def test_pixels_without_a_file_lose_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 5, 7, 3), dtype=np.uint8)
    from unpg.data.decode import decode

    assert np.array_equal(decode(content(ArraySet(pixels, np.zeros(1, np.int64), ["a"]), 0)), pixels[0])


def test_sources_by_kind(root, tmp_path):
    with RecordWriter(tmp_path / "a.rec") as out:
        for key, (path, _) in enumerate(ROWS):
            out.write(key, pack(int(key > 0), (root / path).read_bytes()))
    rec = {"kind": "recordio", "path": str(tmp_path / "a.rec")}
    assert isinstance(SOURCES.build("recordio", {"path": rec["path"]}), RecordSet)
    (root / "list.txt").write_text("\n".join(f"{path}\t{who}" for path, who in ROWS))
    listed = {"kind": "list", "path": str(root / "list.txt")}
    data = SOURCES.build("joined", {"sources": {"one": rec, "two": listed}})
    assert data.identities == ["one/0", "one/1", "two/bob", "two/ann"]
    assert [content(data, i) for i in range(3)] == [content(data, i + 3) for i in range(3)]
    with pytest.raises(ConfigError, match="data.sources.x must be a mapping with a kind"):
        SOURCES.build("joined", {"sources": {"x": "path"}})
