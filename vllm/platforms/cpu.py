"""The machine's own processor."""

import torch

from vllm.platforms import pages

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
        return pages.reserve(shape, dtype)

    def synchronize(self, index: int) -> None:
        return None

    def kernel_folders(self) -> tuple[str, ...]:
        return ("cpu",)

    def backend(self) -> str:
        return "gloo"


PLATFORM = CpuPlatform()
