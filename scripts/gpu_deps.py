"""Download wheels for a GPU machine that has torch but no network. Usage: scripts/gpu_deps.py PYTHON_VERSION

The names come from pyproject.toml; what every machine with torch and transformers has is left out, and so is llvmlite,
which only the CPU kernels use.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
THERE = {"torch", "transformers", "tokenizers", "safetensors", "huggingface_hub"}
THERE |= {"jinja2", "numpy", "tqdm", "pillow", "llvmlite"}
NOT_RUN = {"import-linter"}
GLIBC = [f"manylinux_2_{minor}_x86_64" for minor in (35, 34, 31, 28, 27, 24, 17, 12, 5)] + ["manylinux2014_x86_64"]


def main() -> int:
    version = sys.argv[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    names = [line for line in wanted if re.match(r"[\w-]+", line)[0] not in THERE | NOT_RUN]
    shutil.rmtree(ROOT / ".whl", ignore_errors=True)
    platforms = [word for name in GLIBC for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "-d", ".whl"]
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", version]
    status = subprocess.run([*command, *target, *platforms, *names], cwd=ROOT).returncode
    wheels = list((ROOT / ".whl").glob("*.whl"))
    print(f"{len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 1024**2:.0f} MiB, in .whl")
    return status


if __name__ == "__main__":
    sys.exit(main())
