"""Draws which room imports which, from the source: `python -m tools.house map` writes docs/map.md."""

from collections import Counter

from tools.house import cycles
from tools.house.source import ROOT, modules

FILE = ROOT / "docs" / "map.md"
HEAD = """# Import map

Made by `make docs`; do not edit. A number counts the imports of one room by another, those in functions included.
The ground (`util`, `errors`, `inputs`, `outputs`, `sampling_params`, `config`, `protocol`) is left out: all may use it.
"""
GROUND = {
    "util",
    "errors",
    "inputs",
    "outputs",
    "sampling_params",
    "structured_params",
    "pooling_params",
    "config",
    "protocol",
    "version",
    "vllm",
}


def room(module: str) -> str:
    """The first folder or file below the package."""
    return module.split(".")[1] if "." in module else module


def draw() -> str:
    """The page."""
    edges = cycles.graph(modules())
    counts = Counter((room(source), room(target)) for source, targets in edges.items() for target in targets)
    rooms: dict[str, list[str]] = {}
    for (source, target), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0][1])):
        if source != target and not {source, target} & GROUND:
            rooms.setdefault(source, []).append(f"{target} {count}")
    lines = [f"| {source} | {', '.join(targets)} |" for source, targets in sorted(rooms.items())]
    return "\n".join([HEAD, "| Room | imports, and how often |", "|---|---|", *lines, ""])


def write() -> None:
    """Write the page."""
    FILE.write_text(draw(), "utf-8")
