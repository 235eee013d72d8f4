"""An image set from a path alone: what the command line works on."""

from os import PathLike
from pathlib import Path

from unpg.data.bins import BinPairs
from unpg.data.image_set import ImageSet
from unpg.data.source import SOURCES
from unpg.errors import DataError

__all__ = ["open_source"]

_KINDS = {".rec": "recordio", ".csv": "csv", ".parquet": "parquet", ".txt": "list", ".lst": "list", ".tsv": "list"}


def open_source(path: str | PathLike[str]) -> ImageSet:
    """The set at ``path``: a folder of identities, a folder with ``.rec`` files, or a file, told by its ending.

    Raises:
        DataError: There is nothing, or of no known kind.
    """
    found = Path(path)
    if found.is_dir():
        if list(found.glob("*.rec")):
            return SOURCES.build("recordio", {"path": str(path)})  # type: ignore[no-any-return]
        return SOURCES.build("folder", {"roots": str(path)})  # type: ignore[no-any-return]
    if not found.is_file():
        raise DataError(f"{path} does not exist.")
    if found.suffix == ".bin":
        return BinPairs(path).images
    if found.suffix not in _KINDS:
        raise DataError(f"{path} ends in {found.suffix!r}; known are a folder, .bin, {', '.join(sorted(_KINDS))}.")
    return SOURCES.build(_KINDS[found.suffix], {"path": str(path)})  # type: ignore[no-any-return]
