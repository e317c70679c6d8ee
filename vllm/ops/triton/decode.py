"""One token per sequence, from projections to heads' outputs in one kernel on a GPU.

    program (sequence, kv head, share of the cache): norms and turns its queries; the one that reads the newest slot
    does so with the key and writes key and value before it reads; the last of a head to finish joins the shares
    WRITTEN, beside chunks of prompts: queries are ready, and the newest key and value are in the cache

A share is a run of tiles of TP keys, a part of a block or several; how many of them: `decode_ways.py`. Cache layout:
`paged.py`. Called by: layers, attention.
"""

import torch
import triton
import triton.language as tl

from vllm.ops.attention import AttentionShape
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.heads import HeadsShape
from vllm.ops.heads_attention import heads_attention
from vllm.ops.quantize import Quantized
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, behind, lead, tickets
from vllm.ops.triton.decode_hopper import attend_hopper, can
from vllm.ops.triton.decode_ways import EVEN, EVEN_GROUP, way_of
from vllm.ops.triton.linear_hopper import HAS_COPY_ENGINE
from vllm.ops.triton.paged import DecodeCall, PagedCache, Sizes
from vllm.ops.triton.prefill import in_powers, query_for, scores, widen
from vllm.ops.triton.round import in_e4m3
from vllm.ops.triton.small import empty_small, height_of
from vllm.util.arith import next_power_of_2

_MIN_ROWS = 16
"""Fewest rows of a tensor-core product."""
_TILE = 64
"""Keys of a tile, where they are small enough."""
_READY = HeadsShape(0, 0, 0, 0.0)
"""Nothing is to be done with heads."""


@triton.jit
def _prepare(start, partner_start, mask, with_partner, weight, other, cos, sin, sign, eps, clip, D: tl.constexpr,
             R: tl.constexpr, NORM: tl.constexpr, CLIP: tl.constexpr, AXIS: tl.constexpr):  # fmt: skip
    """Heads normed, clipped and turned, as `split_heads` does; dimensions along AXIS. Rounded to the dtype."""
    raw = tl.load(start, mask, 0.0)
    x = raw.to(tl.float32)
    scale = 1.0
    if NORM:
        scale = tl.expand_dims(tl.rsqrt(tl.sum(x * x, AXIS) / D + eps), AXIS)
        # why: the reference rounds to the dtype between norm and rotation
        x = (x * scale * weight).to(raw.dtype).to(tl.float32)
    if CLIP:
        x = tl.minimum(tl.maximum(x, -clip), clip)
    if R:
        y = tl.load(partner_start, with_partner, 0.0).to(tl.float32)
        if NORM:
            y = (y * scale * other).to(raw.dtype).to(tl.float32)
        if CLIP:
            y = tl.minimum(tl.maximum(y, -clip), clip)
        x = x * cos + sign * y * sin
    return x.to(raw.dtype)


