"""Versions from git, and what the wheel and the sdist hold."""

import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packaging.version import Version

from tools.house.source import ROOT
from tools.house.wheel import problems


def load_version():
    spec = importlib.util.spec_from_file_location("version_script", ROOT / "scripts" / "version.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


version = load_version()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A history of three commits after the one that set the version."""
    (tmp_path / "vllm").mkdir()
    file = tmp_path / "vllm" / "version.py"
    file.write_text('__version__ = "1.0.0"\n')
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for number in range(4):
        (tmp_path / "file").write_text(str(number))
        subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
        subprocess.run(["git", *name, "commit", "-q", "-m", str(number)], cwd=tmp_path, check=True)
    return tmp_path


def test_a_nightly_lies_between_two_releases(clone: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "--short=8", "HEAD"], cwd=clone, capture_output=True, text=True).stdout
    assert version.release(clone) == "1.0.0"
    assert version.nightly(clone) == f"1.0.1.dev3+g{head.strip()}"
    assert Version("1.0.0") < Version(version.nightly(clone)) < Version("1.0.1")
    (clone / "file").write_text("changed")
    assert version.nightly(clone).endswith(".dirty") and Version(version.nightly(clone)).local


def test_without_a_history_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "version.py").write_text('__version__ = "1.0.0"\n')
    with pytest.raises(SystemExit, match="needs the history of git"):
        version.nightly(tmp_path)


def test_a_stamped_copy_imports_with_that_version(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "version.py").write_text((ROOT / "vllm" / "version.py").read_text())
    version.stamp(tmp_path, "1.0.1.dev7+gabcdef12.dirty")
    scope: dict[str, object] = {}
    exec((tmp_path / "vllm" / "version.py").read_text(), scope)
    assert scope["__version__"] == "1.0.1.dev7+gabcdef12.dirty"
    assert scope["__version_tuple__"] == (1, 0, 1, "dev7", "gabcdef12", "dirty")


@pytest.mark.slow
def test_the_wheel_is_pure_python(tmp_path: Path) -> None:
    """And the sdist holds what builds the same wheel; `make package` installs both."""
    pytest.importorskip("hatchling", reason="make slow and make package install it")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    assert problems(wheel) == []
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "PKG-INFO", "vllm/__init__.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", ".git/", ".ci/"))]
