"""The inner product all CPU matrix kernels share: a tile of rows times a tile of 16-wide column blocks, in registers.

    out[r, c] = sum over i of x[r, i] * w[block(c), i, c % 16]

Each (row, column) has one accumulator that goes through i in order, so its bits do not depend on which rows or columns
share the tile: the same token gives the same numbers alone, in any batch and in any chunk.
bf16 goes in pairs (i and i + 1 in one 32-bit word), int8 in fours (rows unsigned, columns signed), float32 one by one.
Without instructions for such words rows come spread out, two for one: bf16 as float32, int8 as pairs of int16.
Called by: linear, linear_int8, attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vllm.ops.cpu.emit import KernelTrace
from vllm.ops.cpu.lang import Trace
from vllm.ops.cpu.values import F32, I16, I32, Ptr, Val, Var, W

WORD = {"bf16": "i32", "f32": "f32", "i8": "i32"}
"""What one step of a row is read as."""
PER_WORD = {"bf16": 2, "f32": 1, "i8": 4}


EDGE = ((2, 1), (1, 1))
"""(rows, column blocks) of the tiles of a last, partial panel."""
FEW = 8
"""Tokens up to which weights come from memory more slowly than they are multiplied."""
UNROLL = 4
"""Words per turn of a loop over spread rows."""


def row_tiles(features: frozenset[str]) -> tuple[int, tuple[int, ...]]:
    """(column blocks, row counts from large to one) of the tiles that fit this CPU's registers."""
    return (4, (6, 4, 2, 1)) if "avx512f" in features else (1, (4, 1))


def shapes(features: frozenset[str], few: bool) -> tuple[tuple[int, int], ...]:
    """(rows, column blocks) of tiles from many rows to one.

    Where registers hold few blocks, a tile is as wide as its rows leave room for; with `few` tokens memory is what
    counts, and neighbouring blocks are read at once.
    """
    blocks, heights = row_tiles(features)
    if "avx512f" in features or "avx2" not in features:
        return tuple((height, blocks) for height in heights)
    return ((2, 2), (1, 4)) if few else ((5, 1), (2, 2), (1, 4))


def looks_ahead(dtype: str, features: frozenset[str], few: bool) -> bool:
    """Do tiles of several rows ask memory for later words? A gain where rows come spread out on AVX2, else a loss."""
    return few and spreads(dtype, features) and "avx2" in features and "avx512f" not in features


def spreads(dtype: str, features: frozenset[str]) -> bool:
    """Do rows of this dtype come spread out?"""
    if dtype == "bf16":
        return "avx512bf16" not in features
    return dtype == "i8" and "avx2" in features and "avx512vnni" not in features


def columns(k: Trace, total: int, most: int) -> Iterator[tuple[Val, int]]:
    """(first column, blocks) of tiles across `total` columns: a loop of tiles of `most` blocks, then a narrower one."""
    whole = total // (W * most) * W * most
    for at in k.range(0, whole, W * most):
        yield at, most
    if whole < total:
        yield k.const(whole), (total - whole) // W


def multiply(
    k: Trace,
    dtype: str,
    xs: list[Ptr],
    ws: list[Ptr],
    accs: list[list[Var]],
    words: Val | int,
    stride: int = W,
    spread: bool = False,
    ahead: Iterable[Ptr] = (),
) -> None:
    """accs[r][c].v += rows xs[r] times column blocks ws[c], whose words i lie `stride` words apart.

    `words` as a number, not a value, spares the loop over what is left. `ahead`: where a quarter as many words are
    asked for that will be wanted later.
    """
    if "avx512f" in k.features and not spread:
        for i in k.range(0, words):
            one_step(k, dtype, [x + i for x in xs], [(w + i * stride).raw(W) for w in ws], accs)
        return
    whole = words - words % UNROLL
    for start, end, step in ((0, whole, UNROLL), (whole, words, 1)):
        if isinstance(end, int) and start == end:
            continue
        for i in k.range(start, end, step):
            for later in ahead if step == UNROLL else ():
                (later + i // UNROLL * W).prefetch()
            for u in range(step):
                at = i + u if u else i
                here = [(w + at * stride).raw(W) for w in ws]
                if spread:
                    spread_step(k, dtype, [x + at * 2 for x in xs], here, accs)
                else:
                    one_step(k, dtype, [x + at for x in xs], here, accs)


def walk(
    k: KernelTrace, first: Val, last: Val, col: Val, blocks: int, num: int, height: int, ahead: bool
) -> Iterator[tuple[Val, Val, Val | None]]:
    """(row, column, column to ask for) of each tile of a panel of `blocks` from `col` on.

    With few rows and `ahead` the columns go outside: the first tile of a column waits for memory, and the others, whose
    words are there, leave it time for the next column. After a panel, a thread's next one is as many panels away as
    there are threads.
    """
    if not ahead or height == 1:
        for row in k.range(first, last, height):
            for at in [col] if num == blocks else k.range(col, col + W * blocks, W * num):
                yield row, at, None
        return
    end = col + W * blocks
    for at in k.range(col, end, W * num):
        following = at + W * num
        following = (following < end).where(following, col + k.threads * (W * blocks))
        for row in k.range(first, last, height):
            yield row, at, following


def asked(w: Ptr, column: Val | None, num: int, words: Val, part: Val) -> list[Ptr]:
    """Quarter `part` (they come round) of the words of `num` blocks from `column` on."""
    if column is None:
        return []
    start = part % UNROLL * (words // UNROLL)
    return [w + (column + W * c) * words + start * W for c in range(num)]


def one_step(k: Trace, dtype: str, xs: list[Ptr], ws: list[Val], accs: list[list[Var]]) -> None:
    """One word of the inner dimension."""
    for x, row in zip(xs, accs, strict=True):
        one = x.raw(1).splat(W)
        for w, acc in zip(ws, row, strict=True):
            if dtype == "bf16":
                acc.v = k.dot_bf16(acc.v, w, one)
            else:
                acc.v = k.fma(w, one, acc.v) if dtype == "f32" else k.dot_u8i8(acc.v, one, w)


def spread_step(k: Trace, dtype: str, xs: list[Ptr], ws: list[Val], accs: list[list[Var]]) -> None:
    """One word of the columns, two of the rows; bf16 in the order of `one_step`."""
    for part in (0, 1):
        halves = [_half(k, dtype, w, part) for w in ws]
        for x, row in zip(xs, accs, strict=True):
            one = (x + part).raw(1).splat(W)
            for w, acc in zip(halves, row, strict=True):
                acc.v = k.fma(w, one, acc.v) if dtype == "bf16" else k.dot_i16(acc.v, one, w)


def _half(k: Trace, dtype: str, w: Val, part: int) -> Val:
    """The even (0) or odd (1) members of words: bf16 as float32, int8 as int16."""
    if dtype == "bf16":
        return (w & -65536 if part else w << 16).bits(F32)
    twice = w.bits(I16)
    return k.ashr(twice if part else twice << 8, 8).bits(I32)
