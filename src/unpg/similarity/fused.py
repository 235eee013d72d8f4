"""Fused reductions on CUDA in Triton; plain torch is the reference.

Two sets are reduced without their matrix: features against all class weights, and the pairs of a batch. Every
function is pure and knows nothing of autograd; a ``torch.autograd.Function`` calls forward and backward. Exponentials
and sums are float32; the backward pass computes the similarities again instead of keeping them. Work is split by
sizes alone and partial results are merged in a fixed order, without atomics, so that equal inputs give equal bits
wherever torch's own matrix products do. No gradient is left out for being small: what vanishes is what underflows, in
float32 a similarity whose exponent lies about 87 or more below its row's peak, as it does in plain torch.

An empty set has peak ``torch.finfo(torch.float32).min``, total 0 and gradient zero.

Shapes: b rows (features), c classes, d embedding size.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unpg.errors import ConfigError, ShapeError
from unpg.similarity import kernels
from unpg.similarity.products import wide_product
from unpg.similarity.reshape import HardenedNegative, SelfPacedNegative

__all__ = [
    "NegativeMargin",
    "available",
    "class_backward",
    "class_forward",
    "pair_backward",
    "pair_forward",
]

WORKSPACE = 32 << 20
"""Bytes that one temporary buffer may take. 32 MiB stay in the 50 MiB second-level cache of an H100."""

_PROGRAMS = 1024  # splits of the columns are made until there are about so many programs: some waves on 132 processors
_LOWEST = torch.finfo(torch.float32).min


class _Blocks(NamedTuple):
    """The tile of similarities that a program holds, and how it is made."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


# bfloat16: the tile of tensor-core products, 64 accumulators a thread, 32 KiB of operands a stage.
# float32 ("ieee") has no tensor cores: a small tile and depth, so that operands fit into registers.
_BLOCKS = {torch.bfloat16: _Blocks(128, 128, 64, 8, 3), torch.float32: _Blocks(64, 64, 16, 4, 2)}


NegativeMargin = SelfPacedNegative | HardenedNegative

# Triton's CPU interpreter (TRITON_INTERPRET=1 when the kernels are first imported) stands in for a GPU in tests.
_INTERPRETED = kernels.triton is not None and not isinstance(kernels.pair_errors_kernel, kernels.triton.JITFunction)


def available() -> bool:
    """Whether the functions of this module can run: Triton is installed, and there is a GPU (or its interpreter)."""
    return kernels.triton is not None and (_INTERPRETED or torch.cuda.is_available())


