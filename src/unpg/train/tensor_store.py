"""Named tensors in a folder, whole or split by rows over processes, in the form of ``torch.distributed.checkpoint``.

What N processes have written, any other number can read: each asks for the rows that are now its own. Nothing in a
folder is executed on the way back. torch's own reader unpickles the index without a check; here it is read by an
unpickler that builds the index's plain records and nothing else.

Axes: n rows of a whole tensor, r rows of one process.
"""

import dataclasses
import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from unpg.errors import DataError, UnpgError

__all__ = ["Rows", "agree", "read_tensors", "write_tensors"]

T = TypeVar("T")

_INDEX = ".metadata"
# All that an index is made of. Types of torch (float32, strided) are looked up apart.
_RECORDS = {
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch": ("Size",),
    "torch.serialization": ("_get_layout",),
    "pathlib": ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"),
}


@dataclass(frozen=True, eq=False)
class Rows:
    """This process's rows of a tensor that is split over processes by its first dimension.

    Args:
        local: (r, ...) rows; r may be 0, and differ from process to process.
        first: Place of the first of them in the whole.
        total: n, rows of the whole; the parts of all processes must tile ``[0, n)``.
    """

    local: Tensor
    first: int
    total: int


def write_tensors(
    folder: Path, tensors: Mapping[str, Tensor | Rows], group: distributed.ProcessGroup | None = None
) -> None:
    """Write the tensors to the disk, each part once; all processes of ``group`` call this together.

    Args:
        folder: An existing folder that all processes see.
        tensors: By name. A plain tensor is the same in all processes, and one of them writes it.
        group: The processes, with a backend for the CPU (gloo); None is this one alone.

    Raises:
        DataError: One of the processes could not write; all of them raise.
    """
    planner, writer = _SavePlanner(), FileSystemWriter(folder, sync_files=True)
    rank = 0 if group is None else distributed.get_rank(group)

    def plan() -> SavePlan:
        planner.set_up_planner(dict(tensors), writer.storage_meta(), rank == 0)
        writer.set_up_storage_writer(rank == 0)
        return writer.prepare_local_plan(planner.create_local_plan())

    # Every process makes the same global plan of the same local ones.
    plans, metadata = planner.create_global_plan(agree(plan, group))
    plans = writer.prepare_global_plan(plans)

    def write() -> Any:
        return writer.write_data(planner.finish_plan(plans[rank]), planner).wait()

    results = agree(write, group)
    agree(lambda: writer.finish(metadata, results) if rank == 0 else None, group)


def read_tensors(
    folder: Path,
    *,
    rows: Callable[[str, torch.Size], range | None] = lambda name, size: None,
    wanted: Callable[[str], bool] = lambda name: True,
) -> dict[str, Tensor]:
    """Read what :func:`write_tensors` wrote, on the CPU. Processes need not do this together.

    Args:
        folder: The folder.
        rows: From the name and size of a whole tensor to the rows wanted of it; None for all.
        wanted: Which tensors.

    Raises:
        DataError: A file is missing or broken, or holds something else.
    """
    try:
        reader = _Reader(folder)
        metadata = reader.read_metadata()
        found: dict[str, Tensor] = {}
        chunks: dict[str, ChunkStorageMetadata] = {}
        room = sum(file.stat().st_size for file in folder.iterdir())
        for name, whole in metadata.state_dict_metadata.items():
            if not isinstance(whole, TensorStorageMetadata):
                raise DataError(f"{name} is no tensor")
            _check_whole(name, whole, room)
            if not wanted(name):
                continue
            part = rows(name, whole.size) if len(whole.size) else None
            sizes = list(whole.size)
            offsets = [0] * len(sizes)
            if part is not None:
                if not 0 <= part.start <= part.stop <= sizes[0] or part.step != 1:
                    raise DataError(f"rows {part} of {name} were asked for; it has {sizes[0]}")
                offsets[0], sizes[0] = part.start, len(part)
            found[name] = torch.empty(sizes, dtype=whole.properties.dtype)
            if found[name].numel():
                chunks[name] = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
        for place in metadata.storage_data.values():
            if Path(place.relative_path).name != place.relative_path:
                raise DataError(f"the index points out of the folder, to {place.relative_path}")
        planner = _LoadPlanner(found, chunks)
        planner.set_up_planner(found, metadata)
        reader.set_up_storage_reader(metadata, True)
        reader.read_data(planner.create_local_plan(), planner).wait()
    except MemoryError:
        raise
    except Exception as error:  # a broken file can raise nearly anything, in torch and in pickle
        raise DataError(f"{folder} cannot be read as a checkpoint: {_first_line(error)}") from error
    return found


