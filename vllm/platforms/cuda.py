"""NVIDIA devices (and AMD ones, which torch calls by the same name)."""

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
    return DeviceFacts(
        "cuda", properties.name, total, free, bf16=has_bf16, int8=properties.major >= 7, count=torch.cuda.device_count()
    )


class CudaPlatform:
    """Devices that torch.cuda sees."""

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

    def kernel_folders(self) -> tuple[str, ...]:
        return ("triton",)

    def backend(self) -> str:
        return "nccl"


PLATFORM = CudaPlatform()
