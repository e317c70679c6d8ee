"""The paged cache as GPU kernels see it: a block is | K: [K, P, D] | V: [K, P, N] |.

Called by: attention, decode, decode_hopper.
"""

from dataclasses import dataclass

import torch

from vllm.ops.attention import AttentionShape
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.heads import HeadsShape
from vllm.util.arith import next_power_of_2


@dataclass(slots=True)
class PagedCache:
    """One layer's cache: the slab as elements of the dtype."""

    flat: torch.Tensor
    """[B, elements per block]"""


def layout(slab: torch.Tensor, dtype: torch.dtype, block_size: int, shape: AttentionShape) -> PagedCache:
    """The slab [B, bytes] as elements."""
    flat = slab.view(dtype)
    need = shape.kv_heads * block_size * (shape.dim + shape.v_dim)
    assert need <= flat.shape[1], f"a block needs {need} elements, the slab has {flat.shape[1]}"
    return PagedCache(flat)


class Sizes:
    """Constants of the kernels for one shape."""

    def __init__(self, shape: AttentionShape, block_size: int) -> None:
        self.kv, self.g = shape.kv_heads, shape.heads // shape.kv_heads
        self.d, self.n, self.p = shape.dim, shape.v_dim, block_size
        self.dp = max(16, next_power_of_2(self.d))
        self.np = max(16, next_power_of_2(self.n))


@dataclass(slots=True)
class DecodeCall:
    """What a kernel that reads one token per sequence is told beside its projections."""

    heads: HeadsShape
    norms: tuple[torch.Tensor | None, torch.Tensor | None]
    turns: tuple[torch.Tensor | None, torch.Tensor | None]
    flat: torch.Tensor
    """The cache's."""
    batch: Batch
    group: GroupBatch
    shape: AttentionShape
    sinks: torch.Tensor | None
