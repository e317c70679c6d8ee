"""Attention over the paged cache, one kernel for decodes, chunks and whole prompts. bf16 or float32.

T tokens, H query heads, K key/value heads, G = H / K, D key size, N value size, B blocks, P tokens per block. Pairs
(bf16 only) put two neighbours of the inner dimension into one 32-bit word, as the dot-product instruction wants them::

    a block   | keys [K, D / pair, P, pair] | values [K, P / pair, N, pair] |

Work is cut into (tile of a sequence's tokens, key/value head): the G query heads of a tile are the rows of two small
matrix products per 16..64 keys, with a running softmax between them. A row meets its keys in the same tiles and order
whatever shares its tile, so a token's result is the same to the bit in a decode, a chunk or a whole prompt.
Keys past the end of a sequence are never multiplied, so what a block held before cannot leak, not even a NaN.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from vllm.ops.attention import AttentionShape, attention
from vllm.ops.attention import layout as reference_layout
from vllm.ops.batch import Batch, GroupBatch
from vllm.ops.cpu import jit
from vllm.ops.cpu.jit import features, kernel
from vllm.ops.cpu.linear import NAMES_OF, _here
from vllm.ops.cpu.mathlib import exp, tanh
from vllm.ops.cpu.tape import CannotRecord, Recorder
from vllm.ops.cpu.tiles import PER_WORD, WORD, columns, multiply, one_step, row_tiles, spread_step, spreads
from vllm.ops.cpu.values import W

ROWS = 36
"""Rows (tokens times query heads of a group) of a tile of a chunk."""
_NEVER = float("-inf")


@dataclass(slots=True)
class PackedCache:
    """One layer's cache: its slab as elements [B, elements per block]."""

    flat: torch.Tensor
    block_size: int
    address: int
    stride: int
    """Elements from a block to the next."""


def layout(slab: torch.Tensor, dtype: torch.dtype, block_size: int, shape: AttentionShape) -> Any:
    """The packed layout, or the reference's for shapes that have no whole vectors."""
    tiles = block_size % 16 == 0 and (block_size <= 64 or block_size % 64 == 0)
    if not tiles or dtype not in NAMES_OF or shape.dim % 16 or shape.v_dim % 16:
        return reference_layout(slab, dtype, block_size, shape)
    flat = slab.view(dtype)
    need = shape.kv_heads * block_size * (shape.dim + shape.v_dim)
    assert need <= flat.shape[1], f"a block needs {need} elements, the slab has {flat.shape[1]}"
    return PackedCache(flat, block_size, flat.data_ptr(), flat.stride(0))


