"""Devices of other makers: seen, named, and what works with them here."""

from pathlib import Path

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine
from vllm.util import env

NAMES = ("accelerators",)
ORDER = 70
EXAMPLES: dict[str, str] = {}
LINES = {
    "none": Line("green", "no AMD, Intel or TPU device", "没有 AMD、Intel 或 TPU 设备"),
    "rocm": Line(
        "yellow",
        "an AMD GPU (ROCm) is here; no run on one has been tested, the CPU works",
        "检测到 AMD GPU（ROCm）；尚未在其上测试，可使用 CPU",
        "export VLLM_PLATFORM=cpu",
    ),
    "intel": Line(
        "yellow",
        "an Intel GPU or Gaudi is here; it is not used, the CPU works",
        "检测到 Intel GPU 或 Gaudi；不会被使用，可使用 CPU",
        "export VLLM_PLATFORM=cpu",
    ),
    "tpu": Line(
        "yellow",
        "a TPU is here; it is not used, the CPU works",
        "检测到 TPU；不会被使用，可使用 CPU",
        "export VLLM_PLATFORM=cpu",
    ),
}


def check(machine: Machine) -> Says:
    """By device files, the makers' tools and the variables that their images set."""
    seen = {
        "rocm": Path("/dev/kfd").exists() or machine.which("rocm-smi", "amd-smi", "rocminfo") is not None,
        "intel": machine.which("xpu-smi", "sycl-ls", "hl-smi") is not None,
        "tpu": env.text("TPU_NAME") is not None or Path("/dev/accel0").exists(),
    }
    for code, is_seen in seen.items():
        if is_seen:
            yield code, {}
    if not any(seen.values()):
        yield "none", {}
