"""The operating system, and WSL 2 without its GPU."""

import platform
from pathlib import Path

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine
from vllm.util import env

NAMES = ("system",)
ORDER = 10
EXAMPLES: dict[str, str] = {}
LINES = {
    "fine": Line("green", "{system}", "{system}"),
    "untested": Line(
        "yellow",
        "{system}: only Linux is tested; on macOS and Windows the CPU path runs where torch runs, one process only",
        "{system}：仅在 Linux 上测试过；macOS 和 Windows 上只能以单进程方式用 CPU 运行（需 torch 可用）",
        "wsl --install   # Windows; on macOS use a Linux container: docker run -it python:3.12 bash",
    ),
    "wsl-no-gpu": Line(
        "yellow",
        "WSL without a GPU: /dev/dxg is missing, so no GPU can be used here",
        "WSL 中没有 GPU：缺少 /dev/dxg，因此这里无法使用 GPU",
        "wsl --update && wsl --shutdown   # in Windows, with a Windows driver of NVIDIA >= 580 installed",
    ),
}


def check(machine: Machine) -> Says:
    """What kind of system this is."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    is_wsl = "microsoft" in platform.release().lower() or env.text("WSL_DISTRO_NAME") is not None
    if platform.system() != "Linux":
        yield "untested", {"system": system}
    elif is_wsl and not Path("/dev/dxg").exists():
        yield "wsl-no-gpu", {}
    else:
        yield "fine", {"system": system + (" (WSL 2 with a GPU)" if is_wsl else "")}
