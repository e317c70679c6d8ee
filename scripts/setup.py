"""Install this checkout and its requirements into the environment that runs this file, once.

Usage: .venv/bin/python scripts/setup.py [test|e2e|docs|dev]     (scripts/setup.sh makes .venv and calls this)

    NVIDIA driver, or not Linux ─────────────────────────────▶ pip's own choice of torch
    no driver ─ pip offers a +cpu build in the range ────────▶ that build
              ─ the official CPU index answers ──────────────▶ from there
              ─ neither ─────────────────────────────────────▶ say how many GB follow, go on

A stamp in the environment holds a hash of pyproject.toml, so a second run neither installs nor asks the network.
"""

import ctypes.util
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = Path(sys.prefix) / "vllm-installed.json"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
GB_WITH_CUDA = 3  # what torch and its CUDA libraries download on Linux, in GB
NO_COMPILE = ["--no-compile"]  # 24,000 files, of which a run needs one in ten: `first_run` compiles those
INCLUDES = {  # an extra -> the extras that it covers
    "": {""},
    "test": {"", "test"},
    "e2e": {"", "test", "e2e"},
    "docs": {"", "test", "docs"},
    "dev": {"", "test", "dev"},
}


def main() -> int:
    extra = sys.argv[1] if len(sys.argv) > 1 else ""
    if extra not in INCLUDES:
        print(f"unknown extra {extra!r}: use test, e2e, docs, dev or nothing", file=sys.stderr)
        return 2
    key = state_key()
    installed = read_stamp()
    if installed.get("key") == key and extra in installed.get("extras", []):
        return 0
    start = time.monotonic()
    print("Installing from pyproject.toml (about 1.5 GB on disk with a CPU torch; a minute or two)", flush=True)
    wanted = f".[{extra}]" if extra else "."
    # why: a person sees the downloads move; a log holds only what went wrong.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", *([] if sys.stdout.isatty() else ["-qq"])]
    pin = torch_pin(pip)
    for arguments in (*torch_first(pip, pin), ["install", *NO_COMPILE, *pin, "-e", wanted]):
        if subprocess.run([*pip, *arguments], cwd=ROOT).returncode:
            print("The install failed; pip's own words are above. Mend the cause and run this again.", file=sys.stderr)
            return 1
    first_run()
    extras = INCLUDES[extra] | set(installed.get("extras", []) if installed.get("key") == key else [])
    STAMP.write_text(json.dumps({"key": key, "extras": sorted(extras)}))
    print(f"Installed in {time.monotonic() - start:.0f} s", flush=True)
    return 0


def first_run() -> None:
    """Generate once, so that the bytecode of what is used lies on the disk; what does not work, doctor names better."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", "import vllm; vllm.LLM().generate('Hello', use_tqdm=False)"]
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if done.returncode:
        print("A first run with the built-in model failed. What is wrong: .venv/bin/vllm doctor", file=sys.stderr)


def state_key() -> str:
    """Changes when pyproject.toml, this file, the interpreter or the place of the checkout does."""
    parts = ((ROOT / "pyproject.toml").read_bytes(), Path(__file__).read_bytes(), sys.version.encode(), bytes(ROOT))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def read_stamp() -> dict:
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def has_nvidia_driver() -> bool:
    return bool(
        os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") or ctypes.util.find_library("cuda")
    )


def torch_requirement() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return next(line for line in project["dependencies"] if re.match(r"torch\b", line))


def in_range(version: str, requirement: str) -> bool:
    """Whether `2.13.0+cpu` satisfies `torch>=2.11,<2.14`; only >= and < are read, because only they are used."""
    numbers = release(version)
    for operator, bound in re.findall(r"(>=|<)\s*([\d.]+)", requirement):
        if numbers < release(bound) if operator == ">=" else numbers >= release(bound):
            return False
    return True


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def cpu_build(listing: str, requirement: str) -> str | None:
    """The newest CPU build in range in the output of `pip index versions torch`."""
    match = re.search(r"^Available versions: (.*)$", listing, re.MULTILINE)
    for version in match[1].split(", ") if match else []:
        if "+cpu" in version and in_range(version, requirement):
            return version
    return None


def torch_is_here() -> bool:
    """Whether the environment already holds a torch in range: the user's choice is kept."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return in_range(version("torch"), torch_requirement())
    except PackageNotFoundError:
        return False


def wants_cpu_build() -> bool:
    return sys.platform == "linux" and not has_nvidia_driver() and not torch_is_here()


def torch_pin(pip: list[str]) -> list[str]:
    """`["torch==2.13.0+cpu"]` when pip's own indexes offer a CPU build and one is wanted, else []."""
    if not wants_cpu_build():
        return []
    done = subprocess.run([*pip[:4], "index", "versions", "torch"], capture_output=True, text=True)
    found = cpu_build(done.stdout, torch_requirement())
    return [f"torch=={found}"] if found else []


def torch_first(pip: list[str], pin: list[str]) -> list[list[str]]:
    """The pip calls that must come before the main one: torch from the CPU index, when only that has it."""
    if not wants_cpu_build() or pin:
        return []
    try:
        urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=5).close()
    except (urllib.error.URLError, OSError):
        print(
            f"No NVIDIA driver here, but no CPU build of torch is on offer and {CPU_INDEX} does not answer:\n"
            f"the CUDA build follows, about {GB_WITH_CUDA} GB to download; it runs on the CPU as well.",
            flush=True,
        )
        return []
    return [["install", *NO_COMPILE, "--index-url", CPU_INDEX, torch_requirement()]]


if __name__ == "__main__":
    sys.exit(main())
