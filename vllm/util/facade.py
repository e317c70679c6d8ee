"""Names that live elsewhere: what the modules that only keep vLLM's import paths alive are made of.

For: `from vllm.lora.request import LoRARequest` and the like; and for paths of vLLM that have nothing behind them here,
one sentence that says so. Does not know: the names. Invariant: nothing is imported before a name is asked for.
Called by: facade modules and nobody else (tests/unit/test_facades.py pins them).
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn


def forward(module: str, homes: dict[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` for names that live at `homes[name]`, a module or `module:other_name`."""

    def lookup(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, other = homes[name].partition(":")
        return getattr(import_module(home), other or name)

    return lookup


def forward_all(module: str, home: str) -> Callable[[str], Any]:
    """A module's `__getattr__` for all that the module `home` lists in NAMES."""

    def lookup(name: str) -> Any:
        if not name.startswith("_") and name in import_module(home).NAMES:
            return getattr(import_module(home), name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return lookup


def absent(module: str, sentence: str) -> NoReturn:
    """This path of vLLM is not here, and why. An ImportError, for tools that try a path and take another."""
    raise ImportError(f"{module} is not part of this implementation: {sentence}", name=module)
