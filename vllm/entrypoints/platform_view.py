"""`current_platform`: the device that an engine of this process would take, as vLLM's scripts ask for it.

Does not know: engines. Invariant: importing it asks nothing of the machine. Called by: users, through the facade of
vllm/platforms.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.protocol.facts import DeviceFacts


class CurrentPlatform:
    """What kind of device there is. CUDA and the CPU are told apart; the other kinds are never here."""

    @cached_property
    def _facts(self) -> DeviceFacts:
        from vllm.assembly import device_facts

        return device_facts()

    @property
    def device_type(self) -> str:
        """`cpu` or `cuda`, as torch says it."""
        return self._facts.kind

    @property
    def device_name(self) -> str:
        """The same, as vLLM has it."""
        return self._facts.kind

    @property
    def dispatch_key(self) -> str:
        """`CPU` or `CUDA`."""
        return self._facts.kind.upper()

    def is_cpu(self) -> bool:
        """Whether engines run on the CPU."""
        return self._facts.kind == "cpu"

    def is_cuda(self) -> bool:
        """Whether engines run on an NVIDIA GPU."""
        return self._facts.kind == "cuda"

    is_cuda_alike = is_cuda

    def is_rocm(self) -> bool:
        """Never: AMD GPUs are not in this version."""
        return False

    is_tpu = is_xpu = is_hpu = is_neuron = is_out_of_tree = is_rocm

    def device_count(self) -> int:
        """Devices of this kind."""
        return self._facts.count

    def get_device_name(self, device_id: int = 0) -> str:
        """What the maker calls it."""
        del device_id
        return self._facts.name

    def get_device_total_memory(self, device_id: int = 0) -> int:
        """Bytes of memory."""
        del device_id
        return self._facts.total_bytes

    def is_pin_memory_available(self) -> bool:
        """Whether host memory can be pinned for copies."""
        return self.is_cuda()

    def seed_everything(self, seed: int | None = None) -> None:
        """Seed Python's, numpy's and torch's streams of random numbers; nothing in the engine draws from them."""
        if seed is not None:
            import random

            import numpy as np
            import torch

            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"current_platform has no {name!r} here; device_type says whether it is 'cpu' or 'cuda'")


current_platform = CurrentPlatform()
