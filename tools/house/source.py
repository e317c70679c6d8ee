"""Reads a package as text and syntax trees, without importing it. Called by the other checks."""

import ast
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """One Python file."""

    name: str  # dotted
    path: Path
    file: str  # path from the root of the checkout, with slashes

    @cached_property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.file)

    @property
    def num_lines(self) -> int:
        return self.text.count("\n")


@cache
def modules(package: str = "vllm", root: Path = ROOT) -> list[Module]:
    """All modules of `package` below `root`, sorted by name; read once."""
    found = []
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, path.relative_to(root).as_posix()))
    return found
