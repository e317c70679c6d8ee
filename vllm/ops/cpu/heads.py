"""Split projections into heads, normalise, clip and rotate them: one pass over the row, in place.

T tokens, H query heads, K key/value heads, D head size, R = rotated dimensions / 2. The heads stay where the projection
wrote them, so q, k and v come back as views of its rows; only attention reads them, and it takes strides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from vllm.ops.cpu.jit import SMALL, kernel
from vllm.ops.cpu.linear import NAMES_OF, _here
from vllm.ops.cpu.values import W
from vllm.ops.heads import HeadsShape, split_heads


@kernel("x:T* q_norm:f32* k_norm:f32* cos:f32* sin:f32* tokens eps:f32 clip:f32")
def _heads(k, x, q_norm, k_norm, cos, sin, tokens, eps, clip, T, heads, kv_heads, dim, half, normed, clipped):
    every = heads + 2 * kv_heads if clipped else heads + kv_heads
    for item in k.share(tokens * every):
        token, head = item // every, item % every
        row = x + (token * (heads + 2 * kv_heads) + head) * dim
        scale = k.f32(1.0)
        if normed:
            acc = k.var(k.f32(0.0, W))
            for i in k.range(0, dim, W):
                v = (row + i).load(W)
                acc.v = k.fma(v, v, acc.v)
            scale = 1.0 / k.sqrt(acc.v.sum() / float(dim) + eps)
        if not clipped:
            _turn(k, row, q_norm, k_norm, cos, sin, token, head, scale, clip, heads, kv_heads, dim, half, normed, False)
            continue
        with k.choose(head < heads + kv_heads) as (keys, values):
            with keys:
                _turn(
                    k, row, q_norm, k_norm, cos, sin, token, head, scale, clip, heads, kv_heads, dim, half, normed, True
                )
            with values:
                for i in k.range(0, dim, W):
                    (row + i).store(k.minimum(k.maximum((row + i).load(W), -clip), clip))


def _turn(k, row, q_norm, k_norm, cos, sin, token, head, scale, clip, heads, kv_heads, dim, half, normed, clipped):
    """Normalise, clip and rotate one head of a query or key, in float32 to the end."""
    weight = k_norm.unless(head < heads, q_norm)

    def ready(i):
        v = (row + i).load(W)
        if normed:
            v = v * scale * (weight + i).load(W)
        return k.minimum(k.maximum(v, -clip), clip) if clipped else v

    for i in range(0, half, W):
        a, b = ready(k.const(i)), ready(k.const(half + i))
        c, s = (cos + token * half + i).load(W), (sin + token * half + i).load(W)
        (row + i).store(a * c - b * s)
        (row + half + i).store(b * c + a * s)
    if normed or clipped:
        for i in range(2 * half, dim, W):
            (row + i).store(ready(k.const(i)))


def _fits(s: HeadsShape, qkv: torch.Tensor, q_norm: torch.Tensor | None, half: int) -> bool:
    """Whole vectors everywhere, pairs a half apart, norms per head."""
    per_head = q_norm is None or q_norm.numel() == s.dim
    return per_head and not s.interleaved and s.dim % W == 0 and half % W == 0 and qkv.is_contiguous()


@split_heads.kernel("jit", when=_here)
def split_heads_jit(
    qkv_TJ: torch.Tensor,
    shape: HeadsShape,
    q_norm_D: torch.Tensor | None,
    k_norm_D: torch.Tensor | None,
    cos_TR: torch.Tensor | None,
    sin_TR: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As the reference, overwriting `qkv_TJ`; shapes it has no vectors for go to the reference."""
    half = 0 if cos_TR is None else cos_TR.shape[-1]
    if not _fits(shape, qkv_TJ, q_norm_D, half):
        return split_heads(qkv_TJ, shape, q_norm_D, k_norm_D, cos_TR, sin_TR)
    s, tokens = shape, qkv_TJ.shape[0]
    if half or q_norm_D is not None or s.clip is not None:
        assert half == 0 or (cos_TR.is_contiguous() and sin_TR.is_contiguous())
        _function(qkv_TJ.dtype, s, half, q_norm_D is not None, qkv_TJ.numel() <= SMALL)(
            qkv_TJ.data_ptr(),
            0 if q_norm_D is None else q_norm_D.data_ptr(),
            0 if k_norm_D is None else k_norm_D.data_ptr(),
            0 if cos_TR is None else cos_TR.data_ptr(),
            0 if sin_TR is None else sin_TR.data_ptr(),
            tokens,
            s.eps,
            0.0 if s.clip is None else s.clip,
        )
    heads = qkv_TJ.view(tokens, s.heads + 2 * s.kv_heads, s.dim)
    return torch.split_with_sizes(heads, (s.heads, s.kv_heads, s.kv_heads), 1)


@functools.cache
def _function(dtype: torch.dtype, s: HeadsShape, half: int, normed: bool, alone: bool) -> Callable[..., None]:
    sizes = {"heads": s.heads, "kv_heads": s.kv_heads, "dim": s.dim, "half": half}
    return _heads.get(alone, T=NAMES_OF[dtype], **sizes, normed=normed, clipped=s.clip is not None)
