"""NVIDIA GPUs as nvidia-smi tells them. Does not know: torch, what is too old. Called by: machine."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FIELDS = ("index", "name", "driver_version", "memory.total", "memory.used", "compute_cap")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. Memory in MiB; `capability` None where the tool is too old to say."""

    index: int
    name: str
    driver: str
    total: int
    used: int
    capability: tuple[int, int] | None

    @property
    def driver_major(self) -> int:
        return _whole(self.driver.partition(".")[0])


@dataclass(frozen=True, slots=True)
class Nvidia:
    """`is_seen`: there is some trace of a GPU or its driver. `problem`: what nvidia-smi complained, or empty."""

    is_seen: bool
    has_tool: bool
    problem: str
    gpus: tuple[Gpu, ...]


def read(run: Callable[..., Any]) -> Nvidia:
    """Ask nvidia-smi; an old one does not know compute_cap, so ask it again without."""
    has_node = bool(list(Path("/dev").glob("nvidia[0-9]*"))) or Path("/proc/driver/nvidia/version").exists()
    tool = shutil.which("nvidia-smi") or next(
        (p for p in ("/usr/lib/wsl/lib/nvidia-smi", "/usr/local/nvidia/bin/nvidia-smi") if Path(p).exists()), None
    )
    if tool is None:
        return Nvidia(has_node, False, "", ())
    for fields in (_FIELDS, _FIELDS[:-1]):
        ran = run([tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"], 20.0)
        if ran.status == 0:
            gpus = tuple(gpu for line in ran.out.splitlines() if (gpu := _gpu(line)))
            # why: a tool that answers and lists nothing is a machine whose GPU was taken away: not a fault by itself.
            return Nvidia(has_node or bool(gpus), True, "", gpus)
        if ran.status is None:
            return Nvidia(True, True, "nvidia-smi does not answer", ())
    return Nvidia(has_node or "No devices" not in ran.out + ran.err, True, ran.last_line or f"exit {ran.status}", ())


def _gpu(line: str) -> Gpu | None:
    words = [word.strip() for word in line.split(",")]
    if len(words) < len(_FIELDS) - 1 or not words[0].isdigit():
        return None
    major, dot, minor = words[5].partition(".") if len(words) > 5 else ("", "", "")
    capability = (int(major), int(minor)) if dot and major.isdigit() and minor.isdigit() else None
    return Gpu(int(words[0]), words[1], words[2], _whole(words[3]), _whole(words[4]), capability)


def _whole(text: str) -> int:
    return int(text) if text.isdigit() else 0
