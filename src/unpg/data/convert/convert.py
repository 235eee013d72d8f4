"""Copy an image set into another form. Image files are carried over byte for byte, never encoded anew.

The copy grows in a folder of its own, ``<out>.partial``, with a journal; after a stop the same call goes on from what
is whole there. It gets its name when it is whole, so what stands under that name is whole. Its bytes depend on the set
and the settings alone, not on stops or the number of workers.
"""

from collections.abc import Callable
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from unpg.data.convert.encode import image_files
from unpg.data.convert.form import FORMS, Job
from unpg.data.convert.journal import JOURNAL
from unpg.data.image_set import ImageSet
from unpg.data.names_file import NAMES_FILE
from unpg.data.stamp import stamp
from unpg.data.unfinished import JOB, require_new, unfinished
from unpg.errors import ConfigError, DataError

__all__ = ["MANIFEST", "Converted", "convert"]

MANIFEST = "manifest.sha256"
_VERSION = 2  # of what the forms write


class Converted(NamedTuple):
    """What came of it."""

    path: Path
    images: int
    resumed: int
    """Images that a stopped run had written before."""
    notes: list[str]
    """What is not as it was, in sentences."""


def convert(
    image_set: ImageSet,
    out: str | PathLike[str],
    form: str = "recordio",
    *,
    workers: int = 1,
    every: int = 2048,
    shard_images: int = 10_000,
    progress: Callable[[int, int], None] | None = None,
) -> Converted:
    """Write ``image_set`` to the folder ``out``, and ``manifest.sha256`` with the digest of every file.

    Identities keep their names exactly, in every form. Images keep the path that they have in their identity's
    folder, or are numbered, and :attr:`Converted.notes` says why.

    Args:
        image_set: The set.
        out: A folder that does not exist yet.
        form: What to write: a name of :data:`FORMS`.
        workers: Processes that encode the images of a set that has pixels only; files are copied by this one.
        every: Images after which a kill loses nothing.
        shard_images: Most images in a shard of ``webdataset`` or a part of ``parquet``.
        progress: Called with (images done, all).

    Raises:
        ConfigError: Another ``form``, ``out`` exists, a setting is out of range, an extra is not installed.
        DataError: An image file cannot be read, the form cannot hold a name, nothing can be written, or
            ``<out>.partial`` is of another set, or of files that have changed, or another process is at it.
    """
    out = Path(out)
    kind = FORMS[form]
    if workers < 1:
        raise ConfigError(f"workers must be >= 1, got {workers}.")
    require_new(out)
    kind.require(list(image_set.identities))
    reserved = (MANIFEST, JOB, JOURNAL, NAMES_FILE)
    job = Job(image_set, kind.fits, reserved, every=every, shard_images=shard_images)
    n = len(image_set)
    settings = {"form": form, "version": _VERSION, "every": every, "shard_images": shard_images}
    try:
        with unfinished(out, {"digest": image_set.digest(), "stamp": stamp(image_set), **settings}) as partial:
            with closing(kind(partial, job)) as writer:
                resumed = writer.done
                if resumed > n:
                    raise DataError(
                        f"{partial / JOURNAL} says that {resumed:,} images are written; the set has {n:,}. Remove "
                        f"{partial}, then start again."
                    )
                order = kind.order(image_set.labels)[resumed:]
                if progress:
                    progress(resumed, n)
                with closing(image_files(image_set, order, workers)) as files:
                    for place, (i, data) in enumerate(zip(order.tolist(), files, strict=True), start=resumed):
                        writer.add(place, i, data)
                        if progress:
                            progress(place + 1, n)
                digests = writer.finish()
            lines = (f"{digest}  {name}\n".encode("utf-8", "surrogateescape") for digest, name in digests)
            (partial / MANIFEST).write_bytes(b"".join(lines))
        (out / JOURNAL).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{out}.partial cannot be written: {error.strerror or error}. Once that is mended, the same command "
            "goes on."
        ) from error
    notes = [f"The images are numbered: {job.naming.why}."] if job.naming.why else []
    return Converted(out, n, resumed, notes)
