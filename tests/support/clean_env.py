"""A clean virtual environment in a second: everything that the running one holds is linked into it, but this package.

What is linked counts as installed for pip: installs into it need no download, and what a test breaks is its own.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.house.source import ROOT

LEFT_OUT = ("vllm", "_vllm", "__pycache__", "__editable__")


@dataclass(frozen=True)
class Env:
    """A virtual environment under `prefix`."""

    prefix: Path

    @property
    def python(self) -> str:
        return str(self.prefix / "bin" / "python")

    @property
    def site(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.prefix / "lib" / version / "site-packages"

    def run(self, *words: object, cwd: Path, env: dict[str, str] | None = None, rc: int = 0) -> str:
        """Run a program of the environment in `cwd`; returns what it printed, or fails with it."""
        keep = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        path = f"{self.prefix / 'bin'}{os.pathsep}{keep['PATH']}"
        done = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            env={**keep, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        assert done.returncode == rc, f"{words} left with {done.returncode}\n{done.stdout[-4000:]}"
        return done.stdout

    def pip(self, *words: object, cwd: Path, env: dict[str, str] | None = None) -> str:
        return self.run(self.python, "-m", "pip", *words, cwd=cwd, env=env)


def needed(program: str) -> str:
    """The path of a program that `make e2e` installs; for a user without it a skip, in CI a failure."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        assert not os.environ.get("CI"), f"{program} is missing; CI installs the e2e extra"
        pytest.skip(f"{program} is missing: pip install '.[e2e]'")
    return found


def clean_env(prefix: Path, without: tuple[str, ...] = ()) -> Env:
    """Make the environment; `without` names further distributions to leave out, by the start of their files' names."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    env = Env(prefix)
    for item in Path(sysconfig.get_path("purelib")).iterdir():
        if not item.name.startswith((*LEFT_OUT, *without)) and item.suffix != ".pth":
            (env.site / item.name).symlink_to(item)
    return env


def checkout(into: Path) -> Path:
    """A copy of this checkout's tracked and new files, without what git ignores."""
    names = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(names, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target) if name.endswith(".safetensors") else target.write_bytes(source.read_bytes())
    return into
