"""The inner product all CPU matrix kernels share: a tile of rows times a tile of 16-wide column blocks, in registers.

    out[r, c] = sum over i of x[r, i] * w[block(c), i, c % 16]

Each (row, column) has one accumulator that goes through i in order, so its bits do not depend on which rows or columns
share the tile: the same token gives the same numbers alone, in any batch and in any chunk.
bf16 goes in pairs (i and i + 1 in one 32-bit word), int8 in fours (rows unsigned, columns signed), float32 one by one.
Called by: linear, linear_int8, attention.
"""

from __future__ import annotations

from vllm.ops.cpu.lang import Ptr, Trace, Val, Var, W

WORD = {"bf16": "i32", "f32": "f32", "i8": "i32"}
"""What one step of a row is read as."""
PER_WORD = {"bf16": 2, "f32": 1, "i8": 4}


def row_tiles(features: frozenset[str]) -> tuple[int, tuple[int, ...]]:
    """(column blocks, row counts from large to one) of the tiles that fit this CPU's registers."""
    return (4, (6, 4, 2, 1)) if "avx512f" in features else (1, (4, 1))


def multiply(
    k: Trace, dtype: str, xs: list[Ptr], ws: list[Ptr], accs: list[list[Var]], words: Val, stride: int = W
) -> None:
    """accs[r][c].v += rows xs[r] times column blocks ws[c], whose words i lie `stride` words apart."""
    for i in k.range(0, words):
        one_step(k, dtype, [x + i for x in xs], [(w + i * stride).raw(W) for w in ws], accs)


def one_step(k: Trace, dtype: str, xs: list[Ptr], ws: list[Val], accs: list[list[Var]]) -> None:
    """One word of the inner dimension."""
    for x, row in zip(xs, accs, strict=True):
        one = x.raw(1).splat(W)
        for w, acc in zip(ws, row, strict=True):
            if dtype == "bf16":
                acc.v = k.dot_bf16(acc.v, w, one)
            else:
                acc.v = k.fma(w, one, acc.v) if dtype == "f32" else k.dot_u8i8(acc.v, one, w)