def agree(do: Callable[[], T], group: distributed.ProcessGroup | None) -> list[T]:
    """What ``do`` returns in each process of ``group``, by rank; a failure in one is raised in all.

    Raises:
        DataError: A process other than this one failed; says which and why.
    """
    result: Any = None
    failure: Exception | None = None
    try:
        result = do()
    except Exception as error:  # told to the others first, or they would wait forever
        failure = error
    if group is None:
        if failure is not None:
            raise failure
        return [result]
    told: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(told, (result, None if failure is None else _first_line(failure)), group=group)
    if failure is not None:
        raise failure
    for rank, (_, reason) in enumerate(told):
        if reason is not None:
            raise DataError(f"Process {rank} failed: {reason}")
    return [answer for answer, _ in told]


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, UnpgError) else text.split("\n")[0]


def _check_whole(name: str, whole: TensorStorageMetadata, room: int) -> None:
    """Raise unless the chunks of a tensor tile its rows, and the folder is large enough to hold it."""
    size, chunks = tuple(whole.size), whole.chunks
    if any(side < 0 for side in size) or math.prod(size) * whole.properties.dtype.itemsize > room:
        raise DataError(f"{name} of {size} {whole.properties.dtype} does not fit into its files ({room} bytes)")
    if not math.prod(size):
        return
    if not size:
        if len(chunks) != 1:
            raise DataError(f"{name} is one number, but is there {len(chunks)} times")
        return
    reached = 0
    for chunk in sorted(chunks, key=lambda chunk: chunk.offsets[0]):
        if tuple(chunk.offsets) != (reached, *[0] * (len(size) - 1)) or tuple(chunk.sizes[1:]) != size[1:]:
            raise DataError(f"the parts of {name} do not make a whole {size}")
        reached += chunk.sizes[0]
    if reached != size[0]:
        raise DataError(f"{name} has {size[0]} rows, but only {reached} of them are there")


class _SavePlanner(DefaultSavePlanner):
    """Whole tensors as torch plans them, and our rows beside them."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def create_local_plan(self) -> SavePlan:
        items = [item for name, part in self.state_dict.items() for item in _write_items(name, part)]
        self.plan = SavePlan(items)
        return self.plan

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        part = self.state_dict[index.fqn]
        # A view's file would hold all that it is a view of.
        return (part.local if isinstance(part, Rows) else part).detach()


def _write_items(name: str, part: Tensor | Rows) -> list[WriteItem]:
    local, first, total = (part.local, part.first, part.total) if isinstance(part, Rows) else (part, 0, None)
    size = local.size() if total is None else torch.Size((total, *local.shape[1:]))
    if total and not len(local):
        return []  # its place would be that of the next process's rows
    offsets = torch.Size([first, *[0] * (local.ndim - 1)]) if local.ndim else torch.Size()
    data = TensorWriteData(
        ChunkStorageMetadata(offsets, local.size()), TensorProperties.create_from_tensor(local), size
    )
    kind = WriteItemType.TENSOR if total is None else WriteItemType.SHARD
    return [WriteItem(MetadataIndex(name, offsets), kind, tensor_data=data)]


class _LoadPlanner(LoadPlanner):
    """Reads the chunks wanted into tensors that are there."""

    def __init__(self, tensors: Mapping[str, Tensor], chunks: Mapping[str, ChunkStorageMetadata]) -> None:
        self.tensors, self.chunks = tensors, chunks
        self.metadata: Metadata

    def set_up_planner(self, state_dict: Any, metadata: Metadata | None = None, is_coordinator: bool = False) -> None:
        assert metadata is not None
        self.metadata = metadata

    def create_local_plan(self) -> LoadPlan:
        items: list[ReadItem] = []
        for name, chunk in self.chunks.items():
            whole = self.metadata.state_dict_metadata[name]
            assert isinstance(whole, TensorStorageMetadata)
            items += create_read_items_for_chunk_list(name, whole, [chunk])
        return LoadPlan(items)

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        raise DataError(f"{read_item.dest_index.fqn} is no tensor")

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        tensor = self.tensors[read_item.dest_index.fqn]
        for dimension, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            tensor = tensor.narrow(dimension, start, length)
        return tensor

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        pass


class _Reader(FileSystemReader):
    """torch's reader (which loads tensors with ``weights_only``), with an index that is not executed."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with open(os.path.join(self.path, _INDEX), "rb") as file:
            data = file.read()
        # Python's unpickler makes room for a place in its table, or a length, before it looks for what is there.
        for operation, argument, place in pickletools.genops(io.BytesIO(data)):
            if "PUT" in operation.name and isinstance(argument, int) and argument > len(data):
                raise DataError(f"{_INDEX}, byte {place}: place {argument} of a table, in {len(data)} bytes")
        metadata = _Unpickler(io.BytesIO(data)).load()
        if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, dict):
            raise DataError(f"{_INDEX} is no index of tensors")
        return dataclasses.replace(metadata, storage_meta=None)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _RECORDS.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype | torch.layout):
            return found
        raise DataError(f"{_INDEX} names {module}.{name}, which is no part of an index")
