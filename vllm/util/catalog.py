"""The one plug: a folder is a catalogue, each file in it an entry, found by the literal `NAMES` at its head.

    vllm/models/llama.py      NAMES = ("LlamaForCausalLM",)   ─┐
    vllm/models/qwen3.py      NAMES = ("Qwen3ForCausalLM",)    ├─ read as text ─▶ name ─▶ module ─ import on load()
    vllm/features/lora/manifest.py   NAMES = ("lora",)        ─┘
    an installed package      entry point "x = pkg.mod" in group "vllm.models"

Does not know: what an entry is. Invariants: listing imports no entry; a name has one owner, two are an error; a file
without `NAMES` is a helper. Called by: whoever looks up a model, method, format, op, platform, stage or verb.
"""

import ast
import difflib
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

_NAMES = re.compile(r"^NAMES\b[^=\n]*=\s*(\([^)]*\))", re.MULTILINE)


class UnknownName(ValueError):
    """No entry has this name. `name` is what was asked, `nearest` what came closest, or None."""

    def __init__(self, kind: str, name: str, known: list[str]) -> None:
        near = difflib.get_close_matches(name, known, n=1)
        self.name, self.nearest = name, near[0] if near else None
        hint = f"; the nearest known is {self.nearest!r}" if near else f"; known: {', '.join(known) or 'none'}"
        super().__init__(f"{kind} {name!r} is not known{hint}")


class Catalogue:
    """The entries of one package folder, such as `vllm.models`, and of installed packages that join it."""

    def __init__(self, package: str, kind: str | None = None) -> None:
        """`kind` is the word for one entry in messages; default the last part of `package`."""
        self.package = package
        self.kind = kind or package.rpartition(".")[2]
        self._modules: dict[str, str] | None = None

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._table())

    def __contains__(self, name: object) -> bool:
        return name in self._table()

    def module_of(self, name: str) -> str:
        """The dotted path of the module that owns `name`, not imported. Raises UnknownName."""
        table = self._table()
        if name not in table:
            raise UnknownName(self.kind, name, sorted(table))
        return table[name]

    def load(self, name: str) -> ModuleType:
        """Import and return the module that owns `name`. Raises UnknownName."""
        return import_module(self.module_of(name))

    def modules(self) -> list[str]:
        """Dotted paths of all entries, each once, in order of path."""
        return sorted(set(self._table().values()))

    def _table(self) -> dict[str, str]:
        if self._modules is None:
            table: dict[str, str] = {}
            for name, module in (*_in_folder(self.package), *_installed(self.package)):
                owner = table.setdefault(name, module)
                if owner != module:
                    raise ValueError(f"{self.kind} {name!r} is claimed by both {owner} and {module}; remove one")
            self._modules = table
        return self._modules


def read_names(source: str, where: str) -> tuple[str, ...]:
    """The literal NAMES in the text of a module, () when there is none; ValueError when it is not a tuple of str."""
    match = _NAMES.search(source)
    if match is None:
        return ()
    names = ast.literal_eval(match[1])
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"NAMES in {where} must be a literal tuple of at least one string, not {match[1]}")
    return names


def _in_folder(package: str) -> Iterator[tuple[str, str]]:
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None, f"{package} is not a package"
    for folder in map(Path, spec.submodule_search_locations):
        for file in sorted((*folder.glob("*.py"), *folder.glob("*/manifest.py"))):
            module = f"{package}.{'.'.join(file.relative_to(folder).with_suffix('').parts)}"
            for name in read_names(file.read_text("utf-8"), module):
                yield name, module


def _installed(group: str) -> Iterator[tuple[str, str]]:
    # why: importing the metadata reader costs more than reading our own folder, so only a real look-up pays for it.
    from importlib.metadata import entry_points

    for point in entry_points(group=group):
        yield point.name, point.module
