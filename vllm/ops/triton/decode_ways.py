"""How decode attention is cut into programs, by the number of heads (sequences x kv heads) of a step.

Written by `python -m benchmarks.tuning.decode` on an H200, but for `way_of` and the ends of the table. A sequence's
tiles of keys are read in up to `shares` shares of `least` tiles or more, so that long ones have more programs and none
does little. Called by: decode.
"""

from typing import NamedTuple


class Way(NamedTuple):
    """See the module. `ahead`: the first tile waits in registers while the projections are made."""

    shares: int
    least: int
    ahead: bool
    stages: int
    warps: int = 4


# most heads: way. why the last: in whole steps 1,024 heads of equal length took 15 us a layer more when they were cut
# in two, which timing them alone did not show
WAYS = {
    16: Way(32, 1, True, 3),
    48: Way(12, 1, True, 3),
    96: Way(6, 1, True, 3),
    160: Way(3, 1, True, 3),
    224: Way(2, 1, True, 3),
    384: Way(4, 12, True, 3),
    768: Way(8, 6, False, 3),
    1 << 30: Way(1, 1, False, 5),
}  # fmt: skip


LEAN = Way(1, 1, False, 4, 2)
"""Many heads without norms that serve four queries each, or more: 1.2 to 2 % faster (8B, 1,024 and 2,048 heads), since
four programs fit on a processor and not three. With two queries and norms (0.6B) it is 3 % slower."""
EVEN = range(160, 385)
"""Heads with which Hopper chips read one list of tiles instead (`decode_hopper.py`). why not more: in a chain of whole
layers 1,024 heads take as long, 2,048 take 2 % longer; timed alone the list is ahead, since it overlaps with itself."""
EVEN_GROUP = 4
"""And as many queries to a key: with two, 256 sequences of 100 to 2,000 tokens were 2 % slower by the list."""


def way_of(heads: int, tiles: int, lean: bool = False) -> Way:
    """The way for so many heads, of sequences that have at most so many tiles; `lean`: `LEAN` may serve."""
    way = next(w for most, w in WAYS.items() if heads <= most)
    way = LEAN if lean and way == WAYS[1 << 30] else way
    return way._replace(shares=max(1, min(way.shares, tiles)))