@triton.jit
def _tile(cache, line, t, p, d, n, old, lowest, head, block_stride, KV: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
          P: tl.constexpr, TP: tl.constexpr):  # fmt: skip
    """Keys [D, TP] and values [TP, N] of a tile, and which of them there are."""
    at = t * TP + p
    seen = (at < old) & (at >= lowest)
    if TP > P:
        block = tl.load(line + at // P, at < old, 0).to(tl.int64)
        slot = head * P + at % P
    else:
        block = tl.load(line + t * TP // P).to(tl.int64)
        slot = head * P + t * TP % P + p
    base = block * block_stride
    # why: a slot that was never written may hold NaN, and 0 * NaN is NaN; and what nobody sees need not be read
    keys = tl.load(cache + (base + slot * D)[None, :] + d[:, None], seen[None, :] & (d[:, None] < D), 0.0)
    values = tl.load(
        cache + KV * P * D + (base + slot * N)[:, None] + n[None, :], seen[:, None] & (n[None, :] < N), 0.0
    )
    return keys, values, seen


@triton.jit
def _read(query, keys, values, seen, top, total, acc, scale, softcap, SOFTCAP: tl.constexpr):
    """One more tile."""
    keys, values = widen(keys, query.dtype), widen(values, query.dtype)
    score = tl.where(seen[None, :], scores(query, keys, scale, softcap, SOFTCAP), float("-inf"))
    new = tl.maximum(top, tl.max(score, 1))
    safe = tl.where(new == float("-inf"), 0.0, new)
    weight = tl.exp2(score - safe[:, None])
    shrink = tl.exp2(top - safe)
    total = total * shrink + tl.sum(weight, 1)
    acc = acc * shrink[:, None] + tl.dot(weight.to(values.dtype), values, input_precision="ieee")
    return new, total, acc


@triton.jit(do_not_specialize=["table_stride", "shares", "least"])
def _attend(qkv, q_norm, k_norm, cos, sin, slots, cache, table, seq_lens, sinks, part, maxes, sums, tickets, out,
            scales, stride, table_stride, block_stride, shares, least, scale, softcap, eps, clip, v_scale,
            KV: tl.constexpr, G: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, N: tl.constexpr, DP: tl.constexpr,
            NP: tl.constexpr, P: tl.constexpr, TP: tl.constexpr, WRITTEN: tl.constexpr, WINDOW: tl.constexpr,
            SOFTCAP: tl.constexpr, SINKS: tl.constexpr, NORM: tl.constexpr, CLIP: tl.constexpr, R: tl.constexpr,
            INTERLEAVED: tl.constexpr, STAGES: tl.constexpr, AHEAD: tl.constexpr, HEIGHT: tl.constexpr,
            GP: tl.constexpr):  # fmt: skip
    """HEIGHT: tokens of a row of `scales`, where `out` is e4m3; else 0."""
    seq, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    lead()
    seq_len = tl.load(seq_lens + seq)
    # keys that the cache holds; if not WRITTEN the newest one is taken from the projections
    old = seq_len if WRITTEN else seq_len - 1
    lowest = tl.maximum(0, seq_len - WINDOW) if WINDOW else 0
    first, last = lowest // TP, tl.maximum(1, tl.cdiv(old, TP))
    share = tl.maximum(least, tl.cdiv(last - first, shares))
    active = tl.maximum(1, tl.cdiv(last - first, share))
    if split >= active:
        return
    begin = first + split * share
    end = tl.minimum(begin + share, last)
    line = table + seq * table_stride
    rows, d, n, p = tl.arange(0, ROWS), tl.arange(0, DP), tl.arange(0, NP), tl.arange(0, TP)
    real = rows < G
    turned = d < 2 * R
    if INTERLEAVED:
        partner, pair, sign = d ^ 1, d // 2, tl.where(d % 2 == 0, -1.0, 1.0)
    else:
        partner, pair, sign = tl.where(d < R, d + R, d - R), d % R if R else d, tl.where(d < R, -1.0, 1.0)
    paired = turned & (partner < D)
    q_weight, q_other, k_weight, k_other = 1.0, 1.0, 1.0, 1.0
    c, s = 1.0, 1.0
    if NORM:
        q_weight, q_other = tl.load(q_norm + d, d < D, 0.0), tl.load(q_norm + partner, paired, 0.0)
        k_weight, k_other = tl.load(k_norm + d, d < D, 0.0), tl.load(k_norm + partner, paired, 0.0)
        q_weight, q_other = q_weight[None, :], q_other[None, :]
    if AHEAD:
        # why: nobody writes these any more, so they are on their way while the projections are made
        keys, values, seen = _tile(cache, line, begin, p, d, n, old, lowest, head, block_stride, KV, D, N, P, TP)
    behind()
    if R:
        c, s = tl.load(cos + seq * R + pair, turned, 1.0), tl.load(sin + seq * R + pair, turned, 0.0)
    mine = qkv + seq * stride + (head * G + rows[:, None]) * D
    query = _prepare(
        mine + d[None, :], mine + partner[None, :], real[:, None] & (d[None, :] < D), real[:, None] & paired[None, :],
        q_weight, q_other, c[None, :] if R else c, s[None, :] if R else s, sign[None, :], eps, clip, D, R, NORM, CLIP,
        1,
    )  # fmt: skip
    query = query_for(query, cache.dtype.element_ty)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, NP), tl.float32)
    if not WRITTEN and split == active - 1:
        newest = qkv + seq * stride + (KV * G + head) * D
        key = _prepare(
            newest + d, newest + partner, d < D, paired, k_weight, k_other, c, s, sign, eps, clip, D, R, NORM, CLIP, 0
        )
        value = tl.load(newest + KV * D + d, d < D, 0.0)
        if CLIP:
            value = tl.minimum(tl.maximum(value.to(tl.float32), -clip), clip).to(value.dtype)
        slot = tl.load(slots + seq)
        here = cache + slot // P * block_stride + (head * P + slot % P) * D + d
        tl.store(here, key, d < D)
        tl.store(here + KV * P * D, value, d < D)
        top = tl.sum(query.to(tl.float32) * key.to(tl.float32)[None, :], 1)
        top = in_powers(top, scale, softcap, SOFTCAP)
        total += 1.0
        acc += value.to(tl.float32)[None, :]
    if AHEAD:
        top, total, acc = _read(query, keys, values, seen, top, total, acc, scale, softcap, SOFTCAP)
    for t in tl.range(begin + (1 if AHEAD else 0), end, num_stages=STAGES):
        keys, values, seen = _tile(cache, line, t, p, d, n, old, lowest, head, block_stride, KV, D, N, P, TP)
        top, total, acc = _read(query, keys, values, seen, top, total, acc, scale, softcap, SOFTCAP)
    inside = real[:, None] & (n[None, :] < N)
    if active > 1:
        start = (seq * KV + head) * shares
        spot = (start + split) * G + rows
        tl.store(part + spot[:, None] * N + n[None, :], acc, inside)
        tl.store(maxes + spot, top, real)
        tl.store(sums + spot, total, real)
        tl.debug_barrier()
        if tl.atomic_add(tickets + seq * KV + head, 1) != active - 1:
            return
        tl.store(tickets + seq * KV + head, 0)
        top, total, acc = _join(part, maxes, sums, start, active, rows, n, real, inside, G, N, ROWS, NP)
    if SINKS:
        sink = tl.load(sinks + head * G + rows, real, 0.0) * 1.4426950408889634
        best = tl.maximum(top, sink)
        acc = acc * tl.exp2(top - best)[:, None]
        total = total * tl.exp2(top - best) + tl.exp2(sink - best)
    y = acc / tl.maximum(total, 1e-30)[:, None]
    if WRITTEN:
        y *= v_scale
    if HEIGHT:
        # why: only the first rows are queries, and a row costs
        y = tl.sum(tl.reshape(tl.where(real[:, None], y, 0.0), (ROWS // GP, GP, NP)), 0)
        rows = tl.arange(0, GP)
        y, most = in_e4m3(y.to(qkv.dtype.element_ty).to(tl.float32), 1)
        tl.store(scales + (head * G + rows) * HEIGHT + seq, most, rows < G)
        inside = (rows < G)[:, None] & (n[None, :] < N)
    where = (seq * KV + head) * G + rows
    tl.store(out + where[:, None] * N + n[None, :], y.to(out.dtype.element_ty), inside)


@triton.jit
def _piece(part, maxes, sums, i, start, active, rows, n, real, inside, G: tl.constexpr, N: tl.constexpr):
    """Share i of a head; nothing where there is none. why .cg: other programs wrote it a moment ago."""
    at = (start + i) * G + rows
    there = real & (i < active)
    top = tl.load(maxes + at, there, float("-inf"), cache_modifier=".cg")
    total = tl.load(sums + at, there, 0.0, cache_modifier=".cg")
    acc = tl.load(part + at[:, None] * N + n[None, :], inside & (i < active), 0.0, cache_modifier=".cg")
    return top, total, acc


@triton.jit
def _both(top, total, acc, top2, total2, acc2):
    """Two shares as one."""
    new = tl.maximum(top, top2)
    safe = tl.where(new == float("-inf"), 0.0, new)
    old, fresh = tl.exp2(top - safe), tl.exp2(top2 - safe)
    return new, total * old + total2 * fresh, acc * old[:, None] + acc2 * fresh[:, None]


@triton.jit
def _join(part, maxes, sums, start, active, rows, n, real, inside, G: tl.constexpr, N: tl.constexpr,
          ROWS: tl.constexpr, NP: tl.constexpr):  # fmt: skip
    """The shares of a head in their order; four are read at a time, so that one wait serves them."""
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, NP), tl.float32)
    for i in range(0, active, 4):
        t0, s0, a0 = _piece(part, maxes, sums, i, start, active, rows, n, real, inside, G, N)
        t1, s1, a1 = _piece(part, maxes, sums, i + 1, start, active, rows, n, real, inside, G, N)
        t2, s2, a2 = _piece(part, maxes, sums, i + 2, start, active, rows, n, real, inside, G, N)
        t3, s3, a3 = _piece(part, maxes, sums, i + 3, start, active, rows, n, real, inside, G, N)
        top, total, acc = _both(top, total, acc, t0, s0, a0)
        top, total, acc = _both(top, total, acc, t1, s1, a1)
        top, total, acc = _both(top, total, acc, t2, s2, a2)
        top, total, acc = _both(top, total, acc, t3, s3, a3)
    return top, total, acc


def _can(target: Target) -> bool:
    return target.device == "cuda" and target.capability >= (7, 0) and not target.deterministic


@heads_attention.kernel("triton", when=_can)
def heads_attention_triton(
    qkv_TJ: torch.Tensor,
    heads: HeadsShape,
    norms: tuple[torch.Tensor | None, torch.Tensor | None],
    turns: tuple[torch.Tensor | None, torch.Tensor | None],
    cache: PagedCache,
    batch: Batch,
    group: GroupBatch,
    shape: AttentionShape,
    sinks_H: torch.Tensor | None = None,
    small: bool = False,
) -> torch.Tensor | Quantized:
    """See the op. Keys and values have the same size, and the cache has the dtype of the projections."""
    z, seqs, flat = Sizes(shape, group.block_size), qkv_TJ.shape[0], cache.flat
    call = DecodeCall(heads, norms, turns, flat, batch, group, shape, sinks_H)
    shrunk, scales = None, None
    if small:
        shrunk = empty_small(seqs, shape.heads * shape.dim, shape.dim, qkv_TJ.dtype, qkv_TJ.device)
        out, scales = shrunk.values, shrunk.scale
    else:
        out = qkv_TJ.new_empty(seqs, shape.heads, shape.dim)
    if HAS_COPY_ENGINE and seqs * z.kv in EVEN and z.g >= EVEN_GROUP and can(qkv_TJ, flat, shape, z.p):
        attend_hopper(qkv_TJ, call, out, scales)
    else:
        _run(qkv_TJ, call, out, scales)
    return out if shrunk is None else shrunk


def attend_written(
    q_SHD: torch.Tensor,
    flat: torch.Tensor,
    batch: Batch,
    group: GroupBatch,
    shape: AttentionShape,
    sinks_H: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    """The first S sequences of a step have one token each, whose keys and values are in the cache."""
    call = DecodeCall(_READY, (None, None), (None, None), flat, batch, group, shape, sinks_H)
    _run(q_SHD, call, out, None, written=True)


def _run(x: torch.Tensor, c: DecodeCall, out: torch.Tensor, scales: torch.Tensor | None, written: bool = False) -> None:
    """x holds projections or, `written`, queries; with `scales` the result is in e4m3."""
    heads, shape, group, flat, sinks = c.heads, c.shape, c.group, c.flat, c.sinks
    z, seqs, table, itemsize = Sizes(shape, group.block_size), x.shape[0], group.block_table, flat.itemsize
    wide = max(z.dp, z.np)
    tile = _TILE if wide <= 128 and itemsize <= 2 else min(z.p, 64 if itemsize <= 2 or wide <= 64 else 32)
    lean = HAS_COPY_ENGINE and z.dp == z.np == 128 and itemsize == 2 and 4 <= z.g <= 16 and c.norms[0] is None
    way = way_of(seqs * z.kv, max(1, table.shape[1] * z.p // tile), lean)
    # why: what a step has just written must not be read before the kernel that wrote it is done
    shares, ahead = way.shares, way.ahead and not written
    part = maxes = sums = x.new_empty((seqs * z.kv * shares * z.g if shares > 1 else 1, z.n), dtype=torch.float32)
    if shares > 1:
        maxes, sums = x.new_empty((2, part.shape[0]), dtype=torch.float32)
    rows = max(_MIN_ROWS, next_power_of_2(z.g))
    q_norm, k_norm = (x if n is None else n for n in c.norms)
    cos, sin = (x if t is None else t for t in c.turns)
    turned = 0 if c.turns[0] is None else c.turns[0].shape[-1]
    _attend[(seqs, z.kv, shares)](
        x, q_norm, k_norm, cos, sin, group.slot_mapping, flat, table, c.batch.seq_lens,
        maxes if sinks is None else sinks, part, maxes, sums, tickets(x.device, seqs * z.kv), out,
        maxes if scales is None else scales, x.stride(0), table.stride(0), flat.stride(0), shares, way.least,
        shape.scale * shape.k_scale, shape.softcap or 0.0, heads.eps, heads.clip or 0.0, shape.v_scale, z.kv, z.g,
        rows, z.d, z.n, z.dp, z.np, z.p, tile, written, shape.window or 0, shape.softcap is not None,
        sinks is not None, c.norms[0] is not None, heads.clip is not None, turned, heads.interleaved, way.stages, ahead,
        0 if scales is None else height_of(seqs), next_power_of_2(z.g), num_warps=way.warps,
        num_stages=way.stages, **CHAINED,
    )  # fmt: skip
