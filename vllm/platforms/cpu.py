"""The machine's own processor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from vllm.platforms.base import Here
from vllm.platforms.pages import give_back

NAMES = ("cpu",)


class CpuPlatform:
    """Plain memory, a pool of threads."""

    def is_present(self) -> bool:
        return True

    def capability(self, index: int) -> tuple[int, int]:
        return (0, 0)

    def prepare(self, index: int, num_threads: int) -> None:
        if num_threads > 0:
            torch.set_num_threads(num_threads)

    def reserve(self, shape: tuple[int, ...], dtype: torch.dtype, index: int) -> torch.Tensor:
        # why: numpy takes zeroed pages as they come and torch would write to all of them, so that a cache costs only
        # what has been put into it
        assert dtype is torch.uint8
        return torch.from_numpy(np.zeros(shape, np.uint8))

    def hold(self, step: int, graph: int, index: int) -> object:
        return None

    def release(self, index: int) -> None:
        give_back()

    def synchronize(self, index: int) -> None:
        return None

    def runs_behind(self) -> bool:
        return False

    def send(self, x: torch.Tensor, index: int) -> torch.Tensor:
        return x.clone()

    def fetch(self, x: torch.Tensor) -> Here:
        return Here(x.clone())

    def shared(self, shape: tuple[int, ...], fill: int) -> torch.Tensor:
        return torch.full(shape, fill, dtype=torch.int32)

    def capture(
        self, warm: Callable[[], torch.Tensor], run: Callable[[], torch.Tensor], index: int
    ) -> tuple[Callable[[], None], torch.Tensor]:
        # why: nothing can be recorded here; running the work again is what a replay means
        out = warm()

        def replay() -> None:
            out.copy_(run())

        return replay, out

    def kernel_folders(self) -> tuple[str, ...]:
        return ("cpu",)

    def backend(self) -> str:
        return "gloo"


PLATFORM = CpuPlatform()
