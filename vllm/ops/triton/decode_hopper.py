"""`decode.py` for Hopper, in Gluon: one list of all tiles, cut evenly over programs that never stop asking for tiles.

    tiles     sequence 0: head 0: 0 1 2 .., head 1: 0 1 2 .., sequence 1: ..       every program has as many of them
    program   asks the copy engine for STAGES tiles ahead, over the ends of heads, the first of them before the
              projections are there: old keys depend on nobody
    product   keys [TP, D] x queries [D, N] and values' [D, TP] x weights [TP, N]: tiles are the tall side of a WGMMA

A head whose tiles lie in several programs is joined by the last of them, in their order. Its twin in Triton runs
everywhere else and in the interpreter. Called by: decode.
"""

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
from vllm.ops.triton.chain import CHAINED, tickets
from vllm.ops.triton.chip import the_chip
from vllm.ops.triton.paged import DecodeCall
from vllm.ops.triton.small import height_of
from vllm.util.arith import next_power_of_2

_TILE = 64
_PER_PROCESSOR = 2
_ROOM = 96 << 10
"""Bytes of tiles in flight of a program, so that two fit on a processor."""
_LAYOUTS = {
    (n, d): gl.NVMMASharedLayout.get_default_for([n, d], gl.bfloat16) for n in (8, 16, 32, 64) for d in (64, 128)
}


@gluon.jit
def _plus(a, b):
    return a + b


