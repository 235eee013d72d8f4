"""The whole state of a run in a folder that exists whole or not at all.

    checkpoints/step-00001234/
        manifest.json     step, digests of settings, data and identities, versions, and of every file size and SHA-256
        values.json       all that is no tensor: counters, optimizer settings, resolved configuration, environment
        identities.json   names of the classes, and their images
        .metadata, *.distcp   all tensors, as torch.distributed.checkpoint keeps them

It is written under the name ``step-00001234.part``, flushed to the disk and renamed; a crash at any moment leaves the
folder or none. There is no pointer to the newest one that could be stale: it is the one with the largest step.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from unpg.errors import ConfigError, DataError
from unpg.train.tensor_store import Rows, agree, read_tensors, write_tensors

__all__ = [
    "Checkpoint",
    "Identities",
    "RunState",
    "checkpoint_fault",
    "checkpoints",
    "latest_checkpoint",
    "load_checkpoint",
    "prune_checkpoints",
    "save_checkpoint",
    "set_aside",
]

_FORMAT = 2
_NAME = re.compile(r"step-(\d{8,})")
_OLD_FILE = re.compile(r"step-\d{8,}\.pt")
_MANIFEST, _VALUES, _IDENTITIES = "manifest.json", "values.json", "identities.json"
_PART, _REMOVED, _ASIDE = ".part", ".removed", ".set-aside"


@dataclass(frozen=True)
class Identities:
    """The classes that weights belong to.

    Args:
        names: Of each class, in the order of the class weights.
        images: Images of each class.
    """

    names: Sequence[str]
    images: Sequence[int]


@dataclass(frozen=True, eq=False)
class RunState:
    """What a checkpoint holds.

    Args:
        tensors: By name; :class:`Rows` where processes share one.
        values: All else, as JSON can hold it. ``config`` and ``data`` (a digest) are named in the manifest too.
        identities: The classes.
    """

    tensors: Mapping[str, Tensor | Rows]
    values: Mapping[str, Any]
    identities: Identities


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint that has been read.

    Attributes:
        path: Where from.
        step: Optimizer steps done.
        tensors: By name, on the CPU; of tensors that processes share, the rows asked for.
        values: As in :class:`RunState`.
        identities: As in :class:`RunState`.
    """

    path: Path
    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    identities: Identities


def save_checkpoint(run: Path, step: int, state: RunState, group: distributed.ProcessGroup | None = None) -> Path:
    """Write the state after ``step`` optimizer steps; all processes of ``group`` call this together.

    Args:
        run: The run folder, which all processes see.
        step: Optimizer steps done.
        state: What to keep; ``values`` and ``identities`` of the first process count.
        group: The processes, with a backend for the CPU (gloo) and nothing else to do meanwhile; None is this one
            alone.

    Returns:
        The checkpoint's folder.

    Raises:
        DataError: It could not be written, as on a full disk. What was there before is untouched.
    """
    path = run / "checkpoints" / f"step-{step:08d}"
    part = path.with_name(path.name + _PART)
    rank, size = (0, 1) if group is None else (distributed.get_rank(group), distributed.get_world_size(group))

    def first(do: Callable[[], None]) -> None:
        agree(do if rank == 0 else lambda: None, group)

    try:
        first(lambda: _begin(part))
        write_tensors(part, state.tensors, group)
        first(lambda: _write_values(part, state))
        files = agree(lambda: _describe_files(part, rank), group)
        manifest = _manifest(step, size, state, {name: about for part in files for name, about in part.items()})
        first(lambda: _finish(part, path, manifest))
    except (OSError, RuntimeError, DataError) as error:
        if rank == 0:
            shutil.rmtree(part, ignore_errors=True)  # on a full disk, half a checkpoint is in the way
        raise DataError(_not_saved(path, state, error)) from error
    return path


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run folder, the newest last. That they are undamaged is for :func:`load_checkpoint`."""
    found = [path for path in (run / "checkpoints").glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step)


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run folder, or None.

    Raises:
        ConfigError: There are only files of an earlier version.
    """
    found = checkpoints(run)
    if found:
        return found[-1]
    old = sorted(path for path in (run / "checkpoints").glob("*.pt") if _OLD_FILE.fullmatch(path.name))
    if old:
        raise ConfigError(_old_format(old[-1]))
    return None


