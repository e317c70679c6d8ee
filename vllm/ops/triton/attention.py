"""Attention over the paged cache on a GPU: write keys and values, then read them, split over the cache for decodes.

    decode   grid (sequence, kv head, split): each program reads its share of the blocks with all query heads of the
             group as rows of one product; a second kernel joins the shares
    other n  grid (tile of queries, kv head): rows are query tokens x heads of the group

One tile of keys is a block of P tokens, or a part of TP of them where a whole one would not fit into shared memory, so
a block table entry is one address. Layout of a block: | K: [K, P, D] | V: [K, P, N] |. Sequences of one token that
lead a step are read as decodes, the rest as prompts. Work is found on the device from query_start and seq_lens: nothing
here depends on host values but the number of sequences of either kind, so one CUDA graph serves every mix of lengths.
A cache in 8 bits is read as float16 (every e4m3 and e5m2 value is one) and multiplied in it, scales left to the ends.
Online softmax in float32 as in Dao, FlashAttention-2 (2023); split reading as in Flash-Decoding (2023).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from vllm.ops.attention import AttentionShape, attention
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow
from vllm.ops.triton.round import round_e4m3

_LOG2E = 1.4426950408889634
_MIN_ROWS = 16
"""Fewest rows of a tensor-core product."""
_PROGRAMS = 132 * 4
"""Programs that keep an H100 or H200 busy while they wait for memory."""
_SHARED = 160 << 10
"""Bytes of shared memory that tiles in flight may take; an H100 has 227 KiB for everything."""


@dataclass(slots=True)
class PagedCache:
    """One layer's cache: the slab as elements of the dtype; see the module for what is where."""

    flat: torch.Tensor
    """[B, elements per block]"""


def layout(slab: torch.Tensor, dtype: torch.dtype, block_size: int, shape: AttentionShape) -> PagedCache:
    """The slab [B, bytes] as elements."""
    flat = slab.view(dtype)
    need = shape.kv_heads * block_size * (shape.dim + shape.v_dim)
    assert need <= flat.shape[1], f"a block needs {need} elements, the slab has {flat.shape[1]}"
    return PagedCache(flat)


@triton.jit
def narrow(x, scale, kept: tl.constexpr, MOST: tl.constexpr):
    """x as the cache keeps it; MOST is the largest value of an 8-bit type, 0 for others."""
    if MOST:
        x = tl.minimum(tl.maximum(tl.div_rn(x.to(tl.float32), scale), -MOST), MOST)
        if kept == tl.float8e4nv:
            x = round_e4m3(x)
        x = x.to(kept)
    return x


@triton.jit
def widen(x, like: tl.constexpr):
    """What was read, in the type that products are taken in."""
    if x.dtype.primitive_bitwidth == 8:
        x = x.to(like)
    return x


@triton.jit
def _write(k, v, cache, slots, k_stride, v_stride, block_stride, k_scale, v_scale, KV: tl.constexpr, D: tl.constexpr,
           N: tl.constexpr, DP: tl.constexpr, NP: tl.constexpr, P: tl.constexpr, MOST: tl.constexpr):  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    follow()
    slot = tl.load(slots + token)
    block, offset = slot // P, slot % P
    base = cache + block * block_stride
    d, n = tl.arange(0, DP), tl.arange(0, NP)
    key = tl.load(k + token * k_stride + head * D + d, d < D)
    tl.store(base + (head * P + offset) * D + d, narrow(key, k_scale, cache.dtype.element_ty, MOST), d < D)
    value = tl.load(v + token * v_stride + head * N + n, n < N)
    value = narrow(value, v_scale, cache.dtype.element_ty, MOST)
    tl.store(base + KV * P * D + (head * P + offset) * N + n, value, n < N)


@triton.jit
def _scores(q, k, scale, softcap, SOFTCAP: tl.constexpr):
    """Scores of tile products, in powers of two."""
    s = tl.dot(q, k, input_precision="ieee")
    if SOFTCAP:
        e = tl.exp2(s * (scale * 2.0 * 1.4426950408889634 / softcap))
        return softcap * 1.4426950408889634 * (1.0 - 2.0 / (e + 1.0))
    return s * (scale * 1.4426950408889634)


