"""torch: there, whole, of a tested version, and built for this machine's GPU and driver."""

import sys

from vllm.doctor.line import TORCH_RANGE, Line, Says
from vllm.doctor.machine import Machine
from vllm.doctor.nvidia import Gpu
from vllm.doctor.torch_facts import Torch

NAMES = ("torch",)
ORDER = 50
OLDEST, TOO_NEW = (2, 11), (2, 14)
# The oldest Linux driver that runs programs of each CUDA, by its first number (NVIDIA's compatibility table).
DRIVER = {11: 450, 12: 525, 13: 580}
# The oldest compute capability that builds for each CUDA still hold: 13 dropped Maxwell, Pascal and Volta.
OLDEST_GPU = {11: (3, 5), 12: (5, 0), 13: (7, 5)}
_PIP = f'{{python}} -m pip install --force-reinstall "{TORCH_RANGE}"'
_CPU = f"{_PIP} --index-url https://download.pytorch.org/whl/cpu"
_CU126 = f"{_PIP} --index-url https://download.pytorch.org/whl/cu126"
EXAMPLES = {"install": _PIP, "missing.install": _CPU, "old-driver.install": _CU126}
LINES = {
    "fine": Line("green", "torch {version}{build}", "torch {version}{build}"),
    "missing": Line("red", "torch is not installed", "没有安装 torch", "{install}"),
    "broken": Line("red", "torch cannot be imported: {problem}", "torch 无法导入：{problem}", "{install}"),
    "killed": Line(
        "red",
        "importing torch was ended by {problem}: too little memory, or a build for another processor",
        "导入 torch 时被 {problem} 终止：内存不足，或该版本是为其他处理器构建的",
        "{install}",
    ),
    "slow": Line(
        "red",
        "importing torch took longer than {limit:.0f} s: a hanging driver or a slow disk",
        "导入 torch 超过 {limit:.0f} 秒：驱动无响应或磁盘过慢",
        "CUDA_VISIBLE_DEVICES= VLLM_PLATFORM=cpu {python} -m vllm.entrypoints.cli.main doctor torch",
    ),
    "too-old": Line(
        "red",
        "torch {version} is older than the oldest tested one, 2.11",
        "torch {version} 比测试过的最旧版本 2.11 还旧",
        "{install}",
    ),
    "too-new": Line(
        "yellow",
        "torch {version} is newer than the newest tested one, 2.13",
        "torch {version} 比测试过的最新版本 2.13 还新",
        "{install}",
    ),
    "cpu-only": Line(
        "red",
        "torch {version} is a CPU build, but there is a GPU: {gpu}",
        "torch {version} 是 CPU 版，但本机有 GPU：{gpu}",
        "{install}",
        gpu=True,
    ),
    "old-driver": Line(
        "red",
        "torch is built for CUDA {cuda}, which needs driver {needed} or newer; the driver is {driver}",
        "torch 为 CUDA {cuda} 构建，需要驱动 {needed} 或更新；当前驱动为 {driver}",
        "{install}",
        gpu=True,
    ),
    "dropped-gpu": Line(
        "red",
        "torch for CUDA {cuda} no longer runs on {gpu} (compute capability {capability}); one for CUDA 12.6 does",
        "CUDA {cuda} 版的 torch 不再支持 {gpu}（计算能力 {capability}）；CUDA 12.6 版支持",
        _CU126,
        gpu=True,
    ),
    "no-arch": Line(
        "red",
        "torch holds no code for {gpu} (compute capability {capability}); it has {arches}",
        "torch 不含适用于 {gpu} 的代码（计算能力 {capability}）；仅含 {arches}",
        "{install}",
        gpu=True,
    ),
}


def check(machine: Machine) -> Says:
    """torch alone, then against the GPU and its driver."""
    torch, gpus, python = machine.torch, machine.nvidia.gpus, sys.executable
    words = {"python": python, "version": torch.version, "problem": torch.problem, "limit": machine.limit}
    words["install"] = _install(gpus[0] if gpus else None)
    if torch.state != "works":
        yield torch.state, words
        return
    faults = list(_against_gpu(torch, gpus[0], words)) if gpus else []
    if torch.numbers < OLDEST:
        faults.insert(0, ("too-old", words))
    elif torch.numbers >= TOO_NEW:
        faults.insert(0, ("too-new", words))
    yield from faults
    if not faults:
        build = f", CUDA {torch.cuda}" if torch.cuda else f", ROCm {torch.hip}" if torch.hip else ", CPU"
        yield "fine", {**words, "build": build}


def _against_gpu(torch: Torch, gpu: Gpu, words: dict[str, object]) -> Says:
    words = {**words, "gpu": gpu.name, "cuda": torch.cuda, "driver": gpu.driver}
    if not torch.cuda:
        if not torch.hip:
            yield "cpu-only", words
        return
    major = torch.cuda_numbers[0]
    needed = DRIVER.get(major, max(DRIVER.values()))
    # why: NVIDIA's compatibility package lets an older driver run newer programs; where torch works, it is fine.
    if not torch.available and 0 < gpu.driver_major < needed:
        yield "old-driver", {**words, "needed": needed}
    if gpu.capability is None:
        return
    words["capability"] = ".".join(map(str, gpu.capability))
    if (7, 0) <= gpu.capability < OLDEST_GPU.get(major, (7, 5)):
        yield "dropped-gpu", words
    elif gpu.capability >= (7, 0) and torch.arches and not _has_code(torch.arches, gpu.capability):
        yield "no-arch", {**words, "arches": " ".join(torch.arches)}


def _has_code(arches: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Machine code of the same family and no newer, or portable code that is no newer."""
    for arch in arches:
        kind, _, digits = arch.partition("_")
        digits = digits.rstrip("af")
        if not digits.isdigit():
            continue
        has = (int(digits[:-1] or "0"), int(digits[-1]))
        if has <= capability and (kind == "compute" or has[0] == capability[0]):
            return True
    return False


def _install(gpu: Gpu | None) -> str:
    """The torch for this machine: no GPU, a GPU with a driver for CUDA 13, one for CUDA 12, or a driver for neither."""
    if gpu is None:
        command = _CPU
    elif 0 < gpu.driver_major < DRIVER[12]:
        command = f"sudo apt-get install nvidia-driver-{DRIVER[13]}   # any driver >= {DRIVER[12]}; then: {_PIP}"
    elif 0 < gpu.driver_major < DRIVER[13] or (gpu.capability or (9, 0)) < OLDEST_GPU[13]:
        command = _CU126
    else:
        command = _PIP
    return command.format(python=sys.executable)
