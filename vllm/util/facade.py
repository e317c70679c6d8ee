"""Names that live elsewhere: what the modules that only keep vLLM's import paths alive are made of.

For: `from vllm.lora.request import LoRARequest` and the like. Does not know: the names. Invariant: nothing is imported
before a name is asked for. Called by: facade modules and nobody else (tests/unit/test_facades.py pins them).
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def forward(module: str, homes: dict[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` for names that live at `homes[name]`, a module or `module:other_name`."""

    def lookup(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, other = homes[name].partition(":")
        return getattr(import_module(home), other or name)

    return lookup
