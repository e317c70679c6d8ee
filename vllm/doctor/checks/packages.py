"""The other packages that the engine imports: present, and in the range that is asked for. torch has its own check."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine

NAMES = ("packages",)
ORDER = 40
NEEDED = {
    "transformers": "transformers>=5.17,<6",
    "tokenizers": "tokenizers>=0.22",
    "safetensors": "safetensors>=0.6",
    "huggingface_hub": "huggingface_hub>=1.0",
    "jinja2": "jinja2>=3.1.6",
    "numpy": "numpy>=2.0",
    "tqdm": "tqdm>=4.66",
    "msgspec": "msgspec>=0.19",
    "pydantic": "pydantic>=2.12,<3",
    "uvicorn": "uvicorn>=0.40",
    **({"uvloop": "uvloop>=0.22"} if sys.platform != "win32" else {}),
    "httptools": "httptools>=0.7",
    "starlette": "starlette>=0.50",
    "prometheus_client": "prometheus-client>=0.22",
    "jiter": "jiter>=0.10",
    "llguidance": "llguidance>=1.9,<2",
    "PIL": "pillow>=11",
    "shtab": "shtab>=1.7",
}
"""Module -> requirement, as in pyproject.toml; a test compares them."""
EXAMPLES = {"wanted": "'transformers>=5.17,<6'"}
LINES = {
    "fine": Line(
        "green",
        "all needed packages are here; nothing is compiled, so ninja, cmake, nvcc, flash-attn, xformers are not needed",
        "所需软件包齐全；无需编译，因此不需要 ninja、cmake、nvcc、flash-attn、xformers",
    ),
    "missing": Line("red", "missing: {missing}", "缺少：{missing}", "{python} -m pip install {wanted}"),
    "range": Line(
        "red", "not in the range that works: {found}", "版本不合要求：{found}", "{python} -m pip install {wanted}"
    ),
    "no-compiler": Line(
        "yellow",
        "llvmlite is missing: the CPU runs slow reference code in place of compiled kernels",
        "缺少 llvmlite：CPU 只能运行较慢的参考实现",
        '{python} -m pip install "llvmlite>=0.45"',
    ),
}


def check(machine: Machine) -> Says:
    """Look for each without importing it."""
    python = sys.executable
    missing = [module for module in NEEDED if find_spec(module) is None]
    if missing:
        names = " ".join(re.split("[<>=]", NEEDED[module])[0] for module in missing)
        yield "missing", {"missing": names, "wanted": _quoted(missing), "python": python}
    odd = {module: found for module in NEEDED if module not in missing and (found := _odd(NEEDED[module]))}
    if odd:
        yield "range", {"found": ", ".join(odd.values()), "wanted": _quoted(list(odd)), "python": python}
    if find_spec("llvmlite") is None:
        yield "no-compiler", {"python": python}
    elif not missing and not odd:
        yield "fine", {}


def _quoted(modules: list[str]) -> str:
    return " ".join(f"'{NEEDED[module]}'" for module in modules)


def _odd(requirement: str) -> str:
    """What is installed outside of the range, in words; "" when it is inside, or is no installed package."""
    name = re.split("[<>=]", requirement)[0]
    try:
        found = version(name)
    except PackageNotFoundError:
        return ""
    for sign, bound in re.findall(r"(>=|<)([\d.]+)", requirement):
        if (_numbers(found) >= _numbers(bound)) != (sign == ">="):
            return f"{name} {found} (wanted: {requirement.removeprefix(name)})"
    return ""


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text.partition("+")[0])]
