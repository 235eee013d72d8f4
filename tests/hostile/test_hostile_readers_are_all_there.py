"""A new reader of files is a row in ``hostile_readers.READERS``, or this test says its name."""

import importlib
import inspect
import pkgutil

import pytest
from hostile_readers import READERS

import unpg
from unpg.config import from_dict, read_yaml

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
    "write_findings": "writes",
    "write_yaml": "writes",
    "write_summary": "writes",
    "fork": "opens by load_checkpoint and read_json_object",
    "save_checkpoint": "writes",
    "Saver": "writes",
    "prune_checkpoints": "removes",
    "leave_behind": "renames",
    "frame": "is given what is to be written",
    "Stream": "writes on where Journal says",
    "Job": "is given an image set",
    "Form": "says what a form has",
    "Converted": "is given what was written",
    "Checkpoint": "is given what load_checkpoint has read",
    "RunSummary": "is given what a run has counted",
    "TrainConfig": "is given what from_yaml has read",
    "Negatives": "is given similarities",
    "require": "asks the file system",
    "require_all_there": "asks the file system",
    "missing_set": "makes a message",
    "checkpoints": "lists names",
    "choose_checkpoint": "reads by checkpoint_fault",
    "open_checkpoint": "reads by load_checkpoint",
    "open_model": "opens by load_model and import_weights",
    "open_trained": "opens by from_yaml and load_checkpoint",
    "check_folder": "opens by load_results",
    "note_data": "opens by from_yaml",
    "write_text": "writes",
    "diagnose_run": "opens by open_trained",
    "data_root": "makes a name",
    "alone_in": "locks",
    "file_size": "asks the file system",
    "file_state": "asks the file system",
    "file_digest": "takes bytes as they are",
    "BinImages": "is given what BinPairs has read",
    "ListedSet": "is given what list_set and csv_set have read",
    "cached_embed": "opens by Embeddings.load",
    "first_size": "is given a function",
    "fill": "is given tensors",
    "TextBlock": "is given lines",
    "Skipped": "is given a path",
    "Written": "is given a path",
}


def public():
    for found in pkgutil.walk_packages(unpg.__path__, "unpg."):
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


def test_what_takes_a_file_is_known_by_its_first_argument():
    assert takes_a_file(read_yaml)
    assert not takes_a_file(from_dict)


def covered() -> set[str]:
    return {name.partition(".")[0] for reader in READERS for name in reader.covers}


def test_every_public_reader_has_a_row():
    readers = {name for name, part in public() if takes_a_file(part)}
    assert readers - covered() - set(NOT_READERS) == set()
    assert {"RecordSet", "read_bin", "decode", "LmdbSet", "load_model", "read_state_dict"} <= readers


def test_the_table_names_what_there_is():
    known = {name for name, _ in public()}
    assert covered() <= known
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
