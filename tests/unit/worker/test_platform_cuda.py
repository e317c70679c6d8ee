"""What the platform of NVIDIA devices says without one."""

import os
from pathlib import Path

import pytest

from vllm.platforms.cuda import _others


def test_other_processes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '%s\\n' '{os.getpid()}, python, 700' '7, /usr/bin/trainer --x, 40960'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert _others() == ("/usr/bin/trainer --x (pid 7): 40960 MiB",)
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert _others() == ("this process, or some that nvidia-smi does not show",)
