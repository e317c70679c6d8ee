"""Tables of cosines and sines for rotary embeddings; the frequencies themselves come from the description.

A table covers positions below `max_len`; a step looks its rows up once and all layers with that Rope share them.
Does not know: heads, models. Called by: attention modules, through `RopeTables`.
"""

import torch

from vllm.ops.batch import Batch
from vllm.ops.table import Kernels
from vllm.parts.basic import Rope
from vllm.parts.rope import frequencies


def table(rope: Rope, max_len: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(cos, sin), each [max_len, dim / 2] float32."""
    inverse, factor = frequencies(rope, max_len)
    angles = torch.arange(max_len, dtype=torch.float32)[:, None] * torch.tensor(inverse, dtype=torch.float32)
    return (angles.cos() * factor).to(device), (angles.sin() * factor).to(device)


class RopeTables:
    """All tables of a model: one per distinct Rope, looked up once per step and Rope, shared by its layers."""

    def __init__(self, max_len: int, device: torch.device, ops: Kernels) -> None:
        self._max_len, self._device, self._turns = max_len, device, ops.turns
        self._tables: dict[Rope, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, rope: Rope) -> None:
        """Compute the table of `rope` unless it is there."""
        if rope not in self._tables:
            self._tables[rope] = table(rope, self._max_len, self._device)

    def at(self, rope: Rope, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(cos, sin) at the batch's positions, each [T, dim / 2]."""
        found = batch.scratch.get(rope)
        if found is None:
            cos, sin = self._tables[rope]
            found = batch.scratch[rope] = self._turns(batch.positions, cos, sin)
        return found  # type: ignore[return-value]
