"""Facts of this machine's CPU and memory, read from the kernel without torch.

Honours the affinity mask, cgroup v1 and v2 limits, and ONEDNN_MAX_CPU_ISA, which caps what oneDNN may use.
Called by: assembly and `vllm plan`.
"""

import os
from pathlib import Path

from vllm.protocol.facts import DeviceFacts
from vllm.util import env
from vllm.util.arith import cdiv

# why: what oneDNN calls each level and whether bfloat16 and int8 products are among its instructions
_ISA = {
    "SSE41": (False, False),
    "AVX": (False, False),
    "AVX2": (False, False),
    "AVX2_VNNI": (False, True),
    "AVX2_VNNI_2": (True, True),
    "AVX512_CORE": (False, False),
    "AVX512_CORE_VNNI": (False, True),
}
_UNLIMITED = 1 << 60


def cpu_facts() -> DeviceFacts:
    """The CPU as a device."""
    flags = _cpu_flags()
    may_bf16, may_int8 = _ISA.get((env.text("ONEDNN_MAX_CPU_ISA") or "").upper(), (True, True))
    total, free = _memory()
    return DeviceFacts(
        kind="cpu",
        name=_cpu_name(),
        total_bytes=total,
        free_bytes=free,
        num_cores=num_cores(),
        flags=flags,
        bf16=may_bf16 and bool(flags & {"avx512_bf16", "amx_bf16", "bf16", "avx_ne_convert"}),
        int8=may_int8 and bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"}),
    )


def num_cores() -> int:
    """Cores this process may use: the affinity mask, cut to the cgroup's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, quota)) if quota else cores


def _cgroup_quota() -> int | None:
    """Whole cores of the cgroup's CPU quota, rounded up; None for none."""
    words = _read("/sys/fs/cgroup/cpu.max").split()
    if len(words) == 2 and words[0] != "max":
        return cdiv(int(words[0]), int(words[1]))
    quota, period = _number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), _number("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    return cdiv(quota, period) if quota and period and quota > 0 else None


def _memory() -> tuple[int, int]:
    """(total, free) bytes, within the cgroup's limit. Page cache counts as free, for it gives way."""
    info = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        info[name] = int(rest.split()[0]) * 1024
    total = info.get("MemTotal", 4 << 30)
    free = info.get("MemAvailable", total // 2)
    limit = _number("/sys/fs/cgroup/memory.max") or _number("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    if limit and limit < min(total, _UNLIMITED):
        used = _number("/sys/fs/cgroup/memory.current") or _number("/sys/fs/cgroup/memory/memory.usage_in_bytes") or 0
        total, free = limit, min(free, max(0, limit - used + _reclaimable()))
    return total, free


def _reclaimable() -> int:
    """Page cache of the cgroup that the kernel drops when memory is wanted."""
    for line in _read("/sys/fs/cgroup/memory.stat").splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def _cpu_flags() -> frozenset[str]:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _cpu_name() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "CPU"


def _number(path: str) -> int | None:
    text = _read(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""
