"""Lines, parameters, methods and fields against house.toml: what to look at, not what to fail."""

import ast
import datetime
from collections.abc import Iterator
from statistics import median
from typing import Any

from tools.house.source import Module

Function = ast.FunctionDef | ast.AsyncFunctionDef


def summary(files: list[Module], house: dict[str, Any]) -> str:
    """One line on the whole package."""
    lines = sorted(module.num_lines for module in files)
    limit = house["sizes"]
    within = 100 * sum(count <= limit["most_lines"] for count in lines) // len(lines)
    words = sum(len(module.text.split()) for module in files)
    shell = sum(module.num_lines for module in files if module.file.startswith(tuple(limit["shell"])))
    return (
        f"{len(lines)} files; core {sum(lines) - shell} of {limit['core_lines']} lines, "
        f"shell {shell} of {limit['shell_lines']}, median {median(lines):.0f} "
        f"(aim {limit['median_lines']}), {within} % within {limit['most_lines']}, {words / sum(lines):.1f} words a line"
    )


def findings(files: list[Module], house: dict[str, Any], today: datetime.date) -> Iterator[str]:
    """One sentence for each thing past its size."""
    limit = house["sizes"]
    allowed = {entry["file"]: entry for entry in house.get("larger", [])}
    for module in files:
        ask = limit["ask_lines_ops"] if module.file.startswith("vllm/ops/") else limit["ask_lines"]
        entry = allowed.pop(module.file, None)
        if module.num_lines > ask and entry is None:
            yield f"{module.file}: {module.num_lines} lines; past {ask}, which room is missing?"
        if entry is not None and (module.num_lines <= ask or entry["until"] < today):
            yield f"{module.file}: its exception in house.toml is no longer needed or has run out ({entry['until']})"
        yield from _in_tree(module, house)
    for file in allowed:
        yield f"{file}: has an exception in house.toml but does not exist"


def _in_tree(module: Module, house: dict[str, Any]) -> Iterator[str]:
    limit = house["sizes"]
    for node in ast.walk(module.tree):
        where = f"{module.file}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, Function):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > limit["function_lines"]:
                yield f"{where}: {node.name}() has {length} lines; aim for {limit['function_lines']}"
            count = _num_parameters(node)
            # why: a constructor or entry point that mirrors a public signature has as many as the public has.
            if count > limit["function_parameters"] and node.name != "__init__":
                yield f"{where}: {node.name}() has {count} parameters; aim for {limit['function_parameters']}"
        elif isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, Function) and not item.name.startswith("_")]
            if len(methods) > limit["class_public_methods"]:
                yield f"{where}: {node.name} has {len(methods)} public methods; aim for {limit['class_public_methods']}"
            fields = sum(isinstance(item, ast.AnnAssign) for item in node.body)
            for folder, most in house["fields"].items():
                if module.file.startswith(folder + "/") and fields > most and "args.py" not in module.file:
                    yield f"{where}: {node.name} has {fields} fields; aim for {most}"


def _num_parameters(node: Function) -> int:
    names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])
