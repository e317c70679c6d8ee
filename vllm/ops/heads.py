"""From one row of projections to heads ready for attention: split, normalise, clip, rotate. One op, so it can be fused.

T tokens, H query heads, K key/value heads, D head size, R = rotated dimensions / 2.
"""

from dataclasses import dataclass

import torch

from vllm.ops.norm import rms_norm
from vllm.ops.rope import rope
from vllm.ops.table import Tol, op


@dataclass(frozen=True, slots=True)
class HeadsShape:
    """What stays the same from step to step. Heads are those of this rank.

    A norm weight of D values works per head; eps and weights of None mean no norm, unless `norm` says otherwise.
    """

    heads: int
    kv_heads: int
    dim: int
    eps: float = 0.0
    clip: float | None = None
    interleaved: bool = False


CASES = (
    (3, HeadsShape(4, 2, 64), False, 64),
    (9, HeadsShape(16, 8, 128, 1e-6), True, 128),
    (5, HeadsShape(4, 4, 64, interleaved=True), False, 32),
    (2, HeadsShape(6, 2, 32, clip=0.5), False, 0),
)
"""(T, shape, per-head norms, rotated dimensions)"""


@op(tol=Tol(f32=3e-6, bf16=2e-2, f16=3e-3), cases=CASES)
def split_heads(
    qkv_TJ: torch.Tensor,
    shape: HeadsShape,
    q_norm_D: torch.Tensor | None,
    k_norm_D: torch.Tensor | None,
    cos_TR: torch.Tensor | None,
    sin_TR: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q [T, H, D], k [T, K, D], v [T, K, D] from rows [q | k | v]; norms are RMS per head, before the rotation."""
    tokens, s = qkv_TJ.shape[0], shape
    heads = qkv_TJ.view(tokens, s.heads + 2 * s.kv_heads, s.dim)
    q, k, v = heads.split((s.heads, s.kv_heads, s.kv_heads), 1)
    if q_norm_D is not None:
        q, k = rms_norm(q, q_norm_D, s.eps), rms_norm(k, k_norm_D, s.eps)
    if s.clip is not None:
        q, k, v = (x.clamp(-s.clip, s.clip) for x in (q, k, v))
    if cos_TR is not None:
        q, k = rope(q, cos_TR, sin_TR, s.interleaved), rope(k, cos_TR, sin_TR, s.interleaved)
    return q, k, v
