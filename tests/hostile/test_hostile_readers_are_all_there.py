"""A new reader of files is a row in ``hostile_readers.READERS``, or this test says its name."""

import importlib
import inspect
import pkgutil

import pytest
from hostile_readers import READERS

import unpg.audit
import unpg.data
import unpg.embed
import unpg.evaluate
import unpg.export

# What an argument is called that is a file, a folder of files, or the bytes of one.
FILES = {"path", "file", "folder", "source", "root", "roots", "data", "payload", "pairs_file", "protocol_dir", "run"}
# Public parts with such an argument that read nothing a stranger wrote; why.
NOT_READERS = {
    "write_bin": "writes",
    "write_feature": "writes",
    "write_feature_list": "writes",
    "write_tensors": "writes",
    "save_model": "writes",
    "save_results": "writes",
    "save_diagnosis": "writes",
    "save_audit": "writes",
    "RecordWriter": "writes",
    "data_root": "makes a name",
    "file_size": "asks the file system",
    "file_digest": "takes bytes as they are",
    "BinImages": "is given what BinPairs has read",
    "ListedSet": "is given what list_set and csv_set have read",
    "open_benchmark": "opens by the readers of unpg.data",
    "cached_embed": "opens by Embeddings.load",
    "first_size": "is given a function",
    "fill": "is given tensors",
    "TextBlock": "is given lines",
    "Skipped": "is given a path",
}


def public():
    for package in (unpg.data, unpg.export, unpg.embed, unpg.evaluate, unpg.audit):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            for name in getattr(module, "__all__", ()):
                yield name, getattr(module, name)


def takes_a_file(part) -> bool:
    if not inspect.isfunction(part) and not inspect.isclass(part):
        return False
    try:
        parameters = list(inspect.signature(part).parameters.values())
    except (TypeError, ValueError):
        return False
    words = ("Path", "str", "bytes", "mmap")
    return bool(parameters) and parameters[0].name in FILES and any(w in str(parameters[0].annotation) for w in words)


def covered() -> set[str]:
    return {name.partition(".")[0] for reader in READERS for name in reader.covers}


def test_every_public_reader_has_a_row():
    readers = {name for name, part in public() if takes_a_file(part)}
    assert readers - covered() - set(NOT_READERS) == set()
    assert {"RecordSet", "read_bin", "decode", "LmdbSet", "load_model", "read_state_dict"} <= readers


def test_the_table_names_what_there_is():
    known = {name for name, _ in public()}
    elsewhere = {"load_run", "read_yaml", "from_yaml", "parse_yaml", "load_checkpoint", "MetricsLog", "write_faults"}
    assert covered() - elsewhere <= known
    assert set(NOT_READERS) <= known
    names = [reader.name for reader in READERS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_row_says_what_to_damage(reader, tmp_path):
    reader.make(tmp_path)
    for target in reader.targets:
        assert (tmp_path / target).is_file()
    assert reader.covers
    assert reader.count >= 500
