"""Draws which room imports which, from the source: `python -m tools.house map` writes docs/map.md."""

from collections import Counter

from tools.house import cycles
from tools.house.source import ROOT, modules

FILE = ROOT / "docs" / "map.md"
HEAD = """# Import map

Made by `make docs`; do not edit. An arrow counts the imports of one room by another, those in functions included.
The ground (`util`, `errors`, `inputs`, `outputs`, `sampling_params`, `config`, `protocol`) is left out: all may use it.
"""
GROUND = {
    "util",
    "errors",
    "inputs",
    "outputs",
    "sampling_params",
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
    lines = [
        f"  {source} -->|{count}| {target}"
        for (source, target), count in sorted(counts.items())
        if source != target and not {source, target} & GROUND
    ]
    return "\n".join([HEAD, "```mermaid", "graph TD", *lines, "```", ""])


def write() -> None:
    """Write the page."""
    FILE.write_text(draw(), "utf-8")
