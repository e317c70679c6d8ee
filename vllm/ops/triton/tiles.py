"""How weights are cut for the kernel of few rows (linear.py).

Measured on an H200 by `benchmarks/tuning/linear.py`, which writes `tiles_sm90.py`; nothing is tried while serving.
Weights that are not in the table get a tile from rules.
"""

from dataclasses import dataclass

from vllm.ops.fold import Map
from vllm.ops.triton.tiles_sm90 import TILES, TILES_E4M3

_SMALL_KERNELS = 8.0
"""Microseconds that norms and activation of a layer take when they are not folded into the maps around them."""
_SMALL_KERNELS_E4M3 = 20.0
"""Where inputs are quantized as well."""
_ROWS = (1, 2, 8, 32, 64, 128)
_SMALL, _MEDIUM = 1 << 23, 1 << 24
"""Weights up to these sizes leave the library waiting: for 32 rows, and for 16. Larger ones keep it at full speed."""


@dataclass(frozen=True, slots=True)
class Tile:
    """How a weight is cut: `bn` outputs times `bk` inputs at a time, inputs in `splits` shares."""

    bn: int
    bk: int
    splits: int
    stages: int
    warps: int = 4
    way: str = "plain"
    """`hopper`: the kernel with the copy engine, where there is one; `wide`: its own for 65 to 128 tokens in e4m3, in
    tiles of 64 or 128 times 128; `lone`: without products of tiles."""


def tile_of(
    outputs: int, inputs: int, rows: int, must: bool = False, act: bool = False, small: bool = False
) -> Tile | None:
    """The tile for a weight and as many rows; None where the library is better, unless there `must` be one.

    `small`: both sides are e4m3.
    """
    bucket = next((r for r in _ROWS if r >= rows), None)
    if bucket is None:
        assert not must, f"{rows} rows are too many"
        return None
    table = TILES_E4M3 if small else TILES
    known = table.get((outputs, inputs, act, bucket)) or table.get((outputs, inputs, act, max(8, bucket)))
    if known is not None:
        *tile, ours, library = known
        return Tile(*tile) if must or ours < library else None
    small = rows <= (32 if outputs * inputs <= _SMALL else 16 if outputs * inputs <= _MEDIUM else 0)
    return (
        _by_rule(outputs // 2 if act else outputs, inputs, bucket, act) if must or (small and inputs % 8 == 0) else None
    )


def most_rows(maps: list[Map]) -> int:
    """Rows up to which folding norms into a layer's maps is faster than leaving them alone."""
    alone = _SMALL_KERNELS_E4M3 if all(small for *_, small in maps) else _SMALL_KERNELS
    for rows in (128, 64, 32, 8):
        found = [(TILES_E4M3 if small else TILES).get((*one, rows)) for *one, small in maps]
        times = [tile[-2:] for tile in found if tile is not None]
        if len(times) < len(maps):
            return 32
        if sum(t[0] for t in times) < sum(t[1] for t in times) + alone:
            return rows
    return 8


def _by_rule(wide: int, inputs: int, rows: int, act: bool) -> Tile:
    splits = 1
    while splits < 8 and -(-wide // 64) * splits < 96 and inputs >= 512 * splits:
        splits *= 2
    each = ((128 if act else 64) + rows) * 256
    return Tile(
        64,
        128,
        splits,
        max(2, min(6, (100 << 10) // each, inputs // splits // 128 + 1)),
        4,
        "hopper" if rows <= 64 else "plain",
    )
