"""Training sets by name: what ``data: {kind: ...}`` of a recipe may say."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from unpg.data.folder import FolderSet
from unpg.data.image_set import ImageSet
from unpg.registry import Registry

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


@SOURCES.register("synthetic")
def synthetic(
    identities: int, views: int, seed: int = 0, size: list[int] | tuple[int, int] = (112, 112), first_identity: int = 0
) -> ImageSet:
    """Rendered faces, drawn once into memory: :class:`unpg.data.synthetic.SyntheticFaces`."""
    return _rendered(identities, views, seed, tuple(size), first_identity)


@lru_cache(maxsize=1)
def _rendered(identities: int, views: int, seed: int, size: tuple[int, ...], first_identity: int) -> ImageSet:
    """Kept, because runs that are compared train on the same faces and rendering takes a while."""
    from unpg.data.synthetic import SyntheticFaces  # the renderer is only imported where it is used

    height, width = size
    return SyntheticFaces(identities, views, seed, (height, width), first_identity=first_identity).materialize()
