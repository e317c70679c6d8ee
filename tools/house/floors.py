"""Runs the contracts of .importlinter over a checkout and says which are broken."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tools.house.source import ROOT


def check(root: Path = ROOT) -> tuple[dict[str, bool], str]:
    """(contract name -> kept, everything that import-linter printed) for the package below `root`."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, "--config", str(root / ".importlinter")], cwd=root, env=environment, capture_output=True, text=True
    )
    output = done.stdout + done.stderr
    return {name: word == "KEPT" for name, word in re.findall(r"^(.+?) (KEPT|BROKEN)\b", output, re.MULTILINE)}, output
