"""Attention of sequences with several query tokens over the paged cache: which tiles there are, and the plain kernel.

    work   [items, 4]: sequence, first row, its position, tokens     one item per tile of queries, longest first
    grid   (kv head, item): rows are query tokens x heads of the group, so a tile of keys serves them all

Items are found on the device from query_start and seq_lens; their most follows from the number of tokens, so one
graph serves every mix of lengths. `prefill_hopper.py` does the same for Hopper's warpgroup products; this is its twin.
Called by: attention.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from vllm.ops.attention import AttentionShape
from vllm.ops.batch import Batch
from vllm.ops.triton.chain import CHAINED, follow
from vllm.util.arith import next_power_of_2


@dataclass(slots=True)
class Work:
    """The tiles of queries of a step."""

    items: torch.Tensor
    """[items, 4] int32: sequence, first row of q, its position in the sequence, tokens."""
    count: torch.Tensor
    """[1] int32: items that there are. Its alignment follows the number of sequences, so kernels must not look at it:
    each alignment would be compiled, in seconds, while requests wait."""
    most: int


def find_work(batch: Batch, first: int, tile: int, window: int | None) -> Work:
    """Tiles of `tile` tokens of the sequences from `first` on; computed once per step."""
    key = ("work", first, tile, window)
    found = batch.scratch.get(key)
    if isinstance(found, Work):
        return found
    seqs = batch.num_seqs - first
    start, seq_lens = batch.query_start[first : batch.num_seqs + 1], batch.seq_lens[first : batch.num_seqs]
    lens = start[1:] - start[:-1]
    tiles = (lens + (tile - 1)) // tile
    ends = tiles.cumsum(0, dtype=torch.int32)
    # why: `first` sequences have one token each, so this is a bound that needs no look at the device
    most = (batch.num_tokens - first) // tile + seqs
    i = torch.arange(most, dtype=torch.int32, device=start.device)
    seq = torch.searchsorted(ends, i, right=True, out_int32=True)
    is_real, seq = seq < seqs, seq.clamp(max=seqs - 1)
    skip = (i - (ends - tiles)[seq]) * tile
    position = seq_lens[seq] - lens[seq] + skip
    num = (lens[seq] - skip).clamp(max=tile)
    keys = position + num
    if window is not None:
        keys = torch.minimum(keys, num + window)
    longest = torch.where(is_real, keys, -1).argsort(descending=True)
    items = torch.stack((seq + first, start[seq] + skip, position, num), 1)[longest]
    found = batch.scratch[key] = Work(items, ends[-1:], most)
    return found


@triton.jit
def widen(x, like: tl.constexpr):
    """What was read, in the type that products are taken in."""
    if x.dtype.primitive_bitwidth == 8:
        x = x.to(like)
    return x


@triton.jit
def query_for(query, kept: tl.constexpr):
    """Queries in the type that products with a cache of `kept` are taken in."""
    if kept.primitive_bitwidth == 8 and query.dtype.primitive_bitwidth == 16:
        query = tl.minimum(tl.maximum(query.to(tl.float32), -65504.0), 65504.0).to(tl.float16)
    return query


@triton.jit
def scores(q, k, scale, softcap, SOFTCAP: tl.constexpr):
    """Scores of a tile, in powers of two."""
    return in_powers(tl.dot(q, k, input_precision="ieee"), scale, softcap, SOFTCAP)


@triton.jit
def in_powers(s, scale, softcap, SOFTCAP: tl.constexpr):
    """Products as scores in powers of two."""
    if SOFTCAP:
        e = tl.exp2(s * (scale * 2.0 * 1.4426950408889634 / softcap))
        return softcap * 1.4426950408889634 * (1.0 - 2.0 / (e + 1.0))
    return s * (scale * 1.4426950408889634)


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
        s = scores(query, k, scale, softcap, SOFTCAP)
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


@triton.jit(do_not_specialize=["table_stride"], do_not_specialize_on_alignment=["count"])
def _prefill(q, cache, table, items, count, seq_lens, sinks, out, q_stride, table_stride, block_stride,
             scale, softcap, v_scale, KV: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, BQ: tl.constexpr,
             D: tl.constexpr, N: tl.constexpr, DP: tl.constexpr, NP: tl.constexpr, P: tl.constexpr, TP: tl.constexpr,
             WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, SINKS: tl.constexpr):  # fmt: skip
    head, item = tl.program_id(0), tl.program_id(1)
    follow()
    if item >= tl.load(count):
        return
    seq, start = tl.load(items + item * 4), tl.load(items + item * 4 + 1)
    first, num = tl.load(items + item * 4 + 2), tl.load(items + item * 4 + 3)
    seq_len = tl.load(seq_lens + seq)
    rows, d, n = tl.arange(0, BQ * GP), tl.arange(0, DP), tl.arange(0, NP)
    token, g = rows // GP, rows % GP
    real = (token < num) & (g < G)
    where = (start + token).to(tl.int64)
    query = tl.load(
        q + where[:, None] * q_stride + (head * G + g[:, None]) * D + d[None, :], real[:, None] & (d[None, :] < D), 0.0
    )
    query = query_for(query, cache.dtype.element_ty)
    position = first + token
    end = (first + num - 1) // TP + 1
    begin = tl.maximum(0, first - WINDOW + 1) // TP if WINDOW else 0
    top = tl.full((BQ * GP,), float("-inf"), tl.float32)
    total = tl.zeros((BQ * GP,), tl.float32)
    acc = tl.zeros((BQ * GP, NP), tl.float32)
    line = table + seq.to(tl.int64) * table_stride
    # why: tiles that every query of this program sees whole need no masks, and most tiles are such
    whole_from = (tl.maximum(0, first + num - WINDOW) + TP - 1) // TP if WINDOW else 0
    whole_from = tl.minimum(tl.maximum(whole_from, begin), end)
    whole_to = tl.maximum(whole_from, tl.minimum(end, (first + 1) // TP))
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


@dataclass(frozen=True, slots=True)
class PlainTile:
    """Rows of a program, warps, tiles in flight at most."""

    rows: int
    warps: int
    stages: int


@dataclass(slots=True)
class PrefillCall:
    """What a prefill kernel reads besides q."""

    flat: torch.Tensor
    """[B, elements per block]"""
    table: torch.Tensor
    seq_lens: torch.Tensor
    block_size: int
    shape: AttentionShape
    sinks: torch.Tensor | None


def plain_tile(shape: AttentionShape, itemsize: int) -> PlainTile:
    """Tile choices for a shape."""
    wide = max(shape.dim, shape.v_dim) > 128
    if itemsize == 4:  # why: exact products are long code; 64 rows by 4 warps of 256 columns took 80 s to compile
        return PlainTile(32 if wide else 64, 8, 2)
    return PlainTile(128, 8, 2) if wide else PlainTile(64, 4, 2)


def prefill_plain(q: torch.Tensor, c: PrefillCall, batch: Batch, first: int, out: torch.Tensor, z: PlainTile) -> None:
    """Sequences from `first` on; q [T, H, D] and out [T, H, N] hold the whole step."""
    s, itemsize = c.shape, q.dtype.itemsize
    group = s.heads // s.kv_heads
    padded = next_power_of_2(group)
    per_tile = max(1, z.rows // padded)
    dp, np = max(16, next_power_of_2(s.dim)), max(16, next_power_of_2(s.v_dim))
    keys = min(c.block_size, 64 if itemsize == 2 or dp <= 64 else 32)
    room = (200 << 10) - per_tile * padded * dp * itemsize
    stages = max(1, min(z.stages, room // (keys * (dp + np) * itemsize)))
    work = find_work(batch, first, per_tile, s.window)
    _prefill[(s.kv_heads, work.most)](
        q, c.flat, c.table, work.items, work.count, c.seq_lens, q if c.sinks is None else c.sinks, out, q.stride(0),
        c.table.stride(0), c.flat.stride(0), s.scale * s.k_scale, s.softcap or 0.0, s.v_scale, s.kv_heads, group,
        padded, per_tile, s.dim, s.v_dim, dp, np, c.block_size, keys, s.window or 0, s.softcap is not None,
        c.sinks is not None, num_warps=z.warps, num_stages=stages, **CHAINED,
    )  # fmt: skip
