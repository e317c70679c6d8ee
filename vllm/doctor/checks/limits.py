"""Limits of this process and of shared memory."""

import shutil
from pathlib import Path

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine
from vllm.util.arith import human_bytes

NAMES = ("limits",)
ORDER = 140
FILES = 1024
SHARED = 60 << 20
SHARED_GPUS = 1 << 30
EXAMPLES: dict[str, str] = {}
LINES = {
    "fine": Line("green", "{files} open files, /dev/shm {shared}", "可打开 {files} 个文件，/dev/shm {shared}"),
    "files": Line(
        "yellow",
        "only {files} files may be open; each connection of a server takes one",
        "最多只能打开 {files} 个文件；服务器的每个连接都会占用一个",
        "ulimit -n 65536   # in a container: docker run --ulimit nofile=65536:65536 ...",
    ),
    "shared": Line(
        "yellow",
        "/dev/shm has only {shared}; several processes on one machine talk through it",
        "/dev/shm 只有 {shared}；同一台机器上的多个进程通过它通信",
        "docker run --shm-size=8g ...   # no container: sudo mount -o remount,size=8g /dev/shm",
    ),
}


def check(machine: Machine) -> Says:
    """Open files, then shared memory."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    shm = Path("/dev/shm")
    shared = shutil.disk_usage(shm).total if shm.is_dir() else 0
    needed = SHARED_GPUS if len(machine.nvidia.gpus) > 1 else SHARED
    words = {"files": soft, "shared": human_bytes(shared)}
    if 0 <= soft < FILES:
        yield "files", words
    if shared < needed:
        yield "shared", words
    if not 0 <= soft < FILES and shared >= needed:
        yield "fine", words
