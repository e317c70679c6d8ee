"""Tensors that are read every step (weights) move onto 2 MiB pages in the background: a tenth more bandwidth.

Why not huge pages at once: where the host has to find memory for a virtual machine, a fresh huge page costs up to ten
times what it costs elsewhere, and start-up would pay for it. The job only asks (madvise); a refusal changes nothing.
Called by: CPU kernels when they pack weights.
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import os
import threading
import time
import weakref
from collections.abc import Callable

import torch

_HUGE = 2 << 20
_PIECE = 16 * _HUGE
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25


def onto_huge_pages(tensor: torch.Tensor) -> None:
    """Ask for huge pages under a large tensor, at low priority, when there has been quiet for a while."""
    if _madvise() is not None and tensor.numel() * tensor.element_size() >= 2 * _HUGE:
        _later(tensor)


def give_back() -> None:
    """Return what was freed to the system: weights that were packed leave holes which the C library would keep."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def passing(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros whose memory goes back to the system with them; the C library would keep it for the thread that asked."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes < _HUGE:
        return torch.zeros(shape, dtype=dtype)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    return torch.frombuffer(mmap.mmap(-1, num_bytes, **private), dtype=dtype).view(shape)


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """madvise(address, length, advice) of the C library; Linux only. Runs without Python's lock."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return call  # type: ignore[no-any-return]


def _collapse(start: int, end: int) -> None:
    madvise = _madvise()
    assert madvise is not None
    first, last = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
    if first < last and not madvise(first, last - first, _MADV_HUGEPAGE):
        for at in range(first, last, _PIECE):
            if madvise(at, min(_PIECE, last - at), _MADV_COLLAPSE):
                return


_QUIET = 4.0
"""Seconds without new work before memory is moved: the start of an engine goes first."""
_lock = threading.Lock()
_queue: list[weakref.ref[torch.Tensor]] = []
_at_work = False


def _later(tensor: torch.Tensor) -> None:
    """Give work to the one background thread, which ends when there is none."""
    global _at_work
    with _lock:
        _queue.append(weakref.ref(tensor))
        if not _at_work:
            _at_work = True
            threading.Thread(target=_work, name="pages", daemon=True).start()


def _work() -> None:
    global _at_work
    # why: on Linux a thread has a niceness of its own; steps go first
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    length = -1
    while True:
        with _lock:
            if not _queue:
                _at_work = False
                return
            is_quiet = len(_queue) <= length
            length = len(_queue)
            tensor = _queue.pop(0)() if is_quiet else None
        if not is_quiet:
            time.sleep(_QUIET)
        elif tensor is not None:
            storage = tensor.untyped_storage()
            _collapse(storage.data_ptr(), storage.data_ptr() + storage.nbytes())
            del tensor, storage  # why: a model that is closed meanwhile must be able to go
