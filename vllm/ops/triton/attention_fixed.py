"""Attention for deterministic mode on a GPU: a query's answer is the same to the bit, however its step was cut.

    share   SPLIT tokens, counted from position 0; tiles of TP keys in each, in order
    answer  share 0 and 1, then 2, then 3, ...                       always joined from the left, in float32

Rows of a tile are query tokens x heads of the group, always as many, so decodes and prompts use the same products.
Few sequences of one token: a program a share, the last one joins. Else one program goes through all shares of its
rows. Multiplications and additions are not fused behind the compiler's back: the two would not be the same otherwise.
Cache layout: `attention.py`; work: `prefill.py`. Called by: layers.
"""

import torch
import triton
import triton.language as tl

from vllm.ops.attention import AttentionShape, attention
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.triton.attention import PagedCache, _leading_decodes, _run_write, layout
from vllm.ops.triton.chain import CHAINED, follow, tickets
from vllm.ops.triton.decode import _both
from vllm.ops.triton.fixed import is_fixed
from vllm.ops.triton.prefill import find_work, query_for, scores, widen
from vllm.util.arith import cdiv, next_power_of_2

_ROWS = 64
"""Rows of a tile: one warpgroup's."""
_SPLIT = 512
_MOST_PROGRAMS = 1 << 14
"""Programs up to which each takes one share."""


