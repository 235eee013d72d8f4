import io
import pickle
import zipfile

import pytest
import torch

from unpg.embed.torch_file import read_torch
from unpg.errors import DataError


def saved(path, value, zipped=True):
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def rewritten(path, out, change=lambda name, data: data, packing=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", packing) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out


@pytest.mark.parametrize("zipped", [True, False])
def test_sound_files_are_as_torch_reads_them(tmp_path, zipped):
    weight = torch.arange(12.0).reshape(3, 4)
    value = {"w": weight, "column": weight[:, 1], "turned": weight.T, "none": torch.zeros(0), "scalar": torch.tensor(3)}
    held = {**value, "step": 2**40, "lr": 0.1, "names": ["a", ("b", None)], "rng": torch.get_rng_state()}
    found = read_torch(saved(tmp_path / "a.pt", held, zipped))
    assert {k: v for k, v in found.items() if k in ("step", "lr", "names")} == {
        "step": 2**40,
        "lr": 0.1,
        "names": ["a", ("b", None)],
    }
    for name, tensor in value.items():
        torch.testing.assert_close(found[name], tensor)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    # 64 MB of zeros in some kilobytes.
    small = rewritten(
        saved(tmp_path / "a.pt", {"w": torch.zeros(16 << 20)}), tmp_path / "b.pt", packing=zipfile.ZIP_DEFLATED
    )
    assert small.stat().st_size < 1 << 20
    with pytest.raises(
        DataError, match=r"b\.pt: the archive of [0-9]+ bytes declares 671.*compressed.*save the weights"
    ):
        read_torch(small)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    data = bytearray(saved(tmp_path / "a.pt", {"w": torch.zeros(4096)}).read_bytes())
    at = data.rindex(b"data/0") - len("a/") - 46  # the entry of the storage in the directory
    data[at + 20 : at + 28] = (1 << 30).to_bytes(4, "little") * 2
    (tmp_path / "b.pt").write_bytes(data)
    with pytest.raises(DataError, match="declares 10737"):
        read_torch(tmp_path / "b.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_storage_larger_than_the_file_is_refused_before_memory_is_asked_for(tmp_path, zipped):
    old = saved(tmp_path / "a.pt", {"w": torch.zeros(77)}, zipped)
    huge = b"J\xff\xff\xff\x7f"
    if zipped:
        rewritten(old, tmp_path / "b.pt", lambda name, data: data.replace(b"cpuq\x06KM", b"cpuq\x06" + huge))
    else:
        (tmp_path / "b.pt").write_bytes(old.read_bytes().replace(b"KMN", huge + b"N", 1))
    with pytest.raises(DataError, match="a storage of 2147483647 numbers in a file of"):
        read_torch(tmp_path / "b.pt")


def test_a_tensor_that_repeats_its_bytes_is_refused(tmp_path):
    # A preset takes sizes of the network from such shapes.
    for name, value in (("e", torch.zeros(1).expand(1 << 40)), ("m", torch.empty(1 << 40, device="meta"))):
        with pytest.raises(DataError, match=r"repeats the [0-9]+ bytes it has|expected dense tensors"):
            read_torch(saved(tmp_path / name, {"w": value}))


def test_sparse_tensors_are_refused(tmp_path):
    with torch.sparse.check_sparse_tensor_invariants(enable=True):
        value = torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (1 << 40,))
    with (
        torch.sparse.check_sparse_tensor_invariants(enable=True),
        pytest.raises(DataError, match="expected dense tensors"),
    ):
        read_torch(saved(tmp_path / "a.pt", [value]))


def test_a_bytearray_is_refused(tmp_path):
    # As an argument of a call it is a request for that many bytes.
    bomb = b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."
    old = saved(tmp_path / "a.pt", {})
    rewritten(old, tmp_path / "b.pt", lambda name, data: bomb if name.endswith("data.pkl") else data)
    with pytest.raises(DataError, match="a bytearray, which no weights need"):
        read_torch(tmp_path / "b.pt")


def test_a_container_that_holds_itself_ends(tmp_path):
    value: dict = {}
    value["self"] = value
    assert read_torch(saved(tmp_path / "a.pt", value))["self"]["self"] is not None


@pytest.mark.parametrize("content", [b"", b"\x80", b"text", pickle.dumps(3), b"\x80\x02X\xff\xff\xff\xffabc"])
def test_no_torch_file_at_all(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pt"):
        read_torch(tmp_path / "a.pt")


def test_objects_are_not_built(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    file = io.BytesIO()
    torch.save({"w": Evil()}, file)
    (tmp_path / "a.pt").write_bytes(file.getvalue())
    with pytest.raises(Exception, match="open"):
        read_torch(tmp_path / "a.pt")
    assert not (tmp_path / "run").exists()
