"""Attention straight from the projections of a step in which every sequence has one token.

T tokens (one per sequence), H query heads, K key/value heads, D head size, J = (H + 2K) D, R = rotated dimensions / 2.
A fused op: its reference is the composition of `split_heads` and `attention`. The cache is that of the attention
kernel of the same name. Called by: layers.
"""

import torch

from vllm.ops.attention import AttentionShape, Cache, attention
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.heads import HeadsShape, split_heads
from vllm.ops.quantize import Intake, Quantized, quantize
from vllm.ops.table import Tol, op


@op(tol=Tol(f32=1e-5, bf16=2e-2, f16=4e-3))
def heads_attention(
    qkv_TJ: torch.Tensor,
    heads: HeadsShape,
    norms: tuple[torch.Tensor | None, torch.Tensor | None],
    turns: tuple[torch.Tensor | None, torch.Tensor | None],
    cache: Cache,
    batch: Batch,
    group: GroupBatch,
    shape: AttentionShape,
    sinks_H: torch.Tensor | None = None,
    small: bool = False,
) -> torch.Tensor | Quantized:
    """[T, H, D] from rows [q | k | v]; `norms` of queries and keys, `turns` are cosines and sines [T, R].

    `small`: [T, H * D] in e4m3 with a scale for each head.
    """
    q, k, v = split_heads(qkv_TJ, heads, *norms, *turns)
    y: torch.Tensor = attention(q, k, v, cache, batch, group, shape, sinks_H)
    return quantize(y.flatten(1), Intake(group=shape.dim)) if small else y
