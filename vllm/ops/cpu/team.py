"""The threads that help with kernels: one team per process, asleep when nobody calls.

The caller always works too and never waits for a helper that holds no work (`emit.py` has the protocol). Helpers are
Python threads that stay in machine code, without Python's lock; they watch for the next call for a short while and then
sleep in the kernel (futex). Linux only; elsewhere every call runs alone.
Does not know: kernels. Called by: `jit.py`.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import platform
import sys
import threading
from collections.abc import Callable

from vllm.ops.cpu import emit

_FUTEX = {"x86_64": 202, "aarch64": 98}
_PATIENCE = 6000
"""Glances of a helper before it sleeps: some hundred microseconds, the pauses between the kernels of a step."""


class Team:
    """The board in memory that calls are written on, and the helpers that read it."""

    def __init__(self, worker: Callable[[int, int], None]) -> None:
        self._words = (ctypes.c_int64 * (emit.BOARD_WORDS + 8))()
        self.board = (ctypes.addressof(self._words) + 63) // 64 * 64
        self._worker, self._helpers = worker, list[threading.Thread]()
        self._lock = threading.Lock()
        atexit.register(self.stop)

    def grow(self, threads: int) -> None:
        """Have at least `threads` - 1 helpers."""
        with self._lock:
            for number in range(len(self._helpers) + 1, threads):
                helper = threading.Thread(
                    target=self._worker, args=(self.board, number), name=f"team-{number}", daemon=True
                )
                helper.start()
                self._helpers.append(helper)

    def stop(self) -> None:
        """Send the helpers home; their code must not be taken away under them."""
        with self._lock:
            words = (ctypes.c_int64 * emit.BOARD_WORDS).from_address(self.board)
            words[emit.STOP] = 1
            words[emit.SEQ] = (words[emit.SEQ] + 1) & 0x3FFFFFFF
            wake = calls()
            if self._helpers and wake is not None:
                libc = ctypes.CDLL(None)
                libc.syscall(wake.futex, ctypes.c_void_p(self.board), emit.FUTEX_WAKE, 1 << 30)
            for helper in self._helpers:
                helper.join(1.0)


@functools.cache
def calls() -> emit.Calls | None:
    """What machine code needs of the system; None where there can be no team."""
    futex = _FUTEX.get(platform.machine())
    if sys.platform != "linux" or futex is None:
        return None
    libc = ctypes.CDLL(None)
    addresses = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in (libc.syscall, libc.sched_yield)]
    return emit.Calls(*addresses, futex)


def worker_code(features: frozenset[str]) -> tuple[str, str]:
    """(LLVM IR, name) of what a helper runs."""
    found = calls()
    assert found is not None
    return emit.emit_worker(features, found, _PATIENCE)