@torch.no_grad()
def class_forward(
    rows: Tensor,
    weights: Tensor,
    inverse_norms: Tensor,
    labels: Tensor,
    scale: float,
    margin: NegativeMargin | None = None,
) -> tuple[Tensor, Tensor]:
    """``log sum exp`` over all classes but the row's own, of ``scale * cosine``: as ``peak + log(total)``.

    Products are taken in the type of ``rows``: float32 exactly so (no TF32); bfloat16 with float32 sums, for which
    weights of float32 are rounded piece by piece. Similarities, and so Curricular's choice of hard classes, are of
    the rounded vectors then.

    Memory beyond inputs and result: 8 bytes a row and split, 1 MiB or 16 bytes a row, a few times over while merging;
    and ``WORKSPACE`` if weights must be rounded. Never (b, c).

    Args:
        rows: (b, d) unit features, bfloat16 or float32.
        weights: (c, d) class weights of any length, bfloat16 or float32.
        inverse_norms: (c,) float32, 1 / length of each weight; 0 for a zero weight, whose cosine is then 0.
        labels: (b,) int64. A label outside 0 .. c - 1 names no class here, and nothing is left out of its row.
        scale: Multiplies the similarities.
        margin: Reshapes the similarities; None leaves them.

    Returns:
        peak and total, both (b,) float32.
    """
    _check_classes(rows, weights, inverse_norms, labels, margin)
    (b, d), c = rows.shape, len(weights)
    blocks = _blocks(rows.dtype, d)
    options = _class_options(blocks, d, margin)
    rows, weights, labels = rows.contiguous(), weights.contiguous(), labels.contiguous()
    inverse_norms = inverse_norms.contiguous()
    threshold, t = _curriculum(margin, inverse_norms)
    peak = rows.new_full((b,), _LOWEST, dtype=torch.float32)
    total = rows.new_zeros(b, dtype=torch.float32)
    piece = c if weights.dtype == rows.dtype else WORKSPACE // (d * rows.element_size())
    for start, stop in _pieces(c if b else 0, piece, blocks.columns):
        tiles = _ceil(stop - start, blocks.columns)
        per_split = blocks.columns * _ceil(tiles, max(1, _PROGRAMS // _ceil(b, blocks.rows)))
        splits = _ceil(stop - start, per_split)
        peaks, totals = (torch.cat([x.new_empty(splits, b), x[None]]) for x in (peak, total))
        with _on(rows):
            kernels.class_forward_kernel[(_ceil(b, blocks.rows), splits)](
                rows,
                weights[start:stop].to(rows.dtype),
                inverse_norms[start:stop],
                labels,
                peaks,
                totals,
                threshold,
                t,
                float(scale),
                margin.m if isinstance(margin, SelfPacedNegative) else 0.0,
                b,
                stop - start,
                start,
                per_split,
                **options,
            )
        peak, total = _merged(peaks, totals)
    return peak, total


@torch.no_grad()
def class_backward(
    rows: Tensor,
    weights: Tensor,
    inverse_norms: Tensor,
    labels: Tensor,
    scale: float,
    peak: Tensor,
    total: Tensor,
    grad: Tensor,
    margin: NegativeMargin | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`class_forward` by the rows as they are, and by the weights through their normalisation.

    Piece by piece of the classes, a kernel writes dL/d(rows @ weights.T) into a workspace, rounded to the type of
    ``rows`` (bfloat16 keeps float32's range), and two matrix products of torch with float32 sums and results make
    the gradients. For float32 these two follow torch's setting for float32 products, which unless changed is exact.

    Memory beyond inputs and results: three buffers of at most ``WORKSPACE`` bytes each (for b above 131,072 the
    first takes 128 columns of b rows), and one more (b, d). Never (b, c).

    Args:
        rows: As for :func:`class_forward`.
        weights: As for :func:`class_forward`.
        inverse_norms: As for :func:`class_forward`.
        labels: As for :func:`class_forward`.
        scale: As for :func:`class_forward`.
        peak: (b,), what it returned, or the same merged with other sets of the same rows.
        total: (b,), likewise.
        grad: (b,) float32, dL/d(peak + log(total)).
        margin: As for :func:`class_forward`.

    Returns:
        d_rows (b, d) and d_weights (c, d), float32.
    """
    _check_classes(rows, weights, inverse_norms, labels, margin)
    for name, tensor in ("peak", peak), ("total", total), ("grad", grad):
        _check(name, tensor, rows, rows.shape[:1], torch.float32)
    (b, d), c = rows.shape, len(weights)
    blocks = _blocks(rows.dtype, d)
    options = _class_options(blocks, d, margin)
    rows, weights, labels, peak = rows.contiguous(), weights.contiguous(), labels.contiguous(), peak.contiguous()
    inverse_norms = inverse_norms.contiguous()
    threshold, t = _curriculum(margin, inverse_norms)
    factors = torch.where(total > 0, grad / torch.where(total > 0, total, 1), 0)
    d_rows = rows.new_zeros(b, d, dtype=torch.float32)
    d_weights = rows.new_zeros(c, d, dtype=torch.float32)
    piece = WORKSPACE // max(b * rows.element_size(), 4 * d)
    errors: Tensor | None = None
    for start, stop in _pieces(c if b else 0, piece, blocks.columns):
        if errors is None:
            # The interpreter would cut bfloat16 off instead of rounding it.
            width = _ceil(stop, 16) * 16  # rows start where cuBLAS likes them to
            errors = rows.new_empty(b, width, dtype=torch.float32 if _INTERPRETED else rows.dtype)
        columns = weights[start:stop].to(rows.dtype)
        with _on(rows):
            kernels.class_errors_kernel[(_ceil(b, blocks.rows), _ceil(stop - start, blocks.columns))](
                rows,
                columns,
                inverse_norms[start:stop],
                labels,
                peak,
                factors,
                errors,
                threshold,
                t,
                float(scale),
                margin.m if isinstance(margin, SelfPacedNegative) else 0.0,
                b,
                stop - start,
                start,
                errors.stride(0),
                **options,
            )
            error = errors[:, : stop - start].to(rows.dtype)
            d_rows += wide_product(error, columns)
            pulls = wide_product(error.T, rows)
            breadth = max(16, _power_of_two(d))
            height = max(1, 2048 // breadth)
            kernels.through_norm_kernel[(_ceil(stop - start, height),)](
                pulls,
                weights[start:stop],
                inverse_norms[start:stop],
                d_weights[start:stop],
                stop - start,
                D=d,
                BLOCK_N=height,
                BLOCK_D=breadth,
            )
        del columns, pulls  # before the next ones are made
    return d_rows, d_weights


@torch.no_grad()
def pair_forward(rows: Tensor, labels: Tensor, scale: float, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """``log sum exp`` of ``scale * similarity`` over all pairs of different labels within fences.

    Each unordered pair counts once: tiles below the diagonal are skipped. Since fences are set by float32
    similarities, products are float32 ones without TF32, whatever the type of ``rows``. They are summed in another
    order than torch does: a pair nearer to a fence than rounding (1e-6) may be judged otherwise, also one whose
    similarity *is* the fence. Forward and backward judge alike.

    Memory beyond inputs and result: 8 bytes per tile of 64 x 64 pairs, and (b, d) float32 if rows must be widened.

    Args:
        rows: (b, d) unit features, float32; bfloat16 is widened.
        labels: (b,) int64.
        scale: Multiplies the similarities.
        lower: Inclusive bound on the similarity, a float32 scalar on the device of the rows; -inf for none.
        upper: Likewise; inf for none.

    Returns:
        peak and total, two float32 scalars; the result is ``peak + log(total)``.
    """
    _check_rows(rows, labels)
    _check("lower", lower, rows, (), torch.float32)
    _check("upper", upper, rows, (), torch.float32)
    rows, labels = rows.float().contiguous(), labels.contiguous()
    b, d = rows.shape
    blocks = _blocks(torch.float32, d)
    options = _options(blocks, d) | {"BLOCK": blocks.rows}
    tiles = max(1, _ceil(b, blocks.rows))
    peaks = rows.new_full((tiles, tiles), _LOWEST)
    totals = rows.new_zeros(tiles, tiles)
    if b:
        with _on(rows):
            kernels.pair_forward_kernel[(tiles, tiles)](
                rows,
                labels,
                peaks,
                totals,
                lower,
                upper,
                float(scale),
                b,
                **options,
            )
    return _merged(peaks.flatten(), totals.flatten())


@torch.no_grad()
def pair_backward(
    rows: Tensor,
    labels: Tensor,
    scale: float,
    lower: Tensor,
    upper: Tensor,
    peak: Tensor,
    total: Tensor,
    grad: Tensor,
) -> Tensor:
    """Gradient of :func:`pair_forward` by the rows, (b, d) float32; none flows through the choice of pairs.

    Piece by piece of the rows, a kernel writes dL/d(rows @ rows.T) above the diagonal into a workspace, and matrix
    products of torch in float32 (by torch's setting for these) make the gradient.

    Memory beyond inputs and result: ``WORKSPACE`` bytes, or for b above 131,072 64 rows of b columns; and at most
    one (b, d) for a product, one for widened rows.

    Args:
        rows: As for :func:`pair_forward`.
        labels: As for :func:`pair_forward`.
        scale: As for :func:`pair_forward`.
        lower: As for :func:`pair_forward`.
        upper: As for :func:`pair_forward`.
        peak: Scalar, what it returned, or the same merged with other sets.
        total: Scalar, likewise.
        grad: Scalar float32, dL/d(peak + log(total)).
    """
    _check_rows(rows, labels)
    _check("lower", lower, rows, (), torch.float32)
    _check("upper", upper, rows, (), torch.float32)
    rows, labels = rows.float().contiguous(), labels.contiguous()
    for name, tensor in ("peak", peak), ("total", total), ("grad", grad):
        _check(name, tensor, rows, (), torch.float32)
    b, d = rows.shape
    blocks = _blocks(torch.float32, d)
    options = _options(blocks, d) | {"BLOCK": blocks.rows}
    factor = torch.where(total > 0, grad * float(scale) / torch.where(total > 0, total, 1), 0)
    d_rows = torch.zeros_like(rows)
    errors: Tensor | None = None
    for start, stop in _pieces(b, WORKSPACE // (4 * max(b, 1)), blocks.rows):
        if errors is None:
            errors = rows.new_empty(stop, b)
        with _on(rows):
            kernels.pair_errors_kernel[(_ceil(stop - start, blocks.rows), _ceil(b - start, blocks.rows))](
                rows,
                labels,
                peak,
                factor,
                errors,
                lower,
                upper,
                float(scale),
                b,
                start,
                errors.stride(0),
                **options,
            )
            error = errors[: stop - start, : b - start]
            d_rows[start:stop] += wide_product(error, rows[start:])
            d_rows[start:] += wide_product(error.T, rows[start:stop])
    return d_rows


def _merged(peaks: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    """One peak and total of many, along the first axis."""
    peak = peaks.amax(dim=0)
    return peak, (totals * (peaks - peak).exp()).sum(dim=0)


def _on(rows: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device: make it that of the rows."""
    return torch.cuda.device(rows.device) if rows.is_cuda else nullcontext()


def _blocks(dtype: torch.dtype, d: int) -> _Blocks:
    """The tile for a type, no deeper than d needs."""
    blocks = _BLOCKS[dtype]
    return blocks._replace(depth=min(blocks.depth, max(16, _power_of_two(d))))


def _options(blocks: _Blocks, d: int) -> dict[str, Any]:
    """What every kernel that multiplies is compiled for."""
    return {
        "LOWEST": _LOWEST,
        "D": d,
        "BLOCK_D": blocks.depth,
        "num_warps": blocks.warps,
        "num_stages": blocks.stages,
    }


def _class_options(blocks: _Blocks, d: int, margin: NegativeMargin | None) -> dict[str, Any]:
    """What the kernels of features against classes are compiled for."""
    kind = 0 if margin is None else 1 if isinstance(margin, SelfPacedNegative) else 2
    # The interpreter holds bfloat16 as integers and would multiply these.
    tile = {"MARGIN": kind, "BLOCK_M": blocks.rows, "BLOCK_N": blocks.columns, "WIDEN": _INTERPRETED}
    return _options(blocks, d) | tile


def _pieces(size: int, piece: int, multiple: int) -> Iterator[tuple[int, int]]:
    """``0 .. size`` whole if ``piece`` allows it, else in pieces of the multiples that fit in, one at least."""
    step = max(1, size) if size <= piece else max(1, piece // multiple) * multiple
    for start in range(0, size, step):
        yield start, min(start + step, size)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(n: int) -> int:
    """The least power of two >= n >= 1."""
    return 1 << (n - 1).bit_length()


def _curriculum(margin: NegativeMargin | None, spare: Tensor) -> tuple[Tensor, Tensor]:
    """Threshold and t for a kernel; something that it will not read where the margin has none."""
    if not isinstance(margin, HardenedNegative):
        return spare, spare
    return margin.threshold.reshape(-1).contiguous(), margin.t


def _check_rows(rows: Tensor, labels: Tensor) -> None:
    if kernels.triton is None or not (rows.is_cuda or _INTERPRETED):
        what = "no Triton" if kernels.triton is None else f"tensors on {rows.device}"
        raise ConfigError(
            f"The fused reductions need Triton and tensors on a CUDA device, got {what}. Set streaming.kernel: plain."
        )
    if rows.dtype not in _BLOCKS or rows.ndim != 2 or rows.shape[1] < 1:
        raise ShapeError(f"rows must be (b, d) bfloat16 or float32, got {tuple(rows.shape)} {rows.dtype}.")
    _check("labels", labels, rows, rows.shape[:1], torch.int64)


def _check_classes(
    rows: Tensor, weights: Tensor, inverse_norms: Tensor, labels: Tensor, margin: NegativeMargin | None
) -> None:
    _check_rows(rows, labels)
    _check("weights", weights, rows, (len(weights), rows.shape[1]), *_BLOCKS)
    _check("inverse_norms", inverse_norms, rows, (len(weights),), torch.float32)
    if isinstance(margin, HardenedNegative):
        _check("margin.threshold", margin.threshold, rows, (len(rows), 1), torch.float32)
        _check("margin.t", margin.t, rows, (), torch.float32)


def _check(name: str, tensor: Tensor, rows: Tensor, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
    """Raise unless the tensor has the shape, one of the types, and the device of the rows."""
    if tensor.shape != shape or tensor.dtype not in dtypes or tensor.device != rows.device:
        raise ShapeError(
            f"{name} must be {tuple(shape)} {' or '.join(map(str, dtypes))} on {rows.device}, got "
            f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}."
        )
