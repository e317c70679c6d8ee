"""NVIDIA devices (and AMD ones, which torch calls by the same name)."""

import torch

from vllm.platforms.base import DeviceFacts

NAMES = ("cuda",)


class CudaPlatform:
    """Devices that torch.cuda sees."""

    def is_present(self) -> bool:
        return torch.cuda.is_available()

    def facts(self, index: int) -> DeviceFacts:
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        capability = (properties.major, properties.minor)
        return DeviceFacts(properties.name, total, free, properties.multi_processor_count, capability)

    def prepare(self, index: int, num_threads: int) -> None:
        torch.cuda.set_device(index)

    def synchronize(self, index: int) -> None:
        torch.cuda.synchronize(index)

    def kernel_folders(self) -> tuple[str, ...]:
        return ("triton",)

    def backend(self) -> str:
        return "nccl"


PLATFORM = CudaPlatform()
