"""The Triton kernels of :mod:`unpg.similarity.fused`. Without Triton this module has ``triton = None`` and no kernel.

Shapes: rows (num_rows, D), columns or weights (num_columns, D); a program holds a tile (BLOCK_M, BLOCK_N) of their
products and goes through D in steps of BLOCK_D. All pointers are to contiguous memory.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["triton"]  # and the kernels, where there is Triton

if TYPE_CHECKING:
    triton: Any
    class_shares_kernel: Any
    through_norm_kernel: Any
    pair_forward_kernel: Any
    pair_errors_kernel: Any
    digits_kernel: Any
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
            num_rows,
            num_columns,
            D: tl.constexpr,
            BLOCK_M: tl.constexpr,
            BLOCK_N: tl.constexpr,
            BLOCK_D: tl.constexpr,
            WIDEN: tl.constexpr,
        ):
            """The tile (BLOCK_M, BLOCK_N) of rows @ columns.T in float32; of no meaning outside."""
            product = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
            # Outside, some row is read again: loads without a mask are the faster ones.
            x_at = rows + tl.where(at_row < num_rows, at_row, 0).to(tl.int64)[:, None] * D
            y_at = columns + tl.where(at_column < num_columns, at_column, 0).to(tl.int64)[None, :] * D
            for start in range(0, D, BLOCK_D):
                at_d = start + tl.arange(0, BLOCK_D)
                if D % BLOCK_D == 0:
                    x = tl.load(x_at + at_d[None, :])
                    y = tl.load(y_at + at_d[:, None])
                else:
                    x = tl.load(x_at + at_d[None, :], mask=at_d[None, :] < D, other=0.0)
                    y = tl.load(y_at + at_d[:, None], mask=at_d[:, None] < D, other=0.0)
                if WIDEN:
                    x = x.to(tl.float32)
                    y = y.to(tl.float32)
                # For float32 operands "ieee" means no TF32; bfloat16 operands are multiplied exactly anyway.
                product = tl.dot(x, y, product, input_precision="ieee")
            return product

        @triton.jit
        def _reshaped(cosine, at_row, num_rows, margin, threshold, t, MARGIN: tl.constexpr):
            """Reshaped cosines, and their slopes by the cosine. MARGIN: 0 none, 1 self-paced, 2 hardened."""
            if MARGIN == 1:
                slope = tl.maximum(cosine + margin, 0.0)
                shaped = slope * (cosine - margin)
            elif MARGIN == 2:
                harden = tl.load(t)
                limit = tl.load(threshold + at_row, mask=at_row < num_rows, other=0.0)
                hard = cosine > limit[:, None]
                slope = tl.where(hard, harden + 2.0 * cosine, 1.0)
                shaped = tl.where(hard, cosine * (harden + cosine), cosine)
            else:
                slope = 1.0
                shaped = cosine
            return shaped, slope

        @triton.jit
        def _own_column(labels, at_row, num_rows, num_columns, first_class):
            """The column of each row's own class; -1 where it is none of these."""
            own = tl.load(labels + at_row, mask=at_row < num_rows, other=-1) - first_class
            return tl.where((own >= 0) & (own < num_columns), own, -1).to(tl.int32)

        @triton.jit
        def class_shares_kernel(
            rows,
            weights,
            inverse_norms,
            labels,
            references,
            factors,
            peaks,
            totals,
            shares,
            threshold,
            t,
            scale,
            margin,
            num_rows,
            num_columns,
            first_class,
            shares_stride,
            PEAK: tl.constexpr,
            SUM: tl.constexpr,
            STORE: tl.constexpr,
            LOWEST: tl.constexpr,
            PROGRAMS: tl.constexpr,
            D: tl.constexpr,
            MARGIN: tl.constexpr,
            BLOCK_M: tl.constexpr,
            BLOCK_N: tl.constexpr,
            BLOCK_D: tl.constexpr,
            WIDEN: tl.constexpr,
        ):
            """Tiles of exp(logit - reference of the row), 0 at the own class. Grid: (PROGRAMS,), tile by tile each.

            PEAK: the reference is the largest logit of the row in the tile, and goes to ``peaks`` (column blocks,
            num_rows). SUM: the sum of each row goes to ``totals``, likewise. STORE: the tile, times the factor of a row
            and d cosine / d product, goes to ``shares`` (num_rows, shares_stride).
            """
            row_blocks = tl.cdiv(num_rows, BLOCK_M)
            tiles = row_blocks * tl.cdiv(num_columns, BLOCK_N)
            # One loop over the steps of all tiles: the next tile is loaded while this one's exponentials are taken.
            for tile in tl.range(tl.program_id(0), tiles, PROGRAMS, flatten=True):
                column_block = tile // row_blocks
                at_row = tile % row_blocks * BLOCK_M + tl.arange(0, BLOCK_M)
                at_column = column_block * BLOCK_N + tl.arange(0, BLOCK_N)
                product = _products(
                    rows, weights, at_row, at_column, num_rows, num_columns, D, BLOCK_M, BLOCK_N, BLOCK_D, WIDEN
                )
                inverse = tl.load(inverse_norms + at_column, mask=at_column < num_columns, other=0.0)
                shaped, slope = _reshaped(product * inverse[None, :], at_row, num_rows, margin, threshold, t, MARGIN)
                own = _own_column(labels, at_row, num_rows, num_columns, first_class)
                kept = (at_column < num_columns)[None, :] & (at_column[None, :] != own[:, None])
                at = column_block.to(tl.int64) * num_rows + at_row
                if PEAK:
                    logit = tl.where(kept, scale * shaped, LOWEST)
                    reference = tl.max(logit, 1)
                    tl.store(peaks + at, reference, mask=at_row < num_rows)
                    share = tl.where(kept, tl.exp(logit - reference[:, None]), 0.0)
                else:
                    reference = tl.load(references + at_row, mask=at_row < num_rows, other=-LOWEST)
                    share = tl.exp(tl.where(kept, scale * shaped - reference[:, None], LOWEST))
                if SUM:
                    tl.store(totals + at, tl.sum(share, 1), mask=at_row < num_rows)
                if STORE:
                    factor = tl.load(factors + at_row, mask=at_row < num_rows, other=0.0)
                    error = share * (slope * inverse[None, :]) * factor[:, None]
                    tl.store(
                        shares + at_row.to(tl.int64)[:, None] * shares_stride + at_column[None, :],
                        error.to(shares.dtype.element_ty),
                        mask=(at_row < num_rows)[:, None] & (at_column < num_columns)[None, :],
                    )

        @triton.jit
        def through_norm_kernel(
            pulls,
            weights,
            inverse_norms,
            num_columns,
            D: tl.constexpr,
            BLOCK_N: tl.constexpr,
            BLOCK_D: tl.constexpr,
        ):
            """Takes from each pull, in place, its part along the weight. Grid: (column blocks,); BLOCK_D >= D."""
            at_column = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
            at_d = tl.arange(0, BLOCK_D)
            at = at_column[:, None] * D + at_d[None, :]
            inside = (at_column < num_columns)[:, None] & (at_d < D)[None, :]
            inverse = tl.load(inverse_norms + at_column, mask=at_column < num_columns, other=0.0)
            unit = tl.load(weights + at, mask=inside, other=0.0).to(tl.float32) * inverse[:, None]
            pull = tl.load(pulls + at, mask=inside, other=0.0)
            along = tl.sum(pull * unit, 1)
            tl.store(pulls + at, pull - unit * along[:, None], mask=inside)

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
            product = _products(rows, rows, at_row, at_column, num_rows, num_rows, D, BLOCK, BLOCK, BLOCK_D, False)
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

        @triton.jit
        def digits_kernel(
            values,
            belongs,
            prefixes,
            table,
            num_values,
            SHIFT: tl.constexpr,
            WIDTH: tl.constexpr,
            ANY: tl.constexpr,
            BLOCK: tl.constexpr,
        ):
            """Adds to ``table`` (anchors, 2**WIDTH) how often a digit follows the prefix. Grid: (anchors, blocks)."""
            anchor = tl.program_id(0).to(tl.int64)
            at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
            inside = at < num_values
            raw = tl.load(values + anchor * num_values + at, mask=inside, other=0.0).to(tl.int32, bitcast=True)
            # Their order without sign is the order of the values.
            key = tl.where(raw < 0, ~raw, raw ^ -2147483648).to(tl.uint32, bitcast=True).to(tl.int64)
            agrees = inside & (tl.load(belongs + anchor * num_values + at, mask=inside, other=0) != 0)
            if not ANY:
                agrees = agrees & ((key >> (SHIFT + WIDTH)) == tl.load(prefixes + anchor))
            digit = (key >> SHIFT) & ((1 << WIDTH) - 1)
            tl.atomic_add(table + anchor * (1 << WIDTH) + digit, tl.full((BLOCK,), 1, tl.int64), mask=agrees)
