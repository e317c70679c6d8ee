"""NVIDIA GPUs: their tool and library answer, torch reaches them, they are new enough and free."""

import sys

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine
from vllm.util import env

NAMES = ("gpu",)
ORDER = 60
OLDEST = (7, 0)
_BUSY = 0.5
_LIBRARY = "import ctypes\nctypes.CDLL('libcuda.so.1')\n"
EXAMPLES: dict[str, str] = {}
LINES = {
    "none": Line("green", "no NVIDIA GPU; the CPU is used", "没有 NVIDIA GPU；使用 CPU"),
    "fine": Line(
        "green",
        "{count} x {gpu}, driver {driver}, compute capability {capability}",
        "{count} x {gpu}，驱动 {driver}，计算能力 {capability}",
    ),
    "no-driver": Line(
        "red",
        "the NVIDIA driver does not answer: {problem}",
        "NVIDIA 驱动没有响应：{problem}",
        "sudo modprobe nvidia || sudo apt-get install --reinstall nvidia-driver-580   # in a container: on the host",
        gpu=True,
    ),
    "mismatch": Line(
        "red",
        "the driver was updated under a running system: {problem}",
        "驱动在系统运行时被更新：{problem}",
        "sudo reboot",
        gpu=True,
    ),
    "no-library": Line(
        "red",
        "there is a GPU, but libcuda.so.1 cannot be loaded: {problem}",
        "有 GPU，但无法加载 libcuda.so.1：{problem}",
        "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility ...   # no container: sudo ldconfig",
        gpu=True,
    ),
    "old": Line(
        "red",
        "{gpu} has compute capability {capability}; 7.0 (V100, T4, RTX 20) is the oldest that works",
        "{gpu} 的计算能力为 {capability}；最低需要 7.0（V100、T4、RTX 20）",
        "export VLLM_PLATFORM=cpu",
        gpu=True,
    ),
    "hidden": Line(
        "yellow",
        "CUDA_VISIBLE_DEVICES={value!r} hides every GPU",
        "CUDA_VISIBLE_DEVICES={value!r} 隐藏了所有 GPU",
        "unset CUDA_VISIBLE_DEVICES",
    ),
    "wrong-index": Line(
        "red",
        "CUDA_VISIBLE_DEVICES={value!r} names a GPU that is not here; there are {count}, counted from 0",
        "CUDA_VISIBLE_DEVICES={value!r} 指定的 GPU 不存在；共有 {count} 个，从 0 开始编号",
        "export CUDA_VISIBLE_DEVICES=0",
        gpu=True,
    ),
    "unreachable": Line(
        "red",
        "{gpu} is here and torch is a CUDA build, but torch.cuda.is_available() is False",
        "有 {gpu}，torch 也是 CUDA 版，但 torch.cuda.is_available() 为 False",
        '{python} -c "import torch; torch.cuda.init()"   # says why; a reboot of the machine often helps',
        gpu=True,
    ),
    "busy": Line(
        "yellow",
        "another process holds {used} of {total} MiB of GPU {index}; less context fits",
        "其他进程占用了 GPU {index} 的 {used}/{total} MiB；可用上下文会变小",
        "nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv   # then end it, or choose another GPU",
    ),
}


def check(machine: Machine) -> Says:
    """From the driver upwards; the first thing that is missing explains the rest."""
    nvidia = machine.nvidia
    if not nvidia.gpus:
        if nvidia.is_seen and nvidia.problem:
            yield "mismatch" if "mismatch" in nvidia.problem else "no-driver", {"problem": nvidia.problem}
        elif nvidia.is_seen and not nvidia.has_tool and not machine.torch.available:
            yield "no-driver", {"problem": "nvidia-smi is not here"}
        else:
            yield "none", {}
        return
    first = nvidia.gpus[0]
    words = {"gpu": first.name, "driver": first.driver, "count": len(nvidia.gpus), "python": sys.executable}
    words["capability"] = ".".join(map(str, first.capability)) if first.capability else "?"
    faults = list(_faults(machine, words))
    yield from faults
    for gpu in nvidia.gpus:
        if gpu.used > _BUSY * gpu.total > 0:
            yield "busy", {"used": gpu.used, "total": gpu.total, "index": gpu.index}
    if not faults:
        yield "fine", words


def _faults(machine: Machine, words: dict[str, object]) -> Says:
    first, visible = machine.nvidia.gpus[0], env.raw("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        yield "hidden", {"value": visible}
        return
    numbers = [int(part) for part in (visible or "").split(",") if part.strip().isdigit()]
    if any(number >= len(machine.nvidia.gpus) for number in numbers):
        yield "wrong-index", {**words, "value": visible}
        return
    if first.capability is not None and first.capability < OLDEST:
        yield "old", words
    library = machine.python(_LIBRARY, 20.0)
    if library.status != 0:
        yield "no-library", {**words, "problem": library.last_line}
    elif machine.torch.cuda and not machine.torch.available and first.driver_major >= 580:
        # why: an older driver is the torch check's to name.
        yield "unreachable", words
