"""Which operand pairs, tools, schemas and stories are kept out of training: pure functions of the thing itself.

So the rule needs no list, holds in every process, and `check_holdout.py` can test it on any text.
"""

import zlib
from collections.abc import Iterable

PAIR_ONE_IN = 20
NAME_ONE_IN = 12


def held_pair(first: int, second: int) -> bool:
    """Pairs of three-digit operands the training never shows, in either order and for either operation."""
    low, high = sorted((abs(first), abs(second)))
    if low < 100 or high > 999:
        return False
    return zlib.crc32(f"pair {low} {high}".encode()) % PAIR_ONE_IN == 7


def held_tool(verb: str, noun: str) -> bool:
    """Tools (by the verb and noun of their name) that training never shows."""
    return zlib.crc32(f"tool {verb} {noun}".encode()) % NAME_ONE_IN == 5


def held_schema(fields: Iterable[str]) -> bool:
    """Sets of JSON fields that training never shows together as one schema."""
    return zlib.crc32(("schema " + " ".join(sorted(fields))).encode()) % NAME_ONE_IN == 5
