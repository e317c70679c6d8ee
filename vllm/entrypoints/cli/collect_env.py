"""`vllm collect-env`: what a bug report needs, without importing any of it. Called by: entrypoints/cli/main.py."""

import argparse
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vllm.util import arith
from vllm.util.env import DECLARED, STANDARD, text
from vllm.version import __version__

NAMES = ("collect-env",)
HELP = "print the environment for a bug report"

_PACKAGES = (
    "torch transformers tokenizers safetensors huggingface_hub numpy llvmlite msgspec pydantic llguidance triton"
)
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Print one `name: value` line per fact."""
    facts = {"vllm": __version__, "python": f"{sys.version.split()[0]} ({sys.executable})"}
    facts.update({name: _version(name) for name in _PACKAGES.split()})
    facts["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    facts["cpu"] = f"{_cpu_model()}, {len(os.sched_getaffinity(0))} usable of {os.cpu_count()}"
    facts["memory"] = arith.human_bytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    facts["nvidia driver"] = _first_line("/proc/driver/nvidia/version") or "none"
    for name in sorted({*DECLARED, *STANDARD} - {"HOME", "TERM"}):
        value = text(name)
        if value is not None:
            is_secret = any(word in name for word in _SECRET)
            facts[name] = "(set, not shown)" if is_secret else re.sub(r"(^|//)[^/@\s]*@", r"\1(not shown)@", value)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _first_line(file: str) -> str:
    try:
        return Path(file).read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
