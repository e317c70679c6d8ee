"""Whole-number arithmetic and sizes in words. Knows nothing else; called by everybody."""

import re
from collections.abc import Callable

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
# why: a bare lower-case letter is decimal and a bare upper-case letter is binary, as vLLM reads `1k` and `1K`.
_FACTOR: dict[str, int] = {"": 1, "b": 1, "B": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _FACTOR[_letter] = 1000**_power
    _FACTOR[_letter.upper()] = 1024**_power
    for _word in (f"{_letter}b", f"{_letter.upper()}B", f"{_letter}B", f"{_letter.upper()}b"):
        _FACTOR[_word] = 1000**_power
    for _word in (f"{_letter}ib", f"{_letter.upper()}iB", f"{_letter}iB", f"{_letter.upper()}ib"):
        _FACTOR[_word] = 1024**_power


def cdiv(a: int, b: int) -> int:
    """Smallest whole number >= a / b, for b > 0."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """Smallest power of two that is >= n, for n > 0."""
    return 1 << (n - 1).bit_length()


def round_up(n: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is >= n."""
    return cdiv(n, multiple) * multiple


def round_down(n: int, multiple: int) -> int:
    """Largest multiple of `multiple` that is <= n."""
    return n // multiple * multiple


def largest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The largest n of `low` to `high` for which `holds(n)`, where it holds up to some n and not beyond; else `low`."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def human_bytes(n: int) -> str:
    """`1536` -> `1.5 KiB`; negative numbers keep their sign."""
    sign, size, unit = ("-" if n < 0 else ""), float(abs(n)), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{sign}{size:.0f} B" if unit == 0 else f"{sign}{size:.1f} {_UNITS[unit]}"


def parse_size(text: str | int) -> int:
    """`4096`, `1k` = 1000, `1K` = 1024, `2M` = 2 * 1024**2, `1.5G`, `4GiB`, `4GB` = 4 * 1000**3.

    Raises ValueError for anything else, and for fractions that are not a whole number.
    """
    scaled: int
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text)
    factor = _FACTOR.get(match[2]) if match else None
    if match is None or factor is None:
        raise ValueError(f"size {text!r} is not a number with an optional unit such as 1k, 1K, 2M, 1.5G, 4GB or 4GiB")
    whole, _, fraction = match[1].partition(".")
    scaled, rest = divmod(int(whole + fraction) * factor, 10 ** len(fraction))
    if rest:
        raise ValueError(f"size {text!r} is not a whole number of units; give a value that is")
    return scaled
