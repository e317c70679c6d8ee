"""A device that holds no data: torch's `meta`. Everything is built and run, nothing is computed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vllm.platforms.base import Here

NAMES = ("meta",)


class NullPlatform:
    """Room without end, work without result."""

    def is_present(self) -> bool:
        return True

    def capability(self, index: int) -> tuple[int, int]:
        return (0, 0)

    def prepare(self, index: int, num_threads: int) -> None:
        return None

    def reserve(self, shape: tuple[int, ...], dtype: torch.dtype, index: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device="meta")

    def hold(self, step: int, graph: int, index: int) -> object:
        return None

    def release(self, index: int) -> None:
        return None

    def synchronize(self, index: int) -> None:
        return None

    def runs_behind(self) -> bool:
        return False

    def send(self, x: torch.Tensor, index: int) -> torch.Tensor:
        return x.to("meta")

    def fetch(self, x: torch.Tensor) -> Here:
        return Here(torch.zeros(x.shape, dtype=x.dtype))

    def shared(self, shape: tuple[int, ...], fill: int) -> None:
        return None

    def capture(
        self, warm: Callable[[], torch.Tensor], run: Callable[[], torch.Tensor], index: int
    ) -> tuple[Callable[[], None], torch.Tensor]:
        return (lambda: None), warm()

    def kernel_folders(self) -> tuple[str, ...]:
        return ()

    def backend(self) -> str:
        return "gloo"


PLATFORM = NullPlatform()
