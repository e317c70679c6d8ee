"""The chip that kernels are made for, asked of torch once, and kernels that only Hopper has. Called by: kernels."""

import functools
import importlib
from dataclasses import dataclass
from types import ModuleType

import torch

from vllm.util.log import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chip:
    """`capability` is that of CUDA, (0, 0) elsewhere; `processors` are streaming multiprocessors."""

    is_nvidia: bool
    capability: tuple[int, int]
    processors: int

    @property
    def is_hopper(self) -> bool:
        """Warpgroup products and the copy engine, as Gluon speaks of them here."""
        return self.is_nvidia and self.capability[0] == 9


@functools.cache
def the_chip() -> Chip:
    """The first device that torch sees."""
    if not torch.cuda.is_available() or torch.version.hip is not None:
        return Chip(False, (0, 0), 1)
    found = torch.cuda.get_device_properties(0)
    return Chip(True, (found.major, found.minor), found.multi_processor_count)


@functools.cache
def for_hopper(name: str, otherwise: str) -> ModuleType | None:
    """The module `name` of this folder, where there is such a chip and this Triton can compile it; it is tried once.

    `otherwise`: what a log says where it cannot.
    """
    if not the_chip().is_hopper:
        return None
    try:
        module = importlib.import_module(f"vllm.ops.triton.{name}")
        module.try_out()
    except Exception as error:  # why: Gluon is experimental, and something else serves without it
        log.warning("%s: %s", otherwise, error)
        return None
    return module
