"""Every python block of the documents runs, on the built-in model, as a user's script would: no guard, no edits."""

import re
import subprocess
import sys

import pytest

from tools.house import compat
from tools.house.source import ROOT

BLOCK = re.compile(r"(<!-- replay: [^\n]*-->\n)?```python\n(.*?)```", re.DOTALL)


def blocks():
    for file in sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))):
        for number, (replayed, code) in enumerate(BLOCK.findall((ROOT / file).read_text("utf-8")), start=1):
            if not replayed:  # tests/house/test_contributing.py runs those
                yield pytest.param(code, id=f"{file}-{number}")


@pytest.mark.slow
@pytest.mark.parametrize("code", list(blocks()))
def test_block_runs(code, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_there_are_blocks_to_run():
    assert len(list(blocks())) >= 2


def test_the_page_of_flags_is_as_the_command_line():
    assert compat.FILE.read_text("utf-8") == compat.page(), "python -m tools.house compat"
