"""Gumbel-max draws in one pass over the logits. N lines, V vocabulary; the noise is the reference's, up to log.

A line is cut into chunks for the threads; a second, tiny pass takes the best of a line's chunks, the lowest token among
equals. Noise is only computed where a logit could still win: it is at most `_MOST` (u is at least 2^-33).
"""

from __future__ import annotations

import torch

from vllm.ops.cpu.jit import kernel
from vllm.ops.cpu.linear import _here
from vllm.ops.cpu.mathlib import log, log1m
from vllm.ops.cpu.values import W
from vllm.ops.draw import LARGEST_U, draw

_CHUNK = 8192
_MOST, _LEAST = 22.9, -2.9
_ODD_A, _ODD_B, _STEP = 569420461, 1935289751, -1640531535
_NEVER = float("-inf")


def _uniform(k, ids, first, second):
    """The reference's hash of a vector of token ids."""
    x = ids * _STEP + first
    for key in (second, None):
        x = (x ^ (x >> 16)) * _ODD_A
        x = (x ^ (x >> 15)) * _ODD_B
        x = x ^ (x >> 15)
        if key is not None:
            x = x + key
    wide = x.unsigned("i64") * 2 + 1
    return k.minimum(wide.to("f32") * 2.0**-33, k.f32(LARGEST_U, W))


@kernel("logits:f32* keys:i32* tops:f32* places:i32* out:i64* lines vocab stride chunks")
def _draw(k, logits, keys, tops, places, out, lines, vocab, stride, chunks):
    for item in k.dynamic(lines * chunks):
        line, start = item // chunks, item % chunks * _CHUNK
        first, second = ((keys + line * 2 + j).load().splat(W) for j in (0, 1))
        best, where = k.var(k.f32(_NEVER, W)), k.var(k.i32(0, W))
        for i in k.range(start, k.minimum(start + _CHUNK, vocab), W):
            v = (logits + line * stride + i).load_part(W, k.minimum(vocab - i, k.const(W)), _NEVER)
            with k.when((v > best.v - (_MOST - _LEAST)).any()):
                ids = k.iota(W) + i.to("i32").splat(W)
                noise = -log(k, -log1m(k, _uniform(k, ids, first, second)))
                y = v + noise
                better = y > best.v
                where.v = better.where(ids, where.v)
                best.v = better.where(y, best.v)
        top = best.v.max()
        (tops + item).store(top)
        (places + item).store(best.v.eq(top.splat(W)).where(where.v, 2**31 - 1).min())
    k.barrier()
    for line in k.share(lines):
        top, place = k.var(k.f32(_NEVER)), k.var(k.i32(0))
        for c in k.range(0, chunks):
            y = (tops + line * chunks + c).load()
            better = y > top.v
            place.v = better.where((places + line * chunks + c).load(), place.v)
            top.v = better.where(y, top.v)
        (out + line).store(place.v.to("i64"))


@draw.kernel("jit", when=lambda target: target.device == "cpu" and _here(target))
def draw_jit(logits_NV: torch.Tensor, keys_N2: torch.Tensor, ids_NV: torch.Tensor | None = None) -> torch.Tensor:
    """As the reference; short lists of candidates go to it."""
    if ids_NV is not None or logits_NV.dtype != torch.float32 or logits_NV.stride(-1) != 1:
        return draw(logits_NV, keys_N2, ids_NV)
    lines, vocab = logits_NV.shape
    chunks = -(-vocab // _CHUNK)
    out = torch.empty(lines, dtype=torch.int64)
    tops, places = torch.empty(lines * chunks), torch.empty(lines * chunks, dtype=torch.int32)
    keys = keys_N2.contiguous()
    _draw.get()(
        *(x.data_ptr() for x in (logits_NV, keys, tops, places, out)),
        *(lines, vocab, logits_NV.stride(0), chunks),
    )
    return out
