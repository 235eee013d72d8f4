"""Embeddings of an image set, in memory and on disk.

Axes: n images, d embedding size.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unpg.data.image_set import ImageSet
from unpg.embed.tensor_file import read_tensors, write_tensors
from unpg.errors import DataError, ShapeError

__all__ = ["Embeddings"]

FORMAT = "unpg.embeddings"
VERSION = 1
DTYPES = {"vectors": np.float32, "norms": np.float32, "labels": np.int64, "readable": np.bool_}


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One row for each image that was asked for, in that order, whether it could be read or not.

    Args:
        vectors: (n, d) float32, of length 1; rows of zeros for a zero embedding and for an unreadable image.
        norms: (n,) float32, the length of each row before it was normalized (after the flips were fused).
        labels: (n,) int64, identities.
        names: The name of each image.
        readable: (n,) bool; rows that are False must not be judged.
        info: How they were made; plain JSON values.

    Raises:
        ShapeError: An array of another shape or type.
    """

    vectors: NDArray[np.float32]
    norms: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: Sequence[str]
    readable: NDArray[np.bool_]
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.names)
        for name, dtype in DTYPES.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != (2 if name == "vectors" else 1) or len(array) != n:
                shape = f"({n}, d)" if name == "vectors" else f"({n},)"
                raise ShapeError(
                    f"Embeddings.{name} must be {np.dtype(dtype)} of shape {shape}, as there are {n} names; got "
                    f"{array.dtype} of {array.shape}."
                )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def dim(self) -> int:
        """Embedding size d."""
        return int(self.vectors.shape[1])

    @property
    def unreadable(self) -> list[str]:
        """Names of the images that could not be read."""
        return [name for name, good in zip(self.names, self.readable, strict=True) if not good]

    def called(self, images: ImageSet, indices: Sequence[int] | NDArray[np.int64] | None = None) -> "Embeddings":
        """The same with the names that the images have now: those of a cache may be of where the files lay then.

        Args:
            images: The set that was embedded, or a copy of it.
            indices: Which images, in which order; default all.
        """
        wanted = range(len(images)) if indices is None else indices
        return replace(self, names=[images.name(int(i)) for i in wanted])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to ``path`` (safetensors), in one step.

        Raises:
            DataError: The file cannot be written.
        """
        arrays = {name: torch.from_numpy(np.array(getattr(self, name))) for name in DTYPES}
        # Millions of names would burst the header, so they are a tensor of bytes.
        names = json.dumps(list(self.names)).encode("ascii")
        arrays["names"] = torch.frombuffer(bytearray(names), dtype=torch.uint8)
        write_tensors(path, arrays, dict(self.info), file_format=FORMAT, version=VERSION)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Embeddings":
        """Read what :meth:`save` wrote.

        Raises:
            DataError: The file is missing, broken, or something else.
        """
        tensors, info = read_tensors(path, file_format=FORMAT, version=VERSION)
        expected = {*DTYPES, "names"}
        if set(tensors) != expected:
            raise DataError(f"{path} holds {sorted(tensors)}; embeddings hold {sorted(expected)}.")
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        try:
            names = json.loads(arrays.pop("names").tobytes())
            return cls(names=names, info=info, **arrays)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
