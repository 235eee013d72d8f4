"""Copy an image set into another form. Image files are carried over byte for byte, never encoded anew.

The copy grows in a folder of its own, ``<out>.partial``, with a journal; after a stop the same call goes on. It
gets its name when it is whole, so what stands under that name is whole.
"""

import hashlib
import os
import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal

from unpg.data.content import content
from unpg.data.image_set import ImageSet
from unpg.data.recordio import RecordWriter, pack
from unpg.data.unfinished import JOB, begin
from unpg.errors import ConfigError, DataError

__all__ = ["FORMS", "MANIFEST", "convert"]

FORMS = ("recordio", "folder")
MANIFEST = "manifest.sha256"
_ENDINGS = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG", ".png"), (b"BM", ".bmp"), (b"RIFF", ".webp"))


def convert(
    image_set: ImageSet,
    out: str | PathLike[str],
    form: Literal["recordio", "folder"] = "recordio",
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``image_set`` to the folder ``out``.

    As ``recordio``: ``train.rec`` in insightface's layout, ``train.idx`` and a list with the names,
    ``train.lst``; images are grouped by identity. As ``folder``: ``<identity>/<number>.<ending>``. Beside them
    ``manifest.sha256`` with the digest of every file, for ``sha256sum -c``. A folder goes on image by image after
    a stop; a RecordIO file, which is written in one stream, begins anew.

    Args:
        image_set: The set.
        out: A folder that does not exist yet.
        form: What to write.
        progress: Called with (images done, all).

    Raises:
        ConfigError: Another ``form``, or ``out`` exists.
        DataError: An image file cannot be read, two identities would share a folder, or ``<out>.partial`` is of
            another set.
    """
    out = Path(out)
    if form not in FORMS:
        raise ConfigError(f"The form to convert to must be one of {', '.join(FORMS)}, got {form!r}.")
    if out.exists():
        raise ConfigError(f"{out} exists. Remove it, or name another folder.")
    partial = out.with_name(f"{out.name}.partial")
    begin(partial, {"digest": image_set.digest(), "form": form})
    digests = (_to_folder if form == "folder" else _to_recordio)(image_set, partial, progress)
    (partial / MANIFEST).write_text("".join(f"{digest}  {name}\n" for name, digest in digests), encoding="utf-8")
    (partial / JOB).unlink()
    os.rename(partial, out)
    return out


def _to_folder(image_set: ImageSet, folder: Path, progress: Callable[[int, int], None] | None) -> list[tuple[str, str]]:
    names = [_folder_name(who) for who in image_set.identities]
    lowered: dict[str, str] = {}
    for name, who in zip(names, image_set.identities, strict=True):
        # Without capitals, since some file systems do not tell them apart.
        if lowered.setdefault(name.lower(), who) != who or not name.strip("."):
            raise DataError(f"The identities {lowered[name.lower()]!r} and {who!r} would share the folder {name!r}.")
    if len(lowered) != len(names):
        raise DataError("The set has two identities of one name; give them names of their own.")
    digests = []
    for i, label in enumerate(image_set.labels.tolist()):
        data = content(image_set, i)
        ending = next((e for start, e in _ENDINGS if data.startswith(start)), ".img")
        if ending == ".img":
            raise DataError(
                f"{image_set.name(i)} is no JPEG, PNG, BMP or WebP file. `unpg data check` lists such files."
            )
        name = f"{names[label]}/{i:08d}{ending}"
        file = folder / name
        # What is there is compared: a kill may have left anything.
        if not file.exists() or file.read_bytes() != data:
            file.parent.mkdir(exist_ok=True)
            part = folder / "image.part"
            part.write_bytes(data)
            os.replace(part, file)
        digests.append((name, hashlib.sha256(data).hexdigest()))
        if progress:
            progress(i + 1, len(image_set))
    (folder / "image.part").unlink(missing_ok=True)
    return digests


def _folder_name(identity: str) -> str:
    return re.sub(r"[\x00-\x1f/\\:*?\"<>|]", "_", identity)


def _to_recordio(
    image_set: ImageSet, folder: Path, progress: Callable[[int, int], None] | None
) -> list[tuple[str, str]]:
    for left in folder.glob("train.*"):
        left.unlink()
    n, people = len(image_set), len(image_set.identities)
    order = image_set.labels.argsort(kind="stable").tolist()
    with RecordWriter(folder / "train.rec") as out, open(folder / "train.lst", "w", encoding="utf-8") as listed:
        out.write(0, pack([n + 1, n + 1 + people], b""))
        begins, sizes = [0] * people, [0] * people
        for key, i in enumerate(order, start=1):
            label = int(image_set.labels[i])
            begins[label] = begins[label] or key
            sizes[label] += 1
            out.write(key, pack(label, content(image_set, i), id=key))
            who = _folder_name(image_set.identities[label]).replace("\t", "_")
            name = re.sub(r"[\t\r\n]", "_", image_set.name(i).rpartition("/")[2])
            listed.write(f"{key}\t{label}\t{who}/{name}\n")
            if progress:
                progress(key, n)
        for label in range(people):
            key = n + 1 + label
            out.write(key, pack([begins[label], begins[label] + sizes[label]], b"", id=key))
    return [(name, _digest(folder / name)) for name in ("train.rec", "train.idx", "train.lst")]


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
