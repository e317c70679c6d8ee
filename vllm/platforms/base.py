"""What a device room may ask of a platform: facts and the few calls that differ between devices.

At most 15 methods; a platform without kernels of its own runs the references. Each file of this folder is one platform,
found by its NAMES, and holds `PLATFORM`, an object of this shape. Called by: worker, executor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from vllm.util.catalog import Catalogue


class Fetched(Protocol):
    """A tensor on its way to the host."""

    def wait(self) -> torch.Tensor:
        """The tensor on the host, once it is there."""
        ...


@dataclass(slots=True)
class Here:
    """A tensor that is on the host already."""

    x: torch.Tensor

    def wait(self) -> torch.Tensor:
        """The tensor."""
        return self.x


class Platform(Protocol):
    """One kind of device."""

    def is_present(self) -> bool:
        """The machine has one that torch can use."""
        ...

    def capability(self, index: int) -> tuple[int, int]:
        """CUDA compute capability of device `index`; (0, 0) elsewhere."""
        ...

    def prepare(self, index: int, num_threads: int) -> None:
        """Make this process ready to use device `index`; 0 threads means the platform's own choice."""
        ...

    def reserve(self, shape: tuple[int, ...], dtype: torch.dtype, index: int) -> torch.Tensor:
        """Zeroed memory for a cache."""
        ...

    def hold(self, step: int, graph: int, index: int) -> object:
        """Take so many bytes for steps and for graphs, so that none are asked for later; keep the result."""
        ...

    def release(self, index: int) -> None:
        """Let the device have back what nothing here uses any more."""
        ...

    def synchronize(self, index: int) -> None:
        """Wait for everything given to the device."""
        ...

    def runs_behind(self) -> bool:
        """Work is given to the device and done later, so what a step needs of the step before should be kept there."""
        ...

    def send(self, x: torch.Tensor, index: int) -> torch.Tensor:
        """A host tensor on device `index`, behind the work it was given and without waiting. `x` may be reused."""
        ...

    def fetch(self, x: torch.Tensor) -> Fetched:
        """Bring a device tensor to the host behind the work that makes it. `x` may be overwritten by later work."""
        ...

    def shared(self, shape: tuple[int, ...], fill: int) -> torch.Tensor | None:
        """int32 memory of the host that kernels here may write to; None where there is none."""
        ...

    def capture(
        self, warm: Callable[[], torch.Tensor], run: Callable[[], torch.Tensor], index: int
    ) -> tuple[Callable[[], None], torch.Tensor]:
        """(replay, the tensor that it fills) of the work of `run`. `warm` is run once and does the same to other rows.

        Graphs share their memory, so only one result is whole at a time. RuntimeError where it cannot be recorded.
        """
        ...

    def kernel_folders(self) -> tuple[str, ...]:
        """Folders of vllm/ops/ whose kernels may run here."""
        ...

    def backend(self) -> str:
        """torch.distributed's backend between devices of this kind."""
        ...


CATALOGUE = Catalogue("vllm.platforms", "platform")


def platform_of(device: torch.device | str) -> Platform:
    """The platform of a torch device. Raises UnknownName (a ValueError) for a kind nobody here knows."""
    return CATALOGUE.load(torch.device(device).type).PLATFORM  # type: ignore[no-any-return]