@kernel(
    "q:T* key:T* value:T* cache:T* slots:i64* table:i32* lens:i32* starts:i32* work:i64* sinks:f32* out:T* "
    "tokens items q_stride k_stride v_stride block_stride table_stride scale:f32 cap:f32 window"
)
def _attention(
    k, q, key, value, cache, slots, table, lens, starts, work, sinks, out,
    tokens, items, q_stride, k_stride, v_stride, block_stride, table_stride, scale, cap, window, **fixed,
):  # fmt: skip
    """Write keys and values, wait for all threads, then attend."""
    f = _Fixed(**fixed)
    for head in k.share(f.kv_heads):
        for t in k.range(0, tokens):
            slot = (slots + t).load()
            block = cache + slot // f.P * block_stride
            at = slot % f.P
            _write_key(k, f, block + head * (f.dim * f.P), key + t * k_stride + head * f.dim, at)
            values = block + f.kv_heads * f.dim * f.P + head * (f.v_dim * f.P)
            _write_value(k, f, values, value + t * v_stride + head * f.v_dim, at)
    k.barrier()
    room = _Room(k, f)
    for item in k.dynamic(items * f.kv_heads):
        head, piece = item % f.kv_heads, work + item // f.kv_heads * 3
        seq, offset, num = piece.load(), (piece + 1).load(), (piece + 2).load()
        start, end = ((starts + seq + j).load().to("i64") for j in (0, 1))
        first = (lens + seq).load().to("i64") - (end - start) + offset
        rows, here = num * f.group, start + offset
        _open(k, f, room, q + here * q_stride + head * (f.group * f.dim), q_stride, rows, sinks + head * f.group)
        lowest = k.const(0)
        if f.windowed:
            lowest = k.maximum(first - window + 1, k.const(0)) // f.P
        for b in k.range(lowest, (first + num + f.P - 1) // f.P):
            block = cache + (table + seq * table_stride + b).load().to("i64") * block_stride
            keys = block + head * (f.dim * f.P)
            values = block + f.kv_heads * f.dim * f.P + head * (f.v_dim * f.P)
            for part in range(0, f.P, f.keys):
                base = b * f.P + part
                seen = k.minimum(first + num - base, k.const(f.keys))
                with k.when(seen > 0):
                    _scores(k, f, room, keys + part * PER_WORD[f.T], rows)
                    _softmax(k, f, room, rows, base, first, scale, cap, window)
                    _add_values(k, f, room, values + part * f.v_dim, rows, seen)
        _close(k, f, room, out + (here * f.kv_heads + head) * (f.group * f.v_dim), rows)


@dataclass(frozen=True)
class _Fixed:
    """What a variant of the kernel is compiled for."""

    T: str
    heads: int
    kv_heads: int
    dim: int
    v_dim: int
    P: int
    height: int
    blocks: int
    max_rows: int
    capped: bool
    windowed: bool
    sunk: bool
    spread: bool

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads

    @property
    def rows_of(self) -> str:
        """How queries and weights are held: as they are multiplied."""
        return "f32" if self.spread else self.T

    @property
    def keys(self) -> int:
        """Keys of one tile."""
        return min(self.P, 64)


class _Room:
    """Scratch of one thread: queries, scores, weights, running output, and per row maximum, sum and rescaling."""

    def __init__(self, k: Any, f: _Fixed) -> None:
        self.q = k.scratch(f.rows_of, f.max_rows * f.dim)
        self.s = k.scratch("f32", f.max_rows * f.keys)
        self.p = k.scratch(f.rows_of, f.max_rows * f.keys)
        self.o = k.scratch("f32", f.max_rows * f.v_dim)
        self.top, self.total, self.keep = (k.scratch("f32", f.max_rows) for _ in range(3))


def _write_key(k, f, to, source, at):
    to, source = to.cast(WORD[f.T]), source.cast(WORD[f.T])
    for d in k.range(0, f.dim // PER_WORD[f.T]):
        (to + d * f.P + at).store((source + d).raw())


def _write_value(k, f, to, source, at):
    if f.T == "f32":
        for n in k.range(0, f.v_dim, W):
            (to + at * f.v_dim + n).store((source + n).raw(W))
        return
    shift = ((at & 1) * 16).to("i32").splat(W)
    kept = k.i32(-65536, W) >> shift
    line = to.cast("i32") + at // 2 * f.v_dim
    for n in k.range(0, f.v_dim, W):
        new = (source + n).raw(W).unsigned("i32") << shift
        (line + n).store(((line + n).raw(W) & kept) | new)


def _open(k, f, room, q, q_stride, rows, sinks):
    """Copy the queries together; rows that only fill up the last tile are zero."""
    for r in k.range(0, rows):
        source = q + r // f.group * q_stride + r % f.group * f.dim
        for d in range(0, f.dim, W):
            (room.q + r * f.dim + d).store((source + d).load(W) if f.spread else (source + d).raw(W))
    filled = (rows + f.height - 1) // f.height * f.height
    for i in k.range(rows * f.dim, filled * f.dim, W):
        (room.q + i).store(k.f32(0.0, W))
    for i in k.range(rows * f.keys, filled * f.keys, W):
        (room.p + i).store(k.f32(0.0, W))
    for i in k.range(0, filled * f.v_dim, W):
        (room.o + i).store(k.f32(0.0, W))
    for r in k.range(0, filled):
        (room.keep + r).store(k.f32(0.0))
        (room.top + r).store((sinks + r % f.group).load() if f.sunk else k.f32(_NEVER))
        (room.total + r).store(k.f32(1.0 if f.sunk else 0.0))


def _scores(k, f, room, keys, rows):
    """s[r, key] = q[r] . k[key] for one tile of keys."""
    word, words = WORD[f.T], f.dim // PER_WORD[f.T]
    for r in k.range(0, rows, f.height):
        for c, num in columns(k, f.keys, f.blocks):
            accs = [[k.var(k.f32(0.0, W)) for _ in range(num)] for _ in range(f.height)]
            xs = [(room.q + (r + j) * f.dim).cast("f32" if f.spread else word) for j in range(f.height)]
            ws = [keys.cast(word) + c + W * i for i in range(num)]
            multiply(k, f.T, xs, ws, accs, words, f.P, f.spread)
            for j in range(f.height):
                for i in range(num):
                    (room.s + (r + j) * f.keys + c + W * i).store(accs[j][i].v)


def _softmax(k, f, room, rows, base, first, scale, cap, window):
    """Weights of one tile against the running maximum; what was summed before is scaled down by `keep`."""
    for r in k.range(0, rows):
        position = first + r // f.group
        ahead = (position - base).to("i32")
        scores = []
        for c in range(0, f.keys, W):
            s = (room.s + r * f.keys + c).load(W) * scale
            if f.capped:
                s = tanh(k, s / cap) * cap
            at = k.iota(W) + c
            seen = at <= ahead.splat(W)
            if f.windowed:
                seen = seen & (at > (position - base - window).to("i32").splat(W))
            scores.append(seen.where(s, _NEVER))
        old = (room.top + r).load()
        most = scores[0]
        for s in scores[1:]:
            most = k.maximum(most, s)
        top = k.maximum(old, most.max())
        held = (top > _NEVER).where(top, 0.0)
        total = k.f32(0.0, W)
        for i, s in enumerate(scores):
            p = exp(k, s - held)
            total = total + p
            (room.p + r * f.keys + i * W).store(p)
        keep = exp(k, (old - held).splat(W)).lane(0)
        (room.total + r).store(k.fma((room.total + r).load(), keep, total.sum()))
        (room.keep + r).store(keep)
        (room.top + r).store(top)


def _add_values(k, f, room, values, rows, seen):
    """o[r] = o[r] * keep[r] + p[r] . v over the `seen` keys of the tile."""
    word = WORD[f.T]
    for r in k.range(0, rows, f.height):
        xs = [(room.p + (r + j) * f.keys).cast("f32" if f.spread else word) for j in range(f.height)]
        for c, num in columns(k, f.v_dim, f.blocks):
            places = [[room.o + (r + j) * f.v_dim + c + W * i for i in range(num)] for j in range(f.height)]
            keeps = [(room.keep + r + j).load() for j in range(f.height)]
            accs = [[k.var(p.load(W) * keep) for p in line] for line, keep in zip(places, keeps, strict=True)]
            ws = [values.cast(word) + c + W * i for i in range(num)]
            whole = seen // PER_WORD[f.T]
            multiply(k, f.T, xs, ws, accs, whole, f.v_dim, f.spread)
            if PER_WORD[f.T] == 2:
                with k.when((seen & 1).ne(0)):
                    lone, step = (
                        [(w + whole * f.v_dim).raw(W) & 0xFFFF for w in ws],
                        spread_step if f.spread else one_step,
                    )
                    step(k, f.T, [x + whole * (2 if f.spread else 1) for x in xs], lone, accs)
            for line, row in zip(places, accs, strict=True):
                for place, acc in zip(line, row, strict=True):
                    place.store(acc.v)


def _close(k, f, room, out, rows):
    for r in k.range(0, rows):
        to = out + r // f.group * (f.heads * f.v_dim) + r % f.group * f.v_dim
        scale = 1.0 / (room.total + r).load()
        for c in range(0, f.v_dim, W):
            (to + c).store((room.o + r * f.v_dim + c).load(W) * scale)


def _height(group: int, most: int) -> int:
    """Rows of a register tile for decodes: as few tiles as possible, none of them nearly empty."""
    tiles = -(-group // most)
    return -(-group // tiles)


@functools.cache
def _function(
    dtype: torch.dtype, s: AttentionShape, block_size: int, decodes: bool, sunk: bool
) -> tuple[Callable[..., None], int]:
    """(the kernel, tokens of a tile)."""
    blocks, heights = row_tiles(features())
    num = s.heads // s.kv_heads
    height = _height(num, heights[0]) if decodes else heights[0]
    max_rows = max(-(-num // height) * height, 1 if decodes else ROWS)
    call = _attention.get(
        T=NAMES_OF[dtype],
        heads=s.heads,
        kv_heads=s.kv_heads,
        dim=s.dim,
        v_dim=s.v_dim,
        P=block_size,
        height=height,
        blocks=blocks,
        max_rows=max_rows,
        capped=s.softcap is not None,
        windowed=s.window is not None,
        sunk=sunk,
        spread=spreads(NAMES_OF[dtype], features()),
    )
    return call, max(1, max_rows // num)


@dataclass(slots=True)
class _Step:
    """What all layers of a KV group share in a step: work [items, 3] (sequence, first token, number) and addresses."""

    work: torch.Tensor
    items: int
    before: tuple[int, ...]
    """Addresses of slots, table, lens, starts and work."""
    table_stride: int


def _step(batch: Batch, group: GroupBatch, per_tile: int) -> _Step:
    key = ("cpu attention", id(group), per_tile)
    found = batch.scratch.get(key)
    if found is None:
        items = [
            (s, first, min(per_tile, n - first))
            for s, n in enumerate(batch.query_lens)
            for first in range(0, n, per_tile)
        ]
        work = torch.tensor(items or [(0, 0, 0)], dtype=torch.int64)
        tensors = (group.slot_mapping, group.block_table, batch.seq_lens, batch.query_start, work)
        found = _Step(work, len(items), tuple(x.data_ptr() for x in tensors), group.block_table.stride(0))
        batch.scratch[key] = found
    return found  # type: ignore[return-value]


@attention.kernel("jit", when=_here, layout=layout, recorder=Recorder, rehearsal=jit.rehearsal)
def attention_jit(
    q_THD: torch.Tensor,
    k_TKD: torch.Tensor,
    v_TKN: torch.Tensor,
    cache: Any,
    batch: Batch,
    group: GroupBatch,
    shape: AttentionShape,
    sinks_H: torch.Tensor | None = None,
) -> torch.Tensor:
    """As the reference. The last dimension of q, k and v, and their heads, must lie close together."""
    if not isinstance(cache, PackedCache):
        if jit.listener is not None and jit.listening == threading.get_ident():
            raise CannotRecord("the reference's attention takes lengths from the host")
        return attention(q_THD, k_TKD, v_TKN, cache, batch, group, shape, sinks_H)
    dtype, tokens = q_THD.dtype, q_THD.shape[0]
    call, per_tile = _function(dtype, shape, cache.block_size, batch.max_query_len <= 1, sinks_H is not None)
    step = _step(batch, group, per_tile)
    out = torch.empty((tokens, shape.heads, shape.v_dim), dtype=dtype)
    call(
        *(q_THD.data_ptr(), k_TKD.data_ptr(), v_TKN.data_ptr(), cache.address, *step.before),
        0 if sinks_H is None else sinks_H.data_ptr(),
        out.data_ptr(),
        *(tokens, step.items, q_THD.stride(0), k_TKD.stride(0), v_TKN.stride(0), cache.stride, step.table_stride),
        *(shape.scale, shape.softcap or 0.0, shape.window or 0),
    )
    return out
