"""Heads ready for attention on a GPU: norm per head, clip and rotation in one pass over the projections."""

import torch
import triton
import triton.language as tl

from vllm.ops.heads import HeadsShape, split_heads
from vllm.ops.table import Target


@triton.jit
def _heads(qkv, q_norm, k_norm, cos, sin, out, stride, eps, clip, H: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
           DP: tl.constexpr, R: tl.constexpr, NORM: tl.constexpr, CLIP: tl.constexpr,
           INTERLEAVED: tl.constexpr):  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    d = tl.arange(0, DP)
    here = qkv + token * stride + head * D
    x = tl.load(here + d, d < D, 0.0).to(tl.float32)
    # why: dimension d turns with its partner, so each lane reads that too and both are normalised alike
    turned = d < 2 * R
    if INTERLEAVED:
        partner, pair, sign = d ^ 1, d // 2, tl.where(d % 2 == 0, -1.0, 1.0)
    else:
        partner, pair, sign = tl.where(d < R, d + R, d - R), d % R if R else d, tl.where(d < R, -1.0, 1.0)
    is_value = head >= H + K
    if is_value:
        if CLIP:
            x = tl.minimum(tl.maximum(x, -clip), clip)
    else:
        y = tl.load(here + partner, turned & (partner < D), 0.0).to(tl.float32)
        if NORM:
            weights = q_norm if head < H else k_norm
            scale = tl.rsqrt(tl.sum(x * x, 0) / D + eps)
            # why: the reference rounds to the dtype between norm and rotation
            x = (x * scale * tl.load(weights + d, d < D, 0.0)).to(out.dtype.element_ty).to(tl.float32)
            y = y * scale * tl.load(weights + partner, turned & (partner < D), 0.0)
            y = y.to(out.dtype.element_ty).to(tl.float32)
        if CLIP:
            x, y = tl.minimum(tl.maximum(x, -clip), clip), tl.minimum(tl.maximum(y, -clip), clip)
        if R:
            c = tl.load(cos + token * R + pair, turned, 1.0)
            s = tl.load(sin + token * R + pair, turned, 0.0)
            x = tl.where(turned, x * c + sign * y * s, x)
    tl.store(out + token * (H + 2 * K) * D + head * D + d, x.to(out.dtype.element_ty), d < D)


def _on_gpu(target: Target) -> bool:
    return target.device == "cuda"


@split_heads.kernel("triton", when=_on_gpu)
def split_heads_triton(
    qkv_TJ: torch.Tensor,
    shape: HeadsShape,
    q_norm_D: torch.Tensor | None,
    k_norm_D: torch.Tensor | None,
    cos_TR: torch.Tensor | None,
    sin_TR: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See the op; the three results are views of one tensor."""
    s, tokens = shape, qkv_TJ.shape[0]
    heads = s.heads + 2 * s.kv_heads
    out = torch.empty((tokens, heads, s.dim), dtype=qkv_TJ.dtype, device=qkv_TJ.device)
    turned = 0 if cos_TR is None else cos_TR.shape[-1]
    _heads[(tokens, heads)](
        qkv_TJ, qkv_TJ if q_norm_D is None else q_norm_D, qkv_TJ if k_norm_D is None else k_norm_D,
        qkv_TJ if cos_TR is None else cos_TR, qkv_TJ if sin_TR is None else sin_TR, out, qkv_TJ.stride(0), s.eps,
        s.clip or 0.0, s.heads, s.kv_heads, s.dim, triton.next_power_of_2(s.dim), turned, q_norm_D is not None,
        s.clip is not None, s.interleaved, num_warps=1,
    )  # fmt: skip
    return out.split((s.heads, s.kv_heads, s.kv_heads), 1)
