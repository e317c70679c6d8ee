"""Facts of this machine's CPU and memory, read from /proc and /sys without torch.

Counts the affinity mask, every control group above this process (version 1 and 2) and ONEDNN_MAX_CPU_ISA. Invariant: a
file that is missing or odd means "no limit", never an error, for containers differ. Called by: assembly, `vllm plan`.
"""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

from vllm.protocol.facts import DeviceFacts
from vllm.util import env

# why: what oneDNN calls each level, and whether bfloat16 and int8 products are among its instructions; others have both
_LEVELS = {
    "SSE41": (False, False),
    "AVX": (False, False),
    "AVX2": (False, False),
    "AVX2_VNNI": (False, True),
    "AVX2_VNNI_2": (True, True),
    "AVX512_CORE": (False, False),
    "AVX512_CORE_VNNI": (False, True),
}
_BF16 = frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"})
_INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"})
_UNLIMITED = 1 << 60


def cpu_facts(root: Path = Path("/")) -> DeviceFacts:
    """The CPU as a device. `root` stands for / in tests."""
    flags, name = _cpuinfo(root)
    may_bf16, may_int8 = _LEVELS.get((env.text("ONEDNN_MAX_CPU_ISA") or "").upper(), (True, True))
    total, free = _memory(root)
    return DeviceFacts(
        kind="cpu",
        name=name,
        total_bytes=total,
        free_bytes=free,
        num_cores=num_cores(root),
        flags=flags,
        bf16=may_bf16 and bool(flags & _BF16),
        int8=may_int8 and bool(flags & _INT8),
        fp8=False,
    )


def num_cores(root: Path = Path("/")) -> int:
    """Cores this process can keep busy: by affinity mask and quota, second threads of a core not counted."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = {_text(root / f"sys/devices/system/cpu/cpu{c}/topology/thread_siblings_list") or str(c) for c in allowed}
    return max(1, min(len(cores), int(_quota(root))))


def _quota(root: Path) -> float:
    """Processors' worth of time that the control groups allow."""
    limit = float(_UNLIMITED)
    for folder in _groups(root, "cpu"):
        words = _text(folder / "cpu.max").split()
        words = words or [_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
            limit = min(limit, int(words[0]) / int(words[1]))
    return limit


def _memory(root: Path) -> tuple[int, int]:
    """(total, free) bytes: the least over the machine and every control group. Page cache that nobody uses is free."""
    info = dict(line.split(":", 1) for line in _text(root / "proc/meminfo").splitlines() if ":" in line)
    total = _kib(info.get("MemTotal", "")) or 4 << 30
    free = _kib(info.get("MemAvailable", "")) or total // 2
    for folder in _groups(root, "memory"):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is None or used is None or limit >= _UNLIMITED:
            continue
        stat = dict(line.split()[:2] for line in _text(folder / "memory.stat").splitlines() if " " in line)
        cache = int(stat.get("total_inactive_file", stat.get("inactive_file", "0")))
        total, free = min(total, limit), min(free, max(0, limit - used + cache))
    return total, free


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control group and of those above it."""
    for line in _text(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names and controller not in names.split(","):
            continue
        tops = [root / "sys/fs/cgroup" / n for n in (names, controller)] if names else [root / "sys/fs/cgroup"]
        top = next((t for t in tops if t.is_dir()), tops[0])
        # why: in a container the path may name a folder that only the host sees; the top then still holds our limits
        for folder in (f := top / path.strip("/"), *f.parents):
            if folder.is_dir():
                yield folder
            if folder == top:
                break


def _cpuinfo(root: Path) -> tuple[frozenset[str], str]:
    """(instruction-set names, model name)."""
    flags, name = frozenset[str](), ""
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features") and not flags:
            flags = frozenset(value.split())
        elif key.strip() == "model name" and not name:
            name = value.strip()
    return flags, name or platform.machine() or "CPU"


def _kib(text: str) -> int:
    words = text.split()
    return int(words[0]) * 1024 if words and words[0].isdigit() else 0


def _number(*paths: Path) -> int | None:
    return next((int(text) for path in paths if (text := _text(path)).isdigit()), None)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
