"""NVIDIA devices (and AMD ones, which torch calls by the same name)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from vllm.protocol.facts import DeviceFacts

NAMES = ("cuda",)


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
    )


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

    def is_present(self) -> bool:
        return torch.cuda.is_available()

    def capability(self, index: int) -> tuple[int, int]:
        return torch.cuda.get_device_capability(index)

    def prepare(self, index: int, num_threads: int) -> None:
        torch.cuda.set_device(index)

    def reserve(self, shape: tuple[int, ...], dtype: torch.dtype, index: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=torch.device("cuda", index))

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
        if index not in self._sides:
            self._sides[index] = torch.cuda.Stream(index), torch.cuda.graph_pool_handle()
        side, pool = self._sides[index]
        here, graph = torch.cuda.current_stream(index), torch.cuda.CUDAGraph()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            warm()
            side.synchronize()
            # why: torch.cuda.graph() would also collect garbage and empty the allocator, for a tenth of a second
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                out = run()
            finally:
                graph.capture_end()
        here.wait_stream(side)
        return graph.replay, out

    def kernel_folders(self) -> tuple[str, ...]:
        return ("triton",)

    def backend(self) -> str:
        return "nccl"


PLATFORM = CudaPlatform()
