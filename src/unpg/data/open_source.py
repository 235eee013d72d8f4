"""An image set from a path alone: what the command line works on."""

from os import PathLike
from pathlib import Path

from unpg.data.bins import BinPairs
from unpg.data.image_set import ImageSet
from unpg.data.source import SOURCES
from unpg.errors import DataError

__all__ = ["open_source"]

_KINDS = {
    ".rec": "recordio",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "list",
    ".lst": "list",
    ".tsv": "list",
    ".tar": "webdataset",
    ".mdb": "lmdb",
    ".lmdb": "lmdb",
}
_MARKS = (("*.rec", "recordio"), ("data.mdb", "lmdb"), ("*.tar", "webdataset"))


def open_source(path: str | PathLike[str]) -> ImageSet:
    """The set at ``path``, told by its ending: a file, tar shards ``a-{000..127}.tar``, or a folder.

    A folder is a RecordIO set, an LMDB or a set of shards if it has such files, else one folder per identity.

    Raises:
        DataError: There is nothing, or of no known kind.
    """
    found = Path(path)
    settings = {"path": str(path)}
    if found.is_dir():
        kind = next((kind for mark, kind in _MARKS if any(found.glob(mark))), "folder")
        settings = settings if kind != "folder" else {"roots": str(path)}
    elif found.suffix == ".tar" and "{" in found.name:
        kind = "webdataset"
    elif not found.is_file():
        raise DataError(f"{path} does not exist.")
    elif found.suffix == ".bin":
        return BinPairs(path).images
    elif found.suffix in _KINDS:
        kind = _KINDS[found.suffix]
    else:
        raise DataError(f"{path} ends in {found.suffix!r}; known are a folder, .bin, {', '.join(sorted(_KINDS))}.")
    opened: ImageSet = SOURCES.build(kind, settings)
    return opened
