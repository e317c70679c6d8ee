"""The kernel of `linear_hopper_e4m3.py` for 65 to 128 tokens, in Gluon: copiers and multipliers of their own.

    copier of weights  TMA ─▶ a ring of tiles; it depends on nobody and starts while the kernel before still runs
    copier of tokens   TMA ─▶ the same ring, behind the wait for the kernel before
    two multipliers    64 tokens each: a group's product while the other one adds its own, times its scale, to the sums
    shares of K        every one writes its sums, waits for the others and finishes its part of the tokens

Tokens are the tall side of a product, for a token's scale is then a number or two of a thread, and what is added along
a row stays within four threads. Called by: linear.
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

from vllm.ops.quantize import Quantized
from vllm.ops.triton.chain import CHAINED, IS_CHAINED
from vllm.ops.triton.chip import the_chip
from vllm.ops.triton.linear_hopper import HAS_COPY_ENGINE, described
from vllm.ops.triton.small import group_of
from vllm.ops.triton.tiles import Tile
from vllm.util.arith import next_power_of_2

HEIGHT = 128
"""Tokens of a call, with room for those that are not there."""
_BK = 128
_PROGRAMS = 128
_ROOM = (227 << 10) - (17 << 10)
"""Shared memory of a program, less what sums pass through on their way out."""


@gluon.jit
def _follow(CHAINED: gl.constexpr):
    """`chain.follow`."""
    if CHAINED:
        gl.inline_asm_elementwise("griddepcontrol.wait; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)
        gl.inline_asm_elementwise("griddepcontrol.launch_dependents; mov.u32 $0, 0;", "=r", [], gl.int32, False, 1)


@gluon.jit
def _copy_weights(desc, buf, full, empty, half: gl.constexpr, STEPS: gl.constexpr, BN: gl.constexpr, BK: gl.constexpr,
                  STAGES: gl.constexpr, ACT: gl.constexpr):  # fmt: skip
    n, start = gl.program_id(0) * BN, gl.program_id(1) * (STEPS * BK)
    for i in range(STEPS):
        s = i % STAGES
        mbarrier.wait(empty.index(s), ((i // STAGES) & 1) ^ 1)
        mbarrier.expect(full.index(s), (2 if ACT else 1) * BN * BK)
        tma.async_copy_global_to_shared(desc, [n, start + i * BK], full.index(s), buf.index(s))
        if ACT:
            tma.async_copy_global_to_shared(desc, [half + n, start + i * BK], full.index(s), buf.index(STAGES + s))


@gluon.jit
def _copy_tokens(desc, buf, full, empty, STEPS: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr,
                 CHAINED: gl.constexpr):  # fmt: skip
    _follow(CHAINED)
    start = gl.program_id(1) * (STEPS * BK)
    for i in range(STEPS):
        s = i % STAGES
        mbarrier.wait(empty.index(s), ((i // STAGES) & 1) ^ 1)
        mbarrier.expect(full.index(s), 128 * BK)
        tma.async_copy_global_to_shared(desc, [0, start + i * BK], full.index(s), buf.index(2 * s))
        tma.async_copy_global_to_shared(desc, [64, start + i * BK], full.index(s), buf.index(2 * s + 1))


@gluon.jit
def _product(x, w, none, first: gl.constexpr, G: gl.constexpr):
    """A group's product; the other multiplier's adding hides the wait."""
    y = warpgroup_mma(
        x.slice(first, G, 1), w.slice(first, G, 1).permute((1, 0)), none, use_acc=False, max_num_imprecise_acc=G,
        is_async=True,
    )  # fmt: skip
    return warpgroup_mma_wait(0, deps=(y,))


@gluon.jit
def _sums(half: gl.constexpr, x_buf, w_buf, held, full, empty, STEPS: gl.constexpr, BN: gl.constexpr, G: gl.constexpr,
          GP: gl.constexpr, PARTS: gl.constexpr, STAGES: gl.constexpr, ACT: gl.constexpr):  # fmt: skip
    """64 tokens times a tile of weights, and where it is gated one of as many ups."""
    L: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BN, 32])
    none = gl.full([64, BN], 0.0, gl.float32, layout=L)
    acc, second = none, none
    for i in range(STEPS):
        s = i % STAGES
        mbarrier.wait(full.index(s), (i // STAGES) & 1)
        x = x_buf.index(2 * s + half)
        for p in gl.static_range(PARTS):
            scale = held.index(half * GP + i * PARTS + p).load(gl.SliceLayout(1, L))[:, None]
            y = _product(x, w_buf.index(s), none, p * G, G)
            if p == PARTS - 1 and not ACT:
                mbarrier.arrive(empty.index(s), count=1)
            acc += y * scale
            if ACT:
                z = _product(x, w_buf.index(STAGES + s), none, p * G, G)
                if p == PARTS - 1:
                    mbarrier.arrive(empty.index(s), count=1)
                second += z * scale
    return acc, second


@gluon.jit
def _store(memory, y, row, n, there, width):
    """Rows of a tile from output `n` on, whole lines at a time."""
    ROWS: gl.constexpr = y.shape[0]
    BN: gl.constexpr = y.shape[1]
    EACH: gl.constexpr = 16 // y.dtype.primitive_bitwidth * 8
    LANES: gl.constexpr = BN // EACH
    wide: gl.constexpr = gl.BlockedLayout([1, EACH], [32 // LANES, LANES], [4, 1], [1, 0])
    m = row + gl.arange(0, ROWS, layout=gl.SliceLayout(1, wide))
    n += gl.arange(0, BN, layout=gl.SliceLayout(0, wide))
    gl.store(memory + m[:, None] * width + n[None, :], gl.convert_layout(y, wide), (m < there)[:, None])


@gluon.jit
def _factor(squares, m, M, eps, K: gl.constexpr, FOLDED: gl.constexpr):
    """What the norm before multiplies tokens with."""
    total = m.to(gl.float32) * 0.0
    for f in gl.static_range(FOLDED):
        total += gl.load(squares + f * M + m, m < M, 0.0)
    return gl.rsqrt(total / K + eps)


@gluon.jit
def _finish_gated(gate, up, factor, half: gl.constexpr, side, out, small, scales, M, WIDTH: gl.constexpr):
    """silu(gate) * up of whole sums; the reference rounds both halves and their product to the dtype."""
    L: gl.constexpr = gate.type.layout
    dtype: gl.constexpr = out.dtype.element_ty
    tile = gl.program_id(0)
    m = half * 64 + gl.arange(0, 64, layout=gl.SliceLayout(1, L))
    gate *= side.index(half * 2).load(gl.SliceLayout(0, L))[None, :] * factor[:, None]
    up *= side.index(half * 2 + 1).load(gl.SliceLayout(0, L))[None, :] * factor[:, None]
    gate, up = gate.to(dtype).to(gl.float32), up.to(dtype).to(gl.float32)
    y = (gate / (1.0 + gl.exp(-gate)) * up).to(dtype).to(gl.float32)
    most = gl.max(gl.abs(y), 1)
    back = 448.0 / gl.where(most > 0.0, most, 448.0)
    _store(small, (y * back[:, None]).to(gl.float8e4nv), half * 64, tile * gate.shape[1], M, WIDTH)
    gl.store(scales + tile * 128 + m, most * 0.002232142857142857)


@gluon.jit
def _finish(acc, factor, row, half: gl.constexpr, side, bias, hidden, out, small, sums, scales, M, N: gl.constexpr,
            FOLDED: gl.constexpr, ADD: gl.constexpr, BIAS: gl.constexpr, SHRINK: gl.constexpr):  # fmt: skip
    """What is left to do to whole sums of rows from `row` on."""
    BN: gl.constexpr = acc.shape[1]
    L: gl.constexpr = acc.type.layout
    dtype: gl.constexpr = out.dtype.element_ty
    tile = gl.program_id(0)
    m = row + gl.arange(0, acc.shape[0], layout=gl.SliceLayout(1, L))
    n = tile * BN + gl.arange(0, BN, layout=gl.SliceLayout(0, L))
    acc *= side.index(half * 2).load(gl.SliceLayout(0, L))[None, :]
    if FOLDED:
        acc *= factor[:, None]
    if BIAS:
        acc += gl.load(bias + n).to(gl.float32)[None, :]
    if ADD:
        y = acc.to(dtype) + gl.load(hidden + m[:, None] * N + n[None, :], (m < M)[:, None], 0.0)
        _store(out, y, row, tile * BN, M, N)
        wide = y.to(gl.float32)
        gl.store(sums + tile * M + m, gl.sum(wide * wide, 1), m < M)
        acc = wide * side.index(half * 2 + 1).load(gl.SliceLayout(0, L))[None, :]
    if SHRINK:
        most = gl.max(gl.abs(acc), 1)
        back = 448.0 / gl.where(most > 0.0, most, 448.0)
        _store(small, (acc * back[:, None]).to(gl.float8e4nv), row, tile * BN, M, N)
        gl.store(scales + tile * 128 + m, most * 0.002232142857142857)
    else:
        _store(small if ADD else out, acc.to(dtype), row, tile * BN, M, N)


@gluon.jit
def _gather(acc, parts, ticket, half: gl.constexpr, row, N: gl.constexpr, SPLITS: gl.constexpr, ALONG: gl.constexpr):
    """Sums of all shares of K, in order, for the rows that this share finishes: each writes all and waits for all."""
    BN: gl.constexpr = acc.shape[1]
    L: gl.constexpr = acc.type.layout
    tile, split = gl.program_id(0), gl.program_id(1)
    m = half * 64 + gl.arange(0, 64, layout=gl.SliceLayout(1, L))
    n = tile * BN + gl.arange(0, BN, layout=gl.SliceLayout(0, L))
    gl.store(parts + split * 128 * N + m[:, None] * N + n[None, :], acc)
    gl.thread_barrier()
    came = gl.atomic_add(ticket, 1) + 1
    while came < SPLITS:
        came = gl.atomic_add(ticket, 0)
    mine = row + gl.arange(0, 64 // SPLITS, layout=gl.SliceLayout(1, ALONG))
    spot = mine[:, None] * N + (tile * BN + gl.arange(0, BN, layout=gl.SliceLayout(0, ALONG)))[None, :]
    total = gl.load(parts + spot, cache_modifier=".cg")
    for r in gl.static_range(1, SPLITS):
        total += gl.load(parts + r * 128 * N + spot, cache_modifier=".cg")
    # why: whoever is the last to have seen that all are there leaves the ticket as it was
    if gl.atomic_add(ticket, 1) == 2 * SPLITS - 1:
        gl.store(ticket, 0)
    return total


@gluon.jit
def _multiply(half: gl.constexpr, factors, rates, bias, squares, hidden, norm, out, small, sums, parts, tickets, scales,
              M, eps, x_buf, w_buf, held, side, full, empty, N: gl.constexpr, K: gl.constexpr, BN: gl.constexpr,
              BK: gl.constexpr, G: gl.constexpr, GP: gl.constexpr, SPLITS: gl.constexpr, STAGES: gl.constexpr,
              FOLDED: gl.constexpr, ACT: gl.constexpr, ADD: gl.constexpr, BIAS: gl.constexpr, SHRINK: gl.constexpr,
              CHAINED: gl.constexpr):  # fmt: skip
    tile, split = gl.program_id(0), gl.program_id(1)
    SHARE: gl.constexpr = K // SPLITS
    line: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    flat: gl.constexpr = gl.BlockedLayout([1, 1], [1, 32], [4, 1], [1, 0])
    j = tile * BN + gl.arange(0, BN, layout=line)
    side.index(half * 2).store(gl.load(rates + j))
    if ACT:
        side.index(half * 2 + 1).store(gl.load(rates + N // 2 + j))
    if ADD:
        side.index(half * 2 + 1).store(gl.load(norm + j))
    _follow(CHAINED)
    group, col = gl.arange(0, GP, layout=gl.SliceLayout(1, flat)), gl.arange(0, 64, layout=gl.SliceLayout(0, flat))
    at = (split * (SHARE // G) + group)[:, None] * 128 + half * 64 + col[None, :]
    part = gl.load(factors + at, (group < SHARE // G)[:, None], 0.0)
    held._reinterpret(gl.float32, [2, GP, 64], gl.SwizzledSharedLayout(1, 1, 1, [1, 0])).index(half).store(part)
    ALONG: gl.constexpr = (
        gl.BlockedLayout([1, 4], [128 // BN, BN // 4], [4, 1], [1, 0])
        if SPLITS > 1
        else gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BN, 32])
    )
    row = half * 64 + split * (64 // SPLITS)
    m = row + gl.arange(0, 64 // SPLITS, layout=gl.SliceLayout(1, ALONG))
    factor = _factor(squares, m, M, eps, K, FOLDED)
    gl.thread_barrier()
    acc, second = _sums(half, x_buf, w_buf, held, full, empty, SHARE // BK, BN, G, GP, BK // G, STAGES, ACT)
    if ACT:
        _finish_gated(acc, second, factor, half, side, out, small, scales, M, N // 2)
    else:
        if SPLITS > 1:
            acc = _gather(acc, parts, tickets + 2 * tile + half, half, row, N, SPLITS, ALONG)
        _finish(acc, factor, row, half, side, bias, hidden, out, small, sums, scales, M, N, FOLDED, ADD, BIAS, SHRINK)


@gluon.jit(do_not_specialize=["M"])
def _wide(w_desc, x_desc, factors, rates, bias, squares, hidden, norm, out, small, sums, parts, tickets, scales, M, eps,
          N: gl.constexpr, K: gl.constexpr, BN: gl.constexpr, BK: gl.constexpr, G: gl.constexpr, GP: gl.constexpr,
          SPLITS: gl.constexpr, STAGES: gl.constexpr, FOLDED: gl.constexpr, ACT: gl.constexpr, ADD: gl.constexpr,
          BIAS: gl.constexpr, SHRINK: gl.constexpr, CHAINED: gl.constexpr,
          num_warps: gl.constexpr):  # fmt: skip
    x_buf = gl.allocate_shared_memory(x_desc.dtype, [2 * STAGES, 64, BK], x_desc.layout)
    w_buf = gl.allocate_shared_memory(w_desc.dtype, [STAGES * (2 if ACT else 1), BN, BK], w_desc.layout)
    row: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    held = gl.allocate_shared_memory(gl.float32, [2 * GP, 64], row)
    side = gl.allocate_shared_memory(gl.float32, [4, BN], row)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for s in gl.static_range(STAGES):
        mbarrier.init(full.index(s), count=2)
        mbarrier.init(empty.index(s), count=2)
    fence_async_shared()
    gl.thread_barrier()
    STEPS: gl.constexpr = K // SPLITS // BK
    gl.warp_specialize(
        [
            (_multiply, (gl.constexpr(0), factors, rates, bias, squares, hidden, norm, out, small, sums, parts, tickets,
                         scales, M, eps, x_buf, w_buf, held, side, full, empty, N, K, BN, BK, G, GP, SPLITS, STAGES,
                         FOLDED, ACT, ADD, BIAS, SHRINK, CHAINED)),
            (_multiply, (gl.constexpr(1), factors, rates, bias, squares, hidden, norm, out, small, sums, parts, tickets,
                         scales, M, eps, x_buf, w_buf, held, side, full, empty, N, K, BN, BK, G, GP, SPLITS, STAGES,
                         FOLDED, ACT, ADD, BIAS, SHRINK, CHAINED)),
            (_copy_weights, (w_desc, w_buf, full, empty, N // 2, STEPS, BN, BK, STAGES, ACT)),
            (_copy_tokens, (x_desc, x_buf, full, empty, STEPS, BK, STAGES, CHAINED)),
        ],
        [4, 1, 1],
        [240, 24, 24],
    )  # fmt: skip


def serves_wide() -> bool:
    """This chip has what the kernel needs, and processors for all programs of the tiles that were chosen."""
    return HAS_COPY_ENGINE and the_chip().processors >= _PROGRAMS


def can_wide(grid: tuple[int, int], x: Quantized, tile: Tile, height: int) -> bool:
    """Whether this kernel serves such a call on a Hopper chip, where whole tiles fill its weight."""
    # why: shares of a tile wait for each other, so all programs must be at work at once
    fits = tile.splits == 1 or grid[0] * grid[1] <= the_chip().processors
    return fits and tile.way == "wide" and height == HEIGHT and group_of(x) in (64, 128) and tile.bk == _BK


def run_wide_e4m3(
    grid: tuple[int, int],
    x: Quantized,
    weight: torch.Tensor,
    memory: tuple[torch.Tensor, ...],
    small: Quantized | None,
    eps: float,
    tile: Tile,
    folds: tuple[int, int, bool, bool, bool],
) -> None:
    """`linear.few`'s launch; `memory` and `folds` are its arguments of those names, in order."""
    outputs, inputs = weight.shape
    shares, _, act, add, bias = folds
    assert tile.splits == 1 or not act, "a gated weight is not cut along K"
    groups, each = x.scale.shape[1], (tile.bn * (2 if act else 1) + HEIGHT) * _BK
    held = next_power_of_2(groups // tile.splits)
    stages = min(tile.stages, (_ROOM - held * 512 - tile.bn * 16) // each)
    _wide[grid](
        described(weight, tile.bn, _BK), described(x.values, 64, _BK), x.scale, *memory,
        memory[0] if small is None else small.scale, x.shape[0], eps, outputs, inputs, tile.bn, _BK, inputs // groups,
        held, tile.splits, stages, shares, act, add, bias, small is not None, IS_CHAINED, num_warps=4,
        **CHAINED,
    )  # fmt: skip
