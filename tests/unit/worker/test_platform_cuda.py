"""What the platform of NVIDIA devices says without one."""

import contextlib
import os
from pathlib import Path

import pytest
import torch

from vllm.platforms.cuda import CudaPlatform, _others


def test_other_processes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '%s\\n' '{os.getpid()}, python, 700' '7, /usr/bin/trainer --x, 40960'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert _others() == ("/usr/bin/trainer --x (pid 7): 40960 MiB",)
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert _others() == ("this process, or some that nvidia-smi does not show",)


def test_what_graphs_use_is_given_back_with_the_last_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that goes leaves alone what the graphs of another one read."""
    told: list[str] = []
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: told.append("cublas"), raising=False)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append("cache"))
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
    platform = CudaPlatform()
    platform.hold(0, 0, 0)
    platform.hold(0, 0, 0)
    platform._sides[0] = object()  # type: ignore[assignment]
    platform.release(0)
    assert told == ["cache"] and 0 in platform._sides
    platform.release(0)
    assert told == ["cache", "cublas", "cache"] and not platform._sides
    platform.hold(0, 0, 0)
    platform.release(0)
    assert told[3:] == ["cublas", "cache"]
