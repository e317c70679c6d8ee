"""Bring a checkpoint's files into the system's page cache while torch is still being imported.

    folder ─▶ files that are not in memory yet ─▶ read by a few threads, into nowhere ─▶ the loader finds them there

A file is looked at in a few places first, without waiting for a disk: what is in memory is not read again. What goes
wrong here ends the reading and nothing else; the loader says it better. Invariant: imports no torch.
Called by: assembly.
"""

import os
import queue
import threading
from pathlib import Path

_THREADS, _PIECE, _LOOKS = 4, 16 << 20, 16


def start(folder: Path, load_format: str, room: int) -> list[threading.Thread]:
    """Threads that read the safetensors files of `folder`; none where all are in memory or `room` is too small.

    The interpreter does not wait for them at its end.
    """
    if load_format in ("dummy", "pt") or not hasattr(os, "RWF_NOWAIT"):
        return []
    try:
        sizes = {file: file.stat().st_size for file in sorted(folder.glob("*.safetensors"))}
        away = [file for file in sizes if not _is_in_memory(file, sizes[file])] if sum(sizes.values()) <= room else []
    except OSError:
        return []
    pieces: queue.SimpleQueue[tuple[Path, int]] = queue.SimpleQueue()
    for file in away:
        for at in range(0, sizes[file], _PIECE):
            pieces.put((file, at))
    threads = [threading.Thread(target=_read, args=(pieces,), name="readahead", daemon=True) for _ in range(_THREADS)]
    threads = threads if away else []
    for thread in threads:
        thread.start()
    return threads


def _is_in_memory(file: Path, size: int) -> bool:
    """Whether the places looked at are; no where the file system cannot tell."""
    one = bytearray(1)
    with open(file, "rb", buffering=0) as opened:
        for at in range(0, size, max(1, size // _LOOKS)):
            try:
                os.preadv(opened.fileno(), [one], at, os.RWF_NOWAIT)
            except OSError:
                return False
    return True


def _read(pieces: "queue.SimpleQueue[tuple[Path, int]]") -> None:
    room = bytearray(_PIECE)
    try:
        while True:
            file, at = pieces.get_nowait()
            with open(file, "rb", buffering=0) as opened:
                os.preadv(opened.fileno(), [room], at)
    except (queue.Empty, OSError):
        return