@triton.jit
def _share(query, cache, line, begin, end, low, position, seq_len, head, block_stride, scale, softcap,
           KV: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, N: tl.constexpr, DP: tl.constexpr, NP: tl.constexpr,
           P: tl.constexpr, TP: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr):  # fmt: skip
    """Tokens begin .. end of a sequence by themselves."""
    d, n, p = tl.arange(0, DP), tl.arange(0, NP), tl.arange(0, TP)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, NP), tl.float32)
    for t in range(tl.maximum(begin, low) // TP, tl.cdiv(end, TP)):
        at = t * TP + p
        if TP > P:
            base = tl.load(line + at // P, at < seq_len, 0).to(tl.int64) * block_stride
            slot = head * P + at % P
        else:
            base = tl.load(line + t * TP // P).to(tl.int64) * block_stride + p * 0
            slot = head * P + t * TP % P + p
        keys = base + slot * D
        k = widen(tl.load(cache + keys[None, :] + d[:, None], d[:, None] < D, 0.0), query.dtype)
        seen = at[None, :] <= position[:, None]
        if WINDOW:
            seen &= at[None, :] > position[:, None] - WINDOW
        s = tl.where(seen, scores(query, k, scale, softcap, SOFTCAP), float("-inf"))
        new = tl.maximum(top, tl.max(s, 1))
        safe = tl.where(new == float("-inf"), 0.0, new)
        weight = tl.exp2(s - safe[:, None])
        shrink = tl.exp2(top - safe)
        total = total * shrink + tl.sum(weight, 1)
        # why: a slot that was never written may hold NaN, and 0 * NaN is NaN
        values = base + KV * P * D + slot * N
        v = tl.load(cache + values[:, None] + n[None, :], (at[:, None] < seq_len) & (n[None, :] < N), 0.0)
        v = widen(v, query.dtype)
        acc = acc * shrink[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
        top = new
    return top, total, acc


@triton.jit(do_not_specialize=["table_stride", "splits"], do_not_specialize_on_alignment=["count"])
def _attend(q, cache, table, items, count, seq_lens, sinks, part, maxes, sums, tickets, out, q_stride, table_stride,
            block_stride, splits, scale, softcap, v_scale, KV: tl.constexpr, G: tl.constexpr, GP: tl.constexpr,
            ROWS: tl.constexpr, D: tl.constexpr, N: tl.constexpr, DP: tl.constexpr, NP: tl.constexpr, P: tl.constexpr,
            TP: tl.constexpr, SPLIT: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, SINKS: tl.constexpr,
            DECODES: tl.constexpr, SHARED: tl.constexpr):  # fmt: skip
    """`DECODES`: sequences of one token, without a list of work. `SHARED`: a program a share."""
    head, item = tl.program_id(0), tl.program_id(1)
    follow()
    if DECODES:
        seq, start, num = item, item, 1
        first = tl.load(seq_lens + seq) - 1
    else:
        if item >= tl.load(count):
            return
        seq, start = tl.load(items + item * 4), tl.load(items + item * 4 + 1)
        first, num = tl.load(items + item * 4 + 2), tl.load(items + item * 4 + 3)
    low = tl.maximum(0, first - WINDOW + 1) if WINDOW else 0
    begin, end = low // SPLIT, (first + num - 1) // SPLIT + 1
    if SHARED:
        mine = tl.program_id(2)
        if (mine < begin) | (mine >= end):
            return
        come, go = mine, mine + 1
    else:
        come, go = begin, end
    rows, d, n = tl.arange(0, ROWS), tl.arange(0, DP), tl.arange(0, NP)
    token, g = rows // GP, rows % GP
    real = (token < num) & (g < G)
    where = (start + token).to(tl.int64)
    query = tl.load(
        q + where[:, None] * q_stride + (head * G + g[:, None]) * D + d[None, :], real[:, None] & (d[None, :] < D), 0.0
    )
    query = query_for(query, cache.dtype.element_ty)
    position, seq_len = first + token, first + num
    line = table + seq.to(tl.int64) * table_stride
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, NP), tl.float32)
    for s in range(come, go):
        top2, total2, acc2 = _share(
            query, cache, line, s * SPLIT, tl.minimum((s + 1) * SPLIT, seq_len), low, position, seq_len, head,
            block_stride, scale, softcap, KV, ROWS, D, N, DP, NP, P, TP, WINDOW, SOFTCAP,
        )  # fmt: skip
        top, total, acc = _both(top, total, acc, top2, total2, acc2)
    inside = real[:, None] & (n[None, :] < N)
    if SHARED:  # noqa: SIM102 - only the first is known when this is compiled
        if end - begin > 1:
            place = seq.to(tl.int64) * KV + head
            spot = (place * splits + tl.program_id(2)) * G + g
            tl.store(part + spot[:, None] * N + n[None, :], acc, inside)
            tl.store(maxes + spot, top, real)
            tl.store(sums + spot, total, real)
            tl.debug_barrier()
            if tl.atomic_add(tickets + place, 1) != end - begin - 1:
                return
            tl.store(tickets + place, 0)
            top = tl.full((ROWS,), float("-inf"), tl.float32)
            total = tl.zeros((ROWS,), tl.float32)
            acc = tl.zeros((ROWS, NP), tl.float32)
            for s in range(begin, end):
                spot = (place * splits + s) * G + g
                top2 = tl.load(maxes + spot, real, float("-inf"), cache_modifier=".cg")
                total2 = tl.load(sums + spot, real, 0.0, cache_modifier=".cg")
                acc2 = tl.load(part + spot[:, None] * N + n[None, :], inside, 0.0, cache_modifier=".cg")
                top, total, acc = _both(top, total, acc, top2, total2, acc2)
    if SINKS:
        sink = tl.load(sinks + head * G + g, g < G, 0.0) * 1.4426950408889634
        best = tl.maximum(top, sink)
        shrink = tl.exp2(top - best)
        acc = acc * shrink[:, None]
        total = total * shrink + tl.exp2(sink - best)
    y = acc / tl.maximum(total, 1e-30)[:, None] * v_scale
    row = where[:, None] * (KV * G) + head * G + g[:, None]
    tl.store(out + row * N + n[None, :], y.to(out.dtype.element_ty), inside)


@attention.kernel("fixed", when=is_fixed, rank=2, layout=layout)
def attention_fixed(
    q_THD: torch.Tensor,
    k_TKD: torch.Tensor,
    v_TKN: torch.Tensor,
    cache: PagedCache,
    batch: Batch,
    group: GroupBatch,
    shape: AttentionShape,
    sinks_H: torch.Tensor | None = None,
) -> torch.Tensor:
    """See the op. q, k and v are contiguous inside a token; a token's stride is free."""
    decodes = _leading_decodes(batch)
    _run_write((k_TKD, v_TKN), cache.flat, batch, group, shape, 0)
    out = q_THD.new_empty(q_THD.shape[0], shape.heads, shape.v_dim)
    if decodes:
        _run(q_THD, out, cache.flat, batch, group, shape, sinks_H, decodes, True)
    if decodes < batch.num_seqs:
        _run(q_THD, out, cache.flat, batch, group, shape, sinks_H, decodes, False)
    return out


def _run(
    q: torch.Tensor,
    out: torch.Tensor,
    flat: torch.Tensor,
    batch: Batch,
    group: GroupBatch,
    s: AttentionShape,
    sinks: torch.Tensor | None,
    decodes: int,
    is_decode: bool,
) -> None:
    """The first `decodes` sequences, or the others."""
    table, kv, each = group.block_table, s.kv_heads, s.heads // s.kv_heads
    padded, itemsize = next_power_of_2(each), q.dtype.itemsize
    rows = max(_ROWS, padded)
    dp, np = max(16, next_power_of_2(s.dim)), max(16, next_power_of_2(s.v_dim))
    keys = 64 if itemsize == 2 and dp <= 128 else 32
    splits, shared = cdiv(table.shape[1] * group.block_size, _SPLIT), False
    part = maxes = sums = waiting = items = count = out
    if is_decode:
        num = decodes
        shared = splits > 1 and num * kv * splits <= _MOST_PROGRAMS
    else:
        work = find_work(batch, decodes, rows // padded, s.window)
        num, items, count = work.most, work.items, work.count
    if shared:
        part = q.new_empty((num * kv * splits * each, s.v_dim), dtype=torch.float32)
        maxes, sums = q.new_empty((2, num * kv * splits * each), dtype=torch.float32)
        waiting = tickets(q.device, num * kv)
    room = (200 << 10) - rows * dp * itemsize
    stages = max(1, min(3 if is_decode else 2, room // (keys * (dp + np) * itemsize)))
    _attend[(kv, num, splits if shared else 1)](
        q, flat, table, items, count, batch.seq_lens, q if sinks is None else sinks, part, maxes, sums, waiting, out,
        q.stride(0), table.stride(0), flat.stride(0), splits, s.scale * s.k_scale, s.softcap or 0.0, s.v_scale, kv,
        each, padded, rows, s.dim, s.v_dim, dp, np, group.block_size, keys, _SPLIT, s.window or 0,
        s.softcap is not None, sinks is not None, is_decode, shared, num_warps=4, num_stages=stages,
        enable_fp_fusion=False, **CHAINED,
    )  # fmt: skip
