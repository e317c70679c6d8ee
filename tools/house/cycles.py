"""Import cycles, counting every import: at the top, inside functions and under TYPE_CHECKING.

The floors stop a room from seeing a higher one; this stops two files of one room from needing each other.
"""

import ast

from tools.house.source import Module


def graph(files: list[Module]) -> dict[str, set[str]]:
    """Module name -> names of the modules that it imports, within `files`."""
    known = {module.name for module in files}
    edges: dict[str, set[str]] = {module.name: set() for module in files}
    for module in files:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                # why: `from a import b` needs a.b when that is a module, else a.
                dotted = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [name if name in known else node.module for name in dotted]
            else:
                continue
            edges[module.name].update(name for name in targets if name in known and name != module.name)
    return edges


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other, each sorted (Tarjan's strongly connected components, two or more)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for target in sorted(edges[name]):
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            at = stack.index(name)
            group = sorted(stack[at:])
            del stack[at:]
            if len(group) > 1:
                found.append(group)

    for name in sorted(edges):
        if name not in order:
            visit(name)
    return sorted(found)