@gluon.jit
def _span(seq_len, TP: gl.constexpr, WINDOW: gl.constexpr):
    """First tile of a head, and the one behind the last; there is always one."""
    first = seq_len * 0
    if WINDOW:
        first = gl.maximum(0, seq_len - WINDOW) // TP
    return first, gl.maximum(first + 1, (seq_len - 1 + TP - 1) // TP)


@gluon.jit
def _next(seq, head, t, first, last, seq_lens, seqs, KV: gl.constexpr, TP: gl.constexpr, WINDOW: gl.constexpr):
    """The tile behind tile t."""
    t += 1
    if t == last:
        t = first
        head += 1
        if head == KV:
            head = 0
            seq += 1
            first, last = _span(gl.load(seq_lens + gl.minimum(seq, seqs - 1)), TP, WINDOW)
            t = first
    return seq, head, t, first, last


@gluon.jit
def _ask(desc, k_buf, v_buf, bars, i, block, head, t, KV: gl.constexpr, D: gl.constexpr, P: gl.constexpr,
         TP: gl.constexpr, ROWS: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """Ask for a tile's keys and values, the i-th of this program."""
    s = i % STAGES
    at = block * ROWS + head * P + t * TP % P
    mbarrier.expect(bars.index(s), 2 * TP * D * 2)
    tma.async_copy_global_to_shared(desc, [at, 0], bars.index(s), k_buf.index(s))
    tma.async_copy_global_to_shared(desc, [at + KV * P, 0], bars.index(s), v_buf.index(s))


@gluon.jit
def _prepare(start, mask, partner, paired, weight, other, cos, sin, sign, eps, clip, D: gl.constexpr, R: gl.constexpr,
             NORM: gl.constexpr, CLIP: gl.constexpr, AXIS: gl.constexpr):  # fmt: skip
    """As `decode._prepare`."""
    raw = gl.load(start, mask, 0.0)
    x = raw.to(gl.float32)
    scale = 1.0
    if NORM:
        scale = gl.rsqrt(gl.sum(x * x, AXIS) / D + eps)
        if AXIS == 1:
            scale = gl.expand_dims(scale, 1)
        x = (x * scale * weight).to(raw.dtype).to(gl.float32)
    if CLIP:
        x = gl.minimum(gl.maximum(x, -clip), clip)
    if R:
        y = gl.load(partner, paired, 0.0).to(gl.float32)
        if NORM:
            y = (y * scale * other).to(raw.dtype).to(gl.float32)
        if CLIP:
            y = gl.minimum(gl.maximum(y, -clip), clip)
        x = x * cos + sign * y * sin
    return x.to(raw.dtype)


@gluon.jit
def _powers(x, scale, softcap, SOFTCAP: gl.constexpr):
    """As `prefill.in_powers`."""
    y = x * (scale * 1.4426950408889634)
    if SOFTCAP:
        y = softcap * 1.4426950408889634 * (1.0 - 2.0 / (gl.exp2(y * (2.0 / softcap)) + 1.0))
    return y


@gluon.jit
def _part(part, maxes, sums, i, slot, there, d, n, D: gl.constexpr, N: gl.constexpr):
    """What program i has of a head. why .cg: it wrote that a moment ago."""
    at = (i * 2 + slot) * N + n
    top = gl.load(maxes + at, there, float("-inf"), cache_modifier=".cg")
    total = gl.load(sums + at, there, 0.0, cache_modifier=".cg")
    acc = gl.load(part + at[None, :] * D + d[:, None], there, 0.0, cache_modifier=".cg")
    return top, total, acc


@gluon.jit
def _both(top, total, acc, top2, total2, acc2):
    """Two parts as one."""
    new = gl.maximum(top, top2)
    safe = gl.where(new == float("-inf"), 0.0, new)
    old, fresh = gl.exp2(top - safe), gl.exp2(top2 - safe)
    return new, total * old + total2 * fresh, acc * old[None, :] + acc2 * fresh[None, :]


@gluon.jit
def _owner(x, each, rest):
    """The program that has the x-th tile: the first `rest` ones have one more than `each`."""
    return gl.where(x < rest * (each + 1), x // (each + 1), rest + (x - rest * (each + 1)) // gl.maximum(each, 1))


@gluon.jit(do_not_specialize=["table_stride", "seqs"])
def _attend(desc, qkv, q_norm, k_norm, cos, sin, slots, cache, table, seq_lens, sinks, part, maxes, sums, tickets, out,
            scales, stride, table_stride, block_stride, seqs, scale, softcap, eps, clip, KV: gl.constexpr,
            G: gl.constexpr, N: gl.constexpr, D: gl.constexpr, P: gl.constexpr, TP: gl.constexpr, ROWS: gl.constexpr,
            SP: gl.constexpr, WINDOW: gl.constexpr, SOFTCAP: gl.constexpr, SINKS: gl.constexpr, NORM: gl.constexpr,
            CLIP: gl.constexpr, R: gl.constexpr, INTERLEAVED: gl.constexpr, STAGES: gl.constexpr,
            Q_LAYOUT: gl.constexpr, P_LAYOUT: gl.constexpr, CHAINED: gl.constexpr,
            HEIGHT: gl.constexpr):  # fmt: skip
    """HEIGHT: tokens of a row of `scales`, where `out` is e4m3; else 0."""
    if CHAINED:
        gl.inline_asm_elementwise("griddepcontrol.launch_dependents; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)
    pid, num = gl.program_id(0), gl.num_programs(0)
    dtype: gl.constexpr = desc.dtype
    # -- which tiles are ours
    flat: gl.constexpr = gl.BlockedLayout([SP // 128], [32], [4], [0])
    each_seq = gl.arange(0, SP, layout=flat)
    begins, ends = _span(gl.load(seq_lens + each_seq, each_seq < seqs, 1), TP, WINDOW)
    tiles = gl.where(each_seq < seqs, (ends - begins) * KV, 0)
    upto = gl.associative_scan(tiles, 0, _plus)
    total_tiles = gl.max(upto, 0)
    each, rest = total_tiles // num, total_tiles % num
    begin = pid * each + gl.minimum(pid, rest)
    end = begin + each + (pid < rest).to(gl.int32)
    if begin == end:
        return
    before = upto <= begin
    seq = gl.sum(before.to(gl.int32), 0)
    skip = begin - gl.max(gl.where(before, upto, 0), 0)
    first, last = _span(gl.load(seq_lens + seq), TP, WINDOW)
    head, t = skip // (last - first), first + skip % (last - first)
    # -- tiles on their way
    k_buf = gl.allocate_shared_memory(dtype, [STAGES, TP, D], desc.layout)
    v_buf = gl.allocate_shared_memory(dtype, [STAGES, TP, D], desc.layout)
    q_buf = gl.allocate_shared_memory(dtype, [N, D], Q_LAYOUT)
    p_buf = gl.allocate_shared_memory(dtype, [N, TP], P_LAYOUT)
    bars = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for j in gl.static_range(STAGES):
        mbarrier.init(bars.index(j), count=1)
    fence_async_shared()
    gl.thread_barrier()
    seq_a, head_a, t_a, first_a, last_a = seq, head, t, first, last
    for j in gl.static_range(STAGES):
        if begin + j < end:
            block = gl.load(table + seq_a.to(gl.int64) * table_stride + t_a * TP // P)
            _ask(desc, k_buf, v_buf, bars, j, block, head_a, t_a, KV, D, P, TP, ROWS, STAGES)
            seq_a, head_a, t_a, first_a, last_a = _next(
                seq_a, head_a, t_a, first_a, last_a, seq_lens, seqs, KV, TP, WINDOW
            )
    block = gl.load(table + gl.minimum(seq_a, seqs - 1).to(gl.int64) * table_stride + t_a * TP // P)
    # -- places of heads and dimensions
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    QL: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])
    VL: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])
    COL: gl.constexpr = gl.SliceLayout(0, S)
    rows, d = gl.arange(0, N, layout=gl.SliceLayout(1, QL)), gl.arange(0, D, layout=gl.SliceLayout(0, QL))
    n, dim = gl.arange(0, N, layout=COL), gl.arange(0, D, layout=gl.SliceLayout(1, S))
    key_at = gl.arange(0, TP, layout=gl.SliceLayout(1, S))
    value_at = gl.arange(0, TP, layout=gl.SliceLayout(1, VL))
    if INTERLEAVED:
        partner, pair, sign = d ^ 1, d // 2, gl.where(d % 2 == 0, -1.0, 1.0)
    else:
        partner, pair, sign = gl.where(d < R, d + R, d - R), d % R if R else d, gl.where(d < R, -1.0, 1.0)
    turned = d < 2 * R
    q_weight, q_other, k_weight, k_other = 1.0, 1.0, 1.0, 1.0
    if NORM:
        q_weight, q_other = gl.load(q_norm + d)[None, :], gl.load(q_norm + partner, turned, 0.0)[None, :]
        k_weight, k_other = gl.load(k_norm + d), gl.load(k_norm + partner, turned, 0.0)
    if CHAINED:
        gl.inline_asm_elementwise("griddepcontrol.wait; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)
    here = begin
    it = 0
    while here < end:
        seq_len = gl.load(seq_lens + seq)
        old = seq_len - 1
        lowest = gl.maximum(0, seq_len - WINDOW) if WINDOW else 0
        mine = gl.minimum(end - here, last - t)
        line = qkv + seq.to(gl.int64) * stride
        c, s_ = 1.0, 1.0
        c_row, s_row = 1.0, 1.0
        if R:
            c, s_ = gl.load(cos + seq * R + pair, turned, 1.0), gl.load(sin + seq * R + pair, turned, 0.0)
            c_row, s_row = c[None, :], s_[None, :]
        start = line + (head * G + rows[:, None]) * D
        real = (rows < G)[:, None] & (d >= 0)[None, :]
        query = _prepare(
            start + d[None, :], real, start + partner[None, :], real & turned[None, :], q_weight, q_other, c_row, s_row,
            sign[None, :], eps, clip, D, R, NORM, CLIP, 1,
        )  # fmt: skip
        q_buf.store(query)
        top = gl.full([N], float("-inf"), gl.float32, layout=COL)
        totals = gl.full([TP, N], 0.0, gl.float32, layout=S)
        acc = gl.full([D, N], 0.0, gl.float32, layout=S)
        if t + mine == last:
            newest = line + (KV * G + head) * D
            key = _prepare(
                newest + d, d >= 0, newest + partner, turned, k_weight, k_other, c, s_, sign, eps, clip, D, R, NORM,
                CLIP, 0,
            )  # fmt: skip
            value, tall = gl.load(newest + KV * D + d), gl.load(newest + KV * D + dim).to(gl.float32)
            if CLIP:
                value = gl.minimum(gl.maximum(value.to(gl.float32), -clip), clip).to(dtype)
                tall = gl.minimum(gl.maximum(tall, -clip), clip).to(dtype).to(gl.float32)
            slot = gl.load(slots + seq)
            spot = cache + slot // P * block_stride + (head * P + slot % P) * D + d
            gl.store(spot, key)
            gl.store(spot + KV * P * D, value)
            score = gl.sum(query.to(gl.float32) * key.to(gl.float32)[None, :], 1)
            top = _powers(gl.convert_layout(score, COL), scale, softcap, SOFTCAP)
            totals += 1.0 / TP
            acc += tall[:, None]
        fence_async_shared()
        gl.thread_barrier()
        for i in range(mine):
            s = it % STAGES
            mbarrier.wait(bars.index(s), (it // STAGES) & 1)
            zero = gl.full([TP, N], 0.0, gl.float32, layout=S)
            x = warpgroup_mma(k_buf.index(s), q_buf.permute((1, 0)), zero, use_acc=False, is_async=True)
            x = warpgroup_mma_wait(0, deps=(x,))
            x = _powers(x, scale, softcap, SOFTCAP)
            at = (t + i) * TP
            if (at + TP > old) | (at < lowest):
                seen = (at + key_at < old) & (at + key_at >= lowest)
                x = gl.where(seen[:, None], x, float("-inf"))
            if at + TP > old:
                # why: a slot that was never written may hold NaN, and 0 * NaN is NaN
                there = (at + value_at < old)[:, None]
                v_buf.index(s).store(gl.where(there, v_buf.index(s).load(VL), 0.0))
            new = gl.maximum(top, gl.max(x, 0))
            safe = gl.where(new == float("-inf"), 0.0, new)
            weight = gl.exp2(x - safe[None, :])
            shrink = gl.exp2(top - safe)
            top = new
            totals = totals * shrink[None, :] + weight
            acc = acc * shrink[None, :]
            p_buf.permute((1, 0)).store(weight.to(dtype))
            fence_async_shared()
            gl.thread_barrier()
            acc = warpgroup_mma(v_buf.index(s).permute((1, 0)), p_buf.permute((1, 0)), acc, is_async=True)
            acc = warpgroup_mma_wait(0, deps=(acc,))
            gl.thread_barrier()  # why: a tile is overwritten when all warps have read it
            if here + i + STAGES < end:
                _ask(desc, k_buf, v_buf, bars, it + STAGES, block, head_a, t_a, KV, D, P, TP, ROWS, STAGES)
                seq_a, head_a, t_a, first_a, last_a = _next(
                    seq_a, head_a, t_a, first_a, last_a, seq_lens, seqs, KV, TP, WINDOW
                )
                block = gl.load(table + gl.minimum(seq_a, seqs - 1).to(gl.int64) * table_stride + t_a * TP // P)
            it += 1
        total = gl.sum(totals, 0)
        whole = mine == last - first
        if not whole:
            a = here - (t - first)
            left, right = _owner(a, each, rest), _owner(a + last - first - 1, each, rest)
            slot_here = (here != begin).to(gl.int32)
            spot_n = (pid * 2 + slot_here) * N + n
            gl.store(part + spot_n[None, :] * D + dim[:, None], acc)
            gl.store(maxes + spot_n, top)
            gl.store(sums + spot_n, total)
            gl.thread_barrier()
            place = seq * KV + head
            if gl.atomic_add(tickets + place, 1) == right - left:
                gl.store(tickets + place, 0)
                top = gl.full([N], float("-inf"), gl.float32, layout=COL)
                total = gl.full([N], 0.0, gl.float32, layout=COL)
                acc = gl.full([D, N], 0.0, gl.float32, layout=S)
                # why: only the first of them may have another head in front of this one
                second = (left * each + gl.minimum(left, rest) < a).to(gl.int32)
                for i in range(left, right + 1, 2):
                    top0, total0, acc0 = _part(
                        part, maxes, sums, i, gl.where(i == left, second, 0), i <= right, dim, n, D, N
                    )
                    top1, total1, acc1 = _part(part, maxes, sums, i + 1, 0, i + 1 <= right, dim, n, D, N)
                    top, total, acc = _both(top, total, acc, top0, total0, acc0)
                    top, total, acc = _both(top, total, acc, top1, total1, acc1)
                whole = right >= left
        if whole:
            if SINKS:
                sink = gl.load(sinks + head * G + n, n < G, 0.0) * 1.4426950408889634
                best = gl.maximum(top, sink)
                acc = acc * gl.exp2(top - best)[None, :]
                total = total * gl.exp2(top - best) + gl.exp2(sink - best)
            y = (acc / gl.maximum(total, 1e-30)[None, :]).to(dtype)
            where = (seq * KV + head) * G + n
            if HEIGHT:
                wide = y.to(gl.float32)
                most = gl.max(gl.abs(wide), 0)
                gl.store(scales + (head * G + n) * HEIGHT + seq, most * 0.002232142857142857, n < G)
                y = (wide * (448.0 / gl.where(most > 0.0, most, 448.0))[None, :]).to(gl.float8e4nv)
            gl.store(out + where[None, :] * D + dim[:, None], y, (n < G)[None, :] & (dim >= 0)[:, None])
        here += mine
        seq, head, t, first, last = _next(seq, head, last - 1, first, last, seq_lens, seqs, KV, TP, WINDOW)


def can(qkv: torch.Tensor, flat: torch.Tensor, shape: AttentionShape, block_size: int) -> bool:
    """Whether this kernel serves such a call on a Hopper chip."""
    return (
        qkv.dtype in (torch.bfloat16, torch.float16)
        and flat.dtype == qkv.dtype
        and shape.dim == shape.v_dim
        and shape.dim in (64, 128)
        and block_size % _TILE == 0
        and shape.heads // shape.kv_heads <= 64
        and flat.stride(0) % shape.dim == 0
        and flat.data_ptr() % 16 == 0
        and qkv.shape[0] <= 512
    )


def attend_hopper(qkv: torch.Tensor, c: DecodeCall, out: torch.Tensor, scales: torch.Tensor | None) -> None:
    """`decode._run` where `can` says yes."""
    heads, turns, flat, group, shape = c.heads, c.turns, c.flat, c.group, c.shape
    seqs, kv, d, p = qkv.shape[0], shape.kv_heads, shape.dim, group.block_size
    each = shape.heads // kv
    cols, programs = max(8, next_power_of_2(each)), _PER_PROCESSOR * the_chip().processors
    part = torch.empty((programs * 2 * cols * (d + 2),), dtype=torch.float32, device=qkv.device)
    maxes, sums = part[programs * 2 * cols * d :].view(2, -1)
    rows = flat.as_strided((flat.shape[0] * flat.stride(0) // d, d), (d, 1))
    desc = TensorDescriptor.from_tensor(rows, [_TILE, d], gl.NVMMASharedLayout.get_default_for([_TILE, d], gl.bfloat16))
    q_norm, k_norm = (qkv if n is None else n for n in c.norms)
    cos, sin = (qkv if t is None else t for t in turns)
    _attend[(programs,)](
        desc, qkv, q_norm, k_norm, cos, sin, group.slot_mapping, flat, group.block_table, c.batch.seq_lens,
        maxes if c.sinks is None else c.sinks, part, maxes, sums, tickets(qkv.device, seqs * kv), out,
        maxes if scales is None else scales, qkv.stride(0), group.block_table.stride(0), flat.stride(0), seqs,
        shape.scale, shape.softcap or 0.0, heads.eps, heads.clip or 0.0, kv, each, cols, d, p, _TILE,
        flat.stride(0) // d, 128 if seqs <= 128 else 512,
        shape.window or 0, shape.softcap is not None, c.sinks is not None, c.norms[0] is not None,
        heads.clip is not None, 0 if turns[0] is None else turns[0].shape[-1], heads.interleaved,
        _ROOM // (_TILE * d * 4), _LAYOUTS[cols, d], gl.NVMMASharedLayout.get_default_for([cols, _TILE], gl.bfloat16),
        bool(CHAINED), 0 if scales is None else height_of(seqs), num_warps=4, **CHAINED,
    )  # fmt: skip
