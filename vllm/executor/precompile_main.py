"""The program behind `Precompiler`: import what is slow to import, hear what to compile for, compile, leave a mark.

It ends when its pipe closes before it has heard anything. Nothing it says is for users. Started by: precompile.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from vllm.executor.frames import FrameReader, Rehearsal, unpack_kv


def main() -> int:
    """Compile for the one message on stdin; 1 where nothing was."""
    with suppress(OSError):
        os.nice(5)  # why: the engine starts at the same time, and is waited for
    import torch

    from vllm.ops.triton.chip import Chip, pretend
    from vllm.parts.decoder import Decoder
    from vllm.parts.hf import HFConfig
    from vllm.planning.describe import describe
    from vllm.worker.precompile import precompile

    # why: torch imports two seconds of modules when it first computes without a device, and there is time for it now
    torch.arange(2, device="meta") + torch.ones(2, device="meta")
    told = _hear()
    if told is None:
        return 1
    major, minor, processors = told.chip
    chip = Chip(True, (major, minor), processors)
    pretend(chip)  # why: before any kernel's module is read, for some are read differently
    network = describe(HFConfig(told.config)).decoder
    if not isinstance(network, Decoder):
        return 1
    precompile(network, told.worker, unpack_kv(told.kv), chip, told.processes)
    _leave(Path(told.mark))
    return 0


def _hear() -> Rehearsal | None:
    reader = FrameReader(sys.stdin.fileno())
    while reader.feed():
        for _, message in reader.frames():
            assert isinstance(message, Rehearsal)
            return message
    return None


def _leave(mark: Path) -> None:
    """An empty file, at once or not at all."""
    mark.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=mark.parent)
    os.close(fd)
    os.replace(name, mark)


if __name__ == "__main__":
    sys.exit(main())
