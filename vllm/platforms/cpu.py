"""The machine's own processor."""

import os
import platform as machine
from pathlib import Path

import torch

from vllm.platforms.base import DeviceFacts

NAMES = ("cpu",)

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class CpuPlatform:
    """Threads and memory of this machine, as far as this process may use them."""

    def is_present(self) -> bool:
        return True

    def facts(self, index: int) -> DeviceFacts:
        total, free = _memory()
        return DeviceFacts(machine.processor() or machine.machine(), total, free, _cores())

    def prepare(self, index: int, num_threads: int) -> None:
        if num_threads > 0:
            torch.set_num_threads(num_threads)
        # why: a denormal operand costs a hundred ordinary ones, and random weights make many
        torch.set_flush_denormal(True)

    def synchronize(self, index: int) -> None:
        return None

    def kernel_folders(self) -> tuple[str, ...]:
        return ("cpu",)

    def backend(self) -> str:
        return "gloo"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> tuple[int, int]:
    """(total, available) bytes; a container's limit counts where it is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = total
    info = Path("/proc/meminfo")
    if info.exists():
        free = next(
            (int(line.split()[1]) * 1024 for line in info.read_text().splitlines() if line.startswith("MemAvailable")),
            total,
        )
    for path in map(Path, _CGROUP_LIMITS):
        if path.exists() and (text := path.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total, min(free, total)


PLATFORM = CpuPlatform()
