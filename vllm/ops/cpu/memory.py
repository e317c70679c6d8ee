"""Large tensors on huge pages: reading weights in 4 KiB pages costs a tenth of the bandwidth.

Linux gives huge pages on request (madvise) where it does not give them to everybody. Elsewhere: plain memory.
Called by: whoever packs weights or holds caches.
"""

from __future__ import annotations

import contextlib
import math
import mmap

import torch

_HUGE = 2 << 20
_WORTH_IT = 1 << 20


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of zeros at first touch, 64-byte aligned at least, given back to the system when it dies."""
    size = math.prod(shape) * dtype.itemsize
    if size < _WORTH_IT or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape, dtype=dtype)
    room = mmap.mmap(-1, (size + _HUGE - 1) // _HUGE * _HUGE + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        room.madvise(mmap.MADV_HUGEPAGE)
    raw = torch.frombuffer(room, dtype=torch.uint8)
    start = -raw.data_ptr() % _HUGE
    return raw[start : start + size].view(dtype).view(shape)
