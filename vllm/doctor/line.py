"""One thing that a check may say: its colour, the sentence in two languages, the command that mends it.

Does not know: who says it. Called by: the checks, examine, report.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """Texts are `str.format` templates; the words come from the check."""

    level: str
    """green, yellow or red"""
    en: str
    zh: str
    mend: str = ""
    """The command; empty for green."""
    gpu: bool = False
    """About a GPU: red becomes yellow where the user has chosen the CPU."""


Said = tuple[str, dict[str, Any]]
"""A key of LINES, and the words for its templates."""
Says = Iterator[Said]
TORCH_RANGE = "torch>=2.11,<2.14"


@dataclass(frozen=True, slots=True)
class Finding:
    """A line that was said about this machine."""

    check: str
    code: str
    level: str
    en: str
    zh: str
    mend: str


def finding(check: str, code: str, line: Line, words: dict[str, Any], cpu_chosen: bool) -> Finding:
    """Fill in a line. Raises KeyError when the check forgot a word."""
    level = "yellow" if line.gpu and line.level == "red" and cpu_chosen else line.level
    return Finding(check, code, level, *(text.format(**words) for text in (line.en, line.zh, line.mend)))
