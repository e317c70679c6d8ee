"""Importing is cheap: no torch, no transformers, and a budget in milliseconds."""

import ast
import importlib
import json
import sys
from pathlib import Path

import pytest

import vllm
from tests.support.slowness import child_seconds, slowness
from tools.house.source import ROOT

PROBE = """
import json, sys
{code}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
HEAVY = {"torch", "transformers", "triton", "llvmlite", "tokenizers"}
CASES = {
    "import vllm": 0.1,
    "from vllm import LLM, SamplingParams": 0.3,
    "import vllm.entrypoints.cli.main": 0.3,
}


def best_of(command, tries=4):
    """Least processor seconds of `command` on a machine that is idle, and what it printed.

    why: importing waits for nothing, so this is its wall time on an idle machine, and its cost on a busy one.
    """
    times = []
    for _ in range(tries):
        slow = slowness()
        seconds, done = child_seconds(command, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        times.append(seconds / slow)
    return min(times), done.stdout


@pytest.mark.parametrize("code", CASES)
def test_import_budget(code):
    bare, _ = best_of([sys.executable, "-c", PROBE.format(code="")])
    seconds, printed = best_of([sys.executable, "-c", PROBE.format(code=code)])
    assert not HEAVY & set(json.loads(printed))
    assert seconds - bare <= CASES[code]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["serve", "--help"]])
def test_cli_budget(arguments):
    seconds, printed = best_of([sys.executable, "-m", "vllm.entrypoints.cli.main", *arguments])
    assert seconds <= 0.3
    assert vllm.__version__ in printed or "usage: vllm" in printed


def test_every_public_name_resolves():
    for name in vllm.__all__:
        assert getattr(vllm, name) is not None
    assert set(vllm.__all__) <= set(dir(vllm))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(vllm.__file__).with_suffix(".pyi").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names}
    assert seen == vllm._HOME | dict.fromkeys(["__version__", "__version_tuple__"], "vllm.version")


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = vllm.Nonsense


def test_every_room_says_what_it_is_for():
    for file in sorted((ROOT / "vllm").rglob("__init__.py")):
        name = ".".join(file.relative_to(ROOT).parent.parts)
        text = file.read_text("utf-8")
        assert text.startswith('"""'), f"{file} has no docstring"
        assert len(text.splitlines()[0]) > 20, name


def test_version_is_written_once():
    from vllm.version import __version__

    assert vllm.__version__ == __version__
    assert vllm.__version_tuple__ >= (1, 0, 0)
    assert importlib.import_module("vllm.version").__file__ == str(Path(vllm.__file__).with_name("version.py"))
