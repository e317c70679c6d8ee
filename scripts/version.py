#!/usr/bin/env python3
"""Prints the version that a build of this checkout has: `python scripts/version.py [nightly]`.

    release    1.0.0                        as vllm/version.py says
    nightly    1.0.1.dev12+gabc1234         12 commits after the one that set 1.0.0, so after it and before 1.0.1;
               1.0.1.dev12+gabc1234.dirty   with changes that are not committed

Needs git and the standard library alone. Called by: scripts/package.sh.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)


def release(root: Path = ROOT) -> str:
    """What vllm/version.py says."""
    return LINE.search((root / "vllm" / "version.py").read_text())[1]


def nightly(root: Path = ROOT) -> str:
    """The version of a build between two releases."""
    *before, last = release(root).split(".")
    # why: the line of the version, not a tag, since a clone may come without tags
    since = git(root, "log", "-1", "--format=%H", "-G", "^__version__ =", "--", "vllm/version.py")
    count = git(root, "rev-list", "--count", f"{since}..HEAD")
    commit = git(root, "rev-parse", "--short=8", "HEAD")
    dirty = ".dirty" if git(root, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{'.'.join([*before, str(int(last) + 1)])}.dev{count}+g{commit}{dirty}"


def git(root: Path, *words: str) -> str:
    """What git prints, or the end of this program with what it complains about."""
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"a nightly version needs the history of git: {done.stderr.strip()}")
    return done.stdout.strip()


def stamp(root: Path, version: str) -> None:
    """Write `version` into a copy of the checkout."""
    file = root / "vllm" / "version.py"
    file.write_text(LINE.sub(f'__version__ = "{version}"', file.read_text()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["stamp"]:
        stamp(Path(sys.argv[2]), sys.argv[3])
    else:
        print(nightly() if sys.argv[1:] == ["nightly"] else release())
