"""What every reader yields: a named tensor in a file, readable without a copy where the format allows it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of a checkpoint. `read()` gives it on the CPU (a view of the mapped file: never write to it)."""

    name: str
    file: str
    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]

    @property
    def where(self) -> str:
        """`'name' in file`, for messages."""
        return f"{self.name!r} in {self.file}"
