"""From an image set to embeddings: decode, prepare, run the network, fuse the flip, normalize.

Axes: n images, b images of a batch, d embedding size.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unpg.data.image_set import ImageSet, SizeError
from unpg.embed.embeddings import Embeddings
from unpg.embed.model import Model
from unpg.errors import ConfigError, DataError

__all__ = ["FLIPS", "Flip", "embed", "normalize"]

Flip = Literal["none", "sum", "concat"]
Precision = Literal["fp32", "bf16"]
OnError = Literal["raise", "skip"]
FLIPS = ("none", "sum", "concat")

Image = NDArray[np.uint8]

_PIECE = 2**20  # numbers normalized at once: float64 copies of a million embeddings would be several times their size


def embed(
    model: Model,
    images: ImageSet,
    *,
    flip: Flip = "none",
    batch_size: int = 128,
    device: str | torch.device | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
    precision: Precision = "fp32",
    on_error: OnError = "raise",
) -> Embeddings:
    """Embed images in evaluation mode; the backbone is left as it was found.

    Args:
        model: Network and preprocessing.
        images: Where the images come from.
        flip: ``"none"``: each image once. ``"sum"``: the raw embeddings of the image and of its mirror image are
            added (insightface). ``"concat"``: they are joined to (2 d,) without normalizing either, so the longer
            one counts for more (the UNPG authors). The result is normalized in any case.
        batch_size: Images that the network sees at once (twice as many with a flip, one after the other).
        device: Where to run; default: where the backbone lies. It is moved there and back.
        workers: Threads that decode ahead of the network; 0 decodes in between.
        progress: Called with (images done, images in all) after each batch.
        indices: Which images, in which order; default all. One may come twice.
        precision: ``"bf16"`` runs the network's trunk under bfloat16 autocast.
        on_error: ``"raise"`` stops at an unreadable image: in judging nothing is substituted. ``"skip"`` marks it
            in ``readable`` and leaves its row zero.

    Returns:
        A row for each image asked for, in order.

    Raises:
        ConfigError: A setting out of range.
        DataError: An unreadable image, one of another size than the others, or an embedding that is not finite;
            names the image.
        ShapeError: Images that the preprocessing cannot take.
    """
    _check(flip, batch_size, workers, precision, on_error)
    wanted = np.arange(len(images)) if indices is None else np.asarray(indices, dtype=np.int64).reshape(-1)
    outside = wanted[(wanted < 0) | (wanted >= len(images))]
    if len(outside):
        raise DataError(f"Image index {outside[0]} is outside the image set, which has {len(images)} images.")

    dim = model.backbone.dim * (2 if flip == "concat" else 1)
    raw = np.zeros((len(wanted), dim), np.float32)
    readable = np.ones(len(wanted), bool)
    done = 0
    with _evaluating(model.backbone, device) as where, torch.inference_mode():
        for batch in _batches(images, wanted, batch_size, workers, on_error):
            good = [image is not None for image in batch]
            rows = done + np.flatnonzero(good)
            if len(rows):
                names = [images.name(int(wanted[row])) for row in rows]
                pixels = _stack([image for image in batch if image is not None], names).to(where)
                vectors = _run(model, pixels, flip, precision).cpu().numpy()
                _check_finite(vectors, names)
                raw[rows] = vectors
            readable[done : done + len(batch)] = good
            done += len(batch)
            if progress is not None:
                progress(done, len(wanted))

    vectors, norms = normalize(raw)
    return Embeddings(
        vectors=vectors,
        norms=norms,
        labels=np.asarray(images.labels, dtype=np.int64)[wanted],
        names=[images.name(int(i)) for i in wanted],
        readable=readable,
        info={"kind": model.kind, "flip": flip, "precision": precision},
    )


def normalize(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows (n, d) at length 1, and their lengths (n,) before; a row of zeros stays one.

    In float64, in which the squares of float32 values neither overflow nor vanish.
    """
    units, norms = np.empty(vectors.shape, np.float32), np.empty(len(vectors), np.float32)
    step = max(1, _PIECE // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        rows = slice(start, start + step)
        exact = vectors[rows].astype(np.float64)
        lengths = np.sqrt(np.square(exact).sum(1))
        units[rows], norms[rows] = exact / np.where(lengths > 0, lengths, 1.0)[:, None], lengths
    return units, norms


def _run(model: Model, pixels: Tensor, flip: Flip, precision: Precision) -> Tensor:
    """Raw embeddings (b, d) or (b, 2 d) of uint8 ``pixels`` (b, h, w, 3)."""
    inputs = model.preprocessing(pixels)
    # Entered in either case: a caller's autocast must not decide over our precision.
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        plain: Tensor = model.backbone(inputs).float()
        if flip == "none":
            return plain
        mirrored = model.backbone(inputs.flip(3)).float()
    return plain + mirrored if flip == "sum" else torch.cat([plain, mirrored], dim=1)


@contextmanager
def _evaluating(backbone: nn.Module, device: str | torch.device | None) -> Iterator[torch.device]:
    """Evaluation mode on ``device``; afterwards each module's own mode and the old device are back."""
    modes = [(module, module.training) for module in backbone.modules()]
    home = next(backbone.parameters()).device
    where = home if device is None else torch.device(device)
    try:
        backbone.eval()
        if where != home:  # some devices make new parameters of a move, even of one to where they are
            backbone.to(where)
        yield where
    finally:
        if where != home:
            backbone.to(home)
        for module, training in modes:
            module.training = training


def _batches(
    images: ImageSet, wanted: NDArray[np.int64], batch_size: int, workers: int, on_error: OnError
) -> Iterator[list[Image | None]]:
    """Decoded batches in order; None for an image that could not be read."""

    def read(i: int) -> Image | None:
        try:
            return images.read(i)
        except SizeError:
            raise  # a folder that was never aligned is not a matter of single images
        except DataError:
            if on_error == "raise":
                raise
            return None

    chunks = [wanted[i : i + batch_size].tolist() for i in range(0, len(wanted), batch_size)]
    if workers == 0:
        for chunk in chunks:
            yield [read(i) for i in chunk]
        return
    # Threads, not processes: decoders release the interpreter's lock, and nothing has to be copied.
    pool = ThreadPoolExecutor(workers, thread_name_prefix="unpg-decode")
    try:
        ahead: deque[list[Future[Image | None]]] = deque()
        for chunk in chunks:
            ahead.append([pool.submit(read, i) for i in chunk])
            if len(ahead) > 2:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _stack(batch: list[Image], names: list[str]) -> Tensor:
    for image, name in zip(batch, names, strict=True):
        if image.shape != batch[0].shape:
            raise DataError(
                f"{name} is {image.shape[0]} x {image.shape[1]} pixels (height x width), but {names[0]} of the "
                f"same set is {batch[0].shape[0]} x {batch[0].shape[1]}. Align the faces to one size first."
            )
    return torch.from_numpy(np.stack(batch))


def _check_finite(vectors: NDArray[np.float32], names: list[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise DataError(
            f"The network's embedding of {names[bad[0]]} is not finite (and {len(bad) - 1} more of its batch): the "
            "weights or running statistics have diverged. Train with a smaller learning rate, or use an earlier "
            "checkpoint."
        )


def _check(flip: str, batch_size: int, workers: int, precision: str, on_error: str) -> None:
    if flip not in FLIPS:
        raise ConfigError(f"flip must be one of {', '.join(FLIPS)}, got {flip!r}.")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be 1 or more, got {batch_size}.")
    if workers < 0:
        raise ConfigError(f"workers must be 0 (decode in between) or more, got {workers}.")
    if precision not in ("fp32", "bf16"):
        raise ConfigError(f"precision must be 'fp32' or 'bf16', got {precision!r}.")
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
