import struct

import pytest

from unpg.data.lmdb_pages import check_lmdb_pages
from unpg.errors import DataError

lmdb = pytest.importorskip("lmdb")

PAGE = 4096


def made(path, n=400, size=20):
    """A database of a branch page, leaf pages and one value on pages of its own."""
    with lmdb.open(str(path), map_size=1 << 22, subdir=False, lock=False) as env, env.begin(write=True) as out:
        for i in range(n):
            out.put(b"%06d" % i, b"v" * (3 * PAGE if i == 7 else size))
    return path


def head(data):
    """Byte of the head that counts."""
    transactions = [struct.unpack_from("<Q", data, at + 16 + 24 + 2 * 48 + 8)[0] for at in (0, PAGE)]
    return PAGE * transactions.index(max(transactions))


def root(data):
    return PAGE * struct.unpack_from("<Q", data, head(data) + 16 + 24 + 48 + 40)[0]


def put(data, at, form, value):
    struct.pack_into(form, data, at, value)


def node(data, page, i):
    return page + struct.unpack_from("<H", data, page + 16 + 2 * i)[0]


@pytest.mark.parametrize("n", [0, 1, 10, 400, 20_000])
def test_what_lmdb_writes_is_sound(tmp_path, n):
    check_lmdb_pages(made(tmp_path / "a.mdb", n))


def test_after_many_changes_too(tmp_path):
    path = made(tmp_path / "a.mdb", 2000)
    with lmdb.open(str(path), map_size=1 << 22, subdir=False, lock=False) as env:
        for i in range(0, 2000, 3):
            with env.begin(write=True) as out:
                out.delete(b"%06d" % i)
    check_lmdb_pages(path)


def changed_often(path):
    """A database with pages that may be used again: some in a list inside the tree of free pages."""
    made(path, 2000)
    with lmdb.open(str(path), map_size=1 << 22, subdir=False, lock=False) as env:
        for i in range(0, 2000, 3):
            with env.begin(write=True) as out:
                out.delete(b"%06d" % i)
        with env.begin(write=True) as out:
            out.put(b"long", b"v" * 5 * PAGE)
    return path


def free_leaf(data):
    return PAGE * struct.unpack_from("<Q", data, head(data) + 16 + 24 + 40)[0]


def test_what_is_written_on_is_sound(tmp_path):
    for n in (0, 1, 10, 400):
        check_lmdb_pages(made(tmp_path / f"{n}.mdb", n), writing=True)
    check_lmdb_pages(changed_often(tmp_path / "a.mdb"), writing=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d, value: put(d, value, "<Q", 1 << 60), "a list of free pages that does not read"),
        (lambda d, value: put(d, value + 8, "<Q", 1 << 40), "a list of free pages"),
        (lambda d, value: put(d, value + 8, "<Q", root(d) // PAGE), "of used ones"),
        (lambda d, value: put(d, free_leaf(d) + 10, "<H", 1), "of kind 0x1 where 0x2 should be"),
        (lambda d, value: put(d, head(d) + 16 + 24 + 40, "<Q", root(d) // PAGE), "the page is in a tree twice"),
    ],
)
def test_free_pages_that_are_none_are_found_before_lmdb_writes_on_them(tmp_path, change, said):
    path = changed_often(tmp_path / "a.mdb")
    data = bytearray(path.read_bytes())
    change(data, node(data, free_leaf(data), 0) + 8 + 8)  # a key is eight bytes
    path.write_bytes(data)
    check_lmdb_pages(path)  # who only reads is not concerned
    with pytest.raises(DataError, match=said):
        check_lmdb_pages(path, writing=True)


def leaf_of(data):
    """The leaf with the value on pages of its own: the first."""
    at = root(data)
    low, high, flags = struct.unpack_from("<HHH", data, node(data, at, 0))
    return PAGE * (low | high << 16 | flags << 32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: put(d, head(d) + 16, "<I", 1), "no head of version 0.9"),
        (lambda d: put(d, head(d) + 16 + 24, "<I", 3), "pages of 3 bytes"),
        (lambda d: put(d, head(d) + 16 + 24 + 48 + 4, "<H", 4), "several values a key"),
        (lambda d: put(d, head(d) + 16 + 24 + 96, "<Q", 1 << 40), "is cut off at byte"),
        (lambda d: put(d, head(d) + 16 + 24 + 48 + 40, "<Q", 1 << 50), "a page 1125899906842624 is named"),
        (lambda d: put(d, head(d) + 16 + 24 + 48 + 40, "<Q", 1), "a page 1 is named"),
        (lambda d: put(d, head(d) + 16 + 24 + 48 + 6, "<H", 60), "of kind 0x2 where 0x1|of kind 0x1 where 0x2|deeper"),
        (lambda d: put(d, root(d) + 10, "<H", 2), "of kind 0x2 where 0x1 should be"),
        (lambda d: put(d, root(d) + 12, "<H", 5000), "a list of nodes to byte 5000"),
        (lambda d: put(d, root(d) + 16, "<H", 4095), "a node outside of its page"),
        # The second child is the first once more, or the root itself: an endless or exponential walk.
        (
            lambda d: d.__setitem__(slice(node(d, root(d), 1), node(d, root(d), 1) + 6), d[node(d, root(d), 0) :][:6]),
            "twice",
        ),
        (lambda d: put(d, node(d, root(d), 1), "<I", root(d) // PAGE), "twice"),
        (lambda d: put(d, node(d, leaf_of(d), 0) + 6, "<H", 60_000), "a key of no or more than 511 bytes"),
        (lambda d: put(d, node(d, leaf_of(d), 0), "<H", 60_000), "a key or value that leaves its page"),
        (lambda d: put(d, node(d, leaf_of(d), 0) + 4, "<H", 2), "neither a value nor points to one"),
        (lambda d: put(d, node(d, leaf_of(d), 7), "<I", 1 << 30), "a value of 1073741824 bytes on page"),
        (lambda d: put(d, node(d, leaf_of(d), 7) + 14, "<Q", 1 << 40), "on page 1099511627776"),
    ],
)
def test_a_page_that_lies_is_named(tmp_path, change, said):
    data = bytearray(made(tmp_path / "a.mdb").read_bytes())
    change(data)
    (tmp_path / "b.mdb").write_bytes(data)
    with pytest.raises(DataError, match=rf"b\.mdb.*({said})") as caught:
        check_lmdb_pages(tmp_path / "b.mdb")
    assert "byte " in str(caught.value)


def test_no_file_an_empty_one_and_a_short_one(tmp_path):
    with pytest.raises(DataError, match="gone cannot be opened"):
        check_lmdb_pages(tmp_path / "gone")
    for size, said in ((0, "empty"), (10, "inside its head"), (5000, "is cut off at byte 5000")):
        (tmp_path / "c").write_bytes(made(tmp_path / "a.mdb").read_bytes()[:size])
        with pytest.raises(DataError, match=said):
            check_lmdb_pages(tmp_path / "c")
