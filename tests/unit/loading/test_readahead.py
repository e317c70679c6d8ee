"""A checkpoint's files are read while torch is imported, unless they are in memory or too large for it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from vllm.loading import readahead

pytestmark = pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the system cannot say what is in memory")


def join(threads: list) -> int:
    """Wait for them; how many there were."""
    for thread in threads:
        thread.join()
    return len(threads)


def forget(file: Path) -> bool:
    """Ask the system to drop the file from memory; whether it did."""
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return not readahead._is_in_memory(file, file.stat().st_size)


def test_what_is_not_in_memory_is_read_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for file in files:
        file.write_bytes(os.urandom(3 << 20))
    monkeypatch.setattr(readahead, "_PIECE", 1 << 20)
    read: list[tuple[str, int]] = []
    preadv = os.preadv

    def noting(number: int, buffers: list[bytearray], at: int, *flags: int) -> int:
        if not flags:
            read.append((Path(os.readlink(f"/proc/self/fd/{number}")).name, at >> 20))
        return preadv(number, buffers, at, *flags)

    monkeypatch.setattr(os, "preadv", noting)
    is_in_memory = readahead._is_in_memory
    monkeypatch.setattr(readahead, "_is_in_memory", lambda file, size: file.name == "a.safetensors")
    assert join(readahead.start(tmp_path, "auto", 6 << 20)) > 0
    assert sorted(read) == [("b.safetensors", at) for at in range(3)]
    assert join(readahead.start(tmp_path, "auto", (6 << 20) - 1)) == 0, "there is no room"
    assert join(readahead.start(tmp_path, "dummy", 6 << 20)) == 0, "nobody wants them"
    monkeypatch.setattr(readahead, "_is_in_memory", is_in_memory)
    if forget(files[0]):  # why: not every file system drops what it is asked to
        assert join(readahead.start(tmp_path, "auto", 6 << 20)) > 0
        assert is_in_memory(files[0], 3 << 20)
        assert join(readahead.start(tmp_path, "auto", 6 << 20)) == 0, "all is in memory"


def test_what_cannot_be_read_is_left_to_the_loader(tmp_path: Path) -> None:
    assert join(readahead.start(tmp_path / "nowhere", "auto", 1 << 30)) == 0
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nothing")
    assert join(readahead.start(tmp_path, "auto", 1 << 30)) == 0


def test_a_plan_begins_to_read_before_torch_is_imported() -> None:
    program = """
        import sys
        from vllm.loading import readahead
        inner, seen = readahead.start, []
        def start(*given):
            seen.append((given[0].name, "torch" in sys.modules))
            return inner(*given)
        readahead.start = start
        from vllm import assembly
        from vllm.config.args import EngineArgs
        assembly.make_plan(EngineArgs())
        assembly.make_plan(EngineArgs(), weights=False)
        print(seen)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.strip() == "[('builtin', False)]"
