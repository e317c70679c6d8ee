"""NVIDIA devices (and AMD ones, which torch calls by the same name)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from vllm.protocol.facts import DeviceFacts
from vllm.util.log import get_logger

log = get_logger(__name__)
T = TypeVar("T")
NAMES = ("cuda",)
_SMALL = (1 << 20,) * 64
"""Torch keeps tensors of up to a mebibyte in pieces of their own."""
_MUCH = 2 << 30


def cuda_facts() -> DeviceFacts | None:
    """The first device, and how many there are; None where torch sees none."""
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info(0)
    properties = torch.cuda.get_device_properties(0)
    has_bf16 = properties.major >= 8
    has_fp8 = torch.version.hip is None and (properties.major, properties.minor) >= (8, 9)
    return DeviceFacts(
        "cuda",
        properties.name,
        total,
        free,
        bf16=has_bf16,
        int8=properties.major >= 7,
        fp8=has_fp8,
        count=torch.cuda.device_count(),
        others=_others() if total - free > _MUCH else (),
    )


def _others() -> tuple[str, ...]:
    """Other processes on the first device, as nvidia-smi names them."""
    ask = ["nvidia-smi", "--id=0", "--query-compute-apps=pid,name,used_memory", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        said = ""
    lines = [[word.strip() for word in line.split(",")] for line in said.splitlines() if line.count(",") >= 2]
    named = [f"{w[1]} (pid {w[0]}): {w[-1]} MiB" for w in lines if w[0] != str(os.getpid())]
    return tuple(named) or ("this process, or some that nvidia-smi does not show",)


def _take(num: int, index: int) -> None:
    """Let torch ask the device for `num` bytes in one piece, and for small pieces, and keep them for later."""
    taken = [torch.empty(size, dtype=torch.uint8, device=torch.device("cuda", index)) for size in (num, *_SMALL)]
    taken[0][:1].fill_(0)  # why: a recording of nothing is complained about


@dataclass(slots=True)
class _Coming:
    """A copy into pinned memory, and the mark behind it."""

    x: torch.Tensor
    mark: torch.cuda.Event = field(default_factory=torch.cuda.Event)

    def wait(self) -> torch.Tensor:
        self.mark.synchronize()
        return self.x


class CudaPlatform:
    """Devices that torch.cuda sees."""

    def __init__(self) -> None:
        self._sides: dict[int, tuple[torch.cuda.Stream, tuple[int, int]]] = {}
        """device -> where its graphs are recorded: a stream of their own and the memory they share."""
        self._holders: dict[int, int] = {}
        """device -> engines that hold memory for steps."""

    def is_present(self) -> bool:
        return torch.cuda.is_available()

    def capability(self, index: int) -> tuple[int, int]:
        return torch.cuda.get_device_capability(index)

    def prepare(self, index: int, num_threads: int) -> None:
        torch.cuda.set_device(index)

    def reserve(self, shape: tuple[int, ...], dtype: torch.dtype, index: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=torch.device("cuda", index))

    def hold(self, step: int, graph: int, index: int) -> object:
        self._holders[index] = self._holders.get(index, 0) + 1
        try:
            if step:
                _take(step, index)
            if graph:
                side, _ = self._side(index)
                with torch.cuda.stream(side):
                    _take(graph, index)
                return self._record(lambda: _take(graph, index), index)[0]
        except RuntimeError as error:
            log.warning("memory of steps is taken as they come, and may then be missing: %s", error)
        return None

    def release(self, index: int) -> None:
        self._holders[index] = self._holders.get(index, 0) - 1
        with torch.cuda.device(index):
            if self._holders[index] <= 0:
                # why: cuBLAS's memory lies where it was first used, perhaps among that of graphs, none of which the
                # device has back then; while another engine lives its graphs use it
                self._sides.pop(index, None)
                clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
                if clear is not None:
                    clear()
            torch.cuda.empty_cache()

    def synchronize(self, index: int) -> None:
        torch.cuda.synchronize(index)

    def runs_behind(self) -> bool:
        return True

    def send(self, x: torch.Tensor, index: int) -> torch.Tensor:
        # why: torch keeps a pinned block until the copy that reads it is done
        return x.pin_memory().to(torch.device("cuda", index), non_blocking=True)

    def fetch(self, x: torch.Tensor) -> _Coming:
        coming = _Coming(torch.empty(x.shape, dtype=x.dtype, pin_memory=True))
        coming.x.copy_(x, non_blocking=True)
        coming.mark.record()
        return coming

    def shared(self, shape: tuple[int, ...], fill: int) -> torch.Tensor:
        # why: pinned memory has one address for host and device
        return torch.full(shape, fill, dtype=torch.int32, pin_memory=True)

    def capture(
        self, warm: Callable[[], torch.Tensor], run: Callable[[], torch.Tensor], index: int
    ) -> tuple[Callable[[], None], torch.Tensor]:
        side, _ = self._side(index)
        here = torch.cuda.current_stream(index)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            warm()
        graph, out = self._record(run, index)
        here.wait_stream(side)
        return graph.replay, out

    def _record(self, run: Callable[[], T], index: int) -> tuple[torch.cuda.CUDAGraph, T]:
        side, pool = self._side(index)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(side):
            side.synchronize()
            # why: torch.cuda.graph() would also collect garbage and empty the allocator, for a tenth of a second
            try:
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            except RuntimeError:
                # why: torch records no more into memory whose graphs are gone, such as those of an engine that ended
                self._sides[index] = side, torch.cuda.graph_pool_handle()
                graph = torch.cuda.CUDAGraph()
                graph.capture_begin(pool=self._sides[index][1], capture_error_mode="thread_local")
            try:
                out = run()
            finally:
                graph.capture_end()
        return graph, out

    def _side(self, index: int) -> tuple[torch.cuda.Stream, tuple[int, int]]:
        if index not in self._sides:
            self._sides[index] = torch.cuda.Stream(index), torch.cuda.graph_pool_handle()
        return self._sides[index]

    def kernel_folders(self) -> tuple[str, ...]:
        return ("triton",)

    def backend(self) -> str:
        return "nccl"


PLATFORM = CudaPlatform()
