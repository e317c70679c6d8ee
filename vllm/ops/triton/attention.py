"""Attention over the paged cache on a GPU: write keys and values, then read them, split over the cache for decodes.

    decode   grid (sequence, kv head, split): each program reads its share of the blocks with all query heads of the
             group as rows of one product; a second kernel joins the shares
    other n  `prefill.py`, on Hopper `prefill_hopper.py`: rows are query tokens x heads of the group

One tile of keys is a block of P tokens, or a part of TP of them where a whole one would not fit into shared memory, so
a block table entry is one address. Layout of a block: | K: [K, P, D] | V: [K, P, N] |. Sequences of one token that
lead a step are read as decodes, the rest as prompts. Work is found on the device from query_start and seq_lens: nothing
here depends on host values but the number of sequences of either kind, so one CUDA graph serves every mix of lengths.
A cache in 8 bits is read as float16 (every e4m3 and e5m2 value is one) and multiplied in it, scales left to the ends.
Online softmax in float32 as in Dao, FlashAttention-2 (2023); split reading as in Flash-Decoding (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
import triton
import triton.language as tl

from vllm.ops.attention import AttentionShape, attention
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.table import Target
from vllm.ops.triton.chain import CHAINED, follow
from vllm.ops.triton.chip import for_hopper
from vllm.ops.triton.prefill import PrefillCall, plain_tile, prefill_plain, query_for, widen
from vllm.ops.triton.prefill import scores as _scores
from vllm.ops.triton.round import round_e4m3

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


@triton.jit(do_not_specialize=["tokens", "table_stride", "before"])
def _write(k, v, cache, slots, query_start, seq_lens, table, tokens, k_stride, v_stride, table_stride, block_stride,
           before, k_scale, v_scale, KV: tl.constexpr, D: tl.constexpr, N: tl.constexpr, DP: tl.constexpr,
           NP: tl.constexpr, P: tl.constexpr, MOST: tl.constexpr, BT: tl.constexpr):  # fmt: skip
    """Keys and values of BT tokens into their slots; programs behind those clear the last block of a sequence."""
    tile, head = tl.program_id(0), tl.program_id(1)
    d, n = tl.arange(0, DP)[None, :], tl.arange(0, NP)[None, :]
    follow()
    num_tiles = (tokens + BT - 1) // BT
    if tile < num_tiles:
        token = (tile * BT + tl.arange(0, BT)[:, None]).to(tl.int64)
        slot = tl.load(slots + token, token < tokens, 0)
        block, offset = slot // P, slot % P
        base = cache + block * block_stride
        key = tl.load(k + token * k_stride + head * D + d, (token < tokens) & (d < D))
        key = narrow(key, k_scale, cache.dtype.element_ty, MOST)
        tl.store(base + (head * P + offset) * D + d, key, (token < tokens) & (d < D))
        value = tl.load(v + token * v_stride + head * N + n, (token < tokens) & (n < N))
        value = narrow(value, v_scale, cache.dtype.element_ty, MOST)
        tl.store(base + KV * P * D + (head * P + offset) * N + n, value, (token < tokens) & (n < N))
    else:
        seq = before + tile - num_tiles
        seq_len = tl.load(seq_lens + seq)
        used = seq_len % P
        if (used > 0) & (tl.load(query_start + seq + 1) > tl.load(query_start + seq)):
            block = tl.load(table + seq.to(tl.int64) * table_stride + seq_len // P).to(tl.int64)
            offset = tl.arange(0, P)[:, None]
            spot = cache + block * block_stride + KV * P * D + (head * P + offset) * N + n
            tl.store(spot, tl.zeros((P, NP), tl.float32).to(cache.dtype.element_ty), (offset >= used) & (n < N))


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
    tokens, decodes = q_THD.shape[0], _leading_decodes(batch)
    hopper = _hopper_kernel(q_THD, cache.flat, shape) if decodes < batch.num_seqs else None
    clear = batch.num_seqs - decodes if hopper is not None else 0
    _run_write((k_TKD, v_TKN), cache.flat, batch, group, shape, clear)
    out = q_THD.new_empty(tokens, shape.heads, shape.v_dim)
    if decodes:
        _run_decode(q_THD[:decodes], _Call(cache, batch, group, shape, sizes, sinks_H), out)
    if decodes < batch.num_seqs:
        call = PrefillCall(cache.flat, group.block_table, batch.seq_lens, group.block_size, shape, sinks_H)
        if hopper is not None:
            hopper(q_THD, call, batch, decodes, out)
        else:
            prefill_plain(q_THD, call, batch, decodes, out, plain_tile(shape, q_THD.dtype.itemsize))
    return out


def _hopper() -> ModuleType | None:
    return for_hopper("prefill_hopper", "prefill attention runs on its plain kernel, which is slower")


def _hopper_kernel(q: torch.Tensor, flat: torch.Tensor, shape: AttentionShape) -> Callable[..., None] | None:
    module = _hopper()
    return module.prefill_hopper if module is not None and module.can(q, flat, shape) else None


def _run_write(
    pair: tuple[torch.Tensor, torch.Tensor],
    flat: torch.Tensor,
    batch: Batch,
    group: GroupBatch,
    shape: AttentionShape,
    clear: int,
) -> None:
    """Write the step's keys and values; the last `clear` sequences get zeros behind their last value."""
    (k, v), table, z = pair, group.block_table, _Sizes(shape, group.block_size, pair[0].dtype.itemsize)
    tokens, most = k.shape[0], int(torch.finfo(flat.dtype).max) if flat.dtype.itemsize == 1 else 0
    together = 1 if tokens <= 512 else 16
    _write[(triton.cdiv(tokens, together) + clear, z.kv)](
        k, v, flat, group.slot_mapping, batch.query_start, batch.seq_lens, table, tokens, k.stride(0), v.stride(0),
        table.stride(0), flat.stride(0), batch.num_seqs - clear, shape.k_scale, shape.v_scale, *z.write(), most,
        together, num_warps=1 if together == 1 else 4, **CHAINED,
    )  # fmt: skip


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
