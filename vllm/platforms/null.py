"""A device that holds no data: torch's `meta`. Everything is built and run, nothing is computed."""

import torch

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

    def synchronize(self, index: int) -> None:
        return None

    def kernel_folders(self) -> tuple[str, ...]:
        return ()

    def backend(self) -> str:
        return "gloo"


PLATFORM = NullPlatform()
