"""Tiles of the expert kernels, by pairs per expert. Chosen by `benchmarks/tuning/experts.py` on an H200."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Tile:
    """One product: outputs and inputs of a tile, warps, tiles in flight, and whether weights are the rows of it."""

    bn: int
    bk: int
    warps: int
    stages: int
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Tiles:
    """Both products."""

    bm: int
    up: Tile
    down: Tile
    rows_alone: int = 0
    """With at most so many pairs each is a block of its own."""


_TABLE = (
    (0.1, Tiles(16, Tile(64, 64, 4, 6, True), Tile(4, 0, 4, 1), rows_alone=1 << 20)),
    (0.3, Tiles(16, Tile(64, 128, 4, 2), Tile(4, 0, 4, 1), rows_alone=1 << 20)),
    (2.0, Tiles(16, Tile(32, 256, 4, 3), Tile(64, 128, 4, 3))),
    (8.0, Tiles(16, Tile(64, 128, 4, 2, True), Tile(64, 256, 4, 2))),
    (16.0, Tiles(32, Tile(64, 128, 4, 3), Tile(64, 128, 4, 3))),
    (1e9, Tiles(64, Tile(64, 64, 4, 3), Tile(128, 64, 4, 4))),
)
"""Pairs per expert -> tiles."""
_EXACT = Tiles(16, Tile(32, 32, 4, 2), Tile(32, 32, 4, 2))
"""For float32, which needs twice the room."""


def tiles(pairs: int, num: int, dtype: torch.dtype, alone: bool) -> Tiles:
    """Tiles for `pairs` (token, expert) pairs over `num` experts; `alone`: pairs may be blocks of their own."""
    if dtype is torch.float32:
        return _EXACT
    return next(tiles for most, tiles in _TABLE if pairs <= most * num and (alone or not tiles.rows_alone))
