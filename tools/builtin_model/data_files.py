"""Reads the data files beside this module; each is parsed once per process."""

import functools
from pathlib import Path

FOLDER = Path(__file__).parent / "data"


@functools.cache
def sections(name: str) -> dict[str, list[str]]:
    """`[heading]` lines, each with the non-empty lines under it; `#` starts a comment line."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if not line or line.startswith("# "):
            continue
        if line.startswith("[") and line.endswith("]"):
            current = found.setdefault(line[1:-1], [])
        else:
            current.append(line)
    return found


@functools.cache
def rows(name: str) -> list[list[str]]:
    """A tab-separated table without heading."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("# ")]
