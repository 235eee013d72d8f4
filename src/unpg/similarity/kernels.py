"""The Triton kernels of :mod:`unpg.similarity.fused`. Without Triton this module has ``triton = None`` and no kernel.

Shapes: rows (num_rows, D), columns or weights (num_columns, D); a program holds a tile (BLOCK_M, BLOCK_N) of their
products and goes through D in steps of BLOCK_D. All pointers are to contiguous memory.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["triton"]  # and the kernels, where there is Triton

if TYPE_CHECKING:
    triton: Any
    class_forward_kernel: Any
    class_errors_kernel: Any
    through_norm_kernel: Any
    pair_forward_kernel: Any
    pair_errors_kernel: Any
else:
    try:
        import triton
        import triton.language as tl
    except ImportError:
        triton = None

    if triton is not None:

        @triton.jit
        def _products(
            rows,
            columns,
            at_row,
            at_column,
            rows_inside,
            columns_inside,
            D: tl.constexpr,
            BLOCK_M: tl.constexpr,
            BLOCK_N: tl.constexpr,
            BLOCK_D: tl.constexpr,
            WIDEN: tl.constexpr,
        ):
            """The tile (BLOCK_M, BLOCK_N) of rows @ columns.T in float32; zero outside."""
            product = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
            for start in range(0, D, BLOCK_D):
                at_d = start + tl.arange(0, BLOCK_D)
                inside = at_d < D
                x = tl.load(
                    rows + at_row[:, None] * D + at_d[None, :], mask=rows_inside[:, None] & inside[None, :], other=0.0
                )
                y = tl.load(
                    columns + at_column[None, :] * D + at_d[:, None],
                    mask=columns_inside[None, :] & inside[:, None],
                    other=0.0,
                )
                if WIDEN:
                    x = x.to(tl.float32)
                    y = y.to(tl.float32)
                # For float32 operands "ieee" means no TF32; bfloat16 operands are multiplied exactly anyway.
                product = tl.dot(x, y, product, input_precision="ieee")
            return product

        @triton.jit
        def _class_logits(
            rows,
            weights,
            at_row,
            at_column,
            rows_inside,
            columns_inside,
            inverse,
            scale,
            margin,
            threshold,
            t,
            D: tl.constexpr,
            MARGIN: tl.constexpr,
            BLOCK_M: tl.constexpr,
            BLOCK_N: tl.constexpr,
            BLOCK_D: tl.constexpr,
            WIDEN: tl.constexpr,
        ):
            """Logits of a tile, and their slopes by the cosine. MARGIN: 0 none, 1 self-paced, 2 hardened."""
            cosine = _products(
                rows, weights, at_row, at_column, rows_inside, columns_inside, D, BLOCK_M, BLOCK_N, BLOCK_D, WIDEN
            )
            cosine = cosine * inverse[None, :]
            if MARGIN == 1:
                slope = scale * tl.maximum(cosine + margin, 0.0)
                logit = slope * (cosine - margin)
            elif MARGIN == 2:
                harden = tl.load(t)
                limit = tl.load(threshold + at_row, mask=rows_inside, other=0.0)
                hard = cosine > limit[:, None]
                slope = scale * tl.where(hard, harden + 2.0 * cosine, 1.0)
                logit = scale * tl.where(hard, cosine * (harden + cosine), cosine)
            else:
                slope = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32) + scale
                logit = scale * cosine
            return logit, slope

        @triton.jit
        def class_forward_kernel(
            rows,
            weights,
            inverse_norms,
            labels,
            peaks,
            totals,
            threshold,
            t,
            scale,
            margin,
            num_rows,
            num_columns,
            first_class,
            per_split,
            LOWEST: tl.constexpr,
            D: tl.constexpr,
            MARGIN: tl.constexpr,
            BLOCK_M: tl.constexpr,
            BLOCK_N: tl.constexpr,
            BLOCK_D: tl.constexpr,
            WIDEN: tl.constexpr,
        ):
            """Peak and total of a block of rows over a split of the columns. Grid: (row blocks, splits)."""
            at_row = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
            rows_inside = at_row < num_rows
            label = tl.load(labels + at_row, mask=rows_inside, other=-1)
            peak = tl.full((BLOCK_M,), LOWEST, tl.float32)
            total = tl.zeros((BLOCK_M,), dtype=tl.float32)
            begin = tl.program_id(1) * per_split
            end = tl.minimum(begin + per_split, num_columns)
            for start in range(begin, end, BLOCK_N):
                at_column = (start + tl.arange(0, BLOCK_N)).to(tl.int64)
                columns_inside = at_column < num_columns
                inverse = tl.load(inverse_norms + at_column, mask=columns_inside, other=0.0)
                logit, _ = _class_logits(
                    rows,
                    weights,
                    at_row,
                    at_column,
                    rows_inside,
                    columns_inside,
                    inverse,
                    scale,
                    margin,
                    threshold,
                    t,
                    D,
                    MARGIN,
                    BLOCK_M,
                    BLOCK_N,
                    BLOCK_D,
                    WIDEN,
                )
                kept = columns_inside[None, :] & ((first_class + at_column)[None, :] != label[:, None])
                logit = tl.where(kept, logit, LOWEST)
                higher = tl.maximum(peak, tl.max(logit, 1))
                share = tl.where(kept, tl.exp(logit - higher[:, None]), 0.0)
                total = total * tl.exp(peak - higher) + tl.sum(share, 1)
                peak = higher
            at = tl.program_id(1).to(tl.int64) * num_rows + at_row
            tl.store(peaks + at, peak, mask=rows_inside)
            tl.store(totals + at, total, mask=rows_inside)

        @triton.jit
        def class_errors_kernel(
            rows,
            weights,
            inverse_norms,
            labels,
            peaks,
            factors,
            errors,
            threshold,
            t,
            scale,
            margin,
            num_rows,
            num_columns,
            first_class,
            errors_stride,
            LOWEST: tl.constexpr,
            D: tl.constexpr,
            MARGIN: tl.constexpr,
            BLOCK_M: tl.constexpr,
            BLOCK_N: tl.constexpr,
            BLOCK_D: tl.constexpr,
            WIDEN: tl.constexpr,
        ):
            """A tile of dL/d(rows @ weights.T). Grid: (row blocks, column blocks)."""
            at_row = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
            rows_inside = at_row < num_rows
            label = tl.load(labels + at_row, mask=rows_inside, other=-1)
            peak = tl.load(peaks + at_row, mask=rows_inside, other=0.0)
            factor = tl.load(factors + at_row, mask=rows_inside, other=0.0)
            at_column = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
            columns_inside = at_column < num_columns
            inverse = tl.load(inverse_norms + at_column, mask=columns_inside, other=0.0)
            logit, slope = _class_logits(
                rows,
                weights,
                at_row,
                at_column,
                rows_inside,
                columns_inside,
                inverse,
                scale,
                margin,
                threshold,
                t,
                D,
                MARGIN,
                BLOCK_M,
                BLOCK_N,
                BLOCK_D,
                WIDEN,
            )
            kept = columns_inside[None, :] & ((first_class + at_column)[None, :] != label[:, None])
            share = tl.exp(tl.where(kept, logit - peak[:, None], LOWEST))
            error = tl.where(kept, factor[:, None] * share * slope * inverse[None, :], 0.0)
            tl.store(
                errors + at_row[:, None] * errors_stride + at_column[None, :],
                error.to(errors.dtype.element_ty),
                mask=rows_inside[:, None] & columns_inside[None, :],
            )

        @triton.jit
        def through_norm_kernel(
            pulls,
            weights,
            inverse_norms,
            d_weights,
            num_columns,
            D: tl.constexpr,
            BLOCK_N: tl.constexpr,
            BLOCK_D: tl.constexpr,
        ):
            """d_weights = pulls less their part along the weight. Grid: (column blocks,); BLOCK_D >= D."""
            at_column = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
            at_d = tl.arange(0, BLOCK_D)
            at = at_column[:, None] * D + at_d[None, :]
            inside = (at_column < num_columns)[:, None] & (at_d < D)[None, :]
            inverse = tl.load(inverse_norms + at_column, mask=at_column < num_columns, other=0.0)
            unit = tl.load(weights + at, mask=inside, other=0.0).to(tl.float32) * inverse[:, None]
            pull = tl.load(pulls + at, mask=inside, other=0.0)
            along = tl.sum(pull * unit, 1)
            tl.store(d_weights + at, pull - unit * along[:, None], mask=inside)

        @triton.jit
        def _pair_logits(
            rows,
            labels,
            at_row,
            at_column,
            num_rows,
            scale,
            lower,
            upper,
            D: tl.constexpr,
            BLOCK: tl.constexpr,
            BLOCK_D: tl.constexpr,
        ):
            """Logits of a tile of pairs, and which of them are in the set."""
            rows_inside = at_row < num_rows
            columns_inside = at_column < num_rows
            product = _products(
                rows, rows, at_row, at_column, rows_inside, columns_inside, D, BLOCK, BLOCK, BLOCK_D, False
            )
            label = tl.load(labels + at_row, mask=rows_inside, other=-1)
            other = tl.load(labels + at_column, mask=columns_inside, other=-1)
            kept = (at_row[:, None] < at_column[None, :]) & columns_inside[None, :] & (label[:, None] != other[None, :])
            kept = kept & (product >= tl.load(lower)) & (product <= tl.load(upper))
            return scale * product, kept

        @triton.jit
        def pair_forward_kernel(
            rows,
            labels,
            peaks,
            totals,
            lower,
            upper,
            scale,
            num_rows,
            LOWEST: tl.constexpr,
            D: tl.constexpr,
            BLOCK: tl.constexpr,
            BLOCK_D: tl.constexpr,
        ):
            """Peak and total of a tile on or above the diagonal. Grid: (row blocks, row blocks)."""
            block = tl.program_id(0)
            other = tl.program_id(1)
            if other >= block:
                at_row = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
                at_column = other.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
                logit, kept = _pair_logits(
                    rows, labels, at_row, at_column, num_rows, scale, lower, upper, D, BLOCK, BLOCK_D
                )
                peak = tl.max(tl.max(tl.where(kept, logit, LOWEST), 1), 0)
                total = tl.sum(tl.sum(tl.where(kept, tl.exp(tl.where(kept, logit - peak, LOWEST)), 0.0), 1), 0)
                at = block.to(tl.int64) * tl.num_programs(1) + other
                tl.store(peaks + at, peak)
                tl.store(totals + at, total)

        @triton.jit
        def pair_errors_kernel(
            rows,
            labels,
            peak,
            factor,
            errors,
            lower,
            upper,
            scale,
            num_rows,
            first_row,
            errors_stride,
            LOWEST: tl.constexpr,
            D: tl.constexpr,
            BLOCK: tl.constexpr,
            BLOCK_D: tl.constexpr,
        ):
            """A tile of dL/d(rows @ rows.T), from ``first_row`` on both ways; zero on and below the diagonal."""
            block = tl.program_id(0)
            other = tl.program_id(1)
            in_row = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
            in_column = other.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
            at_row = first_row + in_row
            at_column = first_row + in_column
            error = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
            if other >= block:
                logit, kept = _pair_logits(
                    rows, labels, at_row, at_column, num_rows, scale, lower, upper, D, BLOCK, BLOCK_D
                )
                share = tl.exp(tl.where(kept, logit - tl.load(peak), LOWEST))
                error = tl.where(kept, share * tl.load(factor), 0.0)
            tl.store(
                errors + in_row[:, None] * errors_stride + in_column[None, :],
                error,
                mask=(at_row < num_rows)[:, None] & (at_column < num_rows)[None, :],
            )
