"""Memory that stays, given to the kernel's page machinery in the background so that nobody waits for it.

    reserve(shape)     zeroed memory for caches; its pages are made resident by a thread while the weights load
    onto_huge_pages()  moves tensors that are read every step (weights) onto 2 MiB pages: a tenth more bandwidth

Why not huge pages at once: where the host has to find memory for a virtual machine, a fresh huge page costs up to ten
times what it costs elsewhere, and start-up would pay for it. Both jobs only ask (madvise); refusals change nothing.
Called by: the CPU platform, and its kernels when they pack weights.
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
_MADV_HUGEPAGE, _MADV_POPULATE_WRITE, _MADV_COLLAPSE = 14, 23, 25


def reserve(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros, resident soon, given back to the system when the last view dies."""
    size = math.prod(shape) * dtype.itemsize
    if size < _HUGE or _madvise() is None:
        return torch.zeros(shape, dtype=dtype)
    room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    tensor = torch.frombuffer(room, dtype=torch.uint8)[:size].view(dtype).view(shape)
    _later(_populate, tensor)
    return tensor


def onto_huge_pages(tensor: torch.Tensor) -> None:
    """Ask for huge pages under a large tensor, at low priority, when there has been quiet for a while."""
    if _madvise() is not None and tensor.numel() * tensor.element_size() >= 2 * _HUGE:
        _later(_collapse, tensor)


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """madvise(address, length, advice) of the C library; Linux only. Runs without Python's lock."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return call  # type: ignore[no-any-return]


def _populate(start: int, end: int) -> None:
    madvise = _madvise()
    assert madvise is not None
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    for at in range(first, end, _PIECE):
        # why: pages whose advice is unknown to an older system come at first touch, as always
        if madvise(at, min(_PIECE, end - at), _MADV_POPULATE_WRITE):
            return


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
_queue: list[tuple[Callable[[int, int], None], weakref.ref[torch.Tensor]]] = []
_at_work = False


def _later(job: Callable[[int, int], None], tensor: torch.Tensor) -> None:
    """Give work to the one background thread, which ends when there is none."""
    global _at_work
    with _lock:
        # why: caches are made resident before weights are moved
        _queue.insert(0 if job is _populate else len(_queue), (job, weakref.ref(tensor)))
        if not _at_work:
            _at_work = True
            threading.Thread(target=_work, name="pages", daemon=True).start()


def _work() -> None:
    global _at_work
    length = -1
    while True:
        with _lock:
            if not _queue:
                _at_work = False
                return
            job, found = _queue[0]
            wait = job is _collapse and len(_queue) > length
            length = len(_queue) if wait else length
            if not wait:
                _queue.pop(0)
        if wait:
            time.sleep(_QUIET)
        elif (tensor := found()) is not None:
            if job is _collapse:
                # why: on Linux a thread has a niceness of its own; steps go first
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
            storage = tensor.untyped_storage()
            job(storage.data_ptr(), storage.data_ptr() + storage.nbytes())
            del tensor, storage  # why: a model that is closed meanwhile must be able to go