@triton.jit
def query_for(query, kept: tl.constexpr):
    """Queries in the type that products with a cache of `kept` are taken in."""
    if kept.primitive_bitwidth == 8 and query.dtype.primitive_bitwidth == 16:
        query = tl.minimum(tl.maximum(query.to(tl.float32), -65504.0), 65504.0).to(tl.float16)
    return query


@triton.jit(do_not_specialize=["table_stride"])
def _decode(q, cache, table, seq_lens, part, maxes, sums, q_stride, table_stride, block_stride, scale, softcap,
            KV: tl.constexpr, G: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, N: tl.constexpr, DP: tl.constexpr,
            NP: tl.constexpr, P: tl.constexpr, TP: tl.constexpr, SPLITS: tl.constexpr, WINDOW: tl.constexpr,
            SOFTCAP: tl.constexpr):  # fmt: skip
    seq, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    follow()
    seq_len = tl.load(seq_lens + seq)
    lowest = tl.maximum(0, seq_len - WINDOW) if WINDOW else 0
    first, last = lowest // TP, tl.cdiv(seq_len, TP)
    share = tl.cdiv(last - first, SPLITS)
    begin = first + split * share
    end = tl.minimum(begin + share, last)
    rows, d, n, p = tl.arange(0, ROWS), tl.arange(0, DP), tl.arange(0, NP), tl.arange(0, TP)
    real = rows < G
    query = tl.load(
        q + seq * q_stride + (head * G + rows[:, None]) * D + d[None, :], real[:, None] & (d[None, :] < D), 0.0
    )
    query = query_for(query, cache.dtype.element_ty)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, NP), tl.float32)
    for t in range(begin, end):
        base = cache + tl.load(table + seq * table_stride + t * TP // P).to(tl.int64) * block_stride
        at = t * TP + p
        slot = head * P + t * TP % P + p
        k = widen(tl.load(base + slot[None, :] * D + d[:, None], d[:, None] < D, 0.0), query.dtype)
        seen = (at < seq_len) & (at >= lowest)
        # why: a slot that was never written may hold NaN, and 0 * NaN is NaN
        v = tl.load(base + KV * P * D + slot[:, None] * N + n[None, :], seen[:, None] & (n[None, :] < N), 0.0)
        v = widen(v, query.dtype)
        s = tl.where(seen[None, :], _scores(query, k, scale, softcap, SOFTCAP), float("-inf"))
        new = tl.maximum(top, tl.max(s, 1))
        safe = tl.where(new == float("-inf"), 0.0, new)
        weight = tl.exp2(s - safe[:, None])
        shrink = tl.exp2(top - safe)
        total = total * shrink + tl.sum(weight, 1)
        acc = acc * shrink[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
        top = new
    at = ((seq * KV + head) * SPLITS + split) * G + rows
    tl.store(part + at[:, None] * N + n[None, :], acc, real[:, None] & (n[None, :] < N))
    tl.store(maxes + at, top, real)
    tl.store(sums + at, total, real)


@triton.jit
def _join(part, maxes, sums, sinks, out, v_scale, G: tl.constexpr, KV: tl.constexpr, N: tl.constexpr, NP: tl.constexpr,
          SPLITS: tl.constexpr, SP: tl.constexpr, SINKS: tl.constexpr):  # fmt: skip
    seq, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    kv, g = head // G, head % G
    i, n = tl.arange(0, SP), tl.arange(0, NP)
    follow()
    at = ((seq * KV + kv) * SPLITS + i) * G + g
    there = i < SPLITS
    top = tl.load(maxes + at, there, float("-inf"))
    best = tl.max(top, 0)
    if SINKS:
        sink = tl.load(sinks + head) * 1.4426950408889634
        best = tl.maximum(best, sink)
    safe = tl.where(best == float("-inf"), 0.0, best)
    weight = tl.exp2(top - safe)
    total = tl.sum(weight * tl.load(sums + at, there, 0.0), 0)
    if SINKS:
        total += tl.exp2(sink - safe)
    acc = tl.load(part + at[:, None] * N + n[None, :], there[:, None] & (n[None, :] < N), 0.0)
    y = tl.sum(acc * weight[:, None], 0) / tl.maximum(total, 1e-30) * v_scale
    tl.store(out + (seq * KV * G + head) * N + n, y.to(out.dtype.element_ty), n < N)


@triton.jit
def _read(query, top, total, acc, cache, line, begin, end, position, seq_len, head, block_stride, scale, softcap,
          KV: tl.constexpr, D: tl.constexpr, N: tl.constexpr, DP: tl.constexpr, NP: tl.constexpr, P: tl.constexpr,
          TP: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, MASK: tl.constexpr):  # fmt: skip
    """Tiles begin .. end of a sequence, for the queries of a program. `MASK`: some may not see all of their keys."""
    d, n, p = tl.arange(0, DP), tl.arange(0, NP), tl.arange(0, TP)
    for t in range(begin, end):
        base = cache + tl.load(line + t * TP // P).to(tl.int64) * block_stride
        slot = head * P + t * TP % P + p
        if D == DP:
            k = tl.load(base + slot[None, :] * D + d[:, None])
        else:
            k = tl.load(base + slot[None, :] * D + d[:, None], d[:, None] < D, 0.0)
        k = widen(k, query.dtype)
        s = _scores(query, k, scale, softcap, SOFTCAP)
        values = base + KV * P * D + slot[:, None] * N + n[None, :]
        if MASK:
            at = t * TP + p
            seen = at[None, :] <= position[:, None]
            if WINDOW:
                seen &= at[None, :] > position[:, None] - WINDOW
            s = tl.where(seen, s, float("-inf"))
            new = tl.maximum(top, tl.max(s, 1))
            safe = tl.where(new == float("-inf"), 0.0, new)
            # why: a slot that was never written may hold NaN, and 0 * NaN is NaN
            v = tl.load(values, (at[:, None] < seq_len) & (n[None, :] < N), 0.0)
        else:
            new = tl.maximum(top, tl.max(s, 1))
            safe = new
            v = tl.load(values) if N == NP else tl.load(values, n[None, :] < N, 0.0)
        v = widen(v, query.dtype)
        weight = tl.exp2(s - safe[:, None])
        shrink = tl.exp2(top - safe)
        total = total * shrink + tl.sum(weight, 1)
        acc = acc * shrink[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
        top = new
    return top, total, acc


@triton.jit(do_not_specialize=["num_seqs", "before", "table_stride"])
def _prefill(q, cache, table, query_start, seq_lens, sinks, out, num_seqs, before, q_stride, table_stride, block_stride,
             scale, softcap, v_scale, KV: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, BQ: tl.constexpr,
             D: tl.constexpr, N: tl.constexpr, DP: tl.constexpr, NP: tl.constexpr, P: tl.constexpr, TP: tl.constexpr,
             WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, SINKS: tl.constexpr):  # fmt: skip
    # why: the longest causal tiles come last in a sequence; starting with them leaves no long tail
    tile, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)
    follow()
    # why: `before` sequences of one token are read elsewhere; of the others s owns the tiles from
    # query_start[s] // BQ + s on, an upper bound that needs no host
    low, high = 0, num_seqs - 1
    while low < high:
        middle = (low + high + 1) // 2
        if (tl.load(query_start + before + middle) - before) // BQ + middle <= tile:
            low = middle
        else:
            high = middle - 1
    seq = before + low
    start = tl.load(query_start + seq) - before
    query_len = tl.load(query_start + seq + 1) - before - start
    first_query = (tile - (start // BQ + low)) * BQ
    if first_query >= query_len:
        return
    seq_len = tl.load(seq_lens + seq)
    context = seq_len - query_len
    rows, d, n = tl.arange(0, BQ * GP), tl.arange(0, DP), tl.arange(0, NP)
    token, g = first_query + rows // GP, rows % GP
    real = (token < query_len) & (g < G)
    where = (start + token).to(tl.int64)
    query = tl.load(
        q + where[:, None] * q_stride + (head * G + g[:, None]) * D + d[None, :], real[:, None] & (d[None, :] < D), 0.0
    )
    query = query_for(query, cache.dtype.element_ty)
    position = context + token
    last_token = tl.minimum(first_query + BQ, query_len) - 1
    end = (context + last_token) // TP + 1
    begin = tl.maximum(0, context + first_query - WINDOW + 1) // TP if WINDOW else 0
    top = tl.full((BQ * GP,), float("-inf"), tl.float32)
    total = tl.zeros((BQ * GP,), tl.float32)
    acc = tl.zeros((BQ * GP, NP), tl.float32)
    line = table + seq.to(tl.int64) * table_stride
    # why: tiles that every query of this program sees whole need no masks, and most tiles are such
    whole_from = (tl.maximum(0, context + last_token - WINDOW + 1) + TP - 1) // TP if WINDOW else 0
    whole_from = tl.minimum(tl.maximum(whole_from, begin), end)
    whole_to = tl.maximum(whole_from, tl.minimum(end, (context + first_query + 1) // TP))
    if WINDOW:
        top, total, acc = _read(
            query, top, total, acc, cache, line, begin, whole_from, position, seq_len, head, block_stride, scale,
            softcap, KV, D, N, DP, NP, P, TP, WINDOW, SOFTCAP, True,
        )  # fmt: skip
    top, total, acc = _read(
        query, top, total, acc, cache, line, whole_from, whole_to, position, seq_len, head, block_stride, scale,
        softcap, KV, D, N, DP, NP, P, TP, WINDOW, SOFTCAP, False,
    )  # fmt: skip
    top, total, acc = _read(
        query, top, total, acc, cache, line, whole_to, end, position, seq_len, head, block_stride, scale,
        softcap, KV, D, N, DP, NP, P, TP, WINDOW, SOFTCAP, True,
    )  # fmt: skip
    if SINKS:
        sink = tl.load(sinks + head * G + g, g < G, 0.0) * 1.4426950408889634
        best = tl.maximum(top, sink)
        shrink = tl.exp2(top - best)
        acc = acc * shrink[:, None]
        total = total * shrink + tl.exp2(sink - best)
    y = acc / tl.maximum(total, 1e-30)[:, None] * v_scale
    row = where[:, None] * (KV * G) + head * G + g[:, None]
    tl.store(out + row * N + n[None, :], y.to(out.dtype.element_ty), real[:, None] & (n[None, :] < N))


def _can(target: Target) -> bool:
    return target.device == "cuda" and target.capability >= (7, 0)


@attention.kernel("triton", when=_can, layout=layout)
def attention_triton(
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
    sizes = _Sizes(shape, group.block_size, q_THD.dtype.itemsize)
    tokens = q_THD.shape[0]
    strides = (k_TKD.stride(0), v_TKN.stride(0), cache.flat.stride(0))
    most = int(torch.finfo(cache.flat.dtype).max) if cache.flat.dtype.itemsize == 1 else 0
    _write[(tokens, sizes.kv)](
        k_TKD, v_TKN, cache.flat, group.slot_mapping, *strides, shape.k_scale, shape.v_scale, *sizes.write(), most,
        **CHAINED,
    )  # fmt: skip
    out = q_THD.new_empty(tokens, shape.heads, shape.v_dim)
    call = _Call(cache, batch, group, shape, sizes, sinks_H)
    decodes = _leading_decodes(batch)
    if decodes:
        _run_decode(q_THD[:decodes], call, out)
    if decodes < batch.num_seqs:
        _run_prefill(q_THD[decodes:], call, decodes, out[decodes:])
    return out


def _leading_decodes(batch: Batch) -> int:
    """Sequences of one query token before the first that has more."""
    if batch.max_query_len == 1:
        return batch.num_seqs
    return next(i for i, n in enumerate(batch.query_lens) if n != 1)


class _Sizes:
    """Constants of the kernels for one shape."""

    def __init__(self, shape: AttentionShape, block_size: int, itemsize: int) -> None:
        self.kv, self.g = shape.kv_heads, shape.heads // shape.kv_heads
        self.d, self.n, self.p = shape.dim, shape.v_dim, block_size
        self.dp = max(16, triton.next_power_of_2(self.d))
        self.np = max(16, triton.next_power_of_2(self.n))
        self.tp = min(block_size, 64 if itemsize == 2 or self.dp <= 64 else 32)
        self._row = self.dp * itemsize
        self._tile = self.tp * (self.dp + self.np) * itemsize

    def write(self) -> tuple[int, ...]:
        return self.kv, self.d, self.n, self.dp, self.np, self.p

    def stages(self, rows: int, most: int) -> int:
        """Tiles in flight beside `rows` rows of queries."""
        return max(1, min(most, (_SHARED - rows * self._row) // self._tile))


@dataclass(slots=True)
class _Call:
    """What both kernels read of a call."""

    cache: PagedCache
    batch: Batch
    group: GroupBatch
    shape: AttentionShape
    sizes: _Sizes
    sinks: torch.Tensor | None


def num_splits(num_seqs: int, kv_heads: int, tiles: int) -> int:
    """Shares that a sequence's tiles are read in: enough programs to fill the device, none without a tile."""
    wanted = max(1, _PROGRAMS // max(1, num_seqs * kv_heads))
    return min(64, triton.next_power_of_2(wanted), triton.next_power_of_2(max(1, tiles)))


def _run_decode(q: torch.Tensor, c: _Call, out: torch.Tensor) -> None:
    seqs, table, z, shape, flat = q.shape[0], c.group.block_table, c.sizes, c.shape, c.cache.flat
    splits = num_splits(seqs, z.kv, table.shape[1] * (z.p // z.tp))
    parts = q.new_empty((seqs * z.kv * splits * z.g, z.n), dtype=torch.float32)
    maxes, sums = q.new_empty((2, seqs * z.kv * splits * z.g), dtype=torch.float32)
    rows = max(_MIN_ROWS, triton.next_power_of_2(z.g))
    _decode[(seqs, z.kv, splits)](
        q, flat, table, c.batch.seq_lens, parts, maxes, sums, q.stride(0), table.stride(0), flat.stride(0),
        shape.scale * shape.k_scale, shape.softcap or 0.0, z.kv, z.g, rows, z.d, z.n, z.dp, z.np, z.p, z.tp, splits,
        shape.window or 0, shape.softcap is not None, num_warps=4, num_stages=z.stages(rows, 3), **CHAINED,
    )  # fmt: skip
    _join[(seqs, shape.heads)](
        parts, maxes, sums, c.sinks if c.sinks is not None else maxes, out, shape.v_scale, z.g, z.kv, z.n, z.np, splits,
        splits, c.sinks is not None, num_warps=2, **CHAINED,
    )  # fmt: skip


def _run_prefill(q: torch.Tensor, c: _Call, first: int, out: torch.Tensor) -> None:
    """Sequences from `first` on; those before it have one token each."""
    z, shape, flat, batch = c.sizes, c.shape, c.cache.flat, c.batch
    padded = triton.next_power_of_2(z.g)
    rows = 128 if z.dp <= 128 else 64
    per_tile = max(1, rows // padded)
    seqs = batch.num_seqs - first
    table = c.group.block_table
    _prefill[(q.shape[0] // per_tile + seqs, z.kv)](
        q, flat, table, batch.query_start, batch.seq_lens, c.sinks if c.sinks is not None else q, out,
        seqs, first, q.stride(0), table.stride(0), flat.stride(0), shape.scale * shape.k_scale, shape.softcap or 0.0,
        shape.v_scale, z.kv, z.g, padded, per_tile, z.d, z.n, z.dp, z.np, z.p, z.tp, shape.window or 0,
        shape.softcap is not None, c.sinks is not None, num_warps=8 if per_tile * padded >= 128 else 4,
        num_stages=z.stages(per_tile * padded, 3), **CHAINED,
    )  # fmt: skip