def load_checkpoint(
    path: Path,
    *,
    rows: Callable[[str, torch.Size], range | None] = lambda name, size: None,
    wanted: Callable[[str], bool] = lambda name: True,
    group: distributed.ProcessGroup | None = None,
) -> Checkpoint:
    """Read a checkpoint, on any number of processes; nothing in it is executed.

    Args:
        path: Its folder.
        rows: From name and size of a whole tensor to the rows that this process wants; None for all.
        wanted: Which tensors.
        group: Processes that do this together: each verifies a part of the files. None verifies all of them here.

    Raises:
        DataError: It is missing or damaged; names the file and what is wrong with it.
        ConfigError: It is of another version.
    """
    agree(lambda: _require_whole(path, group), group)
    manifest = _read_manifest(path)
    values, identities = (_read_json(path / name) for name in (_VALUES, _IDENTITIES))
    names, images = identities.get("names"), identities.get("images")
    if not isinstance(names, list) or not isinstance(images, list) or len(names) != len(images):
        raise DataError(f"{path / _IDENTITIES} does not list names and images.")
    tensors = read_tensors(path, rows=rows, wanted=wanted)
    return Checkpoint(path, manifest["step"], tensors, values, Identities(names, images))


def checkpoint_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, after reading every byte; None if it is whole."""
    try:
        _require_whole(path, None)
    except (ConfigError, DataError) as error:
        return str(error)
    return None


def prune_checkpoints(run: Path, *, keep: int, keep_every: int | None = None, best: int | None = None) -> None:
    """Remove older checkpoints, once a newer one is whole.

    Args:
        run: The run folder.
        keep: How many of the newest stay.
        keep_every: Those after a multiple of so many steps stay too; None has no such rule.
        best: The step of another one that stays.
    """
    for path in checkpoints(run)[:-keep]:
        step = _step(path)
        if step == best or (keep_every is not None and step % keep_every == 0):
            continue
        # Renamed first: a crash in the middle must not leave a half under the name of a whole.
        _remove(path.rename(path.with_name(path.name + _REMOVED)))


def set_aside(paths: Collection[Path]) -> list[Path]:
    """Rename checkpoints so that they count no more; nothing is deleted. The new places are returned."""
    moved = []
    for path in paths:
        place, n = path.with_name(path.name + _ASIDE), 1
        while place.exists():
            place, n = path.with_name(f"{path.name}{_ASIDE}-{n}"), n + 1
        moved.append(path.rename(place))
    return moved


def _step(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def _begin(part: Path) -> None:
    """An empty folder to write into; what crashes have left is cleared away."""
    part.parent.mkdir(parents=True, exist_ok=True)
    for left in part.parent.iterdir():
        if left.name.endswith((_PART, _REMOVED)):
            _remove(left)
    part.mkdir()


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_values(part: Path, state: RunState) -> None:
    identities = {"names": list(state.identities.names), "images": [int(n) for n in state.identities.images]}
    _write_json(part / _VALUES, state.values)
    _write_json(part / _IDENTITIES, identities)


def _finish(part: Path, path: Path, manifest: Mapping[str, Any]) -> None:
    _write_json(part / _MANIFEST, {**manifest, "digest": _digest(manifest)})
    _flush_folder(part)
    if path.exists():  # of a run that went on from an older one
        set_aside([path])
    part.rename(path)
    _flush_folder(path.parent)


def _manifest(step: int, size: int, state: RunState, files: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "step": step,
        "world_size": size,
        "versions": dict(state.values.get("versions", {})),
        "config": _digest(state.values.get("config")),
        "data": state.values.get("data"),
        "identities": _digest(list(state.identities.names)),
        "files": dict(sorted(files.items())),
    }


def _describe_files(part: Path, rank: int) -> dict[str, dict[str, Any]]:
    """Size and digest of the files that this process wrote; the first one answers for those without a rank."""
    own = re.compile(rf"__{rank}_\d+\.distcp" + (r"|\.metadata|\w+\.json" if rank == 0 else ""))
    return {
        file.name: {"bytes": file.stat().st_size, "sha256": _file_digest(file)}
        for file in sorted(part.iterdir())
        if own.fullmatch(file.name)
    }


def _require_whole(path: Path, group: distributed.ProcessGroup | None) -> None:
    """Raise unless the files are those of the manifest, byte for byte; each process looks at a share of them."""
    rank, size = (0, 1) if group is None else (distributed.get_rank(group), distributed.get_world_size(group))
    if _OLD_FILE.fullmatch(path.name):
        raise ConfigError(_old_format(path))
    for name, about in list(_read_manifest(path)["files"].items())[rank::size]:
        file = path / name
        if not file.is_file():
            raise DataError(f"The checkpoint {path} is damaged: its file {name} is missing.")
        found = file.stat().st_size
        if found != about["bytes"]:
            raise DataError(f"The checkpoint {path} is damaged: {name} has {found} bytes, not {about['bytes']}.")
        if _file_digest(file) != about["sha256"]:
            raise DataError(
                f"The checkpoint {path} is damaged: the content of {name} is not what was written (SHA-256)."
            )


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise DataError(f"{path} is no checkpoint: there is no such folder. They are named checkpoints/step-<number>.")
    manifest = _read_json(path / _MANIFEST)
    if manifest.get("format") != _FORMAT:
        raise ConfigError(
            f"{path} has checkpoint format {manifest.get('format')!r}; this version of unpg reads {_FORMAT}. Read it "
            f"with the version that wrote it."
        )
    content = {name: value for name, value in manifest.items() if name != "digest"}
    if manifest.get("digest") != _digest(content):
        raise DataError(f"The checkpoint {path} is damaged: {_MANIFEST} is not what was written.")
    files = manifest.get("files")
    if (
        not isinstance(manifest.get("step"), int)
        or not isinstance(files, dict)
        or not {_VALUES, _IDENTITIES, ".metadata"} <= files.keys()
        or any(
            Path(name).name != name or not isinstance(about, dict) or about.keys() != {"bytes", "sha256"}
            for name, about in files.items()
        )
    ):
        raise DataError(f"{path / _MANIFEST} is no manifest of a checkpoint.")
    return manifest


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"The checkpoint {path.parent} is damaged: its file {path.name} is missing.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"The checkpoint {path.parent} is damaged: {path.name} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"The checkpoint {path.parent} is damaged: {path.name} holds no names and values.")
    return found


def _write_json(path: Path, content: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _old_format(path: Path) -> str:
    return (
        f"{path} is a checkpoint file of an earlier version of unpg; checkpoints are folders now. Finish that run with "
        f"the version that began it, or start a new one from its network: --init.model <run>/model.safetensors."
    )


def _not_saved(path: Path, state: RunState, error: Exception) -> str:
    """Why a checkpoint could not be written, and what to do."""
    tensors = [part.local if isinstance(part, Rows) else part for part in state.tensors.values()]
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(path.parent).free
    full = (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or (
        free is not None and free < needed
    )
    before = checkpoints(path.parent.parent)
    kept = f"The newest whole checkpoint is still {before[-1]}." if before else "There is no older one."
    text = f"The checkpoint {path} could not be written: {str(error).splitlines()[0]}. {kept} "
    if not full:
        return text + "Mend that, then go on with --resume."
    room = "" if free is None else f" and {free / 2**20:,.1f} MiB are free"
    return text + (
        f"The disk is full: a checkpoint needs about {needed / 2**20:,.1f} MiB{room}. Remove what you need no more "
        f"from {path.parent.parent.parent} (checkpoints of finished runs, *{_ASIDE}), or lower checkpoint.keep, "
        f"then go on with --resume."
    )
