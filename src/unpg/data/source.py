"""Training sets by name: what ``data: {kind: ...}`` of a recipe may say."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from unpg.data.folder import FolderSet
from unpg.data.image_set import ImageSet
from unpg.data.joined import JoinedSet
from unpg.data.kface import KFaceSet
from unpg.data.listed import csv_set, list_set
from unpg.data.lmdb_set import LmdbSet
from unpg.data.parquet import ParquetSet
from unpg.data.record_set import RecordSet
from unpg.data.tar_set import TarSet
from unpg.errors import ConfigError
from unpg.registry import Registry

if TYPE_CHECKING:
    from unpg.data.synthetic.faces import RenderedSet

__all__ = ["SOURCES"]

SOURCES: Registry[Callable[..., ImageSet]] = Registry("data")


@SOURCES.register("folder")
def folder(
    roots: str | list[str] | Mapping[str, str],
    exclude: str | list[str] | Mapping[str, Any] | None = None,
    min_images: int = 1,
    allow_missing: bool = False,
) -> ImageSet:
    """Images in one folder per identity: :class:`unpg.data.folder.FolderSet`."""
    return FolderSet(roots, exclude, min_images=min_images, allow_missing=allow_missing)


@SOURCES.register("recordio")
def recordio(path: str) -> ImageSet:
    """A ``.rec`` file, or a folder with ``train.rec``: :class:`unpg.data.record_set.RecordSet`."""
    return RecordSet(path)


@SOURCES.register("list")
def listed(path: str, root: str | None = None) -> ImageSet:
    """Lines ``<path> <label>`` or ``<path> <tab> <name>``: :func:`unpg.data.listed.list_set`."""
    return list_set(path, root)


@SOURCES.register("csv")
def table(path: str, root: str | None = None, path_column: str = "path", identity_column: str = "identity") -> ImageSet:
    """A table with commas and a header: :func:`unpg.data.listed.csv_set`."""
    return csv_set(path, root, path_column=path_column, identity_column=identity_column)


@SOURCES.register("parquet")
def parquet(
    path: str, root: str | None = None, image_column: str = "image", identity_column: str = "identity"
) -> ImageSet:
    """A Parquet file of images or paths: :class:`unpg.data.parquet.ParquetSet`."""
    return ParquetSet(path, root, image_column=image_column, identity_column=identity_column)


@SOURCES.register("lmdb")
def lmdb(path: str) -> ImageSet:
    """An LMDB of images and labels: :class:`unpg.data.lmdb_set.LmdbSet`."""
    return LmdbSet(path)


@SOURCES.register("webdataset")
def webdataset(path: str, label_key: str = "label") -> ImageSet:
    """WebDataset's tar shards: :class:`unpg.data.tar_set.TarSet`."""
    return TarSet(path, label_key)


@SOURCES.register("kface")
def kface(
    root: str,
    test_ids: str,
    views: str = "T4",
    part: Literal["train", "test"] = "train",
    ext: str = "jpg",
    allow_missing: bool = False,
) -> ImageSet:
    """K-FACE's tree ``<id>/S001/L1/E01/C1.jpg``: :class:`unpg.data.kface.KFaceSet`."""
    return KFaceSet(root, views, test_ids, part=part, ext=ext, allow_missing=allow_missing)


@SOURCES.register("joined")
def joined(sources: Mapping[str, Any]) -> ImageSet:
    """Several sources, by name, each with its own kind and settings: :class:`unpg.data.joined.JoinedSet`."""
    parts: dict[str, ImageSet] = {}
    for name, settings in sources.items():
        if not isinstance(settings, Mapping) or "kind" not in settings:
            raise ConfigError(f"data.sources.{name} must be a mapping with a kind, got {settings!r}.")
        rest = dict(settings)
        parts[name] = SOURCES.build(rest.pop("kind"), rest)
    return JoinedSet(parts)


@SOURCES.register("synthetic")
def synthetic(
    identities: int,
    views: int,
    seed: int = 0,
    size: list[int] | tuple[int, int] = (112, 112),
    first_identity: int = 0,
    variation: Mapping[str, Any] | None = None,
    split_identities: float = 0.0,
    flipped_labels: float = 0.0,
    twins: float = 0.0,
    on_demand: bool = False,
) -> ImageSet:
    """Rendered faces: :class:`unpg.data.synthetic.SyntheticFaces`.

    Drawn once into memory; with ``on_demand`` whenever they are read, which needs no memory and, with the loader's
    workers, no waiting at the start. The pixels are the same.
    """
    from unpg.data.synthetic import Noise, SyntheticFaces, Variation  # the renderer is only imported where it is used

    ranges = Variation.named(variation or {})
    noise = Noise(split_identities, flipped_labels, twins)
    faces = SyntheticFaces(identities, views, seed, _size(size), ranges, first_identity=first_identity, noise=noise)
    return faces if on_demand else _in_memory(faces)


@SOURCES.register("kface-twin")
def kface_twin(
    identities: int = 400,
    views: str = "T1",
    part: Literal["train", "test"] = "train",
    subset: int | None = None,
    seed: int = 0,
    size: list[int] | tuple[int, int] = (112, 112),
    split_identities: float = 0.0,
    flipped_labels: float = 0.0,
    twins: float = 0.0,
    on_demand: bool = False,
) -> ImageSet:
    """Rendered faces in K-FACE's grid: :class:`unpg.data.synthetic.KFaceTwin`; ``on_demand`` as in ``synthetic``."""
    from unpg.data.synthetic import KFaceTwin, Noise

    noise = Noise(split_identities, flipped_labels, twins)
    faces = KFaceTwin(identities, views, part, subset, seed, _size(size), noise)
    return faces if on_demand else _in_memory(faces)


def _size(given: list[int] | tuple[int, ...]) -> tuple[int, int]:
    if len(given) != 2:
        raise ConfigError(f"data.size is height and width in pixels, got {list(given)}.")
    return given[0], given[1]


_drawn: dict[str, ImageSet] = {}


def _in_memory(faces: "RenderedSet") -> ImageSet:
    """The latest set is kept, because runs that are compared train on the same faces and rendering takes a while."""
    digest = faces.digest()
    if digest not in _drawn:
        _drawn.clear()
        _drawn[digest] = faces.materialize()
    return _drawn[digest]
