"""Tiles of the fp8 kernel for few rows, by tokens and weight: what `python -m benchmarks.fp8_tiles` found fastest."""

from dataclasses import dataclass, replace
from math import log2


@dataclass(frozen=True, slots=True)
class Tile:
    """`bm` tokens, `bn` weight rows, `bk` columns; `ahead` lines of each row are asked for before the wait."""

    bm: int
    bn: int
    bk: int
    splits: int
    warps: int
    stages: int
    ahead: int = 4


MOST_ROWS = 128
"""More tokens than this go to the kernel for many."""
_TABLE: dict[int, dict[tuple[int, int], Tile | None]] = {
    16: {
        (6144, 4096): Tile(16, 64, 256, 1, 4, 5, 8),
        (4096, 4096): Tile(16, 64, 256, 2, 4, 8, 8),
        (28672, 4096): Tile(16, 64, 256, 1, 4, 5, 8),
        (4096, 14336): Tile(16, 64, 256, 2, 4, 8, 8),
        (4096, 1024): Tile(16, 64, 256, 1, 4, 5, 8),
        (1024, 3072): Tile(16, 64, 256, 4, 4, 4, 8),
    },
    32: {
        (6144, 4096): Tile(32, 64, 256, 1, 4, 5, 8),
        (4096, 4096): Tile(32, 64, 256, 2, 4, 5, 8),
        (28672, 4096): Tile(32, 128, 256, 1, 8, 5, 8),
        (4096, 14336): Tile(32, 64, 256, 2, 4, 5, 8),
        (4096, 1024): Tile(32, 64, 256, 1, 4, 5, 8),
        (1024, 3072): Tile(32, 64, 256, 4, 4, 4, 8),
    },
    64: {
        (6144, 4096): Tile(64, 64, 128, 1, 4, 8, 8),
        (4096, 4096): Tile(64, 64, 128, 2, 4, 8, 8),
        (28672, 4096): Tile(64, 128, 128, 1, 8, 3, 8),
        (4096, 14336): Tile(64, 64, 256, 2, 4, 5, 8),
        (4096, 1024): Tile(64, 64, 256, 1, 4, 5, 8),
        (1024, 3072): Tile(64, 64, 256, 4, 4, 4, 8),
    },
    128: {
        (6144, 4096): Tile(128, 64, 256, 1, 4, 4, 8),
        (4096, 4096): Tile(128, 64, 256, 2, 4, 4, 8),
        (28672, 4096): None,
        (4096, 14336): Tile(128, 64, 256, 2, 4, 4, 8),
        (4096, 1024): Tile(128, 64, 256, 1, 4, 3, 8),
        (1024, 3072): Tile(128, 64, 256, 4, 4, 3, 8),
    },
}
_chosen: dict[tuple[int, int, int, int], Tile | None] = {}


def tile_of(rows: int, outputs: int, inputs: int, block: int = 0) -> Tile | None:
    """The tile for so many tokens and such a weight, that of the most similar one measured; None: too many tokens.

    `block`: columns that share a scale; they make the tile's.
    """
    if rows > MOST_ROWS:
        return None
    bucket = next(b for b in _TABLE if b >= rows)
    key = (bucket, outputs, inputs, block)
    if key not in _chosen:
        known = _TABLE[bucket]
        near = min(known, key=lambda size: abs(log2(size[0] / outputs)) + abs(log2(size[1] / inputs)))
        tile = known[near]
        _chosen[key] = replace(tile, bk=block) if block and tile is not None else tile
    return _chosen[key]
