"""Lists that outsiders depend on, read from the source: a change of one is a diff of a text file in tests/house/pinned.

`python -m tools.house pin` writes them after a change that is meant.
"""

import ast
from collections.abc import Callable

from tools.house.source import ROOT, Module, modules

FOLDER = ROOT / "tests" / "house" / "pinned"


def lists() -> dict[str, list[str]]:
    """Name of each pinned list -> its lines as they are now."""
    by_name = {module.name: module for module in modules()}
    return {name: sorted(read(by_name)) for name, read in _READERS.items()}


def pinned(name: str) -> list[str]:
    """A list as it was pinned."""
    return (FOLDER / f"{name}.txt").read_text("utf-8").splitlines()


def write() -> None:
    """Pin all lists as they are now."""
    FOLDER.mkdir(exist_ok=True)
    for name, lines in lists().items():
        (FOLDER / f"{name}.txt").write_text("".join(line + "\n" for line in lines), "utf-8")


def _keys(module: Module, variable: str) -> list[str]:
    """The string keys of a dict literal at the top of a module."""
    for node in module.tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Dict)
            and ast.unparse(node.targets[0]) == variable
        ):
            return [ast.literal_eval(key) for key in node.value.keys if key is not None]
    raise LookupError(f"{module.file} has no dict literal {variable}")


def _fields(module: Module, class_name: str) -> list[str]:
    """`name: type = default` of each public annotated field of a class."""
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            fields = [ast.unparse(item) for item in node.body if isinstance(item, ast.AnnAssign)]
            return [line for line in fields if not line.startswith("_")]
    raise LookupError(f"{module.file} has no class {class_name}")


def _flags(by_name: dict[str, Module]) -> list[str]:
    """Every knob of every section; EngineArgs joins them."""
    found = []
    for name, module in by_name.items():
        classes = [node.name for node in module.tree.body if isinstance(node, ast.ClassDef)]
        if name.startswith("vllm.config."):
            found += [line for section in classes if section.endswith("Args") for line in _fields(module, section)]
    return found


def _events(by_name: dict[str, Module]) -> list[str]:
    tree = by_name["vllm.protocol.events"].tree
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


_READERS: dict[str, Callable[[dict[str, Module]], list[str]]] = {
    "public_names": lambda by_name: _keys(by_name["vllm"], "_HOME"),
    "environment": lambda by_name: _keys(by_name["vllm.util.env"], "DECLARED"),
    "engine_args": _flags,
    "sampling_params": lambda by_name: _fields(by_name["vllm.sampling_params"], "SamplingParams"),
    "events": _events,
}
