"""Prefill attention for Hopper: a warp that only copies, and two groups of four warps that only multiply.

    copier        block table ─ TMA ─▶ queries, keys, values in shared memory, STAGES tiles ahead, also of the next item
    multiplier 0  rows 0 .. 63   ┐  s' = q k' and acc += p v are in flight while the softmax of s' waits for s' alone;
    multiplier 1  rows 64 .. 127 ┘  the two take turns in giving products to the tensor cores

Persistent: each program takes items of `prefill.Work` in rounds, the longest first. A tile of BN keys is BN / P boxes,
one per block, laid out so that together they are one swizzled matrix. Scheme of Shah et al., FlashAttention-3 (2024).
Gluon is experimental, so `prefill.prefill_plain` is its twin and serves where this does not compile.

Invariant: values of the last block behind a sequence's end are finite (`attention._write` clears them): they are
multiplied by zero. Called by: attention.
"""

from dataclasses import dataclass

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from vllm.ops.attention import AttentionShape
from vllm.ops.batch import Batch
from vllm.ops.triton.chip import the_chip
from vllm.ops.triton.prefill import PrefillCall, find_work
from vllm.util.arith import next_power_of_2


@gluon.jit
def _item(work, i, KV: gl.constexpr):
    """(sequence, first row, first position, tokens, head) of item i."""
    at = work + (i // KV) * 4
    return gl.load(at), gl.load(at + 1), gl.load(at + 2), gl.load(at + 3), i % KV


@gluon.jit
def _span(position, num, BN: gl.constexpr, WINDOW: gl.constexpr):
    """Tiles begin .. end that an item reads."""
    end = (position + num - 1) // BN + 1
    begin = 0
    if WINDOW:
        begin = gl.maximum(0, position - WINDOW + 1) // BN
    return begin, end


@gluon.jit
def _nth(r, total):
    """Item of this program in round r; rounds go to and fro so that no program gets the longer ones each time."""
    pid, num = gl.program_id(0), gl.num_programs(0)
    return r * num + gl.where(r % 2 == 0, pid, num - 1 - pid)


@gluon.jit
def _produce(qd, kd, vd, work, count, table, table_stride, seq_lens, q_buf, k_buf, v_buf, q_full, q_empty, k_full,
             k_empty, v_full, v_empty, KV: gl.constexpr, G: gl.constexpr, GP: gl.constexpr, BQ2: gl.constexpr,
             D: gl.constexpr, BN: gl.constexpr, P: gl.constexpr, ROWS: gl.constexpr, STAGES: gl.constexpr,
             COPIES: gl.constexpr, WINDOW: gl.constexpr):  # fmt: skip
    PANELS: gl.constexpr = D // 64
    PB: gl.constexpr = P if P < BN else BN
    NB: gl.constexpr = BN // PB
    total = gl.load(count) * KV
    it = 0
    n = 0
    for r in range(0, gl.cdiv(total, gl.num_programs(0))):
        i = _nth(r, total)
        if i < total:
            seq, row, position, num, head = _item(work, i, KV)
            begin, end = _span(position, num, BN, WINDOW)
            line = table + seq.to(gl.int64) * table_stride
            most = (gl.load(seq_lens + seq) - 1) // P
            c = n % COPIES
            mbarrier.wait(q_empty.index(c), ((n // COPIES) & 1) ^ 1)
            mbarrier.expect(q_full.index(c), 2 * PANELS * BQ2 * GP * 128)
            for w in gl.static_range(2):
                for p in gl.static_range(PANELS):
                    tma.async_copy_global_to_shared(
                        qd, [row + w * BQ2, head * G, p * 64], q_full.index(c), q_buf.index((2 * c + w) * PANELS + p)
                    )
            n += 1
            for back in range(0, end - begin):
                t = end - 1 - back
                s = it % STAGES
                phase = ((it // STAGES) & 1) ^ 1
                mbarrier.wait(k_empty.index(s), phase)
                mbarrier.expect(k_full.index(s), BN * D * 2)
                for j in gl.static_range(NB):
                    key = t * BN + j * PB
                    block = gl.load(line + gl.minimum(key // P, most))
                    at = block * ROWS + head * P + key % P
                    for p in gl.static_range(PANELS):
                        tma.async_copy_global_to_shared(
                            kd, [at, p * 64], k_full.index(s), k_buf.index((s * PANELS + p) * NB + j)
                        )
                mbarrier.wait(v_empty.index(s), phase)
                mbarrier.expect(v_full.index(s), BN * D * 2)
                for j in gl.static_range(NB):
                    key = t * BN + j * PB
                    block = gl.load(line + gl.minimum(key // P, most))
                    at = block * ROWS + (KV + head) * P + key % P
                    for p in gl.static_range(PANELS):
                        tma.async_copy_global_to_shared(
                            vd, [at, p * 64], v_full.index(s), v_buf.index((s * PANELS + p) * NB + j)
                        )
                it += 1


@gluon.jit
def _softmax(s, top, position, key0, scale, softcap, masked, WINDOW: gl.constexpr, SOFTCAP: gl.constexpr,
             BN: gl.constexpr, S: gl.constexpr):  # fmt: skip
    """(weights, new maxima, shrink) of a tile's raw products."""
    if SOFTCAP:
        e = gl.exp2(s * (scale * 2.0 * 1.4426950408889634 / softcap))
        s = softcap * 1.4426950408889634 * (1.0 - 2.0 / (e + 1.0))
    if masked:
        at = key0 + gl.arange(0, BN, layout=gl.SliceLayout(0, S))
        seen = at[None, :] <= position[:, None]
        if WINDOW:
            seen = seen & (at[None, :] > position[:, None] - WINDOW)
        s = gl.where(seen, s, float("-inf"))
    new = gl.maximum(top, gl.max(s, 1))
    safe = gl.where(new == float("-inf"), 0.0, new)
    if SOFTCAP:
        weight = gl.exp2(s - safe[:, None])
        shrink = gl.exp2(top - safe)
    else:
        weight = gl.exp2(s * scale - (safe * scale)[:, None])
        shrink = gl.exp2((top - safe) * scale)
    return weight, new, shrink


@gluon.jit
def _consume(w: gl.constexpr, work, count, sinks, out, scale, softcap, q_mma, k_mma, v_mma, q_full, q_empty, k_full,
             k_empty, v_full, v_empty, turns, KV: gl.constexpr, G: gl.constexpr, GP: gl.constexpr, BQ2: gl.constexpr,
             D: gl.constexpr, BN: gl.constexpr, STAGES: gl.constexpr, COPIES: gl.constexpr, WINDOW: gl.constexpr,
             SOFTCAP: gl.constexpr, SINKS: gl.constexpr, TURNS: gl.constexpr):  # fmt: skip
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BN, 16])
    ACC: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    W: gl.constexpr = gl.DotOperandLayout(0, ACC, 2)
    ROW: gl.constexpr = gl.SliceLayout(1, S)
    OROW: gl.constexpr = gl.SliceLayout(1, ACC)
    total = gl.load(count) * KV
    it = 0
    n = 0
    turn = 0
    dtype: gl.constexpr = out.dtype.element_ty
    rows = gl.arange(0, 64, layout=ROW)
    for r in range(0, gl.cdiv(total, gl.num_programs(0))):
        i = _nth(r, total)
        if i < total:
            _, row, first, num, head = _item(work, i, KV)
            begin, end = _span(first, num, BN, WINDOW)
            position = first + w * BQ2 + rows // GP
            # why: tiles below this are seen whole by every query, as far as the causal order goes
            whole_to = (first + 1) // BN
            whole_from = 0
            if WINDOW:
                whole_from = (gl.maximum(0, first + 2 * BQ2 - WINDOW) + BN - 1) // BN
            acc = gl.full([64, D], 0.0, gl.float32, layout=ACC)
            zero = gl.full([64, BN], 0.0, gl.float32, layout=S)
            top = gl.full([64], float("-inf"), gl.float32, layout=ROW)
            c = n % COPIES
            q = q_mma.index(2 * c + w)
            mbarrier.wait(q_full.index(c), (n // COPIES) & 1)
            n += 1
            s = it % STAGES
            mbarrier.wait(k_full.index(s), (it // STAGES) & 1)
            x = warpgroup_mma(q, k_mma.index(s).permute((1, 0)), zero, use_acc=False, is_async=True)
            x = warpgroup_mma_wait(0, deps=(x,))
            mbarrier.arrive(k_empty.index(s), count=1)
            t = end - 1
            weight, top, shrink = _softmax(x, top, position, t * BN, scale, softcap, True, WINDOW, SOFTCAP, BN, S)
            sums = gl.sum(weight, 1)
            p = gl.convert_layout(weight.to(dtype), W)
            for back in range(1, end - begin):
                t = end - 1 - back
                s = it % STAGES
                phase = (it // STAGES) & 1
                ns = (it + 1) % STAGES
                mbarrier.wait(k_full.index(ns), ((it + 1) // STAGES) & 1)
                if TURNS:
                    mbarrier.wait(turns.index(w), (turn & 1) ^ (1 - w))
                x = warpgroup_mma(q, k_mma.index(ns).permute((1, 0)), zero, use_acc=False, is_async=True)
                mbarrier.wait(v_full.index(s), phase)
                acc = warpgroup_mma(p, v_mma.index(s), acc, is_async=True)
                if TURNS:
                    mbarrier.arrive(turns.index(1 - w), count=1)
                    turn += 1
                x = warpgroup_mma_wait(1, deps=(x,))
                mbarrier.arrive(k_empty.index(ns), count=1)
                masked = (t >= whole_to) | (t < whole_from)
                weight, top, shrink = _softmax(x, top, position, t * BN, scale, softcap, masked, WINDOW, SOFTCAP, BN, S)
                sums = sums * shrink + gl.sum(weight, 1)
                acc = warpgroup_mma_wait(0, deps=(acc,))
                mbarrier.arrive(v_empty.index(s), count=1)
                acc = acc * gl.convert_layout(shrink, OROW)[:, None]
                p = gl.convert_layout(weight.to(dtype), W)
                it += 1
            mbarrier.arrive(q_empty.index(c), count=1)
            s = it % STAGES
            mbarrier.wait(v_full.index(s), (it // STAGES) & 1)
            acc = warpgroup_mma(p, v_mma.index(s), acc, is_async=True)
            acc = warpgroup_mma_wait(0, deps=(acc,))
            mbarrier.arrive(v_empty.index(s), count=1)
            it += 1
            g = rows % GP
            if SINKS:
                sink = gl.load(sinks + head * G + g, g < G, 0.0) * 1.4426950408889634
                if not SOFTCAP:
                    top = top * scale
                best = gl.maximum(top, sink)
                shrink = gl.exp2(top - best)
                sums = sums * shrink + gl.exp2(sink - best)
                acc = acc * gl.convert_layout(shrink, OROW)[:, None]
            inverse = gl.convert_layout(1.0 / gl.maximum(sums, 1e-30), OROW)
            y = (acc * inverse[:, None]).to(dtype)
            orows = gl.arange(0, 64, layout=OROW)
            token = w * BQ2 + orows // GP
            og = orows % GP
            d = gl.arange(0, D, layout=gl.SliceLayout(0, ACC))
            line = (row + token).to(gl.int64) * (KV * G) + head * G + og
            real = (token < num) & (og < G)
            gl.store(out + line[:, None] * D + d[None, :], y, real[:, None])


@gluon.jit(do_not_specialize=["table_stride"], do_not_specialize_on_alignment=["count"])
def _prefill(qd, kd, vd, work, count, table, seq_lens, sinks, out, table_stride, scale, softcap, KV: gl.constexpr,
             G: gl.constexpr, GP: gl.constexpr, D: gl.constexpr, BN: gl.constexpr, P: gl.constexpr,
             ROWS: gl.constexpr, STAGES: gl.constexpr, COPIES: gl.constexpr, WINDOW: gl.constexpr,
             SOFTCAP: gl.constexpr, SINKS: gl.constexpr, TURNS: gl.constexpr, num_warps: gl.constexpr):  # fmt: skip
    PANELS: gl.constexpr = D // 64
    BQ2: gl.constexpr = 64 // GP
    PB: gl.constexpr = P if P < BN else BN
    NB: gl.constexpr = BN // PB
    dtype: gl.constexpr = out.dtype.element_ty
    q_buf = gl.allocate_shared_memory(dtype, [2 * COPIES * PANELS, BQ2, GP, 64], qd.layout)
    k_buf = gl.allocate_shared_memory(dtype, [STAGES * PANELS * NB, PB, 64], kd.layout)
    v_buf = gl.allocate_shared_memory(dtype, [STAGES * PANELS * NB, PB, 64], vd.layout)
    whole: gl.constexpr = gl.NVMMASharedLayout(128, 16, rank=2)
    q_mma = q_buf._reinterpret(dtype, [2 * COPIES, 64, D], whole)
    k_mma = k_buf._reinterpret(dtype, [STAGES, BN, D], whole)
    v_mma = v_buf._reinterpret(dtype, [STAGES, BN, D], whole)
    bar: gl.constexpr = mbarrier.MBarrierLayout()
    q_full = gl.allocate_shared_memory(gl.int64, [COPIES, 1], bar)
    q_empty = gl.allocate_shared_memory(gl.int64, [COPIES, 1], bar)
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    turns = gl.allocate_shared_memory(gl.int64, [2, 1], bar)
    for c in gl.static_range(COPIES):
        mbarrier.init(q_full.index(c), count=1)
        mbarrier.init(q_empty.index(c), count=2)
    for s in gl.static_range(STAGES):
        mbarrier.init(k_full.index(s), count=1)
        mbarrier.init(k_empty.index(s), count=2)
        mbarrier.init(v_full.index(s), count=1)
        mbarrier.init(v_empty.index(s), count=2)
    mbarrier.init(turns.index(0), count=1)
    mbarrier.init(turns.index(1), count=1)
    fence_async_shared()
    gl.thread_barrier()
    gl.warp_specialize(
        [
            (_consume, (gl.constexpr(0), work, count, sinks, out, scale, softcap, q_mma, k_mma, v_mma, q_full, q_empty,
                        k_full, k_empty, v_full, v_empty, turns, KV, G, GP, BQ2, D, BN, STAGES, COPIES, WINDOW, SOFTCAP,
                        SINKS, TURNS)),
            (_consume, (gl.constexpr(1), work, count, sinks, out, scale, softcap, q_mma, k_mma, v_mma, q_full, q_empty,
                        k_full, k_empty, v_full, v_empty, turns, KV, G, GP, BQ2, D, BN, STAGES, COPIES, WINDOW, SOFTCAP,
                        SINKS, TURNS)),
            (_produce, (qd, kd, vd, work, count, table, table_stride, seq_lens, q_buf, k_buf, v_buf, q_full, q_empty,
                        k_full, k_empty, v_full, v_empty, KV, G, GP, BQ2, D, BN, P, ROWS, STAGES, COPIES, WINDOW)),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class HopperTile:
    """Keys of a tile, tiles in flight, whether multipliers take turns, tiles of queries in shared memory."""

    keys: int
    stages: int
    turns: bool
    copies: int = 2


_TILES = {64: HopperTile(128, 2, True), 128: HopperTile(128, 2, True), 256: HopperTile(64, 2, False, 1)}
_Q_LAYOUT = gl.NVMMASharedLayout(128, 16, rank=3)
_KV_LAYOUT = gl.NVMMASharedLayout(128, 16, rank=2)


def can(q: torch.Tensor, flat: torch.Tensor, shape: AttentionShape) -> bool:
    """Whether this kernel serves such a call; the chip has been asked before."""
    aligned = q.stride(0) % 8 == 0 and q.data_ptr() % 16 == 0 and flat.data_ptr() % 16 == 0
    return (
        q.dtype in (torch.bfloat16, torch.float16)
        and flat.dtype == q.dtype
        and shape.dim == shape.v_dim
        and shape.dim in _TILES
        and shape.heads // shape.kv_heads <= 64
        and flat.stride(0) % shape.dim == 0
        and aligned
    )


def try_out() -> None:
    """Run the smallest call. Raises whatever this Triton says of it."""
    shape = AttentionShape(1, 1, 64, 64, 1.0)
    flat = torch.zeros((2, 2 * 16 * 64), dtype=torch.bfloat16, device="cuda")
    ones = torch.ones(1, dtype=torch.int32, device="cuda")
    q = torch.zeros((2, 1, 64), dtype=torch.bfloat16, device="cuda")
    start = torch.tensor([0, 2], dtype=torch.int32, device="cuda")
    batch = Batch(ones, ones, start, 2 * ones, [], 2, 1, 2, 2, [2], [2])
    prefill_hopper(q, PrefillCall(flat, ones[None], 2 * ones, 16, shape, None), batch, 0, torch.empty_like(q))


def prefill_hopper(
    q: torch.Tensor, c: PrefillCall, batch: Batch, first: int, out: torch.Tensor, z: HopperTile | None = None
) -> None:
    """Sequences from `first` on; q [T, H, D] and out [T, H, D] hold the whole step."""
    s, p = c.shape, c.block_size
    z = z or _TILES[s.dim]
    group = s.heads // s.kv_heads
    padded = next_power_of_2(group)
    half = 64 // padded
    work = find_work(batch, first, 2 * half, s.window)
    rows = c.flat.as_strided((c.flat.shape[0] * c.flat.stride(0) // s.dim, s.dim), (s.dim, 1))
    queries = TensorDescriptor.from_tensor(q, [half, padded, 64], _Q_LAYOUT)
    cached = TensorDescriptor.from_tensor(rows, [min(p, z.keys), 64], _KV_LAYOUT)
    scale = s.scale if s.softcap is not None else s.scale * 1.4426950408889634
    grid = min(the_chip().processors, work.most * s.kv_heads)
    _prefill[(grid,)](
        queries, cached, cached, work.items, work.count, c.table, c.seq_lens, q if c.sinks is None else c.sinks, out,
        c.table.stride(0), scale, s.softcap or 0.0, s.kv_heads, group, padded, s.dim, z.keys, p,
        c.flat.stride(0) // s.dim, z.stages, z.copies, s.window or 0, s.softcap is not None, c.sinks is not None,
        z.turns, num_warps=4,
    )  # fmt: skip
