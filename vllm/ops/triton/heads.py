"""Heads ready for attention on a GPU: norm per head, clip and rotation in one pass over the projections."""

import functools

import torch
import triton
import triton.language as tl

from vllm.ops.heads import HeadsShape, split_heads
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow
from vllm.util.arith import cdiv, next_power_of_2


@triton.jit
def _heads(qkv, q_norm, k_norm, cos, sin, out, stride, eps, clip, H: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
           DP: tl.constexpr, HB: tl.constexpr, R: tl.constexpr, NORM: tl.constexpr, CLIP: tl.constexpr,
           INTERLEAVED: tl.constexpr):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HB + tl.arange(0, HB)[:, None]
    d = tl.arange(0, DP)[None, :]
    here = (head < H + 2 * K) & (d < D)
    # why: dimension d turns with its partner, so each lane reads that too and both are normalised alike
    turned = d < 2 * R
    if INTERLEAVED:
        partner, pair, sign = d ^ 1, d // 2, tl.where(d % 2 == 0, -1.0, 1.0)
    else:
        partner, pair, sign = tl.where(d < R, d + R, d - R), d % R if R else d, tl.where(d < R, -1.0, 1.0)
    follow()
    start = qkv + token * stride + head * D
    raw = tl.load(start + d, here, 0.0).to(tl.float32)
    x = raw
    if NORM:
        scale = tl.rsqrt(tl.sum(x * x, 1) / D + eps)[:, None]
        weight = tl.where(head < H, tl.load(q_norm + d, d < D, 0.0), tl.load(k_norm + d, d < D, 0.0))
        # why: the reference rounds to the dtype between norm and rotation
        x = tl.where(head < H + K, (x * scale * weight).to(out.dtype.element_ty).to(tl.float32), raw)
    if CLIP:
        x = tl.minimum(tl.maximum(x, -clip), clip)
    if R:
        with_partner = here & turned & (partner < D)
        y = tl.load(start + partner, with_partner, 0.0).to(tl.float32)
        if NORM:
            other = tl.where(
                head < H, tl.load(q_norm + partner, partner < D, 0.0), tl.load(k_norm + partner, partner < D, 0.0)
            )
            y = (y * scale * other).to(out.dtype.element_ty).to(tl.float32)
        if CLIP:
            y = tl.minimum(tl.maximum(y, -clip), clip)
        c = tl.load(cos + token * R + pair, turned, 1.0)
        s = tl.load(sin + token * R + pair, turned, 0.0)
        x = tl.where(turned & (head < H + K), x * c + sign * y * s, x)
    tl.store(out + token * (H + 2 * K) * D + head * D + d, x.to(out.dtype.element_ty), here)


@triton.jit
def _halves(qkv, q_norm, k_norm, cos, sin, out, stride, eps, clip, H: tl.constexpr, K: tl.constexpr,
            R: tl.constexpr, HB: tl.constexpr, NORM: tl.constexpr, CLIP: tl.constexpr):  # fmt: skip
    """The same where all of a head turns, by halves: everything is read once. For many tokens."""
    token = tl.program_id(0).to(tl.int64)
    head, r = tl.program_id(1) * HB + tl.arange(0, HB)[:, None], tl.arange(0, R)[None, :]
    here, is_key = head < H + 2 * K, head >= H
    follow()
    start = token * stride + head * (2 * R) + r
    low, high = tl.load(qkv + start, here, 0.0).to(tl.float32), tl.load(qkv + start + R, here, 0.0).to(tl.float32)
    c, s = tl.load(cos + token * R + r), tl.load(sin + token * R + r)
    a, b = low, high
    if NORM:
        scale = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / (2 * R) + eps)[:, None]
        first = tl.where(is_key, tl.load(k_norm + r), tl.load(q_norm + r))
        second = tl.where(is_key, tl.load(k_norm + R + r), tl.load(q_norm + R + r))
        # why: the reference rounds to the dtype between norm and rotation
        a = (low * scale * first).to(out.dtype.element_ty).to(tl.float32)
        b = (high * scale * second).to(out.dtype.element_ty).to(tl.float32)
    if CLIP:
        a, b = tl.minimum(tl.maximum(a, -clip), clip), tl.minimum(tl.maximum(b, -clip), clip)
        low, high = tl.minimum(tl.maximum(low, -clip), clip), tl.minimum(tl.maximum(high, -clip), clip)
    turns = head < H + K
    spot = out + token * (H + 2 * K) * (2 * R) + head * (2 * R) + r
    tl.store(spot, tl.where(turns, a * c - b * s, low).to(out.dtype.element_ty), here)
    tl.store(spot + R, tl.where(turns, b * c + a * s, high).to(out.dtype.element_ty), here)


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
    most: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See the op; the three results are views of one tensor. `most`: heads of a program, 0 is a choice by tokens."""
    s, tokens = shape, qkv_TJ.shape[0]
    heads = s.heads + 2 * s.kv_heads
    out = torch.empty((tokens, heads, s.dim), dtype=qkv_TJ.dtype, device=qkv_TJ.device)
    # why: many tokens fill the device by themselves, few need their heads spread over it
    together = min(next_power_of_2(heads), most or (16 if tokens >= 256 else 2))
    turned = 0 if cos_TR is None else cos_TR.shape[-1]
    if turned * 2 == s.dim and turned & (turned - 1) == 0 and together > 2 and not s.interleaved:
        _halves[(tokens, cdiv(heads, together))](
            qkv_TJ, qkv_TJ if q_norm_D is None else q_norm_D, qkv_TJ if k_norm_D is None else k_norm_D, cos_TR, sin_TR,
            out, qkv_TJ.stride(0), s.eps, s.clip or 0.0, s.heads, s.kv_heads, turned, together,
            q_norm_D is not None, s.clip is not None, num_warps=4, **CHAINED,
        )  # fmt: skip
        return out.split((s.heads, s.kv_heads, s.kv_heads), 1)
    _heads[(tokens, cdiv(heads, together))](
        qkv_TJ, qkv_TJ if q_norm_D is None else q_norm_D, qkv_TJ if k_norm_D is None else k_norm_D,
        qkv_TJ if cos_TR is None else cos_TR, qkv_TJ if sin_TR is None else sin_TR, out, qkv_TJ.stride(0), s.eps,
        s.clip or 0.0, s.heads, s.kv_heads, s.dim, next_power_of_2(s.dim), together, turned,
        q_norm_D is not None, s.clip is not None, s.interleaved, num_warps=4 if together > 2 else 1, **CHAINED,
    )  # fmt: skip
    return out.split((s.heads, s.kv_heads, s.kv_heads), 1)


# why: how a head's sum is taken follows from the heads of a program
split_heads.kernel("fixed", when=lambda target: _on_gpu(target) and target.deterministic, rank=2)(
    functools.partial(split_heads_triton, most=16)
)
