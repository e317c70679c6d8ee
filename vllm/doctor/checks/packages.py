"""The other packages that the engine imports: present or not. torch has a check of its own."""

import sys
from importlib.util import find_spec

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine

NAMES = ("packages",)
ORDER = 40
_NEEDED = {
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
    "jinja2": "jinja2",
    "numpy": "numpy",
    "tqdm": "tqdm",
    "msgspec": "msgspec",
    "pydantic": "pydantic",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
}
EXAMPLES: dict[str, str] = {}
LINES = {
    "fine": Line(
        "green",
        "all needed packages are here; nothing is compiled, so ninja, cmake, nvcc, flash-attn, xformers are not needed",
        "所需软件包齐全；无需编译，因此不需要 ninja、cmake、nvcc、flash-attn、xformers",
    ),
    "missing": Line("red", "missing: {missing}", "缺少：{missing}", "{python} -m pip install {missing}"),
    "no-compiler": Line(
        "yellow",
        "llvmlite is missing: the CPU runs slow reference code in place of compiled kernels",
        "缺少 llvmlite：CPU 只能运行较慢的参考实现",
        '{python} -m pip install "llvmlite>=0.45"',
    ),
}


def check(machine: Machine) -> Says:
    """Look for each without importing it."""
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        yield "missing", {"missing": " ".join(missing), "python": sys.executable}
    if find_spec("llvmlite") is None:
        yield "no-compiler", {"python": sys.executable}
    elif not missing:
        yield "fine", {}
