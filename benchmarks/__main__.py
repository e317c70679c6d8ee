"""`python -m benchmarks [NAME ...]`: run the programs of this folder, one after the other, and keep their figures.

    benchmarks/NAME.py ──▶ its output, as it comes
                       └─▶ each line that is a JSON object ──▶ benchmarks/ledger.jsonl, with commit, machine, versions

Compare rows of one machine only, and best of one run. Called by: `make bench`.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
LEDGER = FOLDER / "ledger.jsonl"


def main(names: list[str]) -> int:
    """Run `names`, or all; returns the number of programs that failed."""
    known = sorted(file.stem for file in FOLDER.glob("[a-z]*.py"))
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return len(unknown)
    return sum(run(name) != 0 for name in names or known)


def run(name: str) -> int:
    """One program, its lines shown as they come and its figures kept; returns its exit status."""
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    with subprocess.Popen(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            keep(name, line)
    return child.returncode


def keep(name: str, line: str) -> None:
    """Append the figures of a JSON line to the ledger; any other line is for people only."""
    try:
        figures = json.loads(line)
    except ValueError:
        return
    if isinstance(figures, dict):
        with LEDGER.open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps({"benchmark": name, **about(), **figures}) + "\n")


def about() -> dict[str, Any]:
    """When, what and where."""
    git = ["git", "-C", str(FOLDER), "describe", "--always", "--dirty", "--abbrev=10"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    return {
        "at": moment,
        "commit": commit,
        "machine": machine,
        "torch": version("torch"),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
