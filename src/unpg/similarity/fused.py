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

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unpg.errors import ConfigError, ShapeError
from unpg.similarity import kernels
from unpg.similarity.products import Precision, add_wide_product, rounded, wide_product
from unpg.similarity.reshape import HardenedNegative, SelfPacedNegative
from unpg.similarity.stream import Kernel

__all__ = [
    "NegativeMargin",
    "add_digits",
    "available",
    "class_backward",
    "class_forward",
    "keeps_shares",
    "pair_backward",
    "pair_forward",
    "wanted",
]

WORKSPACE = 128 << 20
"""Bytes that one temporary buffer may take. With less, an H200 waits for the launches of so many small products."""

_DIGITS = 4096  # values of a program that counts digits
_LOWEST = torch.finfo(torch.float32).min


class _Blocks(NamedTuple):
    """The tile of similarities that a program holds, and how it is made."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    programs: int  # at once on a processor


# bfloat16: tiles of tensor-core products, the fastest of some that were tried on an H200.
# float32 ("ieee") has no tensor cores: a small tile and depth, so that operands fit into registers.
_BLOCKS = {torch.bfloat16: _Blocks(128, 128, 64, 4, 3, 2), torch.float32: _Blocks(64, 64, 16, 4, 2, 4)}


NegativeMargin = SelfPacedNegative | HardenedNegative

# Triton's CPU interpreter (TRITON_INTERPRET=1 when the kernels are first imported) stands in for a GPU in tests.
_INTERPRETED = kernels.triton is not None and not isinstance(kernels.pair_errors_kernel, kernels.triton.JITFunction)


def available() -> bool:
    """Whether the functions of this module can run: Triton is installed, and there is a GPU (or its interpreter)."""
    return kernels.triton is not None and (_INTERPRETED or torch.cuda.is_available())


def wanted(kernel: Kernel, rows: Tensor) -> bool:
    """Whether the functions of this module are to be used for the rows."""
    return kernel == "triton" or (kernel == "auto" and rows.is_cuda and available())


@torch.no_grad()
def class_forward(
    rows: Tensor,
    weights: Tensor,
    inverse_norms: Tensor,
    labels: Tensor,
    scale: float,
    margin: NegativeMargin | None = None,
    *,
    products: Precision = "float32",
    shares: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """``log sum exp`` over all classes but the row's own, of ``scale * cosine``: as ``peak + log(total)``.

    Products are float32 ones, exactly so (no TF32); or of bfloat16 factors with float32 sums, for which weights of
    float32 are rounded piece by piece. Similarities, and so Curricular's choice of hard classes, are of the rounded
    vectors then.

    Cosines are bounded, and so are logits without a margin: one number for all rows keeps their exponentials and sums
    within float32 for scales up to about 78, and serves as the peak. Else the largest logit of each row is found.

    Memory beyond inputs and result: two buffers of ``WORKSPACE`` bytes. (b, c) never, unless kept in ``shares``.

    Args:
        rows: (b, d) unit features, bfloat16 or float32.
        weights: (c, d) class weights of any length, bfloat16 or float32.
        inverse_norms: (c,) float32, 1 / length of each weight; 0 for a zero weight, whose cosine is then 0.
        labels: (b,) int64. A label outside 0 .. c - 1 names no class here, and nothing is left out of its row.
        scale: Multiplies the similarities.
        margin: Reshapes the similarities; None leaves them.
        products: Type of the factors of products of float32 rows.
        shares: Where :func:`keeps_shares`, a list to which exponentials (b, n) of the type of the factors are appended
            for each piece of n classes: given to :func:`class_backward`, they spare it a product.

    Returns:
        peak and total, both (b,) float32.
    """
    x = _Classes(rows, weights, inverse_norms, labels, scale, margin, products)
    reference = _reference(scale, margin, len(weights))
    peak = rows.new_full(labels.shape, _LOWEST if reference is None else reference, dtype=torch.float32)
    total = torch.zeros_like(peak)
    for start, stop in x.forward_pieces():
        columns = x.weights[start:stop].to(x.factors.dtype)
        if reference is None:
            peaks, totals = x.share(columns, start, None)
            peak, total = _merged(torch.cat([peaks, peak[None]]), torch.cat([totals, total[None]]))
            continue
        share = None if shares is None else x.workspace(stop - start)
        total += x.share(columns, start, peak, shares=share)[1].sum(dim=0)
        if shares is not None and share is not None:
            shares.append(share[:, : stop - start].to(x.factors.dtype))
    return torch.where(total > 0, peak, _LOWEST), total


def keeps_shares(scale: float, margin: NegativeMargin | None, classes: int) -> bool:
    """Whether :func:`class_forward` can keep its exponentials: what to divide them by must be known beforehand."""
    return _reference(scale, margin, classes) is not None


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
    *,
    products: Precision = "float32",
    shares: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`class_forward` by the rows as they are, and by the weights through their normalisation.

    Piece by piece of the classes, a kernel writes dL/d(rows @ weights.T) into a workspace, rounded to the type of the
    factors (bfloat16 keeps float32's range), and two matrix products of torch with float32 sums and results make the
    gradients. Where exponentials have been kept, they are multiplied as they are: what belongs to a row goes to the
    other factor and the result. Float32 products follow torch's setting for these, which unless changed is exact.

    Memory beyond inputs and results: two buffers of at most ``WORKSPACE`` bytes each (for b above 131,072 the first
    takes 128 columns of b rows), and a few of (b, d). Never (b, c).

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
        products: As for :func:`class_forward`.
        shares: What it kept, to be emptied; None or nothing to compute it again.

    Returns:
        d_rows (b, d) and d_weights (c, d), float32.
    """
    x = _Classes(rows, weights, inverse_norms, labels, scale, margin, products)
    for name, tensor in ("peak", peak), ("total", total), ("grad", grad):
        _check(name, tensor, rows, rows.shape[:1], torch.float32)
    (b, d), c = rows.shape, len(weights)
    some = total > 0
    factors = torch.where(some, float(scale) * grad / torch.where(some, total, 1), 0)
    peak = torch.where(some, peak, 0)
    pulled, row_factors = x.factors, torch.ones_like(factors)
    if shares:
        reference = _reference(scale, margin, c)
        assert reference is not None
        row_factors = factors * torch.where(some, reference - peak, 0).exp()
        pulled = (rows * row_factors[:, None]).to(x.factors.dtype)
    d_rows = rows.new_zeros(b, d, dtype=torch.float32)
    d_weights = torch.zeros_like(weights, dtype=torch.float32) if b == 0 else rows.new_empty(c, d, dtype=torch.float32)
    workspace: Tensor | None = None
    for start, stop in x.forward_pieces() if shares else x.backward_pieces():
        columns = x.weights[start:stop].to(x.factors.dtype)
        if shares:
            error = shares.pop(0)
        else:
            workspace = x.workspace(stop) if workspace is None else workspace
            x.share(columns, start, peak, factors, workspace, sums=False)
            error = workspace[:, : stop - start].to(x.factors.dtype)
        add_wide_product(d_rows, error, columns)
        pulls = wide_product(error.T, pulled, out=d_weights[start:stop])
        breadth = max(16, _power_of_two(d))
        height = max(1, 2048 // breadth)
        with _on(rows):
            kernels.through_norm_kernel[(_ceil(stop - start, height),)](
                pulls,
                x.weights[start:stop],
                x.inverse_norms[start:stop],
                stop - start,
                D=d,
                BLOCK_N=height,
                BLOCK_D=breadth,
            )
    return d_rows * row_factors[:, None], d_weights


class _Classes:
    """What the kernels of features against classes are started with."""

    def __init__(
        self,
        rows: Tensor,
        weights: Tensor,
        inverse_norms: Tensor,
        labels: Tensor,
        scale: float,
        margin: NegativeMargin | None,
        products: Precision,
    ) -> None:
        _check_classes(rows, weights, inverse_norms, labels, margin)
        self.factors = rounded(rows, products).contiguous()
        self.weights, self.inverse_norms = weights.contiguous(), inverse_norms.contiguous()
        self.labels = labels.contiguous()
        self.classes, self.dim = weights.shape
        self.blocks = _blocks(self.factors.dtype, self.dim)
        # Read only where the margin has them.
        self.curriculum = (self.inverse_norms, self.inverse_norms)
        if isinstance(margin, HardenedNegative):
            self.curriculum = (margin.threshold.reshape(-1).contiguous(), margin.t)
        self.scales = (float(scale), margin.m if isinstance(margin, SelfPacedNegative) else 0.0)
        kind = 0 if margin is None else 1 if isinstance(margin, SelfPacedNegative) else 2
        # The interpreter holds bfloat16 as integers and would multiply these.
        self.ones = torch.ones_like(self.labels, dtype=torch.float32)
        self.options: dict[str, Any] = {"MARGIN": kind, "WIDEN": _INTERPRETED, "LOWEST": _LOWEST}

    def forward_pieces(self) -> Iterator[tuple[int, int]]:
        """Limited by the rounded weights, and by one sum for each row and tile."""
        b = max(len(self.factors), 1)
        piece = min(
            WORKSPACE // (self.dim * self.factors.element_size()), self.blocks.columns * max(1, WORKSPACE // (4 * b))
        )
        return _pieces(self.classes if len(self.factors) else 0, piece, self.blocks.columns)

    def backward_pieces(self) -> Iterator[tuple[int, int]]:
        """Limited by the similarities and the rounded weights."""
        size = self.factors.element_size()
        piece = WORKSPACE // (max(len(self.factors), self.dim) * size)
        return _pieces(self.classes if len(self.factors) else 0, piece, self.blocks.columns)

    def workspace(self, n: int) -> Tensor:
        """An uninitialised (b, >= n); rows start where cuBLAS likes them to.

        Triton's interpreter would cut bfloat16 off instead of rounding it: it gets float32.
        """
        dtype = torch.float32 if _INTERPRETED else self.factors.dtype
        return self.factors.new_empty(len(self.factors), _ceil(n, 16) * 16, dtype=dtype)

    def share(
        self,
        columns: Tensor,
        start: int,
        references: Tensor | None,
        factors: Tensor | None = None,
        shares: Tensor | None = None,
        *,
        sums: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Exponentials of the logits of the classes from ``start`` on, less the reference of each row.

        Times a factor of each row, 1 by default, and the slopes they go to ``shares``, if given. Returned are peaks and
        sums for each tile of columns, (tiles, b): peaks where there is no reference, sums if asked for.
        """
        b, n = len(self.factors), len(columns)
        blocks = self.blocks
        row_tiles, tiles = _ceil(b, blocks.rows), _ceil(n, blocks.columns)
        peaks, totals = self.ones.new_empty(2, tiles if sums else 0, b)  # what is not asked for is not written
        programs = min(row_tiles * tiles, blocks.programs * _processors(self.factors.device))
        with _on(self.factors):
            kernels.class_shares_kernel[(programs,)](
                self.factors,
                columns,
                self.inverse_norms[start : start + n],
                self.labels,
                totals if references is None else references,
                self.ones if factors is None else factors,
                peaks,
                totals,
                totals if shares is None else shares,
                *self.curriculum,
                *self.scales,
                b,
                n,
                start,
                0 if shares is None else shares.stride(0),
                PEAK=references is None,
                SUM=sums,
                STORE=shares is not None,
                PROGRAMS=programs,
                BLOCK_M=blocks.rows,
                BLOCK_N=blocks.columns,
                **_options(blocks, self.dim),
                **self.options,
            )
        return peaks, totals


@cache
def _processors(device: torch.device) -> int:
    """How many a device has; the interpreter is one."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _reference(scale: float, margin: NegativeMargin | None, classes: int) -> float | None:
    """What to subtract from all logits so that no exponential and no sum of so many leaves float32; None if nothing."""
    largest = 1.02 * abs(scale)  # cosines of rounded vectors may exceed 1 by 2**-7
    reference = largest + math.log(max(classes, 1)) - 87
    return reference if margin is None and largest + reference <= 87 else None


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
    options = _options(blocks, d) | {"BLOCK": blocks.rows, "LOWEST": _LOWEST}
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
    options = _options(blocks, d) | {"BLOCK": blocks.rows, "LOWEST": _LOWEST}
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


@torch.no_grad()
def add_digits(table: Tensor, values: Tensor, belongs: Tensor, prefixes: Tensor | None, shift: int, width: int) -> None:
    """Count in ``table`` the digits of ordered float bits that follow a prefix; see :mod:`unpg.similarity.rank`.

    Args:
        table: (a, 2**width) int64, added to.
        values: (a, n) float32.
        belongs: (a, n) bool, which of them count.
        prefixes: (a,) int64, what the bits above the digit must be; None counts all.
        shift: Bits below the digit.
        width: Bits of the digit.
    """
    anchors, n = values.shape
    values, belongs = values.contiguous(), belongs.contiguous()
    with _on(values):
        kernels.digits_kernel[(anchors, _ceil(n, _DIGITS))](
            values,
            belongs.view(torch.uint8),
            table if prefixes is None else prefixes.contiguous(),
            table,
            n,
            SHIFT=shift,
            WIDTH=width,
            ANY=prefixes is None,
            BLOCK=_DIGITS,
        )


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
        "D": d,
        "BLOCK_D": blocks.depth,
        "num_warps": blocks.warps,
        "num_stages": blocks.stages,
    }


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
